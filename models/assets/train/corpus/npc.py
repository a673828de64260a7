"""A character of the game world: the facts of one document, and the system prompt that states them."""

from __future__ import annotations

import random

from . import words as w
from .grammar import article, choose, join
from .roles import BY_TITLE, ROLES, Role

RELATIVES = [
    ("brother", "m"),
    ("sister", "f"),
    ("son", "m"),
    ("daughter", "f"),
    ("father", "m"),
    ("mother", "f"),
    ("uncle", "m"),
    ("aunt", "f"),
    ("wife", "f"),
    ("husband", "m"),
    ("grandmother", "f"),
    ("cousin", "m"),
]

NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"]

RUMOURS = [
    "{monsters} were seen near {wild}",
    "somebody stole the {treasure} from the [temple|town hall|castle|mayor]",
    "a [dragon|giant|witch|ghost] lives in {wild}",
    "{person} of {elsewhere} found {a:treasure} in {wild}",
    "the [old well|mill|bridge|east tower|graveyard] is haunted [at night|when the moon is full|]",
    "a stranger in {a:colour} cloak is looking for the {treasure}",
    "there is {a:treasure} hidden in {wild}",
    "the [king|queen|prince|duke] will visit [this town|{elsewhere}] [soon|next week|before winter]",
    "a [caravan|ship|wagon] from {elsewhere} never arrived",
    "the road to {elsewhere} is closed because of {monsters}",
    "{person} the [miller|hunter|miner|sailor|shepherd] went to {wild} and never came back",
    "strange [lights|songs|footsteps] come from {wild} [at night|after sunset|]",
]


class Npc:
    """One character with every fact that a dialogue may touch; facts are drawn once and kept."""

    def __init__(self, rng: random.Random, role: Role | None = None) -> None:
        self.rng = rng
        self.role = role or rng.choice(ROLES)
        title = self.role.title
        while True:
            self.name, self.sex = w.person(rng)
            if title != "priestess" or self.sex == "f":
                break
        self.town = w.town(rng)
        self.inn = w.inn(rng)
        place = rng.choice(self.role.workplaces)
        self.place = self.inn if title == "innkeeper" and rng.random() < 0.8 else place
        self.mood = rng.choice(w.MOODS)
        self.relation, relative_sex = rng.choice(RELATIVES)
        self.relative = rng.choice(w.WOMEN if relative_sex == "f" else w.MEN)
        self.years = str(rng.randint(2, 40))
        self.stock: list[tuple[str, int]] = [
            (item, rng.randint(low, high))
            for item, low, high in rng.sample(self.role.wares, min(len(self.role.wares), rng.randint(2, 4)))
        ]
        self.service: tuple[str, int] | None = None
        if self.role.service:
            what, low, high = self.role.service
            self.service = (what, rng.randint(low, high))
        slots = {
            "monsters": rng.choice(w.MONSTERS),
            "wild": w.wild(rng),
            "treasure": rng.choice(w.TREASURES),
            "person": w.person(rng)[0],
            "elsewhere": w.town(rng),
            "colour": rng.choice(w.COLOURS),
        }
        self.rumour = choose(RUMOURS, rng, slots)
        self.quest_place = w.wild(rng)
        self.reward = str(rng.randint(2, 18) * 5)
        self.monsters = rng.choice(w.MONSTERS)
        self.number = rng.choice(NUMBERS)
        self.need = rng.choice(self.role.needs)
        self.treasure = rng.choice(w.TREASURES)
        self.friend, self.friend_sex = w.person(rng)
        self.quest_kind = rng.choice(["bring", "kill", "treasure", "deliver", "find"])
        self.routes: dict[str, tuple[str, str, str]] = {}
        for there in rng.sample(w.DESTINATIONS, 2):
            first, second = rng.sample([mark for mark in w.LANDMARKS if mark != there], 2)
            self.routes[there] = (first, rng.choice(["left", "right"]), second)

    @property
    def task(self) -> str:
        """The quest as an infinitive, from the player's side (`me` is this character)."""
        return {
            "bring": f"bring me {self.number} {self.need} from {self.quest_place}",
            "kill": f"drive away the {self.monsters} in {self.quest_place}",
            "treasure": f"find the {self.treasure} in {self.quest_place}",
            "deliver": f"take this letter to {self.friend} in {self.quest_place}",
            "find": f"find my friend {self.friend} in {self.quest_place}",
        }[self.quest_kind]

    @property
    def quest_key(self) -> str:
        """The word of the task that an answer about it has to name."""
        return {
            "bring": self.need,
            "kill": self.monsters,
            "treasure": self.treasure,
            "deliver": self.friend,
            "find": self.friend,
        }[self.quest_kind]

    @property
    def task_told(self) -> str:
        """The quest as a system prompt tells it, in the third person of `you`."""
        return self.task.replace(" me ", " you ").replace("my friend", "your friend").replace("this letter", "a letter")

    def slots(self) -> dict[str, str]:
        """The template slots of this character."""
        out = {
            "name": self.name,
            "role": self.role.title,
            "town": self.town,
            "inn": self.inn,
            "place": self.place,
            "mood": self.mood,
            "relation": self.relation,
            "relative": self.relative,
            "years": self.years,
            "rumour": self.rumour,
            "quest_place": self.quest_place,
            "reward": self.reward,
            "task": self.task,
            "monsters": self.monsters,
            "saying": self.rng.choice(self.role.sayings),
            "does": self.rng.choice(self.role.does),
            "friend": self.friend,
            **w.pronouns(self.friend_sex),
        }
        return out

    def stock_text(self) -> str:
        """The wares with prices, as in `an iron sword for 30 gold and a rope for 3 gold`."""
        pattern = self.rng.random()
        parts = []
        for item, price in self.stock:
            if pattern < 0.55:
                parts.append(f"{article(item)} for {price} gold")
            elif pattern < 0.8:
                parts.append(f"{item} ({price} gold)")
            else:
                parts.append(f"{item}: {price} gold")
        return join(parts) if pattern < 0.8 else ", ".join(parts)

    def system_prompt(self, facts: list[str]) -> str:
        """A system prompt that states the named `facts`, in random order."""
        rng = self.rng
        slots = self.slots()
        openings = {
            (True, True): [
                "You are {name}, the {role} of {town}.",
                "You are {name}, {a:role} in {town}.",
                "Your name is {name}. You are {a:role} in {town}.",
                "You play {name}, the {role} of {town}.",
                "Character: {name}, {role} of {town}.",
                "Roleplay as {name}, {a:role} from {town}.",
            ],
            (True, False): [
                "You are {name}, {a:role}.",
                "You are {name} the {role}.",
                "You are {a:role} [called|named] {name}.",
                "Your name is {name} and you are {a:role}.",
                "Act as {name}, {a:role}.",
            ],
            (False, True): [
                "You are the {role} of {town}.",
                "You are {a:role} in {town}.",
                "You play {a:role} in the town of {town}.",
            ],
            (False, False): [
                "You are {a:role}.",
                "You are {a:role} in a fantasy [game|village|world|town].",
                "Act as {a:role}.",
                "You are {a:role} NPC.",
                "Pretend to be {a:role}.",
                "You are {a:role}. [Stay in character.|Keep your answers short.|Be brief.]",
            ],
        }[("name" in facts, "town" in facts)]
        lines = []
        for fact in facts:
            if fact == "stock" and self.stock:
                line = self.rng.choice(["You sell ", "Your wares: ", "You sell "]) + self.stock_text() + "."
            elif fact == "service" and self.service:
                line = f"Your service: {self.service[0]}, for {self.service[1]} gold."
            elif fact == "routes":
                line = " ".join(
                    f"The way to {there}: past {a}, then {side} at {b}." for there, (a, side, b) in self.routes.items()
                )
            elif fact == "quest":
                line = choose(
                    [
                        f"You want someone to {self.task_told}. The reward is {{reward}} gold.",
                        f"Your quest for the player: {self.task_told}. Reward: {{reward}} gold.",
                        f"You will pay {{reward}} gold to anyone who will {self.task_told}.",
                    ],
                    rng,
                    slots,
                )
            else:
                templates = {
                    "mood": [
                        "You are {mood}.",
                        "You are {mood} and speak [in short sentences|plainly].",
                        "Your mood: {mood}.",
                        "You sound {mood}.",
                    ],
                    "place": ["You work at {place}.", "You stand at {place}.", "The player meets you at {place}."],
                    "family": ["Your {relation} is called {relative}.", "You have {a:relation} named {relative}."],
                    "years": ["You have worked here for {years} years.", "You have been {a:role} for {years} years."],
                    "rumour": ["You have heard that {rumour}.", "Rumour: {rumour}.", "You know a secret: {rumour}."],
                }
                if fact not in templates:
                    continue
                line = choose(templates[fact], rng, {**slots, "place": self.place.replace("my ", "your ")})
            lines.append(line)
        rng.shuffle(lines)
        if rng.random() < 0.15:
            lines.append(
                rng.choice(
                    [
                        "Stay in character.",
                        "Keep your answers short.",
                        "Answer in one or two sentences.",
                        "Speak to the player.",
                        "Never leave your role.",
                    ]
                )
            )
        return " ".join([choose(openings, rng, slots), *lines])


def random_npc(rng: random.Random, title: str | None = None) -> Npc:
    """A character of the role `title`, or of any role."""
    return Npc(rng, BY_TITLE[title] if title else None)
