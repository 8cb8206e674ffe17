"""Words that are printed on pictures, and random strings. Every eighth word is kept for the held-out group."""

from __future__ import annotations

from functools import cache
from random import Random

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_ALL = """
ACT AGE AIR ANT APE ARM ART ASK BAG BALL BAND BANK BAR BASE BAT BATH BEAN BEAR BED BEE BELL BELT BIKE BIRD BLOCK BOARD
BOAT BODY BONE BOOK BOOT BOTTLE BOWL BOX BOY BRAIN BRANCH BREAD BRICK BRIDGE BRUSH BUS BUTTER BUTTON CAKE CAMERA CAMP
CANDLE CAP CAR CARD CARE CART CASE CASTLE CAT CHAIN CHAIR CHALK CHEESE CHERRY CHESS CHURCH CITY CLOCK CLOUD CLUB COAL
COAT COFFEE COIN COLD COOK CORN COTTON COW CRAB CROWN CUP CURTAIN DANCE DAY DEER DESK DISH DOCTOR DOG DOLL DOOR DRAGON
DREAM DRESS DRUM DUCK DUST EAGLE EAR EARTH EGG ENGINE EXIT EYE FACE FAN FARM FEATHER FENCE FIELD FIRE FISH FLAG FLOOR
FLOWER FLY FOG FOOD FOOT FOREST FORK FOX FRAME FRIEND FROG FRUIT GAME GARDEN GATE GHOST GIFT GIRL GLASS GLOVE GOAT
GOLD GOOSE GRAPE GRASS GUIDE GUITAR HAIR HAMMER HAND HAT HAWK HEAD HILL HOME HONEY HOOK HORN HORSE HOTEL HOUSE ICE INK
IRON ISLAND JACKET JAM JAR JET JEWEL JUICE JUMP KETTLE KEY KING KITE KNEE KNIFE LADDER LAKE LAMP LAND LEAF LEG LEMON
LETTER LIGHT LILY LION LIP LOCK LOG LUNCH MAN MAP MARKET MASK MEAL MEAT MELON MILK MINT MIRROR MONEY MONKEY MOON
MOTHER MOUNTAIN MOUSE MOUTH MUD MUSIC NAIL NAME NECK NEEDLE NEST NET NEWS NIGHT NOSE NOTE NUT OAK OCEAN OFFICE OIL
ONION OPEN OVEN OWL PAGE PAINT PALM PAN PAPER PARK PASTA PATH PEACH PEAR PEN PENCIL PEPPER PIANO PIG PILLOW PILOT PIN
PIPE PIZZA PLANE PLANT PLATE POCKET POND POOL POT POTATO PRICE PRINCE PUMP QUEEN QUICK RABBIT RADIO RAIN RAT RIBBON
RICE RIVER ROAD ROBOT ROCK ROOF ROOM ROOT ROPE ROSE SAIL SALAD SALT SAND SCHOOL SEA SEED SHEEP SHELL SHIP SHIRT SHOE
SHOP SILK SILVER SINK SKIN SKY SNAKE SNOW SOAP SOCK SOFA SOUP SPOON SPRING STAMP STONE STOP STORE STORM STOVE STREET
SUGAR SUMMER SUN SWAN TABLE TAIL TAXI TEA TEETH TENT TEXT TICKET TIGER TOAST TOE TOMATO TOOL TOWER TOWN TOY TRAIN TREE
TRUCK TUNNEL TURTLE UNCLE VASE VOICE WALL WATCH WATER WAVE WEST WHALE WHEAT WHEEL WIND WINDOW WINE WING WINTER WOLF
WOOD WOOL WORD WORLD YARD YEAR ZEBRA ZERO ZOO
"""
_LONG = """
ADVENTURE AFTERNOON AMBULANCE ANNIVERSARY APARTMENT ARCHITECT BACKGROUND BASKETBALL BEAUTIFUL BIRTHDAYS BLACKBERRY
BLACKBOARD BLUEBERRIES BREAKFAST BROADCAST BUTTERFLY CALCULATION CALENDARS CANDLESTICK CARPENTER CATERPILLAR CELEBRATION
CHAMPIONSHIP CHEESECAKE CHOCOLATE CLASSROOM COMMUNITY CONSTRUCTION CONVERSATION CROCODILE CUCUMBERS DANDELION DECORATION
DICTIONARY DIFFERENT DISCOVERY DRAGONFLY EARTHQUAKE ELECTRICITY ELEPHANTS ENCYCLOPEDIA ENGINEERING EXHIBITION EXPERIMENT
FANTASTIC FINGERPRINT FIREPLACE FLASHLIGHT FOUNDATION FURNITURE GENERATION GRANDFATHER GRANDMOTHER GRAPEFRUIT
GRASSHOPPER HANDKERCHIEF HELICOPTER HIPPOPOTAMUS HORSESHOE ILLUSTRATION IMAGINATION INFORMATION INSTRUMENT INVITATION
JELLYFISH KEYBOARDS KINGFISHER LABORATORY LANDSCAPE LEMONADES LIGHTHOUSE MAGAZINES MARKETPLACE MICROSCOPE MOONLIGHT
MOTORCYCLE MUSHROOMS NEIGHBOUR NEWSPAPER NIGHTINGALE ORCHESTRA PAINTBRUSH PARLIAMENT PASSENGER PEPPERMINT PHOTOGRAPHER
PINEAPPLE PLAYGROUND POMEGRANATE POSTCARDS PROGRAMME RASPBERRY RECTANGLE REFRIGERATOR RESTAURANT RHINOCEROS SANDCASTLE
SATELLITE SCREWDRIVER SNOWFLAKE SPAGHETTI SPECTACULAR STRAWBERRY SUBMARINE SUNFLOWER SUPERMARKET SWITCHBOARD
TANGERINE TELEPHONE TELESCOPE TEMPERATURE THUNDERSTORM TOOTHBRUSH TRANSPORTING TRIANGLES UNDERGROUND UNIVERSITY
VEGETABLES VOLLEYBALL WATERFALL WATERMELON WHEELBARROW WORKSHOPS XYLOPHONE YESTERDAY
"""
WORDS = tuple(_ALL.split()) + tuple(_LONG.split())
GOODS = (
    "APPLE", "BREAD", "BUTTER", "CAKE", "CHEESE", "COFFEE", "CORN", "EGGS", "FISH", "HONEY", "JAM", "JUICE",
    "LEMON", "MEAT", "MILK", "NUTS", "OIL", "ONION", "PASTA", "PEAR", "PEN", "PIZZA", "RICE", "SALAD", "SALT",
    "SOAP", "SOUP", "SUGAR", "TEA", "WATER",
)  # fmt: skip
SHOPS = ("SHOP", "STORE", "MARKET")
HELD_OUT_WORDS = tuple(word for word in WORDS if word not in GOODS + SHOPS)[7::8]
KNOWN_WORDS = tuple(word for word in WORDS if word not in HELD_OUT_WORDS)


def random_letters(rng: Random, length: int) -> str:
    """Letters that form no word. A single O is left out, because nothing tells it from a zero."""
    if length == 1:
        return rng.choice(LETTERS.replace("O", ""))
    while (letters := "".join(rng.choices(LETTERS, k=length))) in HELD_OUT_WORDS:
        pass
    return letters


def random_digits(rng: Random, length: int) -> str:
    """A number without a leading zero."""
    return str(rng.randint(1 if length == 1 else 10 ** (length - 1), 10**length - 1))


def unlike(rng: Random, text: str) -> str:
    """Something else of the same sort: a word of the same group, letters or digits, as many of them."""
    if words := _group(text):
        return rng.choice([word for word in words if word != text])
    other = text
    while other == text:
        other = (random_digits if text.isdigit() else random_letters)(rng, len(text))
    return other


def random_word(rng: Random, shortest: int, longest: int, held_out: bool = False) -> str:
    """A word of the list with that many letters, or random letters when the list has none."""
    words = HELD_OUT_WORDS if held_out else KNOWN_WORDS
    for _ in range(24):
        word = rng.choice(words)
        if shortest <= len(word) <= longest:
            return word
    return random_letters(rng, rng.randint(shortest, longest))


def near_miss(rng: Random, text: str) -> str:
    """Something else that looks alike, of the same length and sort, so that no word gives itself away by being one.

    For a word of the list another word, if possible one that shares letters; else one character is replaced.
    """
    if words := _group(text):
        return rng.choice(_words_like(text, words))
    at = rng.randrange(len(text))
    letters = "123456789" if text[at].isdigit() else LETTERS
    return text[:at] + rng.choice(letters.replace(text[at], "")) + text[at + 1 :]


def _group(text: str) -> tuple[str, ...]:
    """The words that it is one of, known or held out; none when it is no word."""
    return next((words for words in (KNOWN_WORDS, HELD_OUT_WORDS) if text in words), ())


@cache
def _words_like(text: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The eight other words of the same length that share most letters in place."""
    others = [word for word in words if len(word) == len(text) and word != text]
    shared = {word: sum(a == b for a, b in zip(word, text, strict=True)) for word in others}
    return tuple(sorted(others, key=lambda word: -shared[word])[:8]) or words
