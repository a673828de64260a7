"""Whole dialogues with a character of the game world."""

from __future__ import annotations

import random

from . import errands, manners, talk, trade
from .document import Chat, Split
from .grammar import article
from .npc import Npc, random_npc

_TALK = [
    (talk.ask_name, 8),
    (talk.ask_job, 5),
    (talk.ask_years, 2),
    (talk.ask_place, 5),
    (talk.ask_family, 3),
    (talk.ask_rumour, 6),
    (errands.ask_quest, 8),
    (errands.finish_quest, 1),
    (talk.ask_way, 7),
    (talk.ask_danger, 4),
    (manners.smalltalk, 7),
    (talk.player_name, 6),
    (manners.outside, 5),
    (manners.rude, 2),
    (manners.tale, 2),
    (manners.thanks, 2),
]

SUBJECTS = _TALK + trade.SUBJECTS
_FUNCTIONS = [subject for subject, _ in SUBJECTS]
_WEIGHTS = [weight for _, weight in SUBJECTS]
_ABOUT = {
    "name": [talk.ask_name],
    "town": [talk.ask_place],
    "stock": [trade.ask_stock, trade.ask_price, trade.do_you_sell, trade.buy, trade.buy_two, trade.not_sold],
    "service": [trade.service],
    "routes": [talk.ask_way],
    "quest": [errands.ask_quest, errands.ask_reward, errands.ask_quest],
    "family": [talk.ask_family],
    "years": [talk.ask_years],
    "rumour": [talk.ask_rumour],
    "mood": [manners.smalltalk],
    "place": [talk.ask_job],
}
_OPTIONAL = ["mood", "place", "family", "years", "rumour", "quest", "stock", "service", "routes"]


class NpcChat(Chat):
    """A chat that knows how a script would call its speaker."""

    speaker = ""


def npc_chat(rng: random.Random, split: Split, turns: int | None = None) -> NpcChat:
    """A dialogue with one character; role, mood and the quest's kind are the held-out combination."""
    while True:
        npc = random_npc(rng)
        if split.takes(npc.role.title, npc.mood, npc.quest_kind):
            break
    chat = NpcChat(rng, npc.slots())
    chat.speaker = rng.choice([npc.name, npc.role.title.capitalize()])
    facts = _prompt(rng, npc)
    if facts is None:
        facts = []
        _address(chat, npc)
    else:
        chat.system(npc.system_prompt(facts))
    known = set(facts)
    if not npc.stock:
        known.discard("stock")
    if rng.random() < 0.5:
        talk.greet(chat, npc, known)
    last = None
    for _ in range(turns or min(rng.randint(1, 7), rng.randint(1, 10))):
        if facts and rng.random() < 0.5:
            subject = rng.choice(_ABOUT[rng.choice(facts)])
        else:
            subject = rng.choices(_FUNCTIONS, _WEIGHTS)[0]
        if subject is last:
            continue
        last = subject
        subject(chat, npc, known)
    if len(chat.messages) < 3:
        talk.ask_name(chat, npc, known)
    if rng.random() < 0.25:
        manners.bye(chat, npc, known)
    return chat


def _prompt(rng: random.Random, npc: Npc) -> list[str] | None:
    """The facts that the system prompt states; `None` for a chat without one."""
    draw = rng.random()
    if draw < 0.08:
        return None
    if draw < 0.28:
        return [fact for fact in ("name", "town") if rng.random() < 0.35]
    facts = [fact for fact, share in (("name", 0.85), ("town", 0.75)) if rng.random() < share]
    return facts + rng.sample(_OPTIONAL, rng.randint(1, 5))


def _address(chat: Chat, npc: Npc) -> None:
    """Without a system prompt the player's first words say whom they talk to."""
    rng = chat.rng
    title = npc.role.title
    chat.opening = rng.choice(
        [
            f"Hello, {title}! ",
            f"{title.capitalize()}! ",
            f"Good day, {title}. ",
            f"You are {article(title)}. ",
            f"Hey {title}, ",
        ]
    )
