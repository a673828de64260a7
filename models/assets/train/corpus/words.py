"""Slot vocabularies: names, places, creatures, things. Data, and the few functions that draw it."""

from __future__ import annotations

import random


def words(text: str) -> list[str]:
    """The `;`-separated entries of `text`."""
    return [" ".join(entry.split()) for entry in text.split(";") if entry.strip()]


WOMEN = """Mira Elsa Anya Brenna Tilda Rosa Ivy Hazel Nora Greta Lena Maud Sela Wren Ysolde Freya Ada
Clara Dora Edith Fern Gilda Helga Inga Juna Kara Lila Marta Nell Olga Petra Runa Sigrid Thea Una Vera
Willa Zara Alba Bess Celia Daisy Ella Flora Gwen Hilda Iris Jana Kira Luna Mabel Nina Opal Pearl Ruth
Sofia Talia Ursa Viola Wanda Yara Zelda Agnes Beata Corin Delia Esme Lucy Emma Alice Sarah""".split()
MEN = """Bram Tom Odo Garrick Finn Jory Hal Rolf Edric Tobin Aldo Borin Cedric Doran Egon Falk Gunnar
Hugo Ivo Jasper Karl Leif Milo Nils Oscar Piers Quinn Rufus Sten Tarn Ulf Viktor Wilf Yorick Zane Alaric
Barnaby Conrad Dunstan Emil Felix Gareth Harald Ingo Jonas Kurt Lars Magnus Ned Otto Percy Ralf Simon
Theo Uther Vance Walter Anton Bastian Corwin Dirk Ewan Fergus Max Ben Sam Jack Peter""".split()

_ONSET = "b br d dr f g gr h j k kr l m n p r s st t th tr v w z sh gl".split()
_VOWEL = "a e i o u a e i o ae ia".split()
_CODA = "n r l s th k m nd rn sk x d lf ss ".split(" ")

TOWN_HEAD = """Oak Raven Stone Mill Silver Wolf Ash Thorn Green Frost Elder Amber Bright Crow Deep Eagle
Fair Gold Hawk Iron King Lake Moss North Otter Pine Red Salt Swan Willow Winter Black White Bear Fox
Heather Maple River Storm Sun""".split()
TOWN_TAIL = """hollow ford bridge haven wick field dale brook gate watch well moor port stead ton vale crest
mere cliff wood""".split()

INN_HEAD = """Golden Silver Laughing Sleeping Drunken Dancing Red Green Blue Lucky Old Merry Prancing Rusty
Crooked Singing Broken Black White Weary Happy Hungry""".split()
INN_TAIL = """Goose Dragon Lion Pony Barrel Kettle Lantern Stag Fox Rooster Mermaid Crown Boar Bear Goblin
Wheel Anchor Owl Cat Unicorn Traveller Giant Badger Hound""".split()

WILD_HEAD = """Whispering Misty Dark Old Silent Frozen Golden Hollow Crooked Shadow Moonlit Broken Forgotten
Thunder Weeping Sunken Burning Emerald Grey Howling Lonely Red Winding Starlit""".split()
WILD_TAIL = """Wood Forest Hills Marsh Caves Ruins Valley Lake Tower Mines Cliffs Pass Swamp Crypt Falls
Bridge Moor Temple Glade Canyon Shore Peak Island""".split()

MONSTERS = words("""wolves; goblins; giant spiders; bandits; skeletons; giant rats; trolls; wild boars; ghosts;
harpies; ogres; snow bears; bog witches; fire beetles; kobolds; gargoyles; sea serpents; imps; wraiths;
cave bats; lizard men; stone golems""")

TREASURES = words("""silver ring; golden crown; old map; magic lantern; blue gem; wooden flute; lost book; red
cloak; glass key; little bell; bronze compass; pearl necklace; iron key; music box; star stone; dragon egg;
crystal ball; silver whistle; moon flower; family sword; painted shield; copper coin; seashell; golden feather;
velvet bag; clay pot; hourglass; silver mirror; emerald brooch; lucky horseshoe""")

COLOURS = "red blue green golden silver white black purple grey yellow brown orange pink".split()

LANDMARKS = words("""the well; the old oak; the market; the bridge; the temple; the mill; the town hall; the
statue; the fountain; the bakery; the stables; the watchtower; the harbour; the school; the graveyard; the
east gate; the west gate; the north gate; the south gate; the smithy; the tannery; the granary""")

DESTINATIONS = words("""the inn; the forge; the market; the temple; the library; the docks; the castle; the
mill; the healer; the barracks; the stables; the guild hall; the bank; the tavern; the wizard's tower; the
bakery; the arena; the town hall; the graveyard; the general store; the bridge; the mine; the tailor; the prison""")

MOODS = words("cheerful; grumpy; shy; mysterious; proud; tired; kind; nervous; wise; blunt; friendly; gloomy")

OUTSIDE = words("""the internet; computers; Paris; London; New York; football; quantum physics; Python; JavaScript;
Rust; the stock market; electric cars; aeroplanes; television; the president; America; Germany; France; Japan; China;
India; Africa; Einstein; Shakespeare; Napoleon; the second world war; democracy; chemistry; algebra; calculus;
photosynthesis; DNA; vaccines; the human brain; black holes; Mars; the moon landing; climate change; bitcoin;
machine learning; neural networks; the Olympic Games; basketball; tennis; Mozart; jazz; movies; Star Wars; pizza;
sushi; spaghetti; coffee machines; smartphones; social media; email; robots; satellites; nuclear power; the Roman
Empire; ancient Egypt; the pyramids; dinosaurs; evolution; gravity; electricity; steam engines; the periodic table;
taxes; insurance; law; medicine; cancer; psychology; philosophy; Plato; economics; inflation; the United Nations;
London Bridge; the Eiffel Tower; Brazil; Canada; Australia; Spain; Italy; Russia; the Pacific Ocean; Mount Everest;
databases; operating systems; graphics cards; video games; chess; poker; yoga; fashion; photography; cooking; skiing;
the news; elections; the weather in Berlin; time zones; Korean; Spanish; Latin; statistics; geometry; astronomy""")

COUNTRIES = words("""France; Germany; Spain; Italy; Japan; China; India; Brazil; Canada; Australia; Egypt; Norway;
Sweden; Poland; Greece; Turkey; Mexico; Peru; Kenya; Russia; Portugal; the United States; Finland; Ireland; Korea""")


def invented_name(rng: random.Random) -> str:
    """A name put together from syllables, so that names have to be copied rather than known."""
    name = ""
    for _ in range(2 if rng.random() < 0.75 else 3):
        name += rng.choice(_ONSET) + rng.choice(_VOWEL)
    return (name + rng.choice(_CODA)).capitalize()


def person(rng: random.Random) -> tuple[str, str]:
    """A first name and the sex (`f` or `m`) that its pronouns follow."""
    sex = "f" if rng.random() < 0.5 else "m"
    if rng.random() < 0.15:
        return invented_name(rng), sex
    return rng.choice(WOMEN if sex == "f" else MEN), sex


def town(rng: random.Random) -> str:
    """A town name."""
    if rng.random() < 0.08:
        return invented_name(rng)
    while True:
        head, tail = rng.choice(TOWN_HEAD), rng.choice(TOWN_TAIL)
        if head.lower() != tail:
            return head + tail


def inn(rng: random.Random) -> str:
    """An inn's name with its article, as in `the Golden Goose`."""
    return f"the {rng.choice(INN_HEAD)} {rng.choice(INN_TAIL)}"


def wild(rng: random.Random) -> str:
    """A wild place with its article, as in `the Misty Hills`."""
    return f"the {rng.choice(WILD_HEAD)} {rng.choice(WILD_TAIL)}"


def pronouns(sex: str) -> dict[str, str]:
    """Pronoun slots (`he`, `him`, `his`, `himself`) for `f`, `m` or `n`."""
    they, them, their, own = {
        "f": ("she", "her", "her", "herself"),
        "m": ("he", "him", "his", "himself"),
        "n": ("it", "it", "its", "itself"),
    }[sex]
    return {"he": they, "him": them, "his": their, "himself": own}
