"""What players ask a character and what it answers, apart from trade. One function for each subject.

Every function adds one exchange (or a few) to the chat. `known` holds the facts that the text so far
has stated: an answer about a known fact has to repeat it, one about an unknown fact invents it and
states it from then on.
"""

from __future__ import annotations

from . import words as w
from .document import Chat
from .npc import Npc

Known = set[str]

INTERJECTION = {
    "cheerful": ["Ha! ", "Hoho! ", "Haha! ", "What a day! "],
    "grumpy": ["Hmph. ", "Bah. ", "What now? ", "Grr. "],
    "shy": ["Um... ", "Oh... ", "Well, um... ", "E-excuse me... "],
    "mysterious": ["Perhaps... ", "The shadows whisper. ", "Hmm... ", "Come closer. "],
    "proud": ["Naturally. ", "As you should know: ", "Ah, you ask the right person. ", "Listen well. "],
    "tired": ["*yawns* ", "Ah, my back. ", "It has been a long day. ", "*sighs* "],
    "kind": ["Ah, dear. ", "Oh, my friend. ", "Well, my dear. ", "Bless you. "],
    "nervous": ["Oh dear. ", "Shh! ", "Did you hear that? ", "Quickly now. "],
    "wise": ["Listen, young one. ", "Ah. ", "In time you will see. ", "Hear me. "],
    "blunt": ["Right. ", "Fine. ", "Short answer: ", "Look. "],
    "friendly": ["Well, friend! ", "Ha, my friend. ", "Ah, friend! ", "You know what? "],
    "gloomy": ["Alas. ", "*sighs* ", "If it matters at all... ", "Dark times, these. "],
}


def reply(chat: Chat, npc: Npc, templates: list[str], facts: list[str] | None = None) -> None:
    """Answers in the character's mood."""
    chat.slots.update(npc.slots())
    text = chat.fill(chat.rng.choice(templates)).strip()
    if chat.rng.random() < 0.3:
        text = chat.rng.choice(INTERJECTION[npc.mood]) + text
    if chat.rng.random() < 0.1:
        text += " " + chat.rng.choice(npc.role.sayings)
    chat.say(text, facts or [])


def greet(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "[Hello|Hi|Hey|Good day|Good morning|Good evening|Greetings|Hello there|Hail|Hi there][!|.|]",
            "[Hello|Good day|Hi|Greetings], {role}[!|.|]",
            "[Hello|Hi|Good day], [friend|traveller|sir|my friend]!",
            "Is anybody here?",
            "[Hello|Hi]! How are you[ today|]?",
            "I come in peace.",
            "Excuse me?",
        ]
    )
    options = {
        "cheerful": [
            "Welcome, welcome, traveller! [A fine day, is it not?|Come in, come in!]",
            "A new face! How lovely!",
        ],
        "grumpy": ["[What|Yes, what] do you want?", "Make it quick. I have work to do."],
        "shy": ["H-hello. Can I... can I help you?", "Oh! Hello. I did not see you there."],
        "mysterious": ["I knew you would come, traveller.", "The wind told me about you."],
        "proud": ["You stand before the best {role} of {town}.", "Welcome. You have chosen well to come to me."],
        "tired": ["Oh, hello. Forgive me, I hardly slept.", "Welcome. It has been a long day."],
        "kind": ["Welcome, dear. [You look cold. Come in.|How can I help you?]", "Hello, my dear. Sit down and rest."],
        "nervous": ["Oh! You scared me. What do you need?", "Shh, not so loud! What is it?"],
        "wise": ["Welcome, traveller. Every road leads somewhere.", "Greetings. Ask, and listen well."],
        "blunt": ["Hello. What do you need?", "Yes? Speak."],
        "friendly": ["Hello, friend! What brings you to {place}?", "Good to see you! How can I help?"],
        "gloomy": ["Oh. A visitor. Not that it matters.", "Hello. Dark clouds again today."],
    }[npc.mood]
    common = [
        "Good day, traveller. [What can I do for you?|What brings you here?|How can I help you?]",
        "Welcome to {place}. [What do you need?|How can I help?]",
        "Hello, traveller. I am {name}, the {role}. [How can I help you?|What do you need?]",
        "Welcome to {town}, stranger. I am {name}.",
    ]
    chat.slots.update(npc.slots())
    chat.answer(options + options + common)


def ask_name(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "What is your name?",
            "What's your name?",
            "Who are you?",
            "And who are you?",
            "May I ask your name?",
            "What should I call you?",
            "Tell me your name[, please|].",
            "Who am I speaking to?",
            "your name?",
            "I don't think we have met. Who are you?",
            "[What do people|How do they] call you?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "I am {name}, the {role} of {town}.",
            "My name is {name}. I am the {role} here.",
            "{name} is my name.",
            "They call me {name}. I {does}.",
            "I'm {name}. [And who are you?|What brings you to {town}?|]",
            "{name}, {role} of {town}, at your service.",
        ],
        [npc.name] if "name" in known else [],
    )
    known.update(["name", "town"])


def ask_job(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "What do you do[ here|]?",
            "What is your job?",
            "What do you do for a living?",
            "What is your work?",
            "Tell me about your work.",
            "Are you the {role}?",
            "So you are {a:role}?",
            "Do you work here?",
            "Tell me about yourself.",
            "What are you doing here?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "I am {a:role}. I {does}.",
            "I {does}. That is the life of {a:role}.",
            "I am the {role} of {town}. I {does}.",
            "I {does}, day after day.",
            "I work at {place}. I {does}.",
            "I {does}. {saying}",
        ],
    )


def ask_years(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "How long have you been {a:role}?",
            "How long have you worked here?",
            "Have you been here for long?",
            "How many years have you done this?",
            "Since when do you work here?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "For {years} years[ now|].",
            "I have been {a:role} for {years} years.",
            "{years} years. Time flies.",
            "It will be {years} years [this summer|this winter|soon].",
        ],
        [npc.years] if "years" in known else [],
    )
    known.add("years")


def ask_place(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Where am I?",
            "What is this place?",
            "What town is this?",
            "What is this town called?",
            "Where are we?",
            "Which village is this?",
            "Tell me about this town.",
            "Is this {town}?",
            "What's the name of this town?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "This is {town}, [a quiet little town|a small town by the river|an old town with good people|a busy town].",
            "You are in {town}. [It is small, but it is home.|Do not leave without trying the pie.|Behave yourself.|"
            "Most people never leave it.|It is safer than the woods.]",
            "{town}, traveller. [The best inn is {inn}.|You can rest at {inn}.|We have an inn called {inn}.]",
            "We are in {town}, at {place}.",
        ],
        [npc.town] if "town" in known else [],
    )
    known.add("town")


def ask_family(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Do you have [a|any] family?",
            "Tell me about your family.",
            "Do you live alone?",
            "Have you any family here?",
            "What is the name of your {relation}?",
            "Who is your {relation}?",
            "Do you have {a:relation}?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "I have {a:relation}. {relative} is a good soul.",
            "Yes, my {relation} {relative} lives [here too|in {town}|with me].",
            "My {relation} is called {relative}.",
            "There is only my {relation} {relative} and me.",
            "My {relation} {relative} [helps me every day|makes me laugh|works at the market|is my whole family].",
        ],
        [npc.relative] if "family" in known else [],
    )
    known.add("family")


def ask_rumour(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "[Have you heard|Did you hear|Do you know] any [rumours|news|gossip]?",
            "What's new[ in {town}|]?",
            "Any news?",
            "Heard anything interesting[ lately|]?",
            "What are people talking about?",
            "Tell me a rumour.",
            "Tell me a secret.",
            "Any rumours?",
            "What do people say?",
            "Is there any gossip?",
            "Has anything strange happened here?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "I heard that {rumour}.",
            "They say that {rumour}.",
            "People say {rumour}. [I don't know if it is true.|Believe it or not.|You did not hear it from me.|]",
            "{Rumour}. [At least that is what they say.|Strange times.|Be careful.|]",
            "Well, {rumour}. [That is all I know.|Keep it to yourself.|]",
            "Somebody told me that {rumour}.",
        ],
        _long_words(npc.rumour) if "rumour" in known else [],
    )
    known.add("rumour")
    if chat.rng.random() < 0.4:
        chat.user(
            [
                "[Who told you that|Where did you hear that|Are you sure|Is that true|Really]?",
                "Hmm, interesting.",
                "Tell me more.",
                "Should I be worried?",
            ]
        )
        reply(
            chat,
            npc,
            [
                "My {relation} told me.",
                "A traveller at {inn} said so.",
                "I saw it with my own eyes.",
                "Ask at {inn} if you want to know more.",
                "I only tell you what I heard.",
                "I would not go there alone.",
                "That is all I know. {saying}",
            ],
        )


def _long_words(text: str) -> list[str]:
    """The proper names of a sentence: what an answer that repeats it cannot leave out."""
    return [word.strip(".,") for word in text.split() if word[0].isupper()]


def ask_way(chat: Chat, npc: Npc, known: Known) -> None:
    rng = chat.rng
    there = rng.choice(list(npc.routes))
    a, side, b = npc.routes[there]
    chat.slots.update(there=there, a=a, side=side, b=b, other="right" if side == "left" else "left")
    chat.user(
        [
            "[Where is|Where's|Where can I find] {there}?",
            "How do I get to {there}?",
            "I am looking for {there}.",
            "Can you tell me the way to {there}?",
            "Which way is {there}?",
            "Do you know where {there} is?",
            "I need to find {there}.",
            "Is {there} far from here?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Go past {a} and turn {side} at {b}.",
            "Walk past {a}, then go {side} at {b}. You cannot miss it.",
            "Follow the road past {a}. At {b}, turn {side}.",
            "Past {a}, then {side} at {b}.",
            "{There}? First go past {a}, then turn {side} at {b}.",
        ],
        [a, side, b] if "routes" in known else [],
    )
    draw = rng.random()
    if draw < 0.25:
        chat.user(["So [I turn |]{side} at {b}?", "{Side} at {b}, right?", "Past {a} and then {side}?"])
        reply(chat, npc, ["Yes, {side} at {b}.", "Exactly, {side}.", "That's right. {Side} at {b}."], [side])
    elif draw < 0.5:
        chat.user(["So [I turn |]{other} at {b}?", "{Other} at {b}?", "Past {a} and then {other}?"])
        reply(chat, npc, ["No, turn {side} at {b}.", "No, not {other}. Go {side} at {b}.", "No, {side}."], [side])
    elif draw < 0.65:
        chat.user(["And what do I pass first?", "Sorry, what comes first?", "Which place do I pass?"])
        reply(chat, npc, ["First you pass {a}.", "{A}. Then turn {side} at {b}.", "You go past {a}."], [a])


def ask_danger(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Is it dangerous [here|out there|around here]?",
            "Are the roads safe?",
            "Are there monsters [here|nearby]?",
            "What should I be afraid of?",
            "Is the forest safe?",
            "Is it safe to travel at night?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Beware of the {monsters} in {quest_place}.",
            "Stay on the road. There are {monsters} in {quest_place}.",
            "The town is safe, but {quest_place} is full of {monsters}.",
            "Not at night. The {monsters} come out after dark.",
            "As long as you stay away from {quest_place}, you are safe.",
        ],
    )
    if chat.rng.random() < 0.4:
        chat.user(["How do I fight them?", "How can I beat them?", "What are they afraid of?", "Any advice?"])
        reply(
            chat,
            npc,
            [
                "They are afraid of [fire|light|loud noise|silver|water]. Bring [a torch|a silver blade|a bell|plenty of it].",
                "Never fight them alone.",
                "Better run. {saying}",
                "[Strike first|Stay quiet|Keep your shield up] and [do not panic|stay close to a wall|aim for the legs].",
            ],
        )


def player_name(chat: Chat, npc: Npc, known: Known) -> None:
    rng = chat.rng
    player = chat.slots.get("player")
    if player is None and rng.random() < 0.3:
        chat.user(["Do you know who I am?", "What is my name?", "Do you know my name?"])
        reply(
            chat,
            npc,
            [
                "You have not told me your name[, traveller|, stranger|].",
                "How should I know? You never told me.",
                "No. What is your name?",
            ],
        )
        return
    if player is None:
        player = w.person(rng)[0]
        chat.slots["player"] = player
        chat.user(
            [
                "I am {player}.",
                "My name is {player}.",
                "I'm {player}, a [knight|traveller|hunter|young wizard|sailor|bard].",
                "Call me {player}.",
                "They call me {player}.",
                "Hello, I'm {player}.",
            ]
        )
        reply(
            chat,
            npc,
            [
                "Nice to meet you, {player}.",
                "Welcome to {town}, {player}.",
                "{player}. I will remember that name.",
                "{player}? A fine name. I am {name}.",
                "Well met, {player}. What can I do for you?",
            ],
            [player],
        )
        known.update(["name"])
        return
    chat.user(
        [
            "Do you remember my name?",
            "What is my name?",
            "What was my name again?",
            "Who am I?",
            "Do you know who I am?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "You are {player}.",
            "Of course, your name is {player}.",
            "{player}, is it not?",
            "You told me that you are {player}.",
        ],
        [player],
    )
