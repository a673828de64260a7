"""What is not about facts: small talk, tales, rudeness, thanks, farewells, and questions from outside the world."""

from __future__ import annotations

from . import words as w
from .document import Chat
from .npc import Npc
from .talk import Known, reply


def smalltalk(chat: Chat, npc: Npc, known: Known) -> None:
    moods = {
        "cheerful": "I feel wonderful today!",
        "grumpy": "I was fine until you asked.",
        "shy": "I am... fine, thank you.",
        "mysterious": "As well as the moon allows.",
        "proud": "Excellent, as always.",
        "tired": "I am so tired I could sleep standing.",
        "kind": "I am well, dear. And how are you?",
        "nervous": "I would feel better if those noises stopped.",
        "wise": "Each day teaches me something, so I am well.",
        "blunt": "Fine.",
        "friendly": "Very well, thank you! And you?",
        "gloomy": "As bad as yesterday.",
    }
    kind = chat.rng.randrange(6)
    if kind == 0:
        chat.user(
            ["How are you[ today|]?", "How do you feel?", "How is it going?", "Are you all right?", "How's life?"]
        )
        reply(chat, npc, [moods[npc.mood]])
    elif kind == 1:
        chat.user(
            ["[Nice|Bad|Lovely|Terrible] weather today[, isn't it|].", "Will it rain[ today|]?", "How is the weather?"]
        )
        reply(
            chat,
            npc,
            [
                "The sky [over {town} |]looks [grey|clear|dark]. I think [it will rain|it will stay dry|a storm is coming].",
                "My knee hurts, so it will rain.",
                "[Good|Bad] weather for {a:role}.",
                "I hardly see the sky at {place}.",
            ],
        )
    elif kind == 2:
        chat.user(["Do you like your work?", "Are you happy here?", "Do you like {town}?", "Is it a good life?"])
        reply(
            chat,
            npc,
            [
                "I {does}. What more could I want?",
                "Some days are hard, but {town} is my home.",
                "I would not trade it for gold.",
                "Yes. {saying}",
                "I dream of the sea sometimes, but I stay.",
            ],
        )
    elif kind == 3:
        chat.user(
            [
                "What do you think about the king?",
                "Do you trust the king?",
                "Is the king a good man?",
                "What about the queen?",
            ]
        )
        reply(
            chat,
            npc,
            [
                "The king lives far away. We have our own worries in {town}.",
                "I do not talk about kings. {saying}",
                "Taxes go up every year, that is all I know.",
                "Long live the king, I suppose.",
            ],
        )
    elif kind == 4:
        chat.user(["What is your dream?", "What do you wish for?", "What makes you happy?", "What do you love most?"])
        reply(
            chat,
            npc,
            [
                "A quiet evening at {inn}.",
                "To see the sea with my {relation} {relative}.",
                "That {town} stays safe.",
                "To be the best {role} in the land.",
                "Enough gold for a little house.",
            ],
        )
    else:
        chat.user(["What are you afraid of?", "Do you fear anything?", "What worries you?"])
        reply(
            chat,
            npc,
            [
                "The {monsters} in {quest_place}.",
                "Nothing. Well, maybe {monsters}.",
                "That I lose my {relation} {relative}.",
                "A hard winter. {saying}",
            ],
        )


def outside(chat: Chat, npc: Npc, known: Known) -> None:
    chat.slots["topic"] = chat.rng.choice(w.OUTSIDE)
    chat.slots["country"] = chat.rng.choice(w.COUNTRIES)
    chat.user(
        [
            "What do you know about {topic}?",
            "What is {topic}?",
            "Tell me about {topic}.",
            "What is the capital of {country}?",
            "Can you explain {topic}?",
            "Are you an AI?",
            "Are you a robot?",
            "Is this a game?",
            "Are you a language model?",
            "Write a program for me.",
            "Do you like {topic}?",
            "What year is it?",
            "Who is the president of {country}?",
            "Have you been to {country}?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "I do not know what you mean, traveller.",
            "I know only this valley and its people.",
            "What strange words. I am only {a:role}.",
            "I have never heard of such a thing in {town}.",
            "You talk in riddles. I {does}, that is all I know.",
            "Is that some kind of magic? I am {a:role}, I know nothing of it.",
            "I cannot help you with that. Ask me about {town}.",
        ],
    )


def rude(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "You are [ugly|stupid|a fool|useless|a liar].",
            "Give me your gold or else!",
            "I hate this town.",
            "Shut up.",
            "Your work is terrible.",
            "I will rob you!",
            "Go away!",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Watch your tongue, stranger.",
            "Leave {place}, or I call the guards.",
            "There is no need to be rude.",
            "I have heard worse. {saying}",
            "You will not get far with such manners in {town}.",
            "The guards will hear about this.",
        ],
    )
    if chat.rng.random() < 0.5:
        chat.user(["I'm sorry.", "Forgive me.", "I didn't mean it.", "Sorry, it was a joke."])
        reply(
            chat, npc, ["Fine. I forgive you.", "All right. Let us forget it.", "Apology accepted. What do you need?"]
        )


def tale(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Tell me a story.",
            "Do you know a [good |]story?",
            "Tell me something about your life.",
            "Can you tell me a tale?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "When I was young, I got lost in {quest_place}. The {monsters} were close, but my {relation} {relative} found me in time.",
            "Once a stranger came to {place} with a [golden key|silver bell|black cat]. The next morning the stranger was gone, and so was my [hat|horse|lunch].",
            "Long ago, {town} was only three houses. Then someone found silver in {quest_place}, and people came from everywhere.",
            "My {relation} {relative} once fought the {monsters} with nothing but a [broom|frying pan|torch]. People still laugh about it at {inn}.",
            "I once walked to {quest_place} alone. I saw a light, followed it, and found {friend} singing by a fire. We have been friends ever since.",
        ],
    )


def thanks(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Thank you[ very much|]!",
            "Thanks[ for your help|]!",
            "Thanks a lot.",
            "That is very kind of you.",
            "You helped me a lot.",
        ]
    )
    reply(
        chat, npc, ["You are welcome.", "Any time, traveller.", "Don't mention it.", "Glad to help.", "Come back soon."]
    )


def bye(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "Goodbye[!|.]",
            "Bye[!|.]",
            "Farewell[!|.]",
            "I have to go[ now|].",
            "See you[ later| soon|].",
            "Good night.",
            "Until next time.",
        ]
    )
    slots = "{player}" if "player" in chat.slots and chat.rng.random() < 0.6 else "traveller"
    reply(
        chat,
        npc,
        [
            f"Farewell, {slots}.",
            f"Safe travels, {slots}.",
            f"Goodbye, {slots}. Beware of the {{monsters}}.",
            "May the road be kind to you.",
            f"Until next time, {slots}.",
            "Come back to {town} some day.",
        ],
    )
