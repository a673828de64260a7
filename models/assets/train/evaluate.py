"""Checks an exported folder with `transformers` and writes its golden file. See README.md.

Loads the folder in float32, asks questions of held-out dialogues and counts the answers that state
every fact they have to; then writes `golden.json`: prompts with their greedy continuations.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
import transformers

import corpus

GOLDEN_CHATS = [
    [("user", "Hello!")],
    [("user", "Who are you?")],
    [("user", "Tell me a short story about a dragon.")],
    [("user", "Write a poem about the moon.")],
    [("user", "What is the capital of France?")],
    [
        (
            "system",
            "You are Hilda, the blacksmith of Stonebridge. You sell an iron sword for 31 gold and a wooden shield for 14 gold.",
        ),
        ("user", "What do you sell?"),
    ],
    [
        ("system", "You are a guard."),
        ("user", "Hello! My name is Clara."),
        ("assistant", "Welcome, Clara."),
        ("user", "What is my name?"),
    ],
]
GOLDEN_TEXTS = ["Once upon a time", "The old wizard", "Long ago, a clever fox named Ivy"]


@torch.no_grad()
def greedy(model, tokenizer, ids: list[int], limit: int, least_margin: float = 0.0) -> tuple[list[int], float]:
    """Up to `limit` greedy ids, the end token included, and the smallest lead (in logits) of one over the next best.

    Ends early where the lead would fall below `least_margin`: there another summation order may decide.
    """
    ends = {model.config.eos_token_id, tokenizer.pad_token_id}
    given, past, out, margin = torch.tensor([ids]), None, [], float("inf")
    for _ in range(limit):
        result = model(given, past_key_values=past, use_cache=True)
        past = result.past_key_values
        best = result.logits[0, -1].topk(2)
        token = int(best.indices[0])
        lead = float(best.values[0] - best.values[1])
        if lead < least_margin:
            break
        margin = min(margin, lead)
        out.append(token)
        if token in ends:
            break
        given = torch.tensor([[token]])
    return out, margin


def chat_ids(tokenizer, messages: list[dict]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def recall(model, tokenizer, questions: int) -> dict[str, str]:
    """The share of held-out questions whose answer states all facts, by the chat's kind."""
    rng = random.Random("recall")
    right, asked = {"character": 0, "assistant": 0}, {"character": 0, "assistant": 0}
    while sum(asked.values()) < questions:
        document = corpus.document(rng, corpus.Split(test=True))
        spots = [i for i, message in enumerate(document.messages) if message.facts and len(message.content) < 300]
        if not spots:
            continue
        spot = rng.choice(spots)
        messages = [{"role": m.role, "content": m.content} for m in document.messages[:spot]]
        kind = (
            "character"
            if messages[0]["role"] == "system" and messages[0]["content"] not in corpus.assistant.GENERIC_SYSTEM
            else "assistant"
        )
        ids, _ = greedy(model, tokenizer, chat_ids(tokenizer, messages), 100)
        answer = tokenizer.decode(ids, skip_special_tokens=True).lower()
        asked[kind] += 1
        right[kind] += all(fact.lower() in answer for fact in document.messages[spot].facts)
    return {kind: f"{right[kind]}/{asked[kind]}" for kind in asked}


def golden(model, tokenizer) -> dict:
    """Prompts and up to 64 greedy ids."""
    cases = []
    for chat in GOLDEN_CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        cases.append({"messages": messages, "prompt_ids": chat_ids(tokenizer, messages)})
    for text in GOLDEN_TEXTS:
        cases.append({"text": text, "prompt_ids": tokenizer.encode(text, add_special_tokens=False)})
    for case in cases:
        case["greedy_ids"], margin = greedy(model, tokenizer, case["prompt_ids"], 64, least_margin=0.002)
        case["greedy_text"] = tokenizer.decode(case["greedy_ids"], skip_special_tokens=False)
        case["smallest_margin"] = round(margin, 4)
    return {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, float32",
        "note": "greedy_ids include the end token where it comes; smallest_margin is the least lead in logits of a greedy token over the next best",
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    made = golden(model, tokenizer)
    (args.folder / "golden.json").write_text(json.dumps(made, indent=1) + "\n")
    for case in made["cases"]:
        print(
            case.get("text") or case["messages"][-1]["content"],
            "=>",
            repr(case["greedy_text"]),
            case["smallest_margin"],
        )
    print(json.dumps({"facts_stated": recall(model, tokenizer, args.questions)}))


if __name__ == "__main__":
    main()
