"""The official `openai` package against the real server, with mocks and real checkpoints."""

import concurrent.futures
import math
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import golden

FIXED = "The lantern by the gate is lit, traveller. Come in and rest."
MODEL = "qwen3_a"
HELLO = [{"role": "user", "content": "Hello there"}]


def chat(client, model="mock::", messages=HELLO, **options):
    return client.chat.completions.create(model=model, messages=messages, **options)


# Chat


def test_chat_of_a_mock(client):
    answer = chat(client)
    assert answer.object == "chat.completion" and answer.model == "mock::"
    assert answer.id.startswith("chatcmpl-") and abs(answer.created - time.time()) < 60
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", FIXED)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 12, 14)
    assert chat(client).id != answer.id


@pytest.mark.parametrize("case", ["qwen3_a", "smollm3_a", "mistral_a", "gguf_llama_q8_0"])
@pytest.mark.parametrize("part", ["chat", "chat_single"])
def test_chat_of_a_checkpoint_equals_the_reference(client, case, part):
    expected = golden(case)[part]
    n = len(expected["greedy_ids"])
    answer = chat(client, case, expected["messages"], temperature=0, max_tokens=n)
    assert answer.choices[0].message.content == expected["greedy_text"]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == len(expected["ids"])
    assert answer.usage.completion_tokens == n


@pytest.mark.parametrize("model", ["mock::", "mock::thinking", MODEL])
def test_a_stream_adds_up_to_the_whole_answer(client, model):
    # A prompt that is known already rounds differently.
    anew = {"extra_body": {"cache_prompt": False}}
    options = {"temperature": 0, "max_tokens": 24, "logprobs": True, "top_logprobs": 2, **anew}
    whole = chat(client, model, **options)
    chunks = list(chat(client, model, stream=True, stream_options={"include_usage": True}, **options))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    *chunks, last = chunks
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    choices = [chunk.choices[0] for chunk in chunks]
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    reasoning = "".join(getattr(choice.delta, "reasoning_content", None) or "" for choice in choices)
    assert reasoning == (getattr(whole.choices[0].message, "reasoning_content", None) or "")
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [whole.choices[0].finish_reason]
    assert choices[-1].finish_reason == whole.choices[0].finish_reason
    logprobs = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert logprobs == whole.choices[0].logprobs.content


@pytest.mark.parametrize("n", [1, 3])
def test_the_stream_helper_accumulates(client, n):
    with client.chat.completions.stream(model="mock::", messages=HELLO, n=n) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [FIXED] * n
    assert [choice.message.role for choice in final.choices] == ["assistant"] * n


def test_reasoning_is_told_from_the_answer(client):
    answer = chat(client, "mock::thinking")
    message = answer.choices[0].message
    assert message.content == "Yes, one room is free tonight."
    assert message.reasoning_content == message.reasoning == "The traveller wants a room. One is free."
    assert answer.usage.completion_tokens_details.reasoning_tokens > 5


def test_message_forms(client):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "zero", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "dark"},
        {"role": "user", "content": parts},
    ]
    assert chat(client, "mock::echo", messages).choices[0].message.content == "one\ntwo"


def test_choices(client):
    answer = chat(client, n=4, max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.message.content for choice in answer.choices} == {"The lantern"}
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 8)
    sampled = chat(client, MODEL, n=4, max_tokens=12, temperature=2.0, seed=5, extra_body={"ignore_eos": True})
    assert len({choice.message.content for choice in sampled.choices}) > 1, "choices under one seed must differ"


def test_a_seed_repeats(client):
    options = {"max_tokens": 16, "temperature": 1.5, "extra_body": {"ignore_eos": True}}
    texts = [chat(client, MODEL, seed=seed, **options).choices[0].message.content for seed in [7, 7, 8, -9]]
    assert texts[0] == texts[1] and len(set(texts)) == 3


def test_limits_and_stops(client):
    for name in ["max_tokens", "max_completion_tokens"]:
        answer = chat(client, **{name: 3})
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("The lantern by", "length")
    for stop in [" gate is", ["nothing", " gate is"]]:
        answer = chat(client, stop=stop)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("The lantern by the", "stop")
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, stop=stop, stream=True))
        assert text == "The lantern by the"


def test_a_stop_string_ends_a_checkpoint(client):
    expected = golden(MODEL)
    text = expected["continuation"]
    stop = text[20:25]
    answer = client.completions.create(model=MODEL, prompt=expected["prompt"], temperature=0, max_tokens=32, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 32


def test_chat_logprobs(client):
    expected = golden(MODEL)["chat_single"]
    answer = chat(client, MODEL, expected["messages"], temperature=0, max_tokens=16, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode() == expected["greedy_text"]
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token and token.top_logprobs[0].logprob == token.logprob
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1.0001
    assert chat(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


def test_logit_bias(client):
    expected = golden(MODEL)
    first = expected["greedy_ids"][0]
    options = {"model": MODEL, "prompt": expected["prompt"], "temperature": 0, "max_tokens": 1}
    plain = client.completions.create(**options).choices[0].text
    banned = client.completions.create(**options, logit_bias={str(first): -100}).choices[0].text
    assert plain == expected["continuation"][: len(plain)] and banned != plain


# Completions


@pytest.mark.parametrize("case", ["llama_a", "qwen3_a", "smollm2_a", "smollm3_a", "mistral_a", "gguf_llama_q4_k_m"])
def test_completions_equal_the_reference(client, case):
    expected = golden(case)
    options = {"model": case, "temperature": 0, "max_tokens": 32}
    by_text = client.completions.create(prompt=expected["prompt"], **options)
    assert by_text.object == "text_completion"
    assert by_text.choices[0].text == expected["continuation"]
    assert by_text.usage.prompt_tokens == len(expected["prompt_ids"])
    by_ids = client.completions.create(prompt=expected["prompt_ids"], **options)
    assert by_ids.choices[0].text == expected["continuation"]
    chunks = list(client.completions.create(
        prompt=[expected["prompt_ids"]], stream=True, stream_options={"include_usage": True}, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == expected["continuation"]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 32


def test_several_prompts(client):
    expected = golden(MODEL)
    prompts = [expected["prompt"], "She"]
    options = {"model": MODEL, "temperature": 0, "max_tokens": 8}
    both = client.completions.create(prompt=prompts, n=2, **options)
    alone = [client.completions.create(prompt=prompt, **options).choices[0].text for prompt in prompts]
    assert [choice.text for choice in both.choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]


def test_completion_logprobs_and_echo(client):
    expected = golden(MODEL)
    options = {"model": MODEL, "prompt": expected["prompt"], "temperature": 0, "max_tokens": 8}
    logprobs = client.completions.create(logprobs=5, **options).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 8
    for got, reference in zip(logprobs.token_logprobs, expected["logprobs"]):
        assert got == pytest.approx(reference[0][1], abs=2e-2)
    text = client.completions.create(**options).choices[0].text
    assert [text[offset:][: len(token)] for offset, token in zip(logprobs.text_offset, logprobs.tokens)] == logprobs.tokens
    assert client.completions.create(echo=True, **options).choices[0].text == expected["prompt"] + text


def test_completions_default_to_16_tokens(client):
    answer = client.completions.create(model="mock::slow", prompt="go")
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


# Models


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models and "gguf_llama_q8_0" in models
    assert models[MODEL].object == "model" and models[MODEL].created > 1_600_000_000
    for name in [MODEL, f"in-memory::{MODEL}", "mock::", "mock::echo"]:
        assert client.models.retrieve(name).id == name


def test_prefixed_names_are_the_same_model(client):
    expected = golden(MODEL)
    options = {"prompt": expected["prompt"], "temperature": 0, "max_tokens": 8}
    texts = [client.completions.create(model=name, **options).choices[0].text for name in [MODEL, f"in-memory::{MODEL}"]]
    assert texts[0] == texts[1] == expected["continuation"][: len(texts[0])]


# Errors


@pytest.mark.parametrize("model", ["nothing", "org/nothing", "mock::nothing", "cloud::gpt", "../llama_a", "/etc", ""])
def test_unknown_models_are_404(client, model):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model)
    assert (caught.value.code, caught.value.param, caught.value.type) == ("model_not_found", "model", "not_found_error")
    if model:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(model)


@pytest.mark.parametrize("options, param", [
    ({"temperature": 9}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"n": 99}, "n"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}]}, "messages[0].content[0]"),
    ({"extra_body": {"grammar": "root ::= x"}}, "grammar"),
    ({"extra_body": {"chat_template_kwargs": {"messages": []}}}, "chat_template_kwargs"),
])
def test_bad_requests_are_400_and_named(client, options, param):
    for stream in [False, True]:
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, stream=stream, **options)
        assert caught.value.type == "invalid_request_error" and caught.value.param == param
        assert param in caught.value.message


def test_bad_completion_requests(client):
    for options, param in [({"suffix": "x"}, "suffix"), ({"best_of": 4}, "best_of"), ({"prompt": [-1]}, "prompt"),
                           ({"prompt": [10**6]}, "prompt"), ({"prompt": []}, "prompt"),
                           ({"logit_bias": {"100000": 1}}, "logit_bias")]:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**{"model": MODEL, "prompt": "a", **options})
        assert caught.value.param == param


@pytest.mark.parametrize("model", ["mock::", MODEL])
def test_a_prompt_beyond_the_context(client, model):
    for stream in [False, True]:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=model, prompt="word " * 9000, max_tokens=5, stream=stream)
        error = caught.value
        assert error.code == "context_length_exceeded" and "exceeds" in error.message and "context" in error.message
        assert error.body["n_prompt_tokens"] >= error.body["n_ctx"] > 0


def test_unknown_fields_and_nulls_are_ignored(client):
    extra = {"nobody_documents_this": {"a": [1]}, "temperature": None, "stop": None, "tools": None, "logit_bias": None}
    assert chat(client, extra_body=extra, user="me", metadata={"a": "b"}, store=False).choices[0].message.content == FIXED


def test_an_error_in_mid_stream_raises(client):
    seen = []
    with pytest.raises(openai.APIError, match="mock::error"):
        for chunk in chat(client, "mock::error", stream=True):
            seen.append(chunk.choices[0].delta.content)
    assert "".join(filter(None, seen)) == "The lantern by"
    with pytest.raises(openai.InternalServerError):
        chat(client, "mock::error")


# Behaviour


def test_leaving_a_stream_cancels_it(client):
    for model in ["mock::slow", MODEL] * 3:
        stream = chat(client, model, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
        for _, chunk in zip(range(4), stream):
            assert chunk.choices
        stream.close()
    start = time.monotonic()
    expected = golden(MODEL)
    answer = client.completions.create(model=MODEL, prompt=expected["prompt"], temperature=0, max_tokens=32)
    assert answer.choices[0].text == expected["continuation"]
    assert time.monotonic() - start < 5


def test_concurrent_requests_do_not_mix(client):
    expected = {case: golden(case) for case in ["qwen3_a", "llama_a"]}

    def complete(case):
        prompt = expected[case]["prompt"]
        return case, client.completions.create(model=case, prompt=prompt, temperature=0, max_tokens=32).choices[0].text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for case, text in pool.map(complete, list(expected) * 16):
            assert text == expected[case]["continuation"]


def test_a_stream_is_paced_not_collected(client):
    times = [time.monotonic() for _ in chat(client, "mock::slow", stream=True, max_tokens=20)]
    assert times[-1] - times[0] > 0.5


def test_health(server):
    for path in ["/health", "/health/live", "/health/ready"]:
        with urllib.request.urlopen(server + path) as answer:
            assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server + "/v1/nowhere")
    assert caught.value.code == 404
