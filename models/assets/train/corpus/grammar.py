"""A small template language: `[a|b]` picks one branch, `{key}` fills a slot.

`{Key}` capitalises the slot `key`; `{a:key}` and `{A:key}` put the right indefinite article before
it. An unknown slot raises `KeyError`, so that a typo in a template cannot reach the corpus.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache


@cache
def _parse(template: str) -> tuple:
    sequence, position = _sequence(template, 0, top=True)
    if position != len(template):
        raise ValueError(f"unbalanced ']' at {position} in {template!r}")
    return sequence


def _sequence(text: str, position: int, top: bool) -> tuple[tuple, int]:
    parts: list = []
    literal: list[str] = []

    def flush() -> None:
        if literal:
            parts.append("".join(literal))
            literal.clear()

    while position < len(text):
        char = text[position]
        if char == "[":
            flush()
            branches = []
            position += 1
            while True:
                branch, position = _sequence(text, position, top=False)
                branches.append(branch)
                if position >= len(text):
                    raise ValueError(f"unbalanced '[' in {text!r}")
                position += 1
                if text[position - 1] == "]":
                    break
            parts.append(("alt", tuple(branches)))
        elif char == "{":
            flush()
            end = text.index("}", position)
            parts.append(("slot", text[position + 1 : end]))
            position = end + 1
        elif char in "|]" and not top:
            break
        else:
            literal.append(char)
            position += 1
    flush()
    return tuple(parts), position


def article(noun: str) -> str:
    """`noun` with the right indefinite article before it."""
    start = noun.lower()
    vowel = start.startswith(("a", "e", "i", "o", "u", "hour", "honest")) and not start.startswith(
        ("uni", "one", "eu", "use")
    )
    return ("an " if vowel else "a ") + noun


def capital(text: str) -> str:
    """`text` with its first character in upper case."""
    return text[:1].upper() + text[1:]


def _slot(key: str, slots: Mapping[str, str]) -> str:
    if key.startswith("a:"):
        return article(slots[key[2:]])
    if key.startswith("A:"):
        return capital(article(slots[key[2:]]))
    if key in slots:
        return slots[key]
    return capital(slots[key[0].lower() + key[1:]])


def _render(parts: tuple, rng: random.Random, slots: Mapping[str, str], out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "slot":
            out.append(_slot(part[1], slots))
        else:
            branches = part[1]
            _render(branches[int(rng.random() * len(branches))], rng, slots, out)


def expand(template: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """One random expansion of `template`."""
    out: list[str] = []
    _render(_parse(template), rng, slots, out)
    return "".join(out)


def choose(templates: Sequence[str], rng: random.Random, slots: Mapping[str, str]) -> str:
    """One random expansion of one of `templates`."""
    return expand(templates[int(rng.random() * len(templates))], rng, slots)


def join(items: Sequence[str], last: str = "and") -> str:
    """English enumeration: `a`, `a and b`, `a, b and c`."""
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + f" {last} " + items[-1]


def noisy(text: str, rng: random.Random) -> str:
    """`text` as a hurried player may type it: case, punctuation and the odd typo vary."""
    draw = rng.random()
    if draw < 0.62:
        return text
    if draw < 0.80:
        text = text.lower()
    elif draw < 0.82:
        text = text.upper()
    if rng.random() < 0.4:
        text = text.rstrip(".?!")
    elif rng.random() < 0.1:
        text = text.rstrip(".?!") + rng.choice(["!", "!!", "...", "??"])
    if rng.random() < 0.25:
        spots = [i for i in range(1, len(text) - 2) if text[i].islower() and text[i + 1].islower()]
        if spots:
            i = rng.choice(spots)
            kind = rng.random()
            if kind < 0.4:
                text = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
            elif kind < 0.75:
                text = text[:i] + text[i + 1 :]
            else:
                text = text[:i] + text[i] + text[i:]
    return text
