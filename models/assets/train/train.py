"""Trains Atelico Tiny from nothing: corpus, tokenizer, model, export. See README.md."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from pathlib import Path

import torch

import corpus
import tokenizer as tok
from data import DOCUMENTS_PER_SHARD, Encoder, Shards, shard
from export import export
from model import Config, Qwen3, loss

PROMPTS = [
    "Once upon a time",
    "The old wizard",
    "One morning, a fox",
    [("user", "Hello!")],
    [("user", "Who are you?")],
    [("user", "Tell me a short story about a dragon.")],
    [("user", "Tell me a story about a shy penguin named Bolo.")],
    [("user", "What is the capital of France?")],
    [("user", "Write a poem about the moon.")],
    [("user", "Give me a quest.")],
    [
        (
            "system",
            "You are Hilda, the blacksmith of Stonebridge. You sell an iron sword for 31 gold and a wooden shield for 14 gold. You are grumpy.",
        ),
        ("user", "What do you sell?"),
    ],
    [
        (
            "system",
            "You are Hilda, the blacksmith of Stonebridge. You sell an iron sword for 31 gold and a wooden shield for 14 gold. You are grumpy.",
        ),
        ("user", "how much is the shield"),
    ],
    [
        ("system", "You are a guard at the gate."),
        ("user", "Hello! My name is Ronka."),
        ("assistant", "Welcome, Ronka."),
        ("user", "What is my name?"),
    ],
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that the model is written to")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time; the learning rate follows it")
    parser.add_argument("--shards", type=int, default=500, help="shards of 4000 documents")
    parser.add_argument("--first-shards", type=int, default=15, help="shards to wait for before the first step")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that make the corpus"
    )
    parser.add_argument("--tokenizer-documents", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64, help="rows of 1024 tokens a step")
    parser.add_argument("--micro-batch", type=int, default=64, help="rows in one forward pass")
    parser.add_argument("--peak", type=float, default=6e-3, help="highest learning rate")
    parser.add_argument("--export-minutes", type=float, default=5.0, help="how often the model so far is written")
    parser.add_argument("--threads", type=int, help="CPU threads of the training process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up over 100 steps, flat, then a cosine to nothing over the last 65 %."""
    decay = 1.0 if progress < 0.35 else 0.5 * (1 + math.cos(math.pi * (progress - 0.35) / 0.65))
    return peak * min(1.0, (step + 1) / 100) * decay


def optimizers(model: Qwen3, peak: float, fused: bool) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=peak, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.0, fused=fused),
    ]


def sample_texts(count: int) -> list[str]:
    """Texts for the tokenizer's training."""
    rng = random.Random("tokenizer")
    texts = ["system\n", "user\n", "assistant\n"] * 100
    for _ in range(count):
        document = corpus.document(rng, corpus.Split(test=False))
        texts.extend([document.text] if document.text else [message.content for message in document.messages])
    return texts


@torch.no_grad()
def mean_loss(model: Qwen3, rows: torch.Tensor, batch: int) -> float:
    losses = [loss(model, model, rows[i : i + batch]).item() for i in range(0, len(rows) - batch + 1, batch)]
    return sum(losses) / len(losses)


@torch.no_grad()
def greedy(model: Qwen3, ids: list[int], ends: set[int], limit: int, device: str) -> list[int]:
    """Up to `limit` most likely tokens; recomputes the prefix each time, which is enough for a few samples."""
    out: list[int] = []
    for _ in range(limit):
        token = int(model.logits(model(torch.tensor([ids + out], device=device))[0, -1]).argmax())
        if token in ends:
            break
        out.append(token)
    return out


def rounded(model: Qwen3) -> Qwen3:
    """A copy with the weights as they are written: rounded to bf16."""
    out = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in out.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    return out


def show_samples(model: Qwen3, encoder: Encoder, device: str, limit: int) -> None:
    ends = {encoder.end_of_text, encoder.im_end}
    for prompt in PROMPTS:
        if isinstance(prompt, str):
            ids, shown = encoder.ids(prompt), prompt
        else:
            shown = "\n".join(f"<{role}> {text}" for role, text in prompt)
            text = "".join(f"{tok.IM_START}{role}\n{text}{tok.IM_END}\n" for role, text in prompt)
            ids = encoder.ids(text + f"{tok.IM_START}assistant\n")
        print(f"--- {shown}\n>>> {encoder.tokenizer.decode(greedy(model, ids, ends, limit, device))}", flush=True)


def main() -> None:
    args = arguments()
    started = time.time()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    if args.threads:
        torch.set_num_threads(args.threads)
    config = Config()
    length = config.max_position_embeddings
    tokenizer = tok.train(sample_texts(args.tokenizer_documents), config.vocab_size)
    print(f"{time.time() - started:6.1f} s: tokenizer trained", flush=True)
    shards = Shards(tokenizer, args.shards, args.workers, length)
    encoder = Encoder(tokenizer)
    test = torch.from_numpy(shard(encoder, 0, corpus.Split(test=True), length, 700)).to(args.device)

    model = Qwen3(config).to(args.device)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    optimizing = optimizers(model, args.peak, args.device.startswith("cuda"))
    forward = torch.compile(model, dynamic=False)
    rows = torch.empty((0, length + 1), dtype=torch.int16, device=args.device)
    pending = [torch.from_numpy(shards.take(block=True)) for _ in range(min(args.first_shards, args.shards))]
    print(f"{time.time() - started:6.1f} s: first shards there", flush=True)

    step, begin, tokens, exported = 0, None, 0, time.time()
    generator = torch.Generator(device=args.device).manual_seed(0)
    while True:
        if step % 50 == 0:
            while (more := shards.take(block=False)) is not None:
                pending.append(torch.from_numpy(more))
        if pending:
            rows = torch.cat([rows, *(new.to(args.device) for new in pending)])
            pending = []
        # The clock starts after the first steps, which compile.
        if step == 5:
            begin = time.time()
        progress = 0.0 if begin is None else (time.time() - begin) / (args.minutes * 60)
        if progress >= 1.0:
            break
        for optimizer in optimizing:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, step, args.peak)
        picked = rows[torch.randint(len(rows), (args.batch,), device=args.device, generator=generator)]
        # Half rows are cheaper; the last part of the training sees the whole length.
        if progress < 0.85:
            picked = torch.cat([picked[:, : length // 2 + 1], picked[:, length // 2 :]])
        parts = picked.split(args.micro_batch * length // (picked.shape[1] - 1))
        for part in parts:
            with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16):
                value = loss(model, forward, part)
            (value / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens += args.batch * length
        # Reading the loss waits for the device, which keeps the clock honest.
        if step % 50 == 0 or step < 5:
            print(
                f"{time.time() - started:6.1f} s ({time.process_time():.0f} s CPU): step {step}, {tokens / 1e6:.1f} M tokens, "
                f"{len(rows)} rows, loss {value.item():.4f}",
                flush=True,
            )
        if time.time() - exported > args.export_minutes * 60:
            export(model, tokenizer, args.out)
            show_samples(rounded(model), encoder, args.device, 60)
            exported = time.time()

    model = rounded(model)
    export(model, tokenizer, args.out)
    report = {
        "steps": step,
        "tokens": tokens,
        "documents": (args.shards - shards.left) * DOCUMENTS_PER_SHARD,
        "train_loss": mean_loss(model, rows[: len(test)], 8),
        "held_out_loss": mean_loss(model, test, 8),
        "seconds": round(time.time() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "device": args.device.split(":")[0],
    }
    (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report), flush=True)
    show_samples(model, encoder, args.device, 220)


if __name__ == "__main__":
    main()
