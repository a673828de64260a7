"""Buying, selling and asking for prices."""

from __future__ import annotations

from .document import Chat
from .grammar import article, join
from .npc import Npc
from .roles import ROLES
from .talk import Known, reply

ASK_FOR = [
    "Do you sell {a:item}?",
    "How much is {a:item}?",
    "I need {a:item}.",
    "Can I buy {a:item} here?",
    "Do you have {a:item}?",
    "Give me {a:item}.",
]


def ask_stock(chat: Chat, npc: Npc, known: Known) -> None:
    chat.user(
        [
            "What do you sell?",
            "What do you have[ for sale|]?",
            "Show me your [wares|goods].",
            "What can I buy[ here|]?",
            "I want to buy something.",
            "Do you sell anything?",
            "What are you selling[ today|]?",
            "Can I see your goods?",
            "What have you got?",
            "I'd like to buy something.",
        ]
    )
    if not npc.stock:
        reply(
            chat,
            npc,
            [
                "I sell nothing. I am {a:role}, not a merchant.",
                "Nothing. I {does}. Try the market.",
                "I have nothing to sell, traveller.",
            ],
        )
        return
    chat.slots["stock"] = npc.stock_text()
    chat.slots["first"] = article(npc.stock[0][0])
    chat.slots["stock_only"] = join([article(item) for item, _ in npc.stock])
    facts = [item for item, _ in npc.stock] if "stock" in known else []
    if chat.rng.random() < 0.25:
        reply(
            chat,
            npc,
            [
                "I have {stock_only}. [Which one would you like?|What do you need?|]",
                "{Stock_only}. [Anything you like?|]",
            ],
            facts,
        )
    else:
        facts = facts + [str(price) for _, price in npc.stock] if facts else []
        reply(
            chat,
            npc,
            [
                "I sell {stock}.",
                "I have {stock}.",
                "Today I have {stock}.",
                "You can buy {stock}.",
                "Take a look: {stock}.",
                "{Stock}. [What would you like?|Good prices, all of it.|]",
            ],
            facts,
        )
        known.add("stock")


def ask_price(chat: Chat, npc: Npc, known: Known) -> None:
    if not npc.stock:
        ask_stock(chat, npc, known)
        return
    item, price = chat.rng.choice(npc.stock)
    chat.slots.update(item=item, price=str(price))
    chat.user(
        [
            "How much [is|for] the {item}?",
            "What does the {item} cost?",
            "How much does {a:item} cost?",
            "What is the price of the {item}?",
            "And the {item}?",
            "How much do you want for {a:item}?",
            "Price of the {item}?",
            "How much gold for the {item}?",
            "what do you want for the {item}",
            "Tell me the price of the {item}.",
        ]
    )
    reply(
        chat,
        npc,
        [
            "{price} gold.",
            "The {item} costs {price} gold.",
            "That will be {price} gold.",
            "{A:item} is {price} gold.",
            "For you, {price} gold.",
            "{price} gold for the {item}.",
            "I want {price} gold for it.",
        ],
        [str(price)] if "stock" in known else [],
    )
    draw = chat.rng.random()
    if draw < 0.35:
        buy(chat, npc, known, (item, price))
    elif draw < 0.6:
        haggle(chat, npc, (item, price))
    elif draw < 0.8:
        afford(chat, npc, (item, price))


def buy(chat: Chat, npc: Npc, known: Known, goods: tuple[str, int] | None = None) -> None:
    if not npc.stock:
        ask_stock(chat, npc, known)
        return
    told = goods is not None or "stock" in known
    item, price = goods or chat.rng.choice(npc.stock)
    chat.slots.update(item=item, price=str(price))
    chat.user(
        [
            "I'll take [it|the {item}].",
            "I will buy the {item}.",
            "Give me the {item}, please.",
            "I'd like the {item}.",
            "I want the {item}.",
            "Deal. I take the {item}.",
            "One {item}, please.",
            "Here is the gold for the {item}.",
        ]
        if goods
        else [
            "I'd like to buy {a:item}.",
            "I will buy the {item}.",
            "Give me {a:item}, please.",
            "I need {a:item}.",
            "One {item}, please.",
            "Can I buy {a:item}?",
            "I want to buy {a:item}.",
        ]
    )
    reply(
        chat,
        npc,
        [
            "That is {price} gold. Here is your {item}.",
            "{price} gold, please. [Enjoy your {item}.|Use it well.|Here you go.]",
            "Here is your {item}. That makes {price} gold.",
            "A good choice. The {item} is yours for {price} gold.",
            "Sold! {price} gold for the {item}.",
        ],
        [str(price), item] if told else [],
    )
    if chat.rng.random() < 0.3:
        chat.user(["What did I buy?", "What did I just buy?", "How much did I pay?", "What was the price again?"])
        asked = chat.messages[-1].content.lower()
        if "how much" in asked or "price" in asked:
            reply(chat, npc, ["You paid {price} gold.", "{price} gold for the {item}."], [str(price)])
        else:
            reply(chat, npc, ["{A:item}, for {price} gold.", "You bought {a:item}."], [item])


def buy_two(chat: Chat, npc: Npc, known: Known) -> None:
    if len(npc.stock) < 2 or "stock" not in known:
        ask_stock(chat, npc, known)
        return
    (one, x), (two, y) = chat.rng.sample(npc.stock, 2)
    chat.slots.update(one=one, two=two, x=str(x), y=str(y), sum=str(x + y))
    chat.user(
        [
            "I'll take the {one} and the {two}.",
            "How much for {a:one} and {a:two} together?",
            "Give me {a:one} and {a:two}.",
            "What do the {one} and the {two} cost together?",
            "I want both {a:one} and {a:two}.",
        ]
    )
    reply(
        chat,
        npc,
        [
            "The {one} is {x} gold and the {two} is {y} gold. Together that is {sum} gold.",
            "{x} plus {y}, that makes {sum} gold.",
            "{x} gold and {y} gold: {sum} gold together.",
        ],
        [str(x), str(y), str(x + y)],
    )


def afford(chat: Chat, npc: Npc, goods: tuple[str, int]) -> None:
    item, price = goods
    purse = max(1, price + chat.rng.randint(-12, 15))
    chat.slots.update(item=item, price=str(price), purse=str(purse), rest=str(abs(purse - price)))
    chat.user(
        [
            "I [only |]have {purse} gold.",
            "I have {purse} gold. Is that enough?",
            "Can I buy it with {purse} gold?",
            "Are {purse} gold enough?",
        ]
    )
    if purse > price:
        reply(
            chat,
            npc,
            [
                "{purse} gold is enough. You get {rest} gold back.",
                "That is enough. You keep {rest} gold.",
                "Yes, {rest} gold will be left.",
            ],
            [str(purse - price)],
        )
    elif purse == price:
        reply(chat, npc, ["That is exactly enough.", "Exactly the right price."])
    else:
        reply(
            chat,
            npc,
            [
                "Then you need {rest} more gold.",
                "The {item} costs {price} gold. You are {rest} gold short.",
                "No, {rest} gold are missing.",
            ],
            [str(price - purse)],
        )


def haggle(chat: Chat, npc: Npc, goods: tuple[str, int]) -> None:
    item, price = goods
    offer = max(1, price - chat.rng.randint(1, max(1, price // 3)))
    chat.slots.update(item=item, price=str(price), offer=str(offer))
    chat.user(
        [
            "That is too much. I offer {offer} gold.",
            "I give you {offer} gold.",
            "How about {offer} gold?",
            "Too expensive! {offer} gold?",
            "{offer} gold and we have a deal.",
        ]
    )
    if npc.mood in ("cheerful", "kind", "shy", "friendly", "nervous", "tired"):
        reply(
            chat,
            npc,
            [
                "All right, {offer} gold. The {item} is yours.",
                "Because it is you: {offer} gold.",
                "Fine, {offer} gold. Deal.",
            ],
            [str(offer)],
        )
        chat.slots["price"] = str(offer)
    else:
        reply(
            chat,
            npc,
            [
                "No. {price} gold, not a coin less.",
                "The price is {price} gold.",
                "{offer} gold? You must be joking. {price} gold.",
                "No deal. The {item} costs {price} gold.",
            ],
            [str(price)],
        )


def not_sold(chat: Chat, npc: Npc, known: Known) -> None:
    rng = chat.rng
    own = {item for item, _, _ in npc.role.wares}
    sold_out = sorted(own - {item for item, _ in npc.stock})
    if "stock" in known and sold_out and rng.random() < 0.5:
        chat.slots.update(item=rng.choice(sold_out), mine=article(rng.choice(npc.stock)[0]))
        chat.user(ASK_FOR)
        reply(
            chat,
            npc,
            [
                "No, I have no {item} today. I have {mine}.",
                "Sorry, no {item}. How about {mine}?",
                "No {item} left. I can offer you {mine}.",
            ],
        )
        return
    while True:
        other = rng.choice([role for role in ROLES if role.wares])
        item = rng.choice(other.wares)[0]
        if item not in own:
            break
    chat.slots.update(item=item, seller=other.title)
    chat.user(ASK_FOR)
    if npc.stock:
        chat.slots["mine"] = article(rng.choice(npc.stock)[0]) if "stock" in known else "other things"
        reply(
            chat,
            npc,
            [
                "I do not sell that. Try the {seller}.",
                "No, I have no {item}. I can offer you {mine}.",
                "Sorry, {a:item} is nothing for {a:role} to sell. Ask the {seller}.",
                "No {item} here. I have {mine}.",
            ],
        )
    else:
        reply(
            chat,
            npc,
            ["I sell nothing. Ask the {seller}.", "I am {a:role}, not {a:seller}.", "You need the {seller} for that."],
        )


def do_you_sell(chat: Chat, npc: Npc, known: Known) -> None:
    if not npc.stock:
        not_sold(chat, npc, known)
        return
    item, price = chat.rng.choice(npc.stock)
    chat.slots.update(item=item, price=str(price))
    chat.user(
        [
            "Do you sell {a:item}?",
            "Do you have {a:item}?",
            "Have you got {a:item}?",
            "I am looking for {a:item}.",
            "Is there {a:item} for sale?",
        ]
    )
    reply(
        chat,
        npc,
        [
            "Yes, {a:item} for {price} gold.",
            "I do. {price} gold.",
            "Yes, the {item} costs {price} gold.",
            "Of course. {A:item} is {price} gold.",
        ],
        [str(price)] if "stock" in known else [],
    )


def service(chat: Chat, npc: Npc, known: Known) -> None:
    if npc.service is None:
        do_you_sell(chat, npc, known)
        return
    what, price = npc.service
    chat.slots.update(service=_for_player(what), price=str(price), offer=what)
    asks = {
        "innkeeper": [
            "Do you have a room[ for the night|]?",
            "I need a bed.",
            "How much is a room?",
            "Can I sleep here[ tonight|]?",
            "I need a place to sleep.",
        ],
        "healer": ["I am wounded.", "Can you heal me?", "I'm hurt. Can you help?", "What does healing cost?"],
    }
    chat.user(
        asks.get(
            npc.role.title,
            ["Can you {service}?", "Could you {service}?", "How much to {service}?", "What does it cost to {service}?"],
        )
    )
    reply(
        chat,
        npc,
        [
            "Yes, I can {offer} for {price} gold.",
            "I can {offer}. It costs {price} gold.",
            "{price} gold, and it is done.",
            "Of course. That is {price} gold.",
        ],
        [str(price)] if "service" in known else [],
    )
    if chat.rng.random() < 0.6:
        chat.user(["Yes, please.", "Do it.", "All right, here is the gold.", "Deal.", "That is fine.", "Here you are."])
        done = {
            "innkeeper": [
                "Here is the key. [Upstairs, second door.|The room is at the end of the hall.] Sleep well.",
                "Your room is ready. Breakfast is at sunrise.",
            ],
            "healer": ["Hold still. There, it will be better tomorrow.", "Done. Now rest and drink water."],
        }
        reply(
            chat,
            npc,
            done.get(
                npc.role.title,
                [
                    "Very well. [Give me a moment.|It will not take long.|There, all done.]",
                    "Thank you. [Let us begin.|Right away.]",
                ],
            ),
        )


def _for_player(what: str) -> str:
    return what.replace("your", "my").replace(" you", " me")


def sell(chat: Chat, npc: Npc, known: Known) -> None:
    rng = chat.rng
    fits = rng.random() < 0.5
    thing = rng.choice(npc.role.needs if fits else rng.choice([r for r in ROLES if r is not npc.role]).needs)
    if thing in npc.role.needs:
        fits = True
    amount = rng.choice(["two", "three", "four", "five", "six"])
    chat.slots.update(thing=thing, amount=amount, pay=str(rng.randint(2, 30)))
    chat.user(
        [
            "Do you buy {thing}?",
            "I want to sell {amount} {thing}.",
            "I have {amount} {thing}. Are you interested?",
            "How much for my {amount} {thing}?",
        ]
    )
    if fits:
        reply(
            chat,
            npc,
            [
                "I can use {thing}. I give you {pay} gold.",
                "{Thing}? Just what I need. {pay} gold.",
                "Yes! {pay} gold for your {thing}.",
            ],
        )
    else:
        reply(
            chat,
            npc,
            [
                "What should {a:role} do with {thing}? No, thank you.",
                "I have no use for {thing}.",
                "I don't buy {thing}. Try the market.",
            ],
        )


SUBJECTS = [
    (ask_stock, 9),
    (ask_price, 10),
    (buy, 7),
    (buy_two, 4),
    (not_sold, 5),
    (do_you_sell, 4),
    (service, 4),
    (sell, 3),
]
