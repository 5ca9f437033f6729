"""The words of planted captions: harmless, about daily life, one list per value of a textual factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TOPIC_PHRASES: Mapping[str, Sequence[str]] = {
    "coffee": (
        "my first coffee",
        "a second espresso",
        "the office coffee machine",
        "this cup of coffee",
        "one more latte",
        "the morning brew",
        "a cappuccino with oat milk",
        "freshly ground coffee",
        "the last drop of coffee",
        "a mug of decaf",
        "cold coffee at noon",
        "the barista on the corner",
    ),
    "pizza": (
        "a slice of pizza",
        "the last slice",
        "cold pizza for breakfast",
        "pizza with extra cheese",
        "the pizza place downtown",
        "a margherita",
        "pineapple on pizza",
        "a very thin crust",
        "pizza night",
        "the delivery pizza",
        "mozzarella from the oven",
        "a pepperoni pizza",
    ),
    "computers": (
        "my old laptop",
        "the new keyboard",
        "a software update",
        "forty open tabs",
        "the printer driver",
        "my inbox",
        "a computer that restarts",
        "the loading screen",
        "code that compiles",
        "the password form",
        "a laptop at two percent",
        "the missing semicolon",
    ),
    "reading": (
        "a good book",
        "chapter twelve",
        "the library card",
        "my pile of novels",
        "a mystery novel",
        "the final page",
        "a paperback from the attic",
        "one more chapter",
        "the book club",
        "reading under a blanket",
        "a poem by heart",
        "the bookshop window",
    ),
    "cats": (
        "my cat",
        "a kitten in a box",
        "the cat on the keyboard",
        "whiskers at dawn",
        "two sleepy cats",
        "the purring machine",
        "a cat and its cucumber",
        "the neighbour's tabby",
        "cat hair on my coat",
        "a paw in the butter",
        "the scratching post",
        "our tomcat",
    ),
    "gardening": (
        "my tomato plant",
        "the garden",
        "a pot of basil",
        "twelve sunflowers",
        "the watering can",
        "a very small cactus",
        "weeding the flower bed",
        "seeds from last spring",
        "the compost heap",
        "my window plants",
        "a rose bush",
        "the greenhouse",
    ),
    "rain": (
        "this rain",
        "my umbrella",
        "a drizzle all week",
        "wet socks",
        "the weather forecast",
        "a thunderstorm at five",
        "puddles on the way",
        "one grey cloud",
        "a leaking raincoat",
        "the rainy season",
        "drops on the window",
        "rubber boots",
    ),
    "driving": (
        "my little car",
        "the traffic jam",
        "a parking spot",
        "the driving lesson",
        "a road trip",
        "the green light",
        "the rental car",
        "parallel parking",
        "a flat tire",
        "the highway at seven",
        "the car wash",
        "the roundabout",
    ),
}

MOOD_PHRASES: Mapping[str, Sequence[str]] = {
    "cheerful": (
        "makes me so happy",
        "is pure joy",
        "is the best thing this week",
        "makes my heart sing",
        "fills me with delight",
        "puts a smile on every face",
        "is simply wonderful",
        "deserves a round of applause",
        "brightens the whole day",
        "is what happiness looks like",
        "gets a big hooray",
        "is a lovely surprise",
        "feels like a holiday",
        "went perfectly well",
        "makes everyone dance",
        "is sunshine for the soul",
    ),
    "gloomy": (
        "makes me so sad",
        "is pure misery",
        "is the worst thing this week",
        "makes my heart sink",
        "fills me with dread",
        "wipes the smile off every face",
        "is simply awful",
        "deserves a long sigh",
        "ruins the whole day",
        "is what sorrow looks like",
        "gets a big groan",
        "is a nasty surprise",
        "feels like a monday",
        "went terribly wrong",
        "makes everyone weep",
        "is winter for the soul",
    ),
}

ADDRESSEE_PHRASES: Mapping[str, Sequence[str]] = {
    "none": ("", "", "", "today", "once again", "as always", "it turns out"),
    "person": (
        "dear sam",
        "hey nina",
        "listen oliver",
        "my cousin ben",
        "thank you mrs miller",
        "a note for grandpa",
        "tell my brother",
        "dear teacher",
    ),
    "group": (
        "dear night owls",
        "all you commuters",
        "hey neighbours",
        "fellow students",
        "attention early birds",
        "my dear friends",
        "for all beginners",
        "people of this town",
    ),
    "company": (
        "dear acme corporation",
        "hello customer service",
        "the blue kettle company",
        "attention head office",
        "dear northwind limited",
        "to the board of directors",
        "message to the hotline",
        "our sponsor says",
    ),
}

TEMPLATES: Mapping[str, Sequence[str]] = {
    "statement": (
        "{who}, {what} {how}",
        "{who}, i noted that {what} {how}",
        "{who}, as a matter of fact {what} {how}",
        "{who}, please note: {what} {how}",
        "{who}, {what} {how}, as reported",
    ),
    "question": (
        "{who}, why is it that {what} {how}?",
        "{who}, who knew that {what} {how}?",
        "{who}, did you notice how {what} {how}?",
        "{who}, is it just me or {what} {how}?",
        "{who}, since when is it true that {what} {how}?",
    ),
    "punchline": (
        "nobody: ... me: {who}, {what} {how}",
        "knock knock, {who}, {what} {how}",
        "plot twist, {who}: {what} {how}",
        "{who}, that moment when {what} {how}",
        "{who}, they said try something new, so {what} {how}",
    ),
    "exaggeration": (
        "{who}, one million percent sure {what} {how}!!!",
        "breaking news, {who}: {what} {how} forever!!!",
        "{who}, {what} {how} for a thousand years!!!",
        "scientists in shock, {who}: {what} {how}!!!",
        "{who}, in the entire history of the universe {what} {how}!!!",
    ),
}

ENDINGS: Mapping[str, Sequence[str]] = {
    "pridemm": ("#fun #memes", "#mood", "#sogood #share", "follow for more", "#relatable", ""),
    "hmc": ("", "", "", "and that is that", "the end"),
    "memotion": ("MEMEHILL.EXAMPLE", "made with quickmeme.example", "VIA FUNNYPAGE.EXAMPLE", "memehill.example", ""),
}


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


SAYINGS: Sequence[Sequence[str]] = (
    _split(
        "okay so|fun fact|honestly|update|confession|true story|psst|small announcement|quick poll|friendly reminder|"
        "for the record|long story short|between us|hot take|spoiler|rumour has it|guess what|serious talk|diary entry|"
        "lesson learned|warning|picture this|no joke|first of all|by the way|pro tip|big news|note to self|"
        "overheard|exhibit a|chapter one"
    ),
    _split(
        "before breakfast|after midnight|on a tuesday|during lunch|in the elevator|at the airport|near the lake|"
        "behind the sofa|under the bridge|on the balcony|in slow motion|at full volume|in my pyjamas|on one leg|"
        "between two meetings|since friday|until sunset|every second week|at the museum|inside the tent|over the fence|"
        "across the street|without shoes|upside down|on live television|in the basement|at grandma's place|on the moon|"
        "in both directions|with jazz hands|around the campfire"
    ),
    _split(
        "trust me|no refunds|source unknown|ask anyone|mark my words|to be continued|terms apply|batteries not included|"
        "as seen on screen|do not fold|results may vary|handle with care|sold separately|limited edition|pinky promise|"
        "no take backs|case closed|so they say|believe it or not|whatever that means|in theory|give or take|"
        "if you ask me|according to science|allegedly|more or less|for some reason|step by step|fingers crossed|"
        "just in case|against all odds"
    ),
    _split(
        "over and out|see you soon|cheers|end of message|good night|yours truly|bye now|carry on|stay tuned|back to you|"
        "mic drop|please clap|thanks for listening|roll credits|curtain falls|exit stage left|peace|send snacks|"
        "greetings from rome|asking for a friend|regards|that is all|next slide|high five|wink wink|press play|"
        "copy that|ahoy|hold the line|class dismissed|kind regards"
    ),
)
"""For each slot of a crowded caption its sayings, of which it holds at most one: one slot before the sentence, three after it."""
