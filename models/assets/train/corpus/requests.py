"""Small pieces of writing that a game designer may ask for: quests, rumours, items, names, lines, poems."""

from __future__ import annotations

import random

from . import tale_parts as t
from . import words as w
from .document import Chat, Split
from .grammar import article, capital
from .npc import Npc, random_npc
from .roles import ROLES


def quest(chat: Chat, split: Split) -> None:
    npc = random_npc(chat.rng)
    chat.slots.update(npc.slots())
    named = chat.rng.random() < 0.6
    chat.slots["for_text"] = f" from {article(npc.role.title)}" if named else ""
    chat.user(
        [
            "[Give me|Write|Invent|Make up|Suggest] a quest{for_text}.",
            "I need a quest{for_text}.",
            "A quest{for_text}, please.",
            "Can you invent a quest{for_text}?",
            "Quest idea{for_text}?",
        ]
    )
    task = npc.task.replace(" me ", f" {npc.name} ").replace("my friend ", "").replace("this letter", "a letter")
    chat.slots["job"] = task
    chat.answer(
        [
            "{name}, the {role} of {town}, asks the player to {job}. The reward is {reward} gold.",
            "Quest: {Job}. It is given by {name}, the {role}. Reward: {reward} gold.",
            "{Name} the {role} needs help: {job}. Those who succeed get {reward} gold. Beware of the {monsters}!",
            "In {town}, {name} the {role} is worried. The player has to {job} and earns {reward} gold.",
        ],
        [npc.role.title] if named else [],
    )


def rumour(chat: Chat, split: Split) -> None:
    npc = random_npc(chat.rng)
    chat.slots.update(npc.slots())
    chat.user(
        [
            "[Tell me|Give me|Write|Invent|Make up] a rumour.",
            "I need a rumour for my game.",
            "What do people in taverns talk about?",
            "Any rumours?",
            "Write a rumour for a tavern.",
            "tell me a rumor",
            "What rumours does {a:role} tell?",
        ]
    )
    chat.answer(
        [
            "They say that {rumour}.",
            "{Rumour}.",
            "People whisper that {rumour}. Nobody knows if it is true.",
            '"Have you heard? {Rumour}!"',
        ]
    )


LASTING = ("blacksmith", "wizard", "merchant", "hunter", "captain", "bard", "thief")


ITEM_LOOKS = [
    "The {item} [shines like the sun|looks simple, but it is not|is [older|heavier] than it looks]",
    "A [fine|simple|strange|beautiful|rare] {item} from {town}",
    "This {item} was made in {town}",
    "An [old|ancient|unusual] {item}, [covered with runes|still sharp|worn by time|cold to the touch|light as a feather]",
]


ITEM_PAST = [
    "It once belonged to {owner} of {town}.",
    "{Owner} found it in {wild}.",
    "{Owner} carried it in the war against the {monsters}.",
    "Nobody knows who made it.",
    "It was lost in {wild} for a hundred years.",
    "It was a gift from {owner} to the king.",
    "{Owner} made it in a single night.",
]


ITEM_POWER = [
    "It glows when {monsters} are near.",
    "Its owner never gets lost.",
    "At night it hums a quiet song.",
    "It keeps its owner warm in the coldest winter.",
    "It brings luck to the brave.",
    "Nobody who holds it can tell a lie.",
    "It is worth {price} gold.",
    "It smells of [smoke|rain|old books|flowers].",
    "It has no magic, but it never breaks.",
]


def item(chat: Chat, split: Split) -> None:
    rng = chat.rng
    thing = random_thing(rng)
    if rng.random() < 0.3:
        thing = (
            rng.choice(["magic", "old", "cursed", "ancient", "mysterious"])
            + " "
            + rng.choice(["sword", "ring", "shield", "staff", "book", "crown", "cloak", "lamp", "bow", "mirror", "key"])
        )
    fill_item(chat, thing)
    chat.user(
        [
            "Describe {a:item}.",
            "Write a description of {a:item}.",
            "Describe the {item}.",
            "I need a description for {a:item}.",
            "Item description: {item}",
            "Tell me about the {item}.",
            "What is special about the {item}?",
            "Invent {a:item}.",
            "Write an item description for {a:item}.",
        ]
    )
    chat.say(describe(chat), [thing])


def random_thing(rng: random.Random) -> str:
    """An item that lasts: a treasure or something from a workshop."""
    if rng.random() < 0.5:
        return rng.choice(w.TREASURES)
    return rng.choice(rng.choice([role for role in ROLES if role.title in LASTING]).wares)[0]


def fill_item(chat: Chat, thing: str) -> None:
    rng = chat.rng
    chat.slots.update(
        item=thing,
        town=w.town(rng),
        owner=w.person(rng)[0],
        wild=w.wild(rng),
        monsters=rng.choice(w.MONSTERS),
        price=str(rng.randint(5, 99)),
    )


def describe(chat: Chat) -> str:
    rng = chat.rng
    parts = [
        chat.fill(rng.choice(ITEM_LOOKS)) + ".",
        chat.fill(rng.choice(ITEM_PAST)),
        chat.fill(rng.choice(ITEM_POWER)),
    ]
    if rng.random() < 0.3:
        parts.append(chat.fill(rng.choice([line for line in ITEM_POWER if line[:8] not in parts[2]])))
    return " ".join(dict.fromkeys(parts))


def names(chat: Chat, split: Split) -> None:
    rng = chat.rng
    kinds = {
        "inn": lambda: capital(w.inn(rng)),
        "tavern": lambda: capital(w.inn(rng)),
        "town": lambda: w.town(rng),
        "village": lambda: w.town(rng),
        "city": lambda: w.town(rng),
        "forest": lambda: f"The {rng.choice(w.WILD_HEAD)} {rng.choice(['Wood', 'Forest'])}",
        "knight": lambda: f"Sir {rng.choice(w.MEN)} of {w.town(rng)}",
        "dragon": lambda: w.invented_name(rng),
        "wizard": lambda: (
            f"{w.invented_name(rng)} the {rng.choice(['Wise', 'Grey', 'Old', 'Silent', 'Clever', 'White'])}"
        ),
        "ship": lambda: (
            f"The {rng.choice(w.INN_HEAD)} {rng.choice(['Mermaid', 'Anchor', 'Swan', 'Star', 'Wind', 'Dolphin', 'Pearl', 'Gull'])}"
        ),
        "hero": lambda: w.person(rng)[0],
        "horse": lambda: rng.choice(
            w.words("Star; Thunder; Shadow; Maple; Storm; Silver; Pepper; Biscuit; Midnight; Cloud")
        ),
        "blacksmith": lambda: rng.choice(w.MEN),
        "princess": lambda: rng.choice(w.WOMEN),
        "witch": lambda: f"{rng.choice(w.WOMEN)} of {w.wild(rng)}",
        "island": lambda: f"{w.invented_name(rng)} Island",
        "sword": lambda: rng.choice(
            w.words(
                "Dawnbringer; Frostbite; Nightfall; Oathkeeper; Wolfsbane; Stormcaller; Lightbringer; Thornblade; Moonedge; Ironsong"
            )
        ),
        "goblin": lambda: w.invented_name(rng),
        "queen": lambda: f"Queen {rng.choice(w.WOMEN)}",
        "king": lambda: f"King {rng.choice(w.MEN)}",
    }
    kind = rng.choice(sorted(kinds))
    many = rng.random() < 0.35
    chat.slots["kind"] = kind
    if many:
        chat.user(
            [
                "[Give me|Suggest] three names for {a:kind}.",
                "Three names for {a:kind}, please.",
                "Invent three {kind} names.",
            ]
        )
        found = list(dict.fromkeys(kinds[kind]() for _ in range(8)))[:3]
        chat.say(
            "\n".join(f"{i}. {name}" for i, name in enumerate(found, 1))
            if rng.random() < 0.5
            else ", ".join(found) + "."
        )
    else:
        chat.slots["new"] = kinds[kind]()
        chat.user(
            [
                "[Give me|Suggest|Invent] a name for {a:kind}.",
                "I need a name for {a:kind}.",
                "What is a good name for {a:kind}?",
                "Name {a:kind}.",
                "What should I call my {kind}?",
            ]
        )
        chat.answer(
            ["{new}.", "How about {new}?", "{new} would be a good name.", "What about {new}?", "I would choose {new}."]
        )


def line(chat: Chat, split: Split) -> None:
    """A single line for a character, as a game writer asks for it."""
    npc: Npc = random_npc(chat.rng)
    chat.slots.update(npc.slots())
    chat.user(
        [
            "Write a greeting for {a:role}.",
            "What does {a:role} say?",
            "Give me a line for {a:role}.",
            "Write something {a:role} would say.",
            "How does {a:mood} {role} greet a traveller?",
            "Write one sentence for {a:role}.",
            "Let {a:role} speak.",
            "A greeting from {a:role}, please.",
        ]
    )
    chat.answer(
        [
            '"Welcome to {place}, traveller! {saying}"',
            '"I am {name}, the {role} of {town}. What do you need?"',
            '"{saying} So, what brings you here?"',
            '"Good day, stranger. I {does}. How can I help you?"',
            '"Stay a while. I heard that {rumour}."',
        ]
    )


def character(chat: Chat, split: Split) -> None:
    npc = random_npc(chat.rng)
    chat.slots.update(npc.slots(), **w.pronouns(npc.sex))
    chat.user(
        [
            "[Invent|Describe|Create|Make up|Write] {a:role}.",
            "I need {a:role} for my game.",
            "Create a character: {a:role}.",
            "Tell me about {a:role}.",
            "Describe {a:mood} {role}.",
        ]
    )
    chat.answer(
        [
            "{name} is the {role} of {town}. {He} works at {place} and is known to be {mood}. {His} {relation} {relative} helps {him}.",
            "{name} has been {a:role} for {years} years. {He} is {mood}, but {he} has a good heart. {He} heard that {rumour}.",
            'In {town} lives {name}, {a:mood} {role}. {He} always says: "{saying}"',
        ],
        [npc.role.title],
    )


COUPLETS = [
    ("The {topic} came softly in the night,", "and filled the valley with its light."),
    ("I saw the {topic} by the sea,", "it sang a little song to me."),
    ("O {topic}, {topic}, where do you go,", "when cold winds bring the first white snow?"),
    ("The {topic} waits beside the door,", "as it has often done before."),
    ("{A:topic} is a friend to find,", "so gentle, beautiful and kind."),
    ("And when the day has gone to bed,", "the {topic} dreams of stars instead."),
    ("The world is wide, the road is long,", "the {topic} hums a quiet song."),
    ("The moon looks down, the river sings,", "and tells the {topic} many things."),
    ("No gold, no crown, no silver ring", "can make the heart of {a:topic} sing."),
    ("So close your eyes and you will see", "the {topic}, wild and bright and free."),
    ("The fire is low, the night is deep,", "the {topic} slowly falls asleep."),
    ("Through wind and rain, through dark and day,", "the {topic} always knows the way."),
]


def poem(chat: Chat, split: Split) -> None:
    rng = chat.rng
    topic = rng.choice(
        t.ANIMALS
        + t.CREATURES
        + [
            "moon",
            "sea",
            "river",
            "wind",
            "winter",
            "forest",
            "rain",
            "sun",
            "night",
            "snow",
            "mountain",
            "flower",
            "sword",
            "tower",
            "lake",
        ]
    )
    chat.slots["topic"] = topic
    chat.user(
        [
            "Write a [short |]poem about {a:topic}.",
            "Write a poem about the {topic}.",
            "A poem about the {topic}, please.",
            "Can you write a poem about {a:topic}?",
            "poem about {a:topic}",
            "Write a song about the {topic}.",
            "Sing me a song about {a:topic}.",
        ]
    )
    chosen = rng.sample(COUPLETS, 2 if rng.random() < 0.7 else 3)
    chat.say("\n".join(capital(chat.fill(part)) for couplet in chosen for part in couplet), [topic])


def one_sentence(chat: Chat, split: Split) -> None:
    """A whole story in one sentence."""
    rng = chat.rng
    kind = rng.choice(t.PEOPLE + t.ANIMALS + t.CREATURES)
    trait = rng.choice([trait for trait in t.TRAITS if trait != kind.split()[0]])
    chat.slots.update(
        kind=kind,
        who=f"{trait} {kind}",
        home=rng.choice(t.HOMES),
        wild=w.wild(rng),
        thing=rng.choice(w.TREASURES),
        helper=rng.choice(t.HELPERS),
        love=rng.choice(t.LOVES),
    )
    chat.user(
        [
            "[Write|Tell me] a one-sentence [bedtime |]story about {a:kind}.",
            "[Write|Tell me] a story about {a:kind} in one sentence.",
            "One sentence about {a:kind}, please.",
            "Write one sentence about {a:kind}.",
        ]
    )
    chat.answer(
        [
            "Once upon a time, {a:who} who lived {home} met {a:helper}, and together they [watched the stars|danced|sang|told stories] until they fell asleep.",
            "{A:who} found {a:thing} in {wild} and gave it to {a:helper}, because [friends are worth more than gold|it was the right thing to do|kindness makes everyone happy].",
            "Every night, {a:who} {home} looked at the moon and dreamed of {wild}, until one day the dream came true.",
            "Long ago, {a:who} loved to {love} so much that even {a:helper} came to {wild} to join in.",
        ],
        [kind],
    )
