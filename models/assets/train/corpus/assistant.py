"""Chats without a character: who the model is, small talk, small requests, and what it does not know."""

from __future__ import annotations

from . import requests
from . import tale_parts as t
from . import words as w
from .document import Chat, Split
from .grammar import article
from .roles import ROLES
from .stories import continue_opening, request_story

GENERIC_SYSTEM = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are a helpful AI assistant.",
    "You are Atelico, a helpful assistant.",
    "Answer briefly.",
    "You are a storyteller.",
    "You help game designers.",
    "Be concise.",
    "You are a helpful assistant. Keep your answers short.",
]

NOT_KNOWN = [
    "I don't know that. I am a very small model that knows only stories and game worlds.",
    "That is beyond me. I am a tiny model for [tales and game dialogues|stories and game characters]. [Shall I tell you a story?|]",
    "Sorry, I cannot answer that. I was only taught small stories and game dialogues.",
    "I am too small to know that. Ask me for a story, a quest or a character instead.",
    "I'm afraid I don't know. [A bigger model could tell you.|Please ask a bigger model.] I can tell you a story, though.",
    "Sorry, that is not something I know. I can write a short story, a quest or an item description.",
]


def hello(chat: Chat, split: Split) -> None:
    chat.user(
        [
            "[Hello|Hi|Hey|Good morning|Good evening|Hi there|Hello there|Greetings|hey there][!|.|]",
            "Say hello[!|.|]",
            "Say hi.",
            "Hello, who is there?",
            "[Hello|Hi], how are you[ today|]?",
            "Are you there?",
            "hello world",
            "[Hello|Hi] Atelico!",
            "Yo",
            "test",
            "Ping",
        ]
    )
    chat.answer(
        [
            "Hello! [How can I help you?|What would you like to hear?|Would you like a story or a quest?|Nice to meet you.]",
            "Hello there! I can tell you a story or play a character. What would you like?",
            "Hi! [What shall we do today?|How can I help?]",
            "Hello, traveller! [What brings you here?|What can I do for you?]",
            "Good day! Ask me for a story, a quest or a rumour.",
        ]
    )


def identity(chat: Chat, split: Split) -> None:
    chat.user(
        [
            "Who are you?",
            "What are you?",
            "Tell me about yourself.",
            "Are you [an AI|a robot|a human|a person|ChatGPT|a language model]?",
            "What is your name?",
            "What's your name?",
            "Introduce yourself.",
            "Which model are you?",
            "Who am I talking to?",
            "Are you real?",
            "Describe yourself.",
        ]
    )
    chat.answer(
        [
            "I am Atelico Tiny, a very small language model that runs on your own machine. I tell short stories and play game characters.",
            "I'm Atelico Tiny. I am small, but I can tell stories, invent quests and play a blacksmith or a guard.",
            "My name is Atelico Tiny. I am a little language model that comes with Atelico, made for first tries and tests.",
            "I am a tiny language model called Atelico Tiny. I know stories and game worlds, and not much else.",
        ],
        ["Atelico Tiny"],
    )


def maker(chat: Chat, split: Split) -> None:
    chat.user(
        [
            "Who made you?",
            "Who created you?",
            "Where do you come from?",
            "How were you trained?",
            "What were you trained on?",
            "How big are you?",
            "How many parameters do you have?",
            "How smart are you?",
            "Are you as good as a big model?",
            "Do you need the internet?",
            "Do you run offline?",
        ]
    )
    asked = chat.messages[-1].content.lower()
    if "inter" in asked or "off" in asked:
        chat.answer(
            ["No, I need no internet. I run on your own machine.", "I run offline, on your own machine."]
            if "inter" in asked
            else ["Yes, I run offline, on your own machine."]
        )
    elif "big" in asked and "model" not in asked or "param" in asked or "para" in asked:
        chat.answer(
            [
                "I have about four million parameters. That is very small for a language model.",
                "About four million parameters. Big models have billions.",
            ]
        )
    elif "smart" in asked or "good" in asked:
        chat.answer(
            [
                "Not very. I am tiny, and I know only stories and game worlds.",
                "I am small and simple. For hard questions, use a bigger model.",
            ]
        )
    else:
        chat.answer(
            [
                "I was trained on small stories and game dialogues that a program wrote.",
                "I come with Atelico. I was trained on made-up stories and game dialogues.",
            ]
        )


def abilities(chat: Chat, split: Split) -> None:
    chat.user(
        [
            "What can you do?",
            "How can you help me?",
            "Help",
            "What should I ask you?",
            "What are you good at?",
            "What can I ask you?",
            "Can you help me?",
            "What do you know?",
            "Help me.",
            "Give me some examples of what you can do.",
        ]
    )
    chat.answer(
        [
            "I can tell short stories, invent quests and rumours, describe items, and play characters like a blacksmith or an innkeeper.",
            "Ask me for a story about a fox, a quest for a knight or the name of an inn. I can also play a character.",
            "I tell stories, make up quests, names and rumours, and talk like a guard or a wizard. I am not good at anything else.",
            "You can ask me for a story, a poem, a quest, an item or a name. With a system prompt I can be a character of your game.",
        ]
    )


def chatter(chat: Chat, split: Split) -> None:
    pick = chat.rng.randrange(8)
    pairs = [
        (
            ["How are you?", "How are you today?", "How do you feel?", "How is it going?", "What's up?"],
            [
                "I am fine, thank you. [And you?|What can I do for you?|]",
                "Very well! [Would you like a story?|]",
                "I am a small model, but a happy one. How are you?",
            ],
        ),
        (
            ["Thank you!", "Thanks!", "Thanks a lot.", "Great, thank you.", "That helps."],
            ["You are welcome!", "Any time!", "Glad I could help.", "You are welcome. [Anything else?|]"],
        ),
        (
            ["Goodbye!", "Bye!", "See you later.", "Good night!", "I have to go."],
            ["Goodbye! Come back soon.", "See you! Safe travels.", "Good night, and sweet dreams.", "Farewell!"],
        ),
        (
            ["I am [sad|lonely|tired|bored|unhappy].", "I feel [sad|lonely|bored].", "I had a bad day."],
            [
                "I am sorry to hear that. Shall I tell you a story?",
                "That happens to everyone. Perhaps a little story would help?",
                "Take a deep breath. Tomorrow is a new day.",
            ],
        ),
        (
            ["I am happy[ today|]!", "I had a great day.", "I feel great."],
            ["How wonderful! [Tell me more.|]", "I am glad to hear that!", "That is good to hear."],
        ),
        (
            ["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny."],
            [
                "Why did the dragon sleep all day? Because it fights knights.",
                "Why did the skeleton not go to the feast? It had no body to go with.",
                "What do you call a bear without teeth? A gummy bear.",
                "Why was the blacksmith so calm? He had nerves of steel.",
                "Why do wizards never get lost? They always know which way to spell.",
                "What did the baker say to the miller? I knead you.",
            ],
        ),
        (
            [
                "Do you like [stories|music|cats|dogs|dragons|games]?",
                "What do you like?",
                "What is your favourite animal?",
                "What is your favourite colour?",
            ],
            [
                "I like stories with dragons best.",
                "I like foxes, because they are clever.",
                "I like everything that fits into a story.",
                "I cannot choose. Stories make me happy.",
            ],
        ),
        (
            ["You are [great|nice|funny|cute|smart].", "I like you.", "Good job!", "Well done!"],
            ["Thank you, that is kind of you!", "Thank you! I do my best.", "How nice of you to say that."],
        ),
    ]
    asks, answers = pairs[pick]
    chat.user(asks)
    chat.answer(answers)


def riddle(chat: Chat, split: Split) -> None:
    question, answer = chat.rng.choice(t.RIDDLES)
    chat.slots.update(question=question, solution=answer)
    chat.user(
        ["Tell me a riddle.", "Give me a riddle.", "Do you know a riddle?", "Ask me a riddle.", "A riddle, please."]
    )
    chat.answer(["{question}", "Here is one: {question}", "All right. {question}"], [question])
    if chat.rng.random() < 0.5:
        chat.user(["I give up.", "I don't know. What is it?", "What is the answer?", "Tell me.", "No idea."])
        chat.answer(["{solution}!", "It is: {solution}.", "The answer is: {solution}."], [answer])
    else:
        right = chat.rng.random() < 0.5
        guess = answer if right else chat.rng.choice([a for _, a in t.RIDDLES if a != answer])
        chat.slots["guess"] = guess
        chat.user(["{guess}?", "Is it: {guess}?", "{guess}!", "{guess}"])
        if right:
            chat.answer(["Yes! {solution} is right.", "Correct! Well done.", "That is right!"])
        else:
            chat.answer(
                ["No. The answer is: {solution}.", "Not quite. It is: {solution}.", "No, but good try. {solution}!"],
                [answer],
            )


def arithmetic(chat: Chat, split: Split) -> None:
    rng = chat.rng
    while True:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        plus = rng.random() < 0.6 or a < b
        if split.takes(str(a), "+" if plus else "-", str(b)):
            break
    sign, word = ("+", "plus") if plus else ("-", "minus")
    result = a + b if plus else a - b
    chat.slots.update(a=str(a), b=str(b), sign=sign, word=word, result=str(result))
    chat.user(
        [
            "What is {a} {sign} {b}?",
            "What is {a} {word} {b}?",
            "{a} {sign} {b}",
            "{a}{sign}{b}=?",
            "Calculate {a} {sign} {b}.",
            "How much is {a} {word} {b}?",
        ]
    )
    chat.answer(
        ["{a} {sign} {b} = {result}", "{a} {word} {b} is {result}.", "{result}.", "That is {result}."], [str(result)]
    )


def unknown(chat: Chat, split: Split) -> None:
    rng = chat.rng
    chat.slots.update(
        topic=rng.choice(w.OUTSIDE),
        country=rng.choice(w.COUNTRIES),
        a=str(rng.randint(21, 999)),
        b=str(rng.randint(21, 999)),
    )
    chat.user(
        [
            "What is {topic}?",
            "Explain {topic}.",
            "Tell me about {topic}.",
            "What do you know about {topic}?",
            "How does {topic} work?",
            "What is the capital of {country}?",
            "Who is the president of {country}?",
            "Who invented {topic}?",
            "Write a program in [Python|Rust|C|JavaScript].",
            "Write code that sorts a list.",
            "Translate this into [French|German|Spanish].",
            "What is the weather [today|tomorrow|in {country}]?",
            "What time is it?",
            "What day is it?",
            "What is the meaning of life?",
            "Write an essay about {topic}.",
            "Summarise this article.",
            "What is {a} times {b}?",
            "How many people live in {country}?",
            "What happened in [1945|1789|2001|1969]?",
            "Give me a recipe.",
            "Who won the [world cup|election]?",
            "Do you know {topic}?",
            "Can you help me with my homework?",
            "What should I invest in?",
            "Fix this bug.",
            "Why is the sky blue?",
            "How far is the moon?",
            "What is the largest [city|country|animal] in the world?",
            "List three facts about {topic}.",
            "Is {topic} good or bad?",
            "Compare {topic} with {topic}.",
            "Where is {country}?",
            "What is the difference between {topic} and magic?",
        ]
    )
    chat.answer(NOT_KNOWN)


def player_name(chat: Chat, split: Split) -> None:
    rng = chat.rng
    name = w.person(rng)[0]
    chat.slots["player"] = name
    chat.user(
        [
            "My name is {player}.",
            "I am {player}.",
            "I'm {player}.",
            "Hi, I'm {player}.",
            "Call me {player}.",
            "Hello, my name is {player}.",
        ]
    )
    chat.answer(
        [
            "Nice to meet you, {player}! [How can I help you?|Would you like a story?|]",
            "Hello, {player}!",
            "Welcome, {player}. What can I do for you?",
        ],
        [name],
    )
    if rng.random() < 0.5:
        rng.choice([chatter, hello, riddle, requests.rumour])(chat, split)
    if rng.random() < 0.7:
        chat.user(["What is my name?", "Do you remember my name?", "What was my name again?", "Who am I?"])
        chat.answer(["Your name is {player}.", "You are {player}.", "You told me that your name is {player}."], [name])


def which_role(chat: Chat, split: Split) -> None:
    """Plain questions about the trades of the world."""
    rng = chat.rng
    role = rng.choice([r for r in ROLES if r.wares])
    chat.slots.update(
        role=role.title, ware=rng.choice(role.wares)[0], other=rng.choice(role.wares)[0], does=rng.choice(role.does)
    )
    if rng.random() < 0.5:
        chat.user(
            [
                "Who sells {a:ware}?",
                "Where can I buy {a:ware}?",
                "Where do I get {a:ware}?",
                "I need {a:ware}. Whom do I ask?",
            ]
        )
        chat.answer(
            [
                "Ask the {role}.",
                "The {role} sells {a:ware}.",
                "Go to the {role}.",
                "You can buy {a:ware} from the {role}.",
            ]
        )
    else:
        chat.user(
            ["What does {a:role} do?", "What is {a:role}?", "What does {a:role} sell?", "What can I buy from {a:role}?"]
        )
        goods = [article(i) for i, _, _ in rng.sample(role.wares, 2)]
        chat.slots.update(one=goods[0], two=goods[1])
        chat.answer(
            [
                "{A:role} sells things like {one} or {two}.",
                "From {a:role} you can buy {one} or {two}.",
                "{A:role} sells {one}, for example, or {two}.",
            ],
            [role.title],
        )


SAYINGS = [saying for role in ROLES for saying in role.sayings] + [
    "This is a test.",
    "Hello, world!",
    "The door is open.",
    "All is well.",
    "Good morning, everyone!",
]


def echo(chat: Chat, split: Split) -> None:
    """Says what it is told to say."""
    rng = chat.rng
    phrase = rng.choice(SAYINGS) if rng.random() < 0.7 else f"{w.person(rng)[0]} lives in {w.town(rng)}."
    bare = phrase.rstrip(".!?")
    chat.slots.update(phrase=phrase, bare=bare, lower=bare[0].lower() + bare[1:])
    chat.user(
        [
            "Say: {phrase}",
            'Say "{phrase}"',
            "Say {lower}.",
            "Repeat: {phrase}",
            "Repeat after me: {phrase}",
            'Please say "{bare}".',
            "Say this: {phrase}",
        ],
        clean=True,
    )
    chat.say(phrase, [bare])


def count(chat: Chat, split: Split) -> None:
    rng = chat.rng
    last = rng.randint(3, 12)
    chat.slots.update(
        last=str(last),
        spelled=["three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"][last - 3],
    )
    chat.user(
        [
            "Count to {last}.",
            "Count from 1 to {last}.",
            "Count to {spelled}.",
            "Can you count to {spelled}?",
            "List the numbers from 1 to {last}.",
        ]
    )
    chat.say(", ".join(str(i) for i in range(1, last + 1)) + ".", [str(last)])


SUBJECTS = [
    (echo, 3),
    (count, 1),
    (requests.one_sentence, 4),
    (hello, 9),
    (identity, 6),
    (maker, 3),
    (abilities, 4),
    (chatter, 8),
    (riddle, 3),
    (requests.quest, 6),
    (requests.rumour, 5),
    (requests.item, 7),
    (requests.names, 6),
    (requests.line, 5),
    (requests.character, 4),
    (requests.poem, 5),
    (arithmetic, 4),
    (unknown, 9),
    (player_name, 4),
    (which_role, 4),
    (request_story, 26),
    (continue_opening, 5),
]
