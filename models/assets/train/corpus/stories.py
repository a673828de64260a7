"""Short stories with an arc: a hero, a wish, an obstacle or two, a helper, an ending."""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import tale_parts as t
from . import words as w
from .document import Chat, Document, Message, Split
from .grammar import article, capital, choose, expand

FAMILY = [
    ("mother", "her"),
    ("father", "him"),
    ("sister", "her"),
    ("brother", "him"),
    ("grandmother", "her"),
    ("grandfather", "him"),
    ("best friend", "him"),
    ("best friend", "her"),
    ("little sister", "her"),
    ("little brother", "him"),
]

SEXES = {
    "girl": "f",
    "princess": "f",
    "young witch": "f",
    "old woman": "f",
    "queen": "f",
    "hen": "f",
    "cow": "f",
    "mermaid": "f",
    "fairy": "f",
    "little witch": "f",
    "boy": "m",
    "prince": "m",
    "fisherman": "m",
    "old man": "m",
    "king": "m",
    "rooster": "m",
    "young wizard": "m",
}

OPENINGS = [
    "Once upon a time, there was {a:who}{called}. {He} lived {home}.",
    "Once upon a time, {a:who}{called} lived {home}.",
    "Once upon a time {home}, there lived {a:who}{called}.",
    "Once upon a time, {home}, there was {a:who}{called}.",
    "Long ago, {a:who}{called} lived {home}.",
    "Long, long ago, there was {a:who}{called}, who lived {home}.",
    "There was once {a:who}{called}. {He} lived {home}.",
    "There once was {a:who}{called} who lived {home}.",
    "In {town}, there lived {a:who}{called}.",
    "{Home} lived {a:who}{called}.",
    "One [spring|summer|autumn|winter] [morning|day|evening], {a:who}{called} looked out of the window.",
    "This is the story of {a:who}{called} who lived {home}.",
    "Far away, {home}, lived {a:who}{called}.",
    "Many years ago, {home}, there was {a:who}{called}.",
    "Do you know the story of {the_who}{called}? {He} lived {home}.",
    "{A:who}{called} lived {home}.",
    "Once there was {a:who}{called} who lived {home}.",
]

DETAILS = [
    "{Hero} loved to {love}.",
    "Every day {he} liked to {love}.",
    "More than anything, {hero} loved to {love}.",
    "{He} loved to {love}, but {he} had no {missing}.",
    "Everybody knew that {hero} loved to {love}.",
    "{He} had {a:colour} {clothes} and always wore it.",
    "{Hero} had everything, except {missing}.",
    "People often laughed at {him}, but {he} did not mind.",
    '{His} {friend} always said, "You can do more than you think."',
    "{He} and {his} {friend} did everything together.",
    "{Hero} was not rich, but {he} was happy.",
    "{Hero} had never been far from home.",
]


@dataclass
class Theme:
    """What a reader may ask a story to be about."""

    kind: str
    sex: str
    trait: str
    name: str
    thing: str
    wild: str
    wish: t.Wish


def theme(rng: random.Random, split: Split) -> Theme:
    """A theme from `split`; kind and wish are the held-out combination."""
    while True:
        draw = rng.random()
        kind = rng.choice(t.PEOPLE if draw < 0.4 else t.ANIMALS if draw < 0.75 else t.CREATURES)
        wish = rng.choice(t.WISHES)
        if split.takes(kind, wish.key):
            break
    sex = SEXES.get(kind) or rng.choice("fm")
    name = w.invented_name(rng) if rng.random() < 0.15 else rng.choice(w.WOMEN if sex == "f" else w.MEN)
    return Theme(kind, sex, rng.choice(t.TRAITS), name, rng.choice(w.TREASURES), w.wild(rng), wish)


def story(rng: random.Random, about: Theme, named: bool | None = None, short: bool = False) -> str:
    """One story; `short` leaves out the obstacle or the helper."""
    named = rng.random() < 0.65 if named is None else named
    friend, friend_him = rng.choice(FAMILY)
    riddle, answer = rng.choice(t.RIDDLES)
    who = about.kind if about.kind.split()[0] in t.TRAITS or rng.random() < 0.2 else f"{about.trait} {about.kind}"
    slots = {
        "who": who,
        "the_who": f"the {who}",
        "kind": about.kind,
        "called": rng.choice([f" named {about.name}", f" called {about.name}"]) if named else "",
        "hero": about.name if named else f"the {about.kind}",
        "home": rng.choice(t.HOMES),
        "town": w.town(rng),
        "wild": about.wild,
        "thing": about.thing,
        "friend": friend,
        "friend_him": friend_him,
        "love": rng.choice(t.LOVES),
        "missing": rng.choice(t.MISSING),
        "colour": rng.choice(w.COLOURS),
        "clothes": rng.choice(["hat", "scarf", "coat", "cap", "ribbon", "cloak"]),
        "monsters": rng.choice(w.MONSTERS),
        "riddle": riddle,
        "answer": answer,
        "helper": rng.choice(t.HELPERS),
        "baby": rng.choice(t.BABIES),
        "beast": rng.choice(t.BEASTS),
        **w.pronouns(about.sex),
    }
    parts = [choose(OPENINGS, rng, slots)]
    if not short or rng.random() < 0.5:
        parts.append(choose(DETAILS, rng, slots))
    parts.append(choose(about.wish.cause, rng, slots))
    helped = rng.random() < (0.3 if short else 0.6)
    if helped:
        parts.append(choose(t.MEETINGS, rng, slots))
    if not short or helped or rng.random() < 0.6:
        first, second = rng.sample(t.OBSTACLES, 2)
        parts.append(
            choose(first.problem, rng, slots) + " " + choose(first.helped if helped else first.alone, rng, slots)
        )
        if not short and rng.random() < 0.35:
            parts.append(choose(second.problem, rng, slots) + " " + choose(second.alone, rng, slots))
    parts.append(choose(about.wish.success, rng, slots))
    if rng.random() < 0.7:
        parts.append(choose(t.ENDINGS, rng, slots))
    if rng.random() < 0.4:
        parts.append(rng.choice(["", "", "Remember: ", "And the moral is: "]) + rng.choice(about.wish.moral))
    if rng.random() < 0.12:
        parts.append("The end.")
    if len(parts) > 4 and rng.random() < 0.3:
        cut = rng.randint(2, len(parts) - 2)
        return " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    return " ".join(parts)


def plain_story(rng: random.Random, split: Split) -> Document:
    """A story as plain text, with a title now and then."""
    about = theme(rng, split)
    text = story(rng, about, short=rng.random() < 0.25)
    if rng.random() < 0.12:
        text = (
            rng.choice(
                [
                    f"The {_title(about.kind)} and the {_title(about.thing)}",
                    f"The {_title(about.trait)} {_title(about.kind)}",
                    f"{about.name}'s {_title(about.thing)}",
                ]
            )
            + "\n\n"
            + text
        )
    return Document(text=text)


def _title(text: str) -> str:
    return " ".join(capital(word) for word in text.split())


REQUESTS = [
    "Tell me a {short}story{about}.",
    "Can you tell me a {short}story{about}?",
    "Write a {short}story{about}.",
    "I want to hear a {short}story{about}.",
    "Tell me a {short}tale{about}.",
    "Please tell me a {short}story{about}.",
    "A {short}story{about}, please.",
    "Could you write a {short}story{about}?",
    "Make up a {short}story{about}.",
    "Give me a {short}story{about}.",
    "story{about}",
    "Tell a {short}story{about}.",
    "Do you know a {short}story{about}?",
    "I'd like a {short}story{about}.",
    "Write me a {short}fairy tale{about}.",
    "Tell me a bedtime story{about}.",
]


def request_story(chat: Chat, split: Split) -> None:
    """A user asks for a story, perhaps about something, and gets it."""
    rng = chat.rng
    about = theme(rng, split)
    named = rng.random() < 0.45
    short = rng.random() < 0.45
    draw = rng.random()
    subject = (
        article(about.kind)
        if rng.random() < 0.6
        else article(f"{about.trait} {about.kind}")
        if about.kind.split()[0] not in t.TRAITS
        else article(about.kind)
    )
    if named and draw < 0.7:
        subject += f" {rng.choice(['named', 'called'])} {about.name}"
    told_name = named and draw < 0.7
    if about.wish.key in ("lost", "map") and rng.random() < 0.4:
        subject += f" and {article(about.thing)}"
    if rng.random() < 0.15:
        subject += f" in {about.wild}"
    chat.slots["about"] = "" if not told_name and rng.random() < 0.25 else f" about {subject}"
    if chat.slots["about"] and not named:
        named = rng.random() < 0.4
    chat.slots["short"] = "short " if short and rng.random() < 0.5 else ""
    chat.user(REQUESTS)
    start = rng.choice(["", "", "", "Of course! ", "Gladly. ", "Here is a story. ", "Sure. "])
    facts = [about.kind] if chat.slots["about"] else []
    if told_name:
        facts.append(about.name)
    chat.say(start + story(rng, about, named=named or told_name, short=short), facts)
    draw = rng.random()
    if draw < 0.15:
        chat.user(["What did you like about it?", "Did you make that up?", "Is that a true story?"])
        chat.answer(
            ["I made it up just now.", "It is not true, but I like how it ends.", "I made it up. I hope you liked it."]
        )
    elif draw < 0.3:
        chat.user(["Thank you, that was nice.", "I like it!", "What a nice story.", "Great story!", "Thanks!"])
        chat.answer(
            [
                "I am glad you liked it. Would you like another one?",
                "Thank you! [Ask me for another one any time.|]",
                "You are welcome.",
            ]
        )
    elif draw < 0.42 and named:
        chat.slots.update(kind=about.kind, hero_name=about.name)
        chat.user(["What was the name of the {kind}?", "Who was the hero[ of the story|]?"])
        chat.answer(["{hero_name}.", "The name was {hero_name}.", "The {kind} was called {hero_name}."], [about.name])


def continue_opening(chat: Chat, split: Split) -> None:
    """A user gives the first words of a story and the assistant goes on with the whole of it."""
    rng = chat.rng
    about = theme(rng, split)
    text = story(rng, about, short=rng.random() < 0.5)
    opening = expand(
        rng.choice(
            [
                "Once upon a time",
                "Once upon a time...",
                "Once upon a time,",
                "Long ago",
                "There was once",
                "Once there was",
            ]
        ),
        rng,
        {},
    )
    if rng.random() < 0.5:
        cut = text.split(". ")[0] + "."
        before = rng.choice(["Continue this story: ", "", "Finish the story: ", "Go on: "])
        chat.messages.append(Message("user", before + cut))
        chat.say(text[len(cut) :].strip())
        return
    chat.messages.append(Message("user", opening))
    chat.say(text)
