"""The parts that stories are made of: heroes, wishes, obstacles, helpers, endings. Data only.

Slots: `hero` is the hero's name or `the fox`; `kind` the kind of hero; `he him his himself` its
pronouns; `home` where it lives; `wild` where the story leads; `thing` the thing it is about;
`helper` whom it meets; `friend` somebody it loves.
"""

from __future__ import annotations

from dataclasses import dataclass

from .words import words

PEOPLE = words("""girl; boy; princess; prince; knight; shepherd; fisherman; young witch; young wizard; baker; farmer;
old woman; old man; sailor; miller; tailor; woodcutter; blacksmith; gardener; painter; queen; king; pirate; hunter;
musician; clockmaker; lighthouse keeper; student; messenger; beekeeper; juggler; traveller; soldier; servant""")
ANIMALS = words("""fox; mouse; rabbit; bear; owl; frog; hedgehog; squirrel; wolf; cat; dog; duck; goose; turtle; crow;
sparrow; badger; deer; pony; goat; sheep; pig; hen; rooster; snail; bee; ant; butterfly; spider; otter; beaver; mole;
bat; raven; swan; whale; dolphin; crab; octopus; fish; lion; tiger; elephant; monkey; giraffe; camel; parrot; penguin;
snake; lizard; donkey; horse; cow; kitten; puppy; seal; moose; lynx; firefly; cricket""")
CREATURES = words("""dragon; giant; troll; ghost; robot; goblin; fairy; unicorn; gnome; dwarf; elf; snowman; scarecrow;
mermaid; little cloud; star; toy soldier; stone golem; little witch; phoenix; griffin; sea monster; lantern; teapot; wooden puppet""")

TRAITS = words("""little; brave; curious; clever; kind; lonely; lazy; proud; shy; tiny; stubborn; young; cheerful; careful;
quiet; hungry; forgetful; gentle; honest; dreamy; poor; restless; friendly; nervous; patient; grumpy""")

HOMES = words("""in a small village; by the sea; at the edge of a dark forest; on a green hill; in an old castle; near a blue lake;
in a little house; under an old oak; behind the waterfall; in the mountains; in a busy town; on a small island; on a farm; in a tall tower;
in a valley full of flowers; at the end of a long road; next to an old mill; by a quiet river; in a kingdom far away; in the snowy north""")

LOVES = words("""sing; dance; climb trees; watch the stars; tell stories; collect shiny stones; swim; bake cakes; play the flute; paint;
listen to the rain; ask questions; sleep in the sun; walk in the forest; read old books; count the clouds; play hide and seek; eat honey;
help others; dream of far places; build small boats; look at the moon; laugh; plant flowers""")

MISSING = words(
    """friends; courage; patience; sleep; gold; a home; luck; a warm coat; a family; a good map; somebody to talk to"""
)

RIDDLES = [
    ("What has teeth but cannot bite?", "A comb"),
    ("What gets wetter the more it dries?", "A towel"),
    ("What has a neck but no head?", "A bottle"),
    ("What can you catch but never throw?", "A cold"),
    ("What goes up but never comes down?", "Your age"),
    ("What has hands but cannot clap?", "A clock"),
    ("What runs but has no legs?", "A river"),
    ("What has one eye but cannot see?", "A needle"),
    ("What is full of holes but still holds water?", "A sponge"),
    ("What has roots that nobody sees?", "A mountain"),
    ("What can fill a room but takes no space?", "Light"),
    ("What breaks when you say its name?", "Silence"),
    ("What has a bed but never sleeps?", "A river"),
    ("What has a thumb and four fingers but is not alive?", "A glove"),
    ("What has leaves but is not a tree?", "A book"),
    ("What follows you all day and leaves at night?", "Your shadow"),
]


@dataclass(frozen=True)
class Wish:
    """Why the hero sets out, how it ends and what it teaches."""

    key: str
    cause: list[str]
    success: list[str]
    moral: list[str]


WISHES = [
    Wish(
        "lost",
        [
            "One morning, {his} {thing} was gone. {He} looked everywhere, but it was not there. A small trail led to {wild}, so {hero} followed it.",
            'One day, {hero} lost {his} {thing}. It meant more to {him} than gold. "It must be in {wild}," {he} thought, and set out at once.',
            "But one night, a [magpie|thief|strong wind|goblin] took {his} {thing} and carried it to {wild}. {Hero} wanted it back.",
        ],
        [
            "There, under [a stone|a bush|an old tree], lay the {thing}. {Hero} held it tight and laughed.",
            "At last {hero} saw something shine. It was the {thing}! {He} picked it up and ran all the way home.",
            "In the middle of {wild} {he} found the {thing}, and [it was not even scratched|it was as beautiful as before].",
        ],
        [
            "What we love is worth looking for.",
            "Never give up too early.",
            "Those who search with an open heart will find.",
        ],
    ),
    Wish(
        "sick",
        [
            "One winter, {his} {friend} became very ill. Only a [blue|white|golden|red] flower from {wild} could help. {Hero} put on {his} boots and left before sunrise.",
            'One day, {his} {friend} fell ill and could not get up. The healer said, "There is a medicine, but it grows only in {wild}." So {hero} set out.',
        ],
        [
            "There it grew, the little flower. {Hero} picked it, hurried home and made a warm tea. The next morning {his} {friend} smiled again.",
            "{Hero} brought the medicine home just in time. {His} {friend} drank it, slept, and woke up healthy.",
        ],
        ["Love makes us strong.", "For those we love, no road is too long.", "A good heart is the best medicine."],
    ),
    Wish(
        "water",
        [
            'One summer, no rain fell. The well was empty and the flowers died. "There is a spring in {wild}," said {his} {friend}. So {hero} went to find it.',
            "Then the river dried up, and nobody knew why. {Hero} took an empty bucket and walked to {wild}, where the water came from.",
        ],
        [
            "Behind the last rock {hero} found the spring. A big stone blocked it. {He} pushed and pushed, until the water ran free again.",
            "{Hero} rolled the stone away, and clear water jumped out. It ran all the way home, and everybody danced in it.",
        ],
        [
            "Even one small pair of hands can help everyone.",
            "Those who begin will find help on the way.",
            "Water remembers the kind.",
        ],
    ),
    Wish(
        "trapped",
        [
            "One evening, {his} {friend} did not come home. The {monsters} had taken {friend_him} to {wild}. {Hero} was afraid, but {he} went after them.",
            'One day, {his} {friend} was caught in {wild}. Nobody dared to go there. "Then I will go," said {hero}.',
        ],
        [
            "{Hero} opened the cage, and {his} {friend} was free. Together they ran until the stars came out.",
            "{He} found {his} {friend} behind a wooden door, and they held each other for a long time. Then they went home, side by side.",
        ],
        [
            "A true friend comes when others stay away.",
            "Courage means to be afraid and still go.",
            "Nobody is alone who has a friend.",
        ],
    ),
    Wish(
        "learn",
        [
            '{Hero} had one great wish: {he} wanted to [learn to sing|see the sea|touch the clouds|learn magic|learn to fly|meet the moon]. "Go to {wild}," said the old owl. "There you will find out how."',
            'Every night {hero} dreamed of {wild}. One morning {he} packed some bread and a blanket and said, "Today I will go and see it."',
        ],
        [
            "When {hero} reached {wild}, {he} understood: {he} had learned more on the way than any teacher could teach.",
            "At the end of the road, {hero} looked down at the world and smiled. {His} dream had come true.",
        ],
        [
            "The road teaches more than the goal.",
            "Dreams come true for those who walk.",
            "You can learn everything, step by step.",
        ],
    ),
    Wish(
        "monster",
        [
            'At night, strange sounds came from {wild}, and everybody was afraid. "It is a monster," they said. {Hero} wanted to know the truth and went there alone.',
            "People told each other about a terrible {beast} in {wild}. Nobody had ever seen it. {Hero} took a lamp and went to look.",
        ],
        [
            "But the {beast} was not terrible at all. It was only lonely. {Hero} gave it some bread, and they talked until morning. From then on it came to every feast.",
            "Behind the rocks sat {a:beast} and cried. It had a thorn in its foot. {Hero} pulled it out, and the {beast} became {his} best friend.",
        ],
        ["Do not fear what you do not know.", "Even a monster needs a friend.", "Look first, and judge later."],
    ),
    Wish(
        "egg",
        [
            'One morning, {hero} found a strange [blue|golden|green|spotted] egg in the grass. It was warm. "Your mother must be in {wild}," {he} said, and carried it there with care.',
            'After a storm, {hero} found a baby {baby} that had lost its mother. "Don\'t cry," {he} said. "We will find her in {wild}."',
        ],
        [
            "A shadow fell from the sky. It was the mother! She thanked {hero} and gave {him} a [feather|song|kiss|shiny stone] that {he} kept forever.",
            'When the mother saw her child, she cried with joy. "Whenever you need me, call," she said to {hero}.',
        ],
        ["Every child needs a home.", "Help the small ones, and the big ones will help you.", "Kindness comes back."],
    ),
    Wish(
        "map",
        [
            "One day, {hero} found an old map in [a bottle|an old book|a broken chest|the attic]. It showed the way to {wild}, where {a:thing} was hidden.",
            "{His} {friend} once told {him} about {a:thing}, hidden in {wild}. Nobody believed it, except {hero}.",
        ],
        [
            "{Hero} dug for an hour, and there it was: the {thing}. {He} sold it, and shared the gold with the whole village.",
            "{He} found the {thing}, but {he} also found something better: a friend for life.",
            'The chest was open. In it lay the {thing} and a letter: "For the one who did not give up." {Hero} laughed out loud.',
        ],
        ["The best treasure is a friend.", "Share your luck, and it will grow.", "Those who believe will see."],
    ),
    Wish(
        "light",
        [
            'One night, the moon did not rise. Without light, nobody could find the way home. "The moon must have fallen into {wild}," said {hero}, and went to look for it.',
            "Then one day the light of the lighthouse went out, and the ships were in danger. {Hero} needed a new flame from {wild}.",
        ],
        [
            "{Hero} lifted the light with both hands and threw it back into the sky. Everybody saw it and cheered.",
            "Soon a warm light shone over the land again, and everybody knew that {hero} had done it.",
        ],
        [
            "A small light is enough to end the dark.",
            "When it is dark, somebody has to begin to shine.",
            "Even the smallest can bring the light back.",
        ],
    ),
    Wish(
        "message",
        [
            'One day, a rider gave {him} a letter. "Bring it to the queen in {wild}," he said, "or there will be war." {Hero} ran as fast as {he} could.',
            'The king needed a messenger, but all the riders were ill. "I will take the letter to {wild}," said {hero}, and everybody laughed.',
        ],
        [
            '{Hero} gave the letter to the queen. She read it, smiled, and said, "You have saved us all."',
            "Just before sunset, {hero} delivered the letter. There was a great feast, and nobody laughed at {him} any more.",
        ],
        ["Never laugh at the small ones.", "Who keeps a promise is a true hero.", "A word given is a word kept."],
    ),
    Wish(
        "contest",
        [
            "Every year there was a great race to {wild}. Everybody said that {hero} was too slow. {He} wanted to try all the same.",
            "The king promised the {thing} to the first one who came back from {wild} with a [white stone|red leaf|golden feather]. {Hero} decided to try.",
        ],
        [
            "{Hero} was not the fastest, but {he} did not stop. When the others rested, {he} walked on, and so {he} won.",
            '{Hero} came home last, because {he} had stopped to help. But the king gave {him} the prize. "You have won something better than a race," he said.',
        ],
        [
            "Slow steps also lead to the goal.",
            "It is better to be kind than to be first.",
            "Try, even if others laugh.",
        ],
    ),
    Wish(
        "sleep",
        [
            "For seven nights, nobody could sleep, because somebody in {wild} was crying. On the eighth night, {hero} stood up and went to see who it was.",
            "One night, a sad song woke {hero} up. It came from {wild}. {He} lit a candle and followed it.",
        ],
        [
            "It was a little {baby} that had lost its way. {Hero} sang a song, and the {baby} fell asleep in {his} arms. That night, everybody slept well.",
            "It was only the wind in an old {thing}. {Hero} closed the window, and all was quiet. How everybody laughed the next day!",
        ],
        ["Sometimes it is enough to listen.", "A song can dry tears.", "Most fears are smaller by daylight."],
    ),
]

BABIES = words("fox; bear; owl; dragon; deer; wolf; seal; bird; unicorn; rabbit; otter; griffin")
BEASTS = words("troll; giant; dragon; bear; wolf; ghost; sea monster; ogre")


@dataclass(frozen=True)
class Obstacle:
    """What stands in the way, and how it is overcome alone, or with the helper's help."""

    key: str
    problem: list[str]
    alone: list[str]
    helped: list[str]


OBSTACLES = [
    Obstacle(
        "river",
        ["Soon {he} came to a wide river, and there was no bridge.", "The road ended at a deep, cold river."],
        [
            "{Hero} looked around and found a fallen tree. {He} pushed it into the water and walked across.",
            "{He} built a small raft from branches and paddled to the other side.",
        ],
        [
            "Then the {helper} came and showed {him} a row of flat stones, hidden under the water.",
            '"Hold on to me," said the {helper}, and together they reached the other side.',
        ],
    ),
    Obstacle(
        "riddle",
        [
            'A troll stood on the bridge. "Answer my riddle or go home," it said. "{riddle}"',
            'An old gate asked with a deep voice: "{riddle}"',
        ],
        [
            '{Hero} thought for a long time. "{answer}!" {he} said, and the way was free.',
            '"That is easy," laughed {hero}. "{answer}." And the way was free.',
        ],
        [
            '"{answer}," whispered the {helper}. {Hero} said it out loud, and the way was free.',
            '{Hero} did not know. But the {helper} had heard the riddle before. "{answer}!" it said, and they could go on.',
        ],
    ),
    Obstacle(
        "cave",
        [
            "The path led into a dark cave, and {he} could not see {his} own feet.",
            "It grew so dark that {hero} stopped, too afraid to go on.",
        ],
        [
            "{He} began to sing, and the song came back from the walls and showed {him} the way.",
            "{He} closed {his} eyes, took a deep breath and went on, one hand on the wall.",
        ],
        [
            "Then the {helper} called a hundred fireflies, and the dark became as bright as day.",
            '"Follow my voice," said the {helper}, and so they found the way out.',
        ],
    ),
    Obstacle(
        "storm",
        [
            "Suddenly a storm came up, with thunder and cold rain.",
            "Then it began to snow, more and more, until the road was gone.",
        ],
        [
            "{Hero} crept into a hollow tree and waited until the sky was clear again.",
            "{He} did not turn back. Step by step {he} walked against the wind.",
        ],
        [
            "The {helper} showed {him} a dry cave, and they shared some bread until it was over.",
            '"Come with me," called the {helper}. In its warm nest they waited for the morning.',
        ],
    ),
    Obstacle(
        "wolf",
        [
            "A big grey wolf stood in the way and showed its teeth.",
            "Suddenly {monsters} jumped out from behind the rocks.",
        ],
        [
            "{Hero} shook with fear, but {he} shouted as loud as {he} could, and soon the forest was quiet again.",
            "{He} threw {his} bread to the side and slipped past.",
        ],
        [
            "Then the {helper} made so much noise that the whole forest woke up, and the way was free.",
            '"This way!" cried the {helper}, and led {him} through a secret tunnel.',
        ],
    ),
    Obstacle(
        "door",
        ["At the end stood an iron door, and it was locked.", "{He} came to a high wall with a little locked gate."],
        [
            '{Hero} knocked three times and said, "Please." And the door opened all by itself.',
            "{He} looked under the mat, and there lay the key.",
        ],
        [
            "The {helper} was small enough to slip through a hole, and opened it from inside.",
            '"I know where the key is," said the {helper}, and brought it in a moment.',
        ],
    ),
    Obstacle(
        "cliff",
        [
            "Then {he} stood before a steep cliff that reached up to the clouds.",
            "The mountain was high, and the stones were slippery.",
        ],
        [
            "{Hero} took one small step after another and never looked down.",
            "{He} tied some vines together and climbed up slowly.",
        ],
        [
            "The {helper} let down a long rope, and {hero} climbed up.",
            '"There are old stairs behind the bush," said the {helper}, and so it was.',
        ],
    ),
    Obstacle(
        "lost",
        [
            "But every tree looked the same, and soon {hero} was lost.",
            "The fog came, and {he} did not know where to go.",
        ],
        [
            "{He} waited until night and followed the brightest star.",
            "{He} listened. Far away {he} heard water, and followed the sound.",
        ],
        [
            'The {helper} looked around and called, "Over there!"',
            '"I know every path here," said the {helper}, and went ahead.',
        ],
    ),
    Obstacle(
        "doubt",
        [
            'After three days {he} was tired and hungry. "I will never make it," {he} said.',
            "{Hero} sat down on a stone and began to cry.",
        ],
        [
            'Then {he} remembered what {his} {friend} always said: "One more step." And {he} stood up.',
            "But after a while {he} wiped {his} eyes, ate an apple and went on.",
        ],
        [
            'The {helper} sat down beside {him}. "You are nearly there," it said. And {he} stood up again.',
            '"I did not give up either," said the {helper}, and shared its last nuts with {him}.',
        ],
    ),
]

HELPERS = words("""little bird; grey mouse; old turtle; green frog; hedgehog; white owl; squirrel; young fox; bee; brown hare;
tiny dragon; friendly ghost; otter; raven; badger; deer; talking cat; butterfly; mole; stray dog""")

MEETINGS = [
    'On the way, {he} met {a:helper} that was [caught in a net|stuck under a branch|hungry and cold|lost]. {Hero} stopped and helped. "I will not forget this," said the {helper}.',
    'At the edge of the forest sat {a:helper}. "May I come with you?" it asked. "Gladly," said {hero}.',
    "{He} shared {his} bread with {a:helper}, and they became friends.",
    "After an hour {he} saw {a:helper} in trouble. {He} was in a hurry, but {he} helped all the same.",
]

ENDINGS = [
    "And they lived happily ever after.",
    "From that day on, {hero} was never lonely again.",
    "And if you listen at night, you can still hear {him} laugh.",
    "That evening there was a big feast with [cake|soup and pie|music and dancing], and everybody was happy.",
    "{Hero} went to sleep with a smile.",
    "Even today, people tell this story by the fire.",
    "And everybody in the land knew {his} name.",
    "{Hero} came home tired, but happy.",
]
