"""What each kind of character does, sells, needs and says. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from .words import words


@dataclass(frozen=True)
class Role:
    """One trade: wares are `(item, lowest price, highest price)` in gold."""

    title: str
    workplaces: list[str]
    does: list[str]
    sayings: list[str]
    needs: list[str]
    wares: list[tuple[str, int, int]] = field(default_factory=list)
    service: tuple[str, int, int] | None = None


def wares(text: str) -> list[tuple[str, int, int]]:
    """Parses `item low-high; …`."""
    out = []
    for entry in words(text):
        item, _, span = entry.rpartition(" ")
        low, _, high = span.partition("-")
        out.append((item, int(low), int(high)))
    return out


ROLES = [
    Role(
        "blacksmith",
        words("the forge; the smithy; the forge by the river; the smithy near the gate; my forge"),
        words("""forge swords and mend ploughs; shape iron into blades; make armour and horseshoes; hammer steel from
        dawn to dusk; mend shields and sharpen blades"""),
        words("""Good steel needs patience.; A dull blade is worse than no blade.; The hotter the fire, the better the
        sword.; Every hammer blow must count.; Iron never lies.; My father taught me this trade."""),
        words(
            """iron ore; coal; wolf hides; silver nuggets; oak handles; dragon scales; old horseshoes; copper bars"""
        ),
        wares("""iron sword 20-45; steel sword 40-80; iron dagger 8-18; wooden shield 10-20; iron shield 18-35;
        battle axe 30-60; iron helmet 15-30; chain mail 50-95; horseshoe 2-5; war hammer 35-65; spear 12-25;
        hunting knife 5-12; steel helmet 25-45; leather gloves 4-9; silver dagger 30-55; bag of nails 1-4"""),
        ("sharpen a blade", 2, 8),
    ),
    Role(
        "innkeeper",
        words("the inn; the common room; the bar of the inn"),
        words("""pour ale and rent rooms; keep the beds warm and the soup hot; run the inn; cook stew and listen to
        travellers"""),
        words("""A warm meal mends a broken heart.; Everyone is welcome by my fire.; Travellers bring the best stories.;
        Never argue on an empty stomach.; The soup is better than yesterday."""),
        words(
            """barrels of ale; bags of flour; rabbits; bundles of firewood; jars of honey; fresh fish; clean blankets"""
        ),
        wares("""mug of ale 1-4; bowl of stew 2-6; loaf of bread 1-3; cup of wine 3-7; roast chicken 5-10;
        slice of pie 2-5; glass of cider 1-4; plate of cheese 2-6; hot bath 3-8; breakfast 2-6; bottle of mead 4-9"""),
        ("rent a room for the night", 4, 15),
    ),
    Role(
        "guard",
        words("the gate; the north gate; the town wall; the castle gate; the watchtower; the bridge"),
        words("""keep watch over the town; guard the gate; walk the wall at night; keep thieves out of the town"""),
        words("""Stay out of trouble.; I have my eye on you.; Keep your sword in its sheath.; The law is the law.;
        The nights are long up here.; Nobody passes without a reason."""),
        words("""stolen helmets; torches; bandit masks; lost keys; arrows; signed letters"""),
    ),
    Role(
        "merchant",
        words("the market; my stall; the market square; my wagon; the general store; the little shop on the corner"),
        words("""buy and sell all kinds of goods; trade with caravans; sell what travellers need; bring goods from
        far away"""),
        words("""A fair price makes a friend.; Everything has its price.; Buy now, think later.; Trade is the blood of a
        town.; You will find nothing better on this road."""),
        words("""silk rolls; spice bags; pearls; glass bottles; rare stamps; wolf pelts; amber stones; old coins"""),
        wares("""rope 2-6; lantern 5-12; map 8-20; backpack 10-22; blanket 3-9; torch 1-3; water flask 2-6;
        compass 15-35; silver ring 20-50; wool cloak 9-20; leather boots 10-25; fishing rod 6-14; telescope 35-80;
        mirror 8-20; bag of salt 2-5; silk scarf 12-28; cooking pot 5-12; pair of gloves 4-10; straw hat 3-8"""),
    ),
    Role(
        "wizard",
        words("the tower; the old tower on the hill; my study; the tower of stars; the room above the library"),
        words("""study the stars and the old books; brew potions and read runes; guard the secrets of magic; teach
        young wizards"""),
        words("""Magic always has a price.; The stars see everything.; Never touch a glowing stone.; Words are the oldest
        magic.; A wise mind is the best wand.; I was expecting you."""),
        words("""moon flowers; frog legs; phoenix feathers; glowing mushrooms; dragon scales; star stones; raven
        feathers; drops of troll blood"""),
        wares("""healing potion 10-25; magic wand 45-95; scroll of fire 20-45; scroll of light 10-25; crystal ball 50-90;
        mana potion 12-30; invisibility potion 40-80; protection amulet 30-65; spell book 35-75; scroll of ice 20-45;
        ring of luck 40-85; potion of strength 18-40; bag of stardust 8-20"""),
        ("read an old rune", 5, 20),
    ),
    Role(
        "healer",
        words("the temple; the little house by the garden; the herb garden; my hut; the house of healing"),
        words("""heal the sick and the wounded; gather herbs and mix medicine; care for the sick; bind wounds"""),
        words("""Rest is the best medicine.; Every herb has its use.; A kind word heals too.; Drink more water, traveller.;
        The forest gives us all we need."""),
        words("""silver leaves; red mushrooms; clean bandages; honey jars; marsh roots; moon flowers; white lilies"""),
        wares("""healing herbs 3-8; healing potion 10-25; bandage 1-4; antidote 8-18; calming tea 2-6; salve 4-10;
        sleeping draught 6-15; bitter root 2-6; fever medicine 5-14; herb soup 2-5; jar of honey 3-7"""),
        ("heal your wounds", 5, 15),
    ),
    Role(
        "farmer",
        words("the farm; the field; the barn; my field by the river; the farm outside the town"),
        words(
            """grow wheat and feed the pigs; look after cows and chickens; work in the field; grow turnips and carrots"""
        ),
        words("""Rain makes the wheat grow.; The early bird gets the worm.; Hard work never hurt anyone.; A full barn makes
        a quiet winter.; My cows are the best in the valley."""),
        words("""bags of seed; wooden fence posts; lost sheep; rat tails; buckets; hay bales; pumpkins"""),
        wares("""basket of apples 2-6; bag of wheat 3-8; dozen eggs 2-5; bottle of milk 1-4; wheel of cheese 5-12;
        sack of potatoes 3-8; pumpkin 2-6; jar of honey 3-7; bundle of carrots 1-4; wool blanket 6-14; chicken 5-11"""),
    ),
    Role(
        "fisher",
        words("the docks; the harbour; my boat; the pier; the lake"),
        words("""catch fish and mend nets; sail out before sunrise; fish on the lake; sell fish at the docks"""),
        words("""The sea gives and the sea takes.; The fish are shy today.; Never whistle on a boat.; A calm lake hides
        deep water.; Patience catches the biggest fish."""),
        words("""strong ropes; fishing hooks; nets; barrels of salt; oars; worms; crab shells"""),
        wares("""fresh trout 2-6; salted cod 2-7; fishing net 8-18; fishing rod 6-14; basket of crabs 4-10; eel 3-8;
        pearl 25-60; smoked salmon 5-12; seashell 1-4; bucket of shrimps 3-9; small boat 60-95"""),
        ("row you across the water", 2, 8),
    ),
    Role(
        "baker",
        words("the bakery; the little bakery; my oven; the bakery on the square"),
        words("""bake bread before the sun comes up; bake pies and cakes; make the best bread in town"""),
        words("""Fresh bread makes a good day.; The secret is in the butter.; Nobody is sad with a cake in hand.; I get up
        before the birds."""),
        words("""bags of flour; fresh eggs; blueberries; jars of honey; nuts; pots of butter; apples"""),
        wares("""loaf of bread 1-3; apple pie 3-8; honey cake 3-7; cherry tart 3-8; sweet roll 1-3; meat pie 4-9;
        bag of cookies 2-5; birthday cake 10-22; rye bread 1-4; cheese bun 1-4; berry muffin 1-4"""),
    ),
    Role(
        "bard",
        words("the tavern; the corner of the tavern; the market square; the road; the fountain"),
        words(
            """sing songs and tell tales; play the lute; write songs about heroes; travel from town to town and sing"""
        ),
        words("""Every hero needs a song.; A song weighs nothing and goes everywhere.; Silence is only a long pause.; I once
        sang for a king."""),
        words("""lute strings; song books; feathers for my hat; old poems; silver bells"""),
        wares(
            """song book 5-12; wooden flute 6-15; old lute 20-45; love poem 2-7; small drum 8-18; book of tales 8-20"""
        ),
        ("sing a song for you", 1, 6),
    ),
    Role(
        "miner",
        words("the mine; the entrance of the mine; the deep tunnel; the miners' camp"),
        words("""dig for gold and coal; break stones under the hill; follow the silver deep into the rock"""),
        words("""The deeper you dig, the darker it gets.; Listen to the rock.; Never dig alone.; Gold makes people
        strange."""),
        words("""pickaxes; lamps; bottles of oil; wooden beams; ropes; lost helmets"""),
        wares("""lump of coal 1-3; iron ore 3-8; silver nugget 15-35; gold nugget 40-85; rough ruby 45-90; pickaxe 8-18;
        oil lamp 5-11; piece of amber 10-25; blue crystal 12-30; rough emerald 45-90"""),
    ),
    Role(
        "hunter",
        words("the edge of the forest; the hunting lodge; my cabin; the camp in the woods"),
        words("""hunt deer and follow tracks; set traps in the forest; know every path in the woods; hunt wolves"""),
        words("""Walk softly and look twice.; The forest has ears.; Never run from a wolf.; Tracks tell stories."""),
        words("""arrows; wolf pelts; bear claws; bow strings; rabbit skins; eagle feathers"""),
        wares("""longbow 25-55; quiver of arrows 5-12; wolf pelt 8-18; deer hide 6-15; hunting knife 5-12; bear trap 10-24;
        dried meat 2-6; fur cloak 20-45; hunting horn 9-20; leather boots 10-25; short bow 14-30"""),
        ("guide you through the forest", 5, 18),
    ),
    Role(
        "captain",
        words("the harbour; the deck of my ship; the docks; the ship called Sea Star"),
        words("""sail a ship across the sea; command the crew; carry goods and people to far islands"""),
        words("""The wind decides, not the captain.; A good crew is worth more than gold.; I have seen waves taller than a
        castle.; Every map has a mistake."""),
        words("""sea maps; barrels of water; new sails; brave sailors; ropes; golden coins"""),
        wares("""sea map 10-25; spyglass 30-60; compass 15-35; barrel of rum 12-28; rope 2-6; captain's hat 8-20;
        old anchor 20-45; bottle with a letter 3-9"""),
        ("take you to the island", 10, 30),
    ),
    Role(
        "librarian",
        words("the library; the reading room; the great library; the desk in the library"),
        words(
            """look after the books; copy old books by hand; know where every book stands; keep the town's records"""
        ),
        words("""Please be quiet.; Every book is a door.; The answer is always on the last page.; Books burn, but stories
        do not."""),
        words("""lost books; bottles of ink; old maps; candle boxes; rolls of paper; torn pages"""),
        wares("""old map 8-20; book of legends 10-25; bottle of ink 2-5; book of herbs 8-20; roll of paper 1-4;
        history book 9-22; feather pen 1-4; book of monsters 12-28"""),
        ("copy a page for you", 2, 7),
    ),
    Role(
        "village elder",
        words("the town hall; the old oak; the bench by the well; the council house"),
        words("""lead the village council; settle quarrels and keep the old stories; care for this village"""),
        words("""The old ways still matter.; Listen first, speak later.; I have seen seventy winters.; A village is only as
        strong as its people."""),
        words("""signed letters; bags of grain; old bells; lost sheep; votes for the council; torches"""),
    ),
    Role(
        "stable master",
        words("the stables; the stable behind the inn; the horse yard"),
        words("""feed and brush the horses; look after horses; train young horses"""),
        words("""Treat a horse well and it will carry you home.; A horse knows a good heart.; Never walk behind a mule.;
        Fresh hay smells better than perfume."""),
        words("""horseshoes; bags of oats; saddles; ropes; apples; hay bales"""),
        wares("""brown horse 60-95; grey pony 40-75; saddle 15-35; bag of oats 2-5; mule 30-60; horse blanket 5-12;
        riding boots 12-26; old cart 25-55; bridle 4-11"""),
        ("feed your horse", 1, 5),
    ),
    Role(
        "thief",
        words("the dark alley; the back room of the tavern; the rooftop; the old cellar"),
        words("""find things that nobody misses; know every lock in this town; listen at doors"""),
        words("""You did not see me.; Keep your voice down.; A locked door is only a question.; Watch your purse."""),
        words("""lock picks; golden keys; secret letters; black masks; ropes; jewels"""),
        wares("""lock pick 3-9; black mask 4-10; smoke bomb 6-15; stolen ring 15-40; secret map 12-30; rope 2-6;
        throwing knife 6-14; forged letter 9-22"""),
        ("open a lock for you", 5, 20),
    ),
    Role(
        "priestess",
        words("the temple; the temple garden; the altar; the shrine by the road"),
        words("""pray for the town; light the temple candles; bless travellers; help the poor"""),
        words("""May the light guide you.; Every soul matters.; Hope is a small candle.; Peace begins at home."""),
        words("""white candles; lilies; holy water bottles; prayer books; bread for the poor; silver bells"""),
        wares("""holy water 4-10; white candle 1-3; prayer book 5-12; silver amulet 15-35; healing potion 10-25;
        blessed ring 20-45; incense 2-6"""),
        ("bless your journey", 1, 6),
    ),
]

BY_TITLE = {role.title: role for role in ROLES}
