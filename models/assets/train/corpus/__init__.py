"""The training text of Atelico Tiny, made from grammars: no outside text goes into it."""

from __future__ import annotations

import random

from . import assistant, prose, stories, world
from .document import Chat, Document, Message, Split

__all__ = ["Chat", "Document", "Message", "Split", "document"]

_ASSISTANT = [subject for subject, _ in assistant.SUBJECTS]
_ASSISTANT_WEIGHTS = [weight for _, weight in assistant.SUBJECTS]


def _assistant(rng: random.Random, split: Split) -> Document:
    chat = Chat(rng)
    if rng.random() < 0.2:
        chat.system(rng.choice(assistant.GENERIC_SYSTEM))
    last = None
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4, 5])):
        subject = rng.choices(_ASSISTANT, _ASSISTANT_WEIGHTS)[0]
        if subject is not last:
            subject(chat, split)
        last = subject
    return chat.document()


_KINDS = [
    (lambda rng, split: world.npc_chat(rng, split).document(), 40),
    (_assistant, 30),
    (stories.plain_story, 20),
    (prose.script, 3),
    (prose.item_text, 2),
    (prose.place, 2),
    (prose.diary, 4),
]
_MAKERS = [maker for maker, _ in _KINDS]
_SHARES = [share for _, share in _KINDS]


def document(rng: random.Random, split: Split) -> Document:
    """One random document of `split`."""
    return rng.choices(_MAKERS, _SHARES)[0](rng, split)
