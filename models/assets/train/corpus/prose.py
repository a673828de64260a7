"""Plain texts other than stories: scripts, descriptions, diaries, notices, letters."""

from __future__ import annotations

import random

from . import words as w
from .document import Chat, Document, Split
from .grammar import choose
from .npc import random_npc
from .requests import describe, fill_item, random_thing
from .world import npc_chat


def script(rng: random.Random, split: Split) -> Document:
    """A dialogue written as a play."""
    chat = npc_chat(rng, split)
    name = chat.speaker
    lines = []
    player = rng.choice(["Player", "Traveller", "Hero", "Stranger", w.person(rng)[0]])
    for message in chat.messages[:9]:
        if message.role != "system":
            lines.append(f"{name if message.role == 'assistant' else player}: {message.content}")
    return Document(text="\n".join(lines))


def item_text(rng: random.Random, split: Split) -> Document:
    """An item description under its name."""
    chat = Chat(rng)
    thing = random_thing(rng)
    fill_item(chat, thing)
    head = f"{thing.title()}\n" if rng.random() < 0.5 else ""
    return Document(text=head + describe(chat))


PLACES = [
    "{Town} is [a small town|a quiet village|an old town|a busy harbour town|a village of farmers] [near|not far from|on the road to] {wild}. {People} {Food} {Secret}",
    "The town of {town} lies [by a river|on a hill|in a green valley|between two mountains|by the sea]. {People} {Secret} {Food}",
    "Few travellers know {wild}. {Secret} {Danger} Those who go there should ask in {town} first.",
    "Welcome to {town}! {Food} {People} Do not miss {inn}.",
]
PEOPLE = [
    "The people are friendly, but careful with strangers.",
    "{person} the {role} knows everybody here.",
    "Most people work as farmers and fishers.",
    "The market opens at sunrise.",
    "Everybody knows {person}, the {role}.",
]
FOOD = [
    "The best stew is served in {inn}.",
    "At {inn}, a bed costs {price} gold.",
    "In the evening, people meet at {inn}.",
    "The bread here is famous.",
]
SECRET = [
    "They say that {rumour}.",
    "At night, you can see lights in {wild}.",
    "An old story says that {rumour}.",
    "Nobody remembers who built the old tower.",
]
DANGER = ["Beware of the {monsters}.", "The {monsters} sleep during the day.", "There are {monsters} everywhere."]


def place(rng: random.Random, split: Split) -> Document:
    """A description of a town or a wild place."""
    npc = random_npc(rng)
    slots = {**npc.slots(), "wild": npc.quest_place, "person": npc.name, "price": str(rng.randint(2, 12))}
    for key, options in (("people", PEOPLE), ("food", FOOD), ("secret", SECRET), ("danger", DANGER)):
        slots[key] = choose(options, rng, slots)
    return Document(text=choose(PLACES, rng, slots))


DIARY = [
    "Today I met {name}, the {role} of {town}. {Name} told me that {rumour}. Tomorrow I will go to {quest_place}.",
    "Dear diary, [it rained all day|the sun was hot today|I am so tired]. I stayed at {inn} in {town}. {Name} the {role} asked me to help. {Reward} gold is not bad!",
    "My name is {name}. I am the {role} of {town}. I {does}. [Nobody|Everybody|Only my {relation}] knows my secret: {rumour}.",
    'The {role} looked up. "{saying}" {name} said. [I did not know what to answer.|Then there was a long silence.|We both laughed.] Outside, the {monsters} were waiting.',
    "Dear {relative}, I hope you are well. I am in {town} now, at {inn}. People say that {rumour}. I will be home before winter. Your {relation2}, {name}",
    "WANTED: A brave hero! {name}, the {role} of {town}, pays {reward} gold to anyone who helps. Beware: {monsters}! Ask at {inn}.",
    "I {does}. I have done it for {years} years, here in {town}. {saying} My {relation} {relative} says the same.",
    'The {role} of {town} was called {name}. Everybody liked {name}, because {name} always had time to talk. "{saying}" {name} used to say. But one day, {monsters} came to {quest_place}, and everything changed.',
    "The king of this land [is old and wise|lives in a white castle|has three daughters|loves music]. His best friend is {a:role} called {name}. They say that {rumour}.",
    "Hello, my name is {name} and I live in {town}. I am {a:role}. I {does}. In the evening I sit at {inn} with my {relation} {relative}.",
    "The road to {town} is long. It goes through {quest_place}, where the {monsters} live. At the end there is {inn}, with a warm fire and a soft bed.",
    'It was a dark and stormy night. {name} the {role} was alone at {place}. Suddenly somebody knocked at the door. It was {relative}. "{monsters2}!" {relative} cried. "In {quest_place}!"',
    "The {monsters} came at night. {name}, the {role} of {town}, heard them first and rang the bell. Everybody ran to {inn}. In the morning they were gone, and so was the gold.",
]


def diary(rng: random.Random, split: Split) -> Document:
    """A diary page, a letter or a notice."""
    npc = random_npc(rng)
    slots = {
        **npc.slots(),
        "relation2": rng.choice(["friend", "brother", "sister", "cousin"]),
        "monsters2": npc.monsters.capitalize(),
    }
    text = choose(DIARY, rng, slots)
    if rng.random() < 0.35:
        text += " " + choose(
            ["{saying}", "That is all for today.", "I will never forget it.", "And that is the truth."], rng, slots
        )
    return Document(text=text)
