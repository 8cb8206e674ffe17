"""TempCompass's four kinds of question. What a rule can't read goes to a judge, and without one counts as wrong.

A judge gets the prediction and says "Correct" or "Incorrect"; of a caption, "Answer: " and the option that it shows.
Source: TempCompass (arXiv 2403.00476), as in VLMEvalKit e8e78f0, dataset/utils/tempcompass.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from .score import Judge, Score, graded


def tempcompass_choice(prediction: str, answer: str, judge: Judge | None = None) -> Score:
    """answer: "B. playing football". By the whole answer, or by a capital A to D alone or before "." or ")"."""
    if prediction == answer:
        return graded(prediction, answer[:1], 1.0)
    if prediction[:1] in tuple("ABCD") and prediction[1:2] in ("", ".", ")"):
        return graded(prediction, prediction[:1], prediction[:1] == answer[:1])
    return _judged(prediction, judge)


def tempcompass_yes_no(prediction: str, answer: str, judge: Judge | None = None) -> Score:
    """answer: "yes" or "no". By how the prediction starts, so "not really" and "November" say no."""
    for word in ("yes", "no"):
        if prediction.lower().startswith(word):
            return graded(prediction, word, word == answer)
    return _judged(prediction, judge)


def tempcompass_matching(prediction: str, candidates: Sequence[str], answer: str, judge: Judge | None = None) -> Score:
    """candidates: "Caption A: The dog runs.", ...; answer: one of them.

    By the whole candidate, its label ("Caption A", "A", with dots or without), or its sentence, also behind ") ".
    """
    for candidate in reversed(candidates):
        label, _, sentence = candidate.partition(": ")
        labels = {label, label.rpartition(" ")[2]}
        said = {prediction, prediction.replace(".", "")}
        spoken = {prediction, prediction.partition(") ")[2]} - {""}
        if prediction == candidate or sentence in spoken or labels & said:
            return graded(prediction, candidate, candidate == answer)
    return _judged(prediction, judge)


def tempcompass_captioning(prediction: str, answer: str, judge: Judge | None) -> Score:
    """answer: "B. playing football". Always by the judge: it must name that letter and no option beside it."""
    reply = judge(prediction) if judge is not None else ""
    if not reply:
        return graded(prediction, None, 0.0)
    lines = [line for line in reply.split("\n") if "Answer" in line]
    named = lines[-1].replace("Answer:", "").strip() if lines else reply
    one = sum(named.count(f"{letter}.") for letter in "ABCD") == 1
    return graded(prediction, named, one and named.partition(". ")[0] == answer.partition(". ")[0])


def _judged(prediction: str, judge: Judge | None) -> Score:
    if judge is None:
        return graded(prediction, None, 0.0)
    reply = judge(prediction)
    return graded(prediction, reply, reply.startswith("Correct") or ("Correct" in reply and "Incorrect" not in reply))
