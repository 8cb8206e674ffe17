"""Scorers of benchmarks: golden vectors of the harness, each of its known quirks by name, and hostile answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from smolvlm.errors import InputError
from smolvlm.evaluation import scorers
from smolvlm.evaluation.scorers import Mode, Score
from smolvlm.evaluation.scorers.choice import letters_of
from smolvlm.evaluation.scorers.text import edit_distance, read_number
from smolvlm.evaluation.scorers.video import first_capital

MODES: tuple[Mode, ...] = ("vlmevalkit", "official", "strict")
COLOURS = ["red", "blue", "green", "dark blue"]
DIRECTIONS = ["left", "right", "up"]
CAPTIONS = ["Caption A: The dog runs.", "Caption B: The dog sleeps."]
FOOTBALL = "B. playing football"


def of_a_judge(score: Score) -> float | str:
    """As the vectors write it: "fail" is what goes to a judge."""
    return score.value if score.status == "ok" else "fail"


# group -> (our result, the vector's), from the group's shared fields and one case
GOLDEN: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[object, object]]] = {
    "anls": lambda group, case: (round(scorers.anls(case["prediction"], case["answers"]).value, 6), case["score"]),
    "vqa_soft": lambda group, case: (
        scorers.vqa_accuracy(case["prediction"], case["answers"]).value, pytest.approx(case["score"])
    ),
    "process_answer": lambda group, case: (scorers.normalise_answer(case["x"]), case["y"]),
    "relaxed": lambda group, case: (
        scorers.relaxed_accuracy(case["prediction"], [case["target"]]).value, float(case["hit"])
    ),
    "mcq_can_infer": lambda group, case: (
        scorers.multiple_choice(case["prediction"], list(group["choices"].values()), "A").parsed or None,
        case["result"],
    ),
    "videomme_extract": lambda group, case: (first_capital(case["prediction"]) or "", case["result"]),
    "tempcompass_mc": lambda group, case: (
        of_a_judge(scorers.tempcompass_choice(case["prediction"], case["answer"])), case["result"]
    ),
    "tempcompass_yn": lambda group, case: (
        scorers.tempcompass_yes_no(case["prediction"], "yes").parsed or False, case["result"]
    ),
    "tempcompass_cm": lambda group, case: (
        of_a_judge(scorers.tempcompass_matching(case["prediction"], CAPTIONS, CAPTIONS[0])), case["result"]
    ),
    "mvbench": lambda group, case: (scorers.mvbench(case["prediction"], DIRECTIONS, "B").value, float(case["hit"])),
    "mlvu_mcq": lambda group, case: (scorers.mlvu(case["prediction"], DIRECTIONS, "B").value, float(case["hit"])),
    "ocrbench": lambda group, case: (
        scorers.containment(case["prediction"], case["answers"], formula=case["hme"]).value, float(case["hit"])
    ),
}  # fmt: skip


@pytest.mark.parametrize("group", GOLDEN)
def test_golden_vectors_of_the_harness_come_out_the_same(group: str, shared: Path) -> None:
    vectors = json.loads((shared / "data" / "scorer_golden.json").read_text(encoding="utf-8"))
    assert vectors.keys() == GOLDEN.keys()
    whole = vectors[group] if isinstance(vectors[group], dict) else {"cases": vectors[group]}
    assert whole["cases"]
    wrong = [(case, *result) for case in whole["cases"] if (result := GOLDEN[group](whole, case))[0] != result[1]]
    assert not wrong


INTEGER, LIST = (partial(scorers.mathvista, answer_type=kind) for kind in ("integer", "list"))
FLOAT = partial(scorers.mathvista, answer_type="float", precision=2)
PICK = partial(scorers.mathvista, answer_type="text", choices=COLOURS)
FORMULA = partial(scorers.containment, formula=True)
# (what is known, scorer, its references, {prediction: values in modes vlmevalkit, official, strict})
QUIRKS: list[tuple[str, Callable[..., Score], tuple[object, ...], dict[str, tuple[float, float, float]]]] = [
    ("ANLS is nought below one half", scorers.anls, (["28"],), {"29": (0.5, 0.5, 0.5), "35": (0, 0, 0)}),
    ("ANLS takes the best of the answers", scorers.anls, (["no way", "Yes it is", "yes"],), {"Yes": (1, 1, 1)}),
    ("blanks around an answer raise ANLS", scorers.anls, (["28"],), {"29  ": (0.75, 0.75, 0.5)}),
    ("ANLS counts lengths in capitals", scorers.anls, (["\u00dfy"],), {"\u00dfx": (0.666667, 0.666667, 0.5)}),
    ("the VQA code leaves equal answers as they are", scorers.vqa_accuracy, (["stop"] * 10,), {"Stop.": (1, 0, 1)}),
    ("it normalises different ones", scorers.vqa_accuracy, (["stop"] * 9 + ["go"],), {"Stop.": (1, 1, 1)}),
    ("TextVQA's always normalises", scorers.textvqa_accuracy, (["stop"] * 10,), {"Stop.": (1, 1, 1)}),
    ("five percent off is right and more is not", scorers.relaxed_accuracy, (["-100"],),
     {"-105": (1, 1, 1), "-105.0001": (0, 0, 0), "-94.9": (0, 0, 0)}),
    ("percent is a hundredth", scorers.relaxed_accuracy, (["0.17"],), {"17%": (1, 1, 1), "17": (0, 0, 0)}),
    ("percent is a hundredth in answers too", scorers.relaxed_accuracy, (["17%"],), {"0.17": (1, 1, 1)}),
    ("nought is compared as text", scorers.relaxed_accuracy, (["0"],), {"0.0": (0, 0, 1), "0": (1, 1, 1)}),
    ("thousands with a comma are text", scorers.relaxed_accuracy, (["2,000"],), {"2000": (0, 0, 1)}),
    ("no number misses itself", scorers.relaxed_accuracy, (["nan", "inf"],), {"nan": (0, 0, 1), "inf": (0, 0, 1)}),
    ("a full stop misses", scorers.relaxed_accuracy, (["No", "Yes"],), {"Yes.": (0, 0, 0), "yes ": (1, 1, 1)}),
    ("an answer in another word is contained", scorers.containment, (["1"],), {"2019": (1, 1, 0), "a 1.": (1, 1, 1)}),
    ("an empty reference is always contained", scorers.containment, ([""],), {"anything": (1, 1, 0)}),
    ("new lines are blanks", scorers.containment, (["the centre"],), {"The\nCENTRE.": (1, 1, 1)}),
    ("full-width letters are others", scorers.containment, (["ab"],), {"\uff21\uff22": (0, 0, 1)}),
    ("a formula keeps its case and loses its spaces", FORMULA, (["x^2+1"],),
     {"x ^ 2\n+ 1": (1, 1, 1), "X^2+1": (0, 0, 0), "y=x^2+1": (1, 1, 0)}),
    ("an open question's answer is the option A", scorers.mmmu_open, (["24/7"],), {"A": (1, 0, 0)}),
    ("open answers are right to two decimals", scorers.mmmu_open, (["3.14"],),
     {"3.1449": (1, 1, 1), "3.136": (0, 1, 1), "it is 3.14": (1, 1, 0)}),
    ("MathVista's lists are always wrong", LIST, ("[1, 2]",), {"[1, 2]": (0, 1, 1), "[1,2.0]": (0, 0, 1)}),
    ("MathVista's decimals are rounded by its own code only", FLOAT, ("1.45",), {"1.449": (0, 1, 1)}),
    ("and there compared as text", FLOAT, ("0.60",), {"0.6": (1, 0, 1)}),
    ("MathVista's whole numbers are cut off", INTEGER, ("1400",), {"1400.9": (0, 1, 0), "1,400": (0, 0, 1)}),
    ("MathVista's choices go by spelling", PICK, ("blue",), {"(B) blue": (1, 1, 1), "bleu": (0, 1, 0)}),
    ("nothing is nearest to the shortest choice", PICK, ("red",), {"": (0, 1, 0)}),
    ("MathVista's judge is asked about a wrong number too", partial(INTEGER, judge=lambda said: "14"), ("14",),
     {"It is 14.": (1, 1, 1), "13": (1, 0, 0)}),
    ("without a judge a sentence is wrong", INTEGER, ("14",), {"It is 14.": (0, 0, 0)}),
    ("Video-MME takes the first capital anywhere", scorers.videomme, (COLOURS, "D"),
     {"Actually D": (0, 0, 0), "Answer: D": (1, 1, 1), "The best option is D": (1, 1, 1)}),
    ("a word's capital is a letter", scorers.videomme, (COLOURS, "A"), {"Actually D": (1, 1, 0), "Apple": (1, 1, 0)}),
    ("Video-MME without a capital goes by text", scorers.videomme, (COLOURS, "C"), {"green": (1, 0, 1)}),
    ("MVBench gives points for nothing and for a bracket", scorers.mvbench, (DIRECTIONS, "B"),
     {"": (1, 1, 0), "(": (1, 1, 0), ")": (1, 1, 0), ".": (1, 1, 0), "A": (0, 0, 0)}),
    ("MVBench's own check has all right behind a blank", scorers.mvbench, (DIRECTIONS, "B"), {" A": (0, 1, 0)}),
    ("MVBench's harness looks twice", scorers.mvbench, (DIRECTIONS, "B"), {"The answer is B": (1, 0, 1)}),
    ("MLVU reads the character before the first bracket", scorers.mlvu, (DIRECTIONS, "B"),
     {"B) right": (1, 1, 1), "(A) left is wrong, (B)": (0, 0, 0), "AB) or so": (1, 1, 0), "right": (1, 0, 1)}),
    ("CinePile checks the text behind the letter", scorers.cinepile, (COLOURS, "B"),
     {"**Answer:** B": (1, 1, 1), "answer: B) BLUE": (1, 1, 1), "Answer: B) red": (0, 0, 0)}),
    ("CinePile reads a letter off a word", scorers.cinepile, (COLOURS, "B"), {"Answer: Because": (0, 0, 0)}),
    ("CinePile wants a letter alone or behind the word answer", scorers.cinepile, (COLOURS, "B"),
     {"b": (1, 1, 1), "Blue": (1, 1, 1), "B) blue": (0, 0, 1), "B.": (0, 0, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS, ids=[quirk[0] for quirk in QUIRKS])
def test_known_quirk(quirk: tuple[str, Callable[..., Score], tuple[object, ...], dict[str, object]]) -> None:
    _, scorer, references, expected = quirk
    for said, values in expected.items():
        scores = [scorer(said, *references, mode=mode) for mode in MODES]
        assert tuple(round(score.value, 6) for score in scores) == values, (said, scores)


def test_edit_distance_counts_insertions_deletions_and_replacements() -> None:
    for first, second, distance in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]:
        assert edit_distance(first, second) == edit_distance(second, first) == distance


@pytest.mark.parametrize(("equal", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_of_ten_answers_is_the_closed_form(equal: int, expected: float) -> None:
    for mode in MODES:
        answers = ["stop"] * equal + ["go"] * (10 - equal)
        assert scorers.vqa_accuracy("stop", answers, mode).value == pytest.approx(expected)


def test_a_mark_beside_a_space_goes_everywhere_else_it_becomes_a_space() -> None:
    assert scorers.normalise_answer("e-mail") == "e mail"
    assert scorers.normalise_answer("e-mail - now") == "email now"


def test_a_comma_between_digits_takes_every_mark_away() -> None:
    assert scorers.normalise_answer("e-mail 10,000") == "email 10000"


def test_a_dot_beside_a_digit_stays_in_one_harness_and_goes_in_the_other() -> None:
    assert scorers.normalise_answer("3.") == "3."
    assert scorers.normalise_answer("3.", "official") == "3"
    assert scorers.normalise_answer("3.", "strict") == "3"
    assert [scorers.normalise_answer("5.5", mode) for mode in MODES] == ["5.5"] * 3


def test_at_most_32_dots_are_taken_away_but_strictly_all() -> None:
    assert [scorers.normalise_answer("x" + "." * 40, mode) for mode in MODES] == ["x" + "." * 8, "x" + "." * 8, "x"]


def test_number_words_articles_and_contractions() -> None:
    assert scorers.normalise_answer("The two dogs, a cat and none") == "2 dogs cat and 0"
    assert scorers.normalise_answer("dont couldnt've oclock") == "don't couldn't've o'clock"
    assert scorers.normalise_answer("eleven") == "eleven"


def test_two_entries_of_the_table_of_contractions_never_help() -> None:
    assert scorers.normalise_answer("Im Ive") == "im ive"  # the table has capitals, the text is in lower case
    assert scorers.normalise_answer("somebody'd") == "somebodyd"  # the wrong way round


def test_the_textvqa_challenge_drops_commas_and_question_marks_and_splits_off_s() -> None:
    assert scorers.textvqa_accuracy("It's red, or?", ["x"], "official").parsed == "it 's red or"
    assert scorers.textvqa_accuracy("e-mail 10,000", ["x"], "official").parsed == "e mail 10000"


def test_exact_match_looks_past_case_and_outer_blanks_only() -> None:
    assert scorers.exact_match(" Red ", ["red"]).value == 1
    assert scorers.exact_match("red.", ["red"]).value == 0


def test_numbers_are_read_whole_or_not_at_all() -> None:
    texts = ["2,000.5", "17%", "-.5", "1e3", "20,00", "1_000", "nan", "1e999", "\u0661", "3 cats", ""]
    assert [read_number(text) for text in texts] == [2000.5, 0.17, -0.5, 1000.0, *[None] * 7]


def chosen(prediction: str, mode: Mode = "vlmevalkit", options: list[str] = COLOURS) -> str | None:
    return scorers.multiple_choice(prediction, options, "A", mode).parsed or None


@pytest.mark.parametrize(
    "refusal",
    [
        "Sorry, I can't help with images of people yet.",
        "I can't process this file.",
        "I'm sorry, but without the image provided I see no B",
        "Cannot determine the answer",
        "Z",
    ],
)
def test_a_refusal_is_the_letter_z_and_decided_as_wrong(refusal: str) -> None:
    assert scorers.multiple_choice(refusal, COLOURS, "B") == Score(0.0, "Z", "ok")


def test_a_letter_counts_only_among_the_last_four_words() -> None:
    assert chosen("B w x y") == "B"
    assert chosen("B w x y z") is None
    assert chosen("B w x y B") is None  # where it first comes up
    assert chosen("B or C") is None


def test_answer_is_takes_the_start_of_any_word_for_a_letter() -> None:
    assert chosen("The correct answer is **C**. Because green is shown somewhere in this picture.") == "C"
    assert chosen("The answer is definitely unclear") == "D"
    assert chosen("The answer is B because A is wrong, as we all know") == "B"


def test_an_option_s_text_counts_when_it_is_the_only_one_and_the_answer_is_short() -> None:
    assert chosen("The colour is green.") == "C"
    assert chosen("dark blue") is None  # contains "blue" too
    assert chosen("green" + "." * 100) is None


def test_the_article_a_is_the_option_a() -> None:
    assert chosen("A blue car") == "A"


def test_a_small_letter_is_undecided_but_for_strict() -> None:
    assert scorers.multiple_choice("c", COLOURS, "C") == Score(0.0, "", "undecided")
    assert chosen("c", "strict") == "C"


def test_a_judge_is_asked_up_to_three_times_and_only_when_undecided() -> None:
    asked = []

    def judge(prediction: str) -> str:
        asked.append(prediction)
        return "B" if len(asked) == 3 else "hm"

    assert scorers.multiple_choice("B", COLOURS, "B", judge=judge).value == 1 and not asked
    assert scorers.multiple_choice("the second", COLOURS, "B", judge=judge) == Score(1.0, "B", "ok")
    assert asked == ["the second"] * 3
    assert scorers.multiple_choice("the second", COLOURS, "B", judge=lambda said: "hm").status == "undecided"


def test_mmmu_s_parser_prefers_brackets_then_blanks_then_dots_and_the_last_of_several() -> None:
    assert chosen("(B) or (C), not A ", "official") == "C"
    assert chosen("A or B", "official") == "B"
    assert chosen("B.x", "official") == "B"


def test_mmmu_s_parser_finds_letters_at_the_end_of_words() -> None:
    assert chosen("NASA did it", "official") == "A"


def test_mmmu_s_parser_reads_option_texts_only_in_more_than_five_words() -> None:
    assert chosen("it is blue", "official") is None
    assert chosen("it is red or rather it is green", "official") == "C"


def test_mmmu_s_guess_needs_a_generator_and_stays_marked_as_undecided() -> None:
    assert scorers.multiple_choice("dunno", COLOURS, "B", "official") == Score(0.0, "", "undecided")
    guesses = [scorers.multiple_choice("dunno", COLOURS, "B", "official", random=Random(seed)) for seed in range(40)]
    assert {guess.parsed for guess in guesses} == set("ABCD")
    assert all(guess.status == "undecided" and guess.value == (guess.parsed == "B") for guess in guesses)


@pytest.mark.parametrize("said", ["B", "b", "(B)", "B.", "**B**", "Answer: B", "The answer is B.", "B) blue", "Blue."])
def test_strict_takes_one_option_and_nothing_else(said: str) -> None:
    assert chosen(said, "strict") == "B"


@pytest.mark.parametrize("said", ["B or C", "B) red", "A blue car", "E", "it is blue", "Based on it", "AB"])
def test_strict_leaves_the_rest_undecided(said: str) -> None:
    assert chosen(said, "strict") is None


def test_ai2d_and_scienceqa_want_the_letter_at_the_very_start() -> None:
    said = ["B", "B. blue", " B", "B) blue", "The answer is B", "b", ""]
    assert [scorers.leading_letter(text, COLOURS, "B").value for text in said] == [1, 1, 1, 0, 0, 0, 0]


def test_a_right_answer_that_is_no_option_is_refused() -> None:
    for gold in ("E", "", "AB", "b"):
        with pytest.raises(InputError, match="the options are A, B, C, D"):
            letters_of(COLOURS, gold)
    with pytest.raises(InputError, match="none"):
        letters_of([], "A")


def test_mmmu_s_open_answers_count_behind_key_words_and_to_two_decimals() -> None:
    for said, answer, hit in [
        ("So the answer is 3.14159", "3.14", 1), ("x = 1,200", "1200", 1), ("the price is 12 dollars", "12", 1),
        ("the price is 12cm", "12", 0), ("it is a big dog", "dog", 1), ("xenon", "x", 0), ("gas x it is", "x", 1),
        ("the result is x + 1", "x", 1), ("First.\nThe answer is red", "first", 0),
    ]:  # fmt: skip
        assert scorers.mmmu_open(said, [answer], "official").value == hit, (said, answer)
    assert [scorers.mmmu_open(said, ["3.14"], "strict").value for said in ("3.141", "it is 3.14")] == [1, 0]


def test_what_no_rule_reads_is_undecided_and_what_is_blank_is_empty() -> None:
    assert scorers.mvbench(" ", DIRECTIONS, "B") == Score(1.0, "B", "empty")
    assert scorers.videomme("the cat", COLOURS, "C") == Score(0.0, "", "undecided")
    assert scorers.mathvista("It is 14.", "14", "integer").status == "undecided"


def test_video_mme_knows_one_phrase_only_that_holds_a_capital() -> None:
    said = {"Actually D": "A", "Based on the video, C": "B", "Best option: C": "B", "Answer: D": "D", "b": None}
    assert {text: first_capital(text) for text in said} == said


def test_an_answer_that_is_no_choice_is_refused() -> None:
    with pytest.raises(InputError, match="none of the choices: red, blue"):
        PICK("B", "violet")


def test_tempcompass_choice_knows_capitals_only_and_leaves_sentences_to_the_judge() -> None:
    said = {"B": 1, "B. x": 1, "B)": 1, FOOTBALL: 1, "C": 0, "b": "fail", "The answer is B": "fail", "": "fail"}
    assert {text: of_a_judge(scorers.tempcompass_choice(text, FOOTBALL)) for text in said} == said
    for reply, hit in {"Correct.": 1, "It is Correct": 1, "Incorrect": 0, "Not Correct, Incorrect": 0, "hm": 0}.items():
        assert scorers.tempcompass_choice("b", FOOTBALL, lambda said, reply=reply: reply).value == hit


def test_tempcompass_yes_no_goes_by_the_beginning() -> None:
    for said, word in {"YES!": "yes", "November": "no", "not really": "no", "I think yes": ""}.items():
        assert scorers.tempcompass_yes_no(said, "no") == Score(word == "no", word, "ok" if word else "undecided")


def test_tempcompass_matching_takes_label_letter_or_sentence() -> None:
    for said in ("Caption A", "A.", "A", CAPTIONS[0], "The dog runs.", "B) The dog runs."):
        assert scorers.tempcompass_matching(said, CAPTIONS, CAPTIONS[0]).value == 1, said
    assert scorers.tempcompass_matching("Caption B.", CAPTIONS, CAPTIONS[0]) == Score(0.0, CAPTIONS[1], "ok")
    assert scorers.tempcompass_matching("", ["A", "B"], "A").status == "empty"


def test_tempcompass_captioning_needs_a_judge_that_names_one_option() -> None:
    assert scorers.tempcompass_captioning("A man runs.", FOOTBALL, None).status == "undecided"
    replies = {f"Reasoning: so.\nAnswer: {FOOTBALL}": 1, FOOTBALL: 1, "Answer: A. x": 0, "Answer: B. or C. x": 0}
    for reply, hit in replies.items():
        assert scorers.tempcompass_captioning("x", FOOTBALL, lambda said, reply=reply: reply).value == hit, reply


HOSTILE = [
    "", " ", "\n\t\0", "nan", "-inf", "1e999", "9" * 5000, "1" * 100_000 + "a", "-" * 100_000, " " * 100_000 + "x",
    "answer" + " " * 100_000, "Answer:" * 20_000, "1," * 50_000, "(((" * 30_000, "B" * 100_000, "a b " * 25_000,
    "(?P<x>.*)+$[", "\\", "%s {0} {", "[[" * 50_000, "\ud800\udfff", "\u202eB\u202c", "\u0130\u00df\ufb01",
    "\U0001f600", "\uff22", "\u0662", "e\u0301" * 1000, "%" * 100_000, "is " * 30_000, "." * 100_000,
]  # fmt: skip


def everywhere(said: str, mode: Mode) -> list[Score]:
    return [
        scorers.anls(said, ["28", ""], mode),
        scorers.vqa_accuracy(said, ["two"] * 9 + [""], mode),
        scorers.textvqa_accuracy(said, ["two"], mode),
        scorers.relaxed_accuracy(said, ["10", "0", "nan"], mode),
        scorers.exact_match(said, ["x"]),
        *[scorers.containment(said, ["centre", said[:9]], mode, formula=formula) for formula in (False, True)],
        scorers.multiple_choice(said, COLOURS, "B", mode),
        scorers.leading_letter(said, COLOURS, "B"),
        scorers.mmmu_open(said, ["3.14", "x"], mode),
        *[scorers.mathvista(said, "2", kind, precision=1, mode=mode) for kind in ("integer", "float", "list", "text")],
        scorers.mathvista(said, "blue", "text", choices=COLOURS, mode=mode),
        scorers.cinepile(said, COLOURS, "B", mode),
        *[scorer(said, COLOURS, "B", mode) for scorer in (scorers.videomme, scorers.mvbench, scorers.mlvu)],
        scorers.tempcompass_choice(said, FOOTBALL),
        scorers.tempcompass_yes_no(said, "yes"),
        scorers.tempcompass_matching(said, CAPTIONS, CAPTIONS[0]),
        scorers.tempcompass_captioning(said, FOOTBALL, lambda text: text),
    ]  # fmt: skip


@pytest.mark.parametrize("at", range(len(HOSTILE)))
def test_no_answer_stops_a_scorer(at: int) -> None:
    begun = time.process_time()
    for mode in MODES:
        for score in everywhere(HOSTILE[at], mode):
            assert 0 <= score.value <= 1
            assert (score.status == "empty") == (not HOSTILE[at].strip())
    assert time.process_time() - begun < 10  # what hangs takes minutes; this takes well under a second


def test_no_references_are_worth_nothing() -> None:
    for scorer in (scorers.anls, scorers.vqa_accuracy, scorers.relaxed_accuracy, scorers.containment):
        assert scorer("x", []).value == 0
    assert scorers.exact_match("x", []).value == 0
