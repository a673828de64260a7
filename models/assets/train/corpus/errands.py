"""Quests: asking for one, its reward, taking it, coming back."""

from __future__ import annotations

from .document import Chat
from .npc import Npc
from .talk import Known, reply


def ask_quest(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "[Do you have|Have you got|Is there] any work[ for me|]?",
            "Do you need help[ with anything|]?",
            "Can I help you[ with something|]?",
            "I am looking for work.",
            "Any quests?",
            "Do you have a quest for me?",
            "I need gold. Any jobs?",
            "Is there something I can do for you?",
            "How can I earn some gold?",
            "Give me a quest.",
            "I'm looking for adventure.",
        ]
    )
    task = npc.task
    told = [npc.quest_key] if "quest" in known else []
    reply(
        chat,
        npc,
        [
            "Yes. Please {task}. I will pay you {reward} gold.",
            "I need someone to {task}. The reward is {reward} gold.",
            "If you {task}, I will give you {reward} gold.",
            "There is something. Could you {task}? You will get {reward} gold.",
            "You look brave. {Task}, and {reward} gold are yours.",
            "Actually, yes: {task}. I can offer {reward} gold.",
        ],
        told + [npc.reward] if told else [],
    )
    known.add("quest")
    chat.slots["task"] = task
    following = chat.rng.random()
    if following < 0.3:
        chat.user(["[Why|What for|How come]?", "Why do you need that?", "Why me?", "Why don't you do it yourself?"])
        reply(
            chat,
            npc,
            [
                "I am too old for such things.",
                "I cannot leave {place}.",
                "My {relation} {relative} is ill and I must stay.",
                "Because nobody else dares to go to {quest_place}.",
                "I am {a:role}, not a hero.",
                "I have tried and failed. {saying}",
            ],
        )
    if 0.2 < following < 0.55:
        ask_reward(chat, npc, known)
    if 0.1 < following < 0.75:
        accept_quest(chat, npc, known)


def ask_reward(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "[What is|And what's] the reward?",
            "How much will you pay[ me|]?",
            "What do I get[ for it|]?",
            "What's in it for me?",
            "How much gold do I get?",
            "What was the reward again?",
            "How much was the reward?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "{reward} gold.",
            "I will pay {reward} gold.",
            "The reward is {reward} gold, [not a coin less|not a coin more|paid when it is done].",
            "{reward} gold when the work is done.",
            "You will get {reward} gold[ and my thanks|].",
        ],
        [npc.reward] if "quest" in known else [],
    )
    known.add("reward")


def accept_quest(chat: Chat, npc: Npc, known: Known) -> None:
    if chat.rng.random() < 0.25:
        chat.user(
            [
                "No, [thanks|thank you|not today|that is too dangerous].",
                "I can't do that.",
                "That is not enough gold.",
                "Find someone else.",
                "Maybe later.",
            ]
        )
        reply(
            chat,
            npc,
            [
                "[A pity|Too bad|As you wish]. Come back if you change your mind.",
                "I understand. It is dangerous.",
                "Then I will ask someone else.",
                "Think about it. The {reward} gold will wait for you.",
            ],
        )
        return
    chat.user(
        [
            "[I'll|I will] do it[!|.]",
            "I accept[!|.]",
            "Consider it done.",
            "Deal.",
            "Yes, I will help you.",
            "Count me in!",
            "Leave it to me.",
            "ok, I'll do it",
            "All right, I'll help you.",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Thank you! Be careful in {quest_place}.",
            "Good luck, traveller. {Quest_place} is dangerous.",
            "Wonderful. Come back to {place} when it is done.",
            "I knew I could count on you. {saying}",
            "Thank you. The {reward} gold will be waiting for you.",
        ],
    )
    if chat.rng.random() < 0.5:
        chat.user(
            ["Where do I have to go[ again|]?", "Where is that again?", "Which place was it?", "Where should I go?"]
        )
        reply(
            chat,
            npc,
            [
                "To {quest_place}.",
                "You have to go to {quest_place}.",
                "{Quest_place}. [Go carefully.|Take a torch.|Do not go at night.|]",
            ],
            npc.quest_place.split()[1:],
        )
    if chat.rng.random() < 0.4:
        chat.user(
            [
                "What do you want me to do again?",
                "Remind me, what is the task?",
                "What was I supposed to do?",
                "Sorry, what must I do?",
                "Repeat the quest, please.",
            ]
        )
        reply(chat, npc, ["Please {task}.", "{Task}. That is all.", "As I said: {task}."], [npc.quest_key])


def finish_quest(chat: Chat, npc: Npc, known: Known) -> None:
    if "quest" not in known:
        ask_quest(chat, npc, known)
    chat.user(
        [
            "It is done.",
            "I did what you asked[ for|].",
            "I'm back. It's done.",
            "The work is done.",
            "I have done it!",
            "I come for my reward.",
            "The quest is done. Where is my gold?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Wonderful! Here are your {reward} gold.",
            "You did it! Take these {reward} gold, you have earned them.",
            "Thank you, hero. As promised: {reward} gold.",
            "I can hardly believe it. {reward} gold, as we agreed.",
        ],
        [npc.reward],
    )
