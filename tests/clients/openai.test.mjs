// The official `openai` package for Node against the real server, with mocks and real checkpoints.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import OpenAI from "openai";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const FIXTURES = path.join(ROOT, "tests/fixtures/llm_dense");
const FIXED = "The lantern by the gate is lit, traveller. Come in and rest.";
const MODEL = "qwen3_a";
const messages = [{ role: "user", content: "Hello there" }];

const golden = (name) => JSON.parse(readFileSync(path.join(FIXTURES, name, "golden.json"), "utf8"));

let server;
let client;

before(async () => {
  const binary = process.env.ATELICO_SERVER_BIN ?? path.join(ROOT, "target/release/atelico-server");
  assert.ok(existsSync(binary), `${binary} is missing; build it with: cargo build --release -p atelico-server`);
  const device = process.env.ATELICO_TEST_DEVICE ?? "cpu";
  server = spawn(binary, ["--port", "0", "--device", device], {
    env: { ...process.env, ATELICO_CACHE_DIR: FIXTURES },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = readline.createInterface({ input: server.stdout });
  const { value: line = "" } = await lines[Symbol.asyncIterator]().next();
  assert.match(line, /http:\/\//, "the server did not start");
  const url = line.trim().split(" ").at(-1);
  // No retries: a test must see the first answer.
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
});

after(async () => {
  if (!server) return;
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await ended, 0, "the server did not end in order");
});

test("chat", async () => {
  const answer = await client.chat.completions.create({ model: "mock::", messages });
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.choices[0].message.content, FIXED);
  assert.equal(answer.choices[0].message.refusal, null);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, 14);
});

for (const name of ["qwen3_a", "smollm3_a"]) {
  test(`chat of ${name} equals the reference`, async () => {
    const expected = golden(name).chat;
    const answer = await client.chat.completions.create({
      model: name, messages: expected.messages, temperature: 0, max_completion_tokens: 16,
    });
    assert.equal(answer.choices[0].message.content, expected.greedy_text);
    assert.equal(answer.usage.prompt_tokens, expected.ids.length);
  });
}

test("a chat stream, chunk by chunk", async () => {
  const stream = await client.chat.completions.create({
    model: "mock::", messages, stream: true, stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  const roles = [];
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? "";
      if (choice.delta.role) roles.push(choice.delta.role);
    }
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, FIXED);
  assert.deepEqual(roles, ["assistant"]);
  assert.equal(usage.completion_tokens, 12);
});

for (const model of ["mock::", "mock::thinking", MODEL]) {
  test(`the stream helper accumulates ${model}`, async () => {
    const options = { model, messages, n: 2, temperature: 0, max_tokens: 24, logprobs: true, top_logprobs: 2 };
    const whole = await client.chat.completions.create(options);
    const final = await client.chat.completions.stream(options).finalChatCompletion();
    assert.equal(final.choices.length, 2);
    for (const [index, choice] of final.choices.entries()) {
      assert.equal(choice.message.content ?? "", whole.choices[index].message.content);
      assert.equal(choice.finish_reason, whole.choices[index].finish_reason);
      const [found, expected] = [choice, whole.choices[index]].map((choice) => choice.logprobs.content);
      assert.deepEqual(found.map((token) => token.token), expected.map((token) => token.token));
      for (const [i, token] of found.entries()) {
        // Rounding depends on what is computed beside it.
        assert.ok(Math.abs(token.logprob - expected[i].logprob) < 1e-3, `${token.logprob}, ${expected[i].logprob}`);
        assert.equal(token.top_logprobs.length, expected[i].top_logprobs.length);
      }
    }
  });
}

test("completions of text and of token ids", async () => {
  const expected = golden(MODEL);
  const options = { model: MODEL, temperature: 0, max_tokens: 32 };
  for (const prompt of [expected.prompt, expected.prompt_ids, [expected.prompt_ids]]) {
    const answer = await client.completions.create({ ...options, prompt });
    assert.equal(answer.choices[0].text, expected.continuation);
    assert.equal(answer.usage.prompt_tokens, expected.prompt_ids.length);
  }
  let text = "";
  for await (const chunk of await client.completions.create({ ...options, prompt: expected.prompt, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, expected.continuation);
});

test("logprobs, stop and n", async () => {
  const answer = await client.completions.create({
    model: "mock::", prompt: "x", max_tokens: 50, logprobs: 2, stop: [" gate"], n: 3,
  });
  assert.equal(answer.choices.length, 3);
  for (const choice of answer.choices) {
    assert.equal(choice.text, "The lantern by the");
    assert.deepEqual(choice.logprobs.tokens, ["The", " lantern", " by", " the"]);
    assert.deepEqual(choice.logprobs.text_offset, [0, 3, 11, 14]);
    assert.equal(Object.keys(choice.logprobs.top_logprobs[0]).length, 2);
  }
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes(MODEL));
  for (const id of [MODEL, `in-memory::${MODEL}`, "mock::echo"]) {
    assert.equal((await client.models.retrieve(id)).id, id);
  }
});

test("unknown models are NotFoundError", async () => {
  for (const model of ["nothing", "org/nothing", "cloud::x", "mock::x", "../llama_a"]) {
    await assert.rejects(client.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      assert.match(error.message, /model/);
      return true;
    });
  }
  await assert.rejects(client.models.retrieve("org/nothing"), OpenAI.NotFoundError);
});

test("bad requests are BadRequestError and named", async () => {
  const cases = [
    [{ temperature: 9 }, "temperature"],
    [{ response_format: { type: "json_object" } }, "response_format"],
    [{ tools: [{ type: "function", function: { name: "f", parameters: {} } }] }, "tools"],
    [{ n: 0 }, "n"],
  ];
  for (const [options, param] of cases) {
    for (const stream of [false, true]) {
      const request = client.chat.completions.create({ model: "mock::", messages, stream, ...options });
      await assert.rejects(request, (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        assert.equal(error.param, param);
        return true;
      });
    }
  }
  await assert.rejects(client.completions.create({ model: "mock::", prompt: "word ".repeat(9000) }), (error) => {
    assert.equal(error.code, "context_length_exceeded");
    return true;
  });
});

test("an error in mid-stream raises", async () => {
  let text = "";
  const stream = await client.chat.completions.create({ model: "mock::error", messages, stream: true });
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  }, /mock::error/);
  assert.equal(text, "The lantern by");
});

test("leaving a stream cancels it", async () => {
  for (const model of ["mock::slow", MODEL]) {
    const stream = await client.chat.completions.create({
      model, messages, stream: true, max_tokens: 1500, ignore_eos: true,
    });
    let seen = 0;
    for await (const _ of stream) if (++seen === 4) break;
  }
  const expected = golden(MODEL);
  const answer = await client.completions.create({
    model: MODEL, prompt: expected.prompt, temperature: 0, max_tokens: 32,
  });
  assert.equal(answer.choices[0].text, expected.continuation);
});
