"""What the generators hand to the tokenizer: chats and plain texts, and the split into held-out ones."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .grammar import choose, expand, noisy

HELD_OUT_SHARE = 24
"""One in this many combinations is kept away from training."""


@dataclass
class Message:
    """One turn; `facts` are the strings that a correct answer has to contain."""

    role: str
    content: str
    facts: list[str] = field(default_factory=list)


@dataclass
class Document:
    """Either a chat or, where `messages` is empty, plain `text`."""

    messages: list[Message] = field(default_factory=list)
    text: str = ""


def held_out(*key: str) -> bool:
    """Whether the combination `key` belongs to the held-out split; stable across runs."""
    return zlib.crc32("\0".join(key).encode()) % HELD_OUT_SHARE == 0


@dataclass
class Split:
    """Which combinations a generator may use."""

    test: bool

    def takes(self, *key: str) -> bool:
        """Whether a document about the combination `key` belongs to this split."""
        return held_out(*key) == self.test


class Chat:
    """Builds a chat turn by turn."""

    def __init__(self, rng: random.Random, slots: Mapping[str, str] | None = None) -> None:
        self.rng = rng
        self.slots: dict[str, str] = dict(slots or {})
        self.messages: list[Message] = []
        self.opening = ""

    def system(self, text: str) -> None:
        self.messages.append(Message("system", text))

    def user(self, templates: Sequence[str], clean: bool = False) -> None:
        text = choose(templates, self.rng, self.slots)
        text = self.opening + text
        self.opening = ""
        self.messages.append(Message("user", text if clean else noisy(text, self.rng)))

    def answer(self, templates: Sequence[str], facts: Sequence[str] = ()) -> None:
        self.say(choose(templates, self.rng, self.slots), facts)

    def say(self, text: str, facts: Sequence[str] = ()) -> None:
        self.messages.append(Message("assistant", text.strip(), list(facts)))

    def fill(self, template: str) -> str:
        return expand(template, self.rng, self.slots)

    def document(self) -> Document:
        return Document(messages=self.messages)
