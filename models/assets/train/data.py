"""Corpus to token rows, in worker processes."""

from __future__ import annotations

import multiprocessing
import queue
import random

import numpy as np
from tokenizers import Tokenizer

import corpus
from tokenizer import END_OF_TEXT, IM_END, IM_START

DOCUMENTS_PER_SHARD = 4000


class Encoder:
    """Documents to signed token ids: a token that the loss leaves out is stored as `-1 - id`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end_of_text, self.im_start, self.im_end = (
            tokenizer.token_to_id(token) for token in (END_OF_TEXT, IM_START, IM_END)
        )

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def document(self, document: corpus.Document) -> list[int]:
        """Only what the model has to write counts: plain texts and the assistant's turns."""
        if not document.messages:
            return [*self.ids(document.text), self.end_of_text]
        out: list[int] = []
        newline = self.ids("\n")
        for message in document.messages:
            head = [self.im_start, *self.ids(message.role + "\n")]
            body = self.ids(message.content) + [self.im_end]
            out.extend(-1 - token for token in head)
            out.extend(body if message.role == "assistant" else (-1 - token for token in body))
            out.extend(-1 - token for token in newline)
        return [*out, -1 - self.end_of_text]


def shard(
    encoder: Encoder, seed: int, split: corpus.Split, row_length: int, documents: int = DOCUMENTS_PER_SHARD
) -> np.ndarray:
    """Rows of `row_length + 1` signed ids, shape `[rows, row_length + 1]`; each begins with a document."""
    rng = random.Random(f"{seed}/{split.test}")
    rows, row = [], []
    for _ in range(documents):
        row.extend(encoder.document(corpus.document(rng, split)))
        if len(row) > row_length:
            rows.append(row[: row_length + 1])
            row = []
    return np.asarray(rows, dtype=np.int16).reshape(-1, row_length + 1)


def _work(tokenizer_json: str, seeds: range, out, row_length: int) -> None:
    encoder = Encoder(Tokenizer.from_str(tokenizer_json))
    for seed in seeds:
        out.put(shard(encoder, seed, corpus.Split(test=False), row_length))


class Shards:
    """`count` training shards, made by `workers` processes while the training runs."""

    def __init__(self, tokenizer: Tokenizer, count: int, workers: int, row_length: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.out = context.Queue()
        self.left = count
        self.processes = [
            context.Process(
                target=_work, args=(tokenizer.to_str(), range(first, count, workers), self.out, row_length), daemon=True
            )
            for first in range(workers)
        ]
        for process in self.processes:
            process.start()

    def take(self, block: bool) -> np.ndarray | None:
        """The next shard; `None` when all are taken, or, not blocking, when none is ready."""
        while self.left:
            try:
                rows = self.out.get(timeout=1.0) if block else self.out.get_nowait()
            except queue.Empty:
                if not block:
                    return None
                if not any(process.is_alive() for process in self.processes):
                    raise RuntimeError(f"the corpus workers ended with {self.left} shards missing") from None
                continue
            self.left -= 1
            return rows
        return None
