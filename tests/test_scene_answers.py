"""The frozen formats of answers: the shipped weights speak them, so a change here means training anew."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest

from smolvlm import scenes

COLOUR = r"(red|orange|yellow|green|blue|purple|pink|black)"
SHAPE = r"(circle|square|triangle|star|heart|diamond|cross|ring)"
THING = rf"{COLOUR} {SHAPE}"
FULL = rf"(small|large) {THING}"
PLACE = r"(top left|top right|top|left|center|right|bottom left|bottom right|bottom)"
NUMBER = r"\d+"
YES_NO = r"(yes|no)"
TEXT = r"[A-Z]+|\d+"
LABEL = r"[A-Z]{1,3}"
MONEY = r"\d+\.\d\d"
DATE = r"\d\d/\d\d/20\d\d"
SHOP = r"[A-Z]+ (SHOP|STORE|MARKET)"
WAY = r"from (left to right|right to left|top to bottom|bottom to top)"
EVENT = rf"(([Tt]he {THING} (moves {WAY}|disappears|turns {COLOUR}|grows|shrinks))|([Aa]n? {THING} appears))"
DESCRIBED = rf"A {FULL} at the {PLACE}(, a {FULL} at the {PLACE})*\."
NUMBER_WORD = r"(one|two|three|four|five|six)"
BARS = rf"{LABEL} {NUMBER}(, {LABEL} {NUMBER})*\."

FORMATS = {
    "describe": rf"{DESCRIBED}( The word ({TEXT}) at the {PLACE}\.)?",
    "describe_empty": r"The picture is empty\.",
    "describe_one": DESCRIBED,
    "describe_text": rf"The text ({TEXT})( ({TEXT}))*\.",
    "describe_beside": rf"An? {THING} with the text ({TEXT})(, an? {THING} with the text ({TEXT}))*\.",
    "describe_chart": rf"A bar chart: {BARS}",
    "describe_document": rf"(A receipt|An invoice) from {SHOP} with \d items and a total of {MONEY}\.",
    "caption_short": rf"(One shape|(Two|Three|Four|Five|Six) shapes): {THING}(, {THING})*( and {THING})?\.",
    "caption_long": rf"This drawing shows {NUMBER_WORD} shapes?\.( At the {PLACE} there is a {FULL}\.)+",
    "story": rf"Once upon a time, a {FULL} lived at the {PLACE}\. (It was all alone and happy|One day it met .*)\.",
    "sort": r"a drawing of shapes|a printed text|a bar chart|a receipt|an invoice",
    "at_place": rf"{THING}|nothing",
    "where": PLACE,
    "where_absent": rf"There is no {THING}\.",
    "colour_of": COLOUR,
    "colour_of_absent": rf"There is no {SHAPE}\.",
    "shape_of": SHAPE,
    "shape_of_absent": rf"There is no {COLOUR} shape\.",
    "size_of": r"small|large",
    "left_or_right": r"left|right",
    "above_or_below": r"above|below",
    "unknowable": r"I can't tell from the picture\.",
    "photograph": r"I only understand drawn pictures\.",
    "beyond": r"I don't know\. I know drawn pictures only\.",
    "letter_at": r"[A-Z]",
    "read_line": TEXT,
    "read_number": NUMBER,
    "word_by": TEXT,
    "where_word": PLACE,
    "chart_read": BARS,
    "chart_value_absent": rf"There is no bar {LABEL}\.",
    "chart_colour": COLOUR,
    "total": MONEY,
    "price": MONEY,
    "price_absent": r"There is no [A-Z]+\.",
    "issue_date": DATE,
    "due_date": DATE,
    "list_items": rf"[A-Z]+ {MONEY}(, [A-Z]+ {MONEY})+\.",
    "shop": SHOP,
    "document_type": r"a receipt|an invoice",
    "which_has": r"the first|the second|both|neither",
    "more": r"the first|the second|the same",
    "same_colour": r"the same|different",
    "same_shape": r"the same|different",
    "changed": rf"An? {THING} was added at the {PLACE}\.|"
    rf"The {THING} (was removed|moved from the {PLACE} to the {PLACE}|turned {COLOUR})\.",
    "happens": rf"Nothing changes\.|{EVENT}\.|First {EVENT}, then {EVENT}\.",
    "first": rf"{EVENT}\.",
    "last": rf"{EVENT}\.",
    "direction": WAY,
    "turns": COLOUR,
    "grows": r"it (grows|shrinks)",
    "appears_absent": r"Nothing appears\.",
    "disappears_absent": r"Nothing disappears\.",
    "moves_absent": r"Nothing moves\.",
    "who": r"I am smolvlm-nano, a tiny vision-language model that knows drawn pictures only\.",
    "no_picture": r"Please show me a picture\.",
    "copy": r"[A-Z]+",
    "spell": r"[A-Z](-[A-Z])*",
    "mix": rf"{COLOUR}",
    **dict.fromkeys(("read", "read_1", "read_2", "read_3"), rf"({TEXT})( ({TEXT}))*"),
    **dict.fromkeys(("largest", "smallest", "thing_by", "moves", "appears", "disappears"), THING),
    **dict.fromkeys(("chart_highest", "chart_lowest", "chart_by_colour"), LABEL),
    **dict.fromkeys(("exists", "is_colour", "is_size", "is_at", "is_relation", "is_written", "chart_taller"), YES_NO),
    **dict.fromkeys(("is_bought", "same_count", "before", "any_appear", "any_move", "any_change", "in_video"), YES_NO),
    **dict.fromkeys(
        ("count_all", "count_colour", "count_shape", "count_letters", "count_lines", "count_items"), NUMBER
    ),
    **dict.fromkeys(("count_in", "count_start", "count_end", "chart_count", "chart_value", "chart_sum"), NUMBER),
    **dict.fromkeys(("chart_difference", "chart_highest_value", "number", "difference", "corners"), NUMBER),
    **dict.fromkeys(("add", "subtract", "greater"), NUMBER),
    **dict.fromkeys(("can_do", "hello", "how_are_you", "thanks", "bye"), r"[A-Z].*[.!]"),
}


# Of the skills whose random numbers don't depend on the widths of letters.
FIRST_HUNDRED = {"scene": "a8e1d00e4f86", "pair": "9202f6f396fb", "video": "62b29bf796f8", "text": "69d276956317"}


@pytest.mark.parametrize("skill", FIRST_HUNDRED)
def test_a_recipe_draws_what_it_drew_before(skill: str) -> None:
    """Another digest means that a recipe no longer makes the weights it made: change it only with new weights."""
    turns = [scenes.draw(skill, 0, index).turns for index in range(100)]
    assert sha256(repr(turns).encode()).hexdigest()[:12] == FIRST_HUNDRED[skill]


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_every_answer_has_the_frozen_format_of_its_kind(skill: str) -> None:
    for index in range(400):
        for turn in scenes.draw(skill, 81, index).turns:
            assert re.fullmatch(FORMATS[turn.kind], turn.answer), turn


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_marks_lie_inside_the_picture_and_apart_from_each_other(skill: str) -> None:
    for index in range(150):
        marks = scenes.draw(skill, 82, index).marks
        for number, mark in enumerate(marks):
            x0, y0, x1, y1 = mark.box
            assert -0.001 <= x0 < x1 <= 1.001 and -0.001 <= y0 < y1 <= 1.001, mark
            for other in marks[:number]:
                across = min(x1, other.box[2]) - max(x0, other.box[0])
                down = min(y1, other.box[3]) - max(y0, other.box[1])
                assert mark.picture != other.picture or min(across, down) < 0.006, (mark, other)
