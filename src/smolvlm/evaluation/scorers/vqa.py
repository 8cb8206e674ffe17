"""Soft accuracy against ten people's answers, and the normaliser before it (TextVQA, VQAv2).

Source: the evaluation code of VQA (arXiv 1505.00468), TextVQA's of MMF, and VLMEvalKit e8e78f0. Their accidents are
kept, because scores are compared with theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .score import Mode, Score, graded

AGREEING = 3  # so many other people make an answer wholly right
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = {"a", "an", "the"}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
# Which dots go, and how many at most. Both codes pass a flag of the value 32 in the place of a count; the VQA code
# means to spare a dot behind a digit, but misspells it.
_DOTS = {
    "vlmevalkit": (re.compile(r"(?<!\d)\.(?!\d)"), 32),
    "official": (re.compile(r"\.(?!\d)"), 32),
    "strict": (re.compile(r"\.(?!\d)"), 0),
}
# Each stands for itself with one apostrophe left out. Those of "I" are missing: texts are in lower case by then.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_WRITTEN_OUT = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTIONS.split() for at in range(len(word)) if word[at] == "'"
} | {"somebody'd": "somebodyd"}  # the wrong way round in every copy of the table


def vqa_accuracy(prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit") -> Score:
    """The mean, over leaving each answer out, of min(1, equal answers / 3). For ten answers 0, .3, .6, .9 or 1.

    mode "official" normalises only where the answers differ, so that "Stop." misses ten times "stop".
    """
    if mode == "official" and len(set(answers)) == 1:
        return _soft(prediction, *map(_tidied, (prediction, *answers)))
    return _soft(prediction, *(normalise_answer(text, mode) for text in (prediction, *answers)))


def textvqa_accuracy(prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit") -> Score:
    """As vqa_accuracy, but mode "official" is this challenge's: it drops commas first, and always normalises."""
    if mode == "official":
        return _soft(prediction, *(normalise_answer(_tokenised(text), mode) for text in (prediction, *answers)))
    return vqa_accuracy(prediction, answers, mode)


def normalise_answer(text: str, mode: Mode = "vlmevalkit") -> str:
    """Lower case without punctuation and articles, number words as digits, contractions with their apostrophes.

    A mark becomes a space, but goes without one when anywhere in the text it stands beside a space, or when anywhere a
    comma stands between digits. A dot goes when no digit is beside it; modes "official" and "strict" spare only one
    before a digit; only "strict" takes more than 32.
    """
    text = _tidied(text)
    joins = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in _MARKS:
        bare = bare.replace(mark, "" if joins or f"{mark} " in text or f" {mark}" in text else " ")
    dots, most = _DOTS[mode]
    words = [_DIGITS.get(word, word) for word in dots.sub("", bare, count=most).lower().split()]
    return " ".join(_WRITTEN_OUT.get(word, word) for word in words if word not in _ARTICLES)


def _tidied(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _tokenised(text: str) -> str:
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's")


def _soft(prediction: str, said: str, *answers: str) -> Score:
    """Who gave the same answer sees one equal answer fewer among the others."""
    equal, total = answers.count(said), max(len(answers), 1)
    value = (equal * min(1, (equal - 1) / AGREEING) + (total - equal) * min(1, equal / AGREEING)) / total
    return graded(prediction, said, value)
