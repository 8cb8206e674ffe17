"""Rows of the image benchmarks' twins, with the columns of VLMEvalKit's TSV files; `image` holds encoded pictures.

The pictures are drawn and small, the questions those of the bundled model; what is asked of a benchmark's reader,
prompt and scorer is all there: several pictures, open questions, missing options, lists of answers, shared pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from random import Random
from typing import Any

from ..messages import lettered
from ..tasks.mmmu import DISCIPLINES
from .drawn import Question, questions

Columns = dict[str, Any]

_CHOICES = ("colour_of", "shape_of", "where", "at_place", "count_all", "exists")
_VALUES = ("chart_value", "chart_highest_value", "chart_sum", "chart_difference", "chart_count")
_PAPER = ("total", "price", "shop", "number", "issue_date", "due_date", "count_items")
_SUBJECTS = tuple((subject, area) for area, subjects in DISCIPLINES.items() for subject in subjects.split())


def mmstar() -> Iterator[Columns]:
    capabilities = {
        "colour_of": ("fine-grained perception", "attribute"),
        "shape_of": ("fine-grained perception", "object"),
        "where": ("coarse perception", "localization"),
        "at_place": ("instance reasoning", "cross-instance attribute"),
        "count_all": ("math", "counting"),
        "exists": ("logical reasoning", "existence"),
    }
    for index, one in enumerate(questions("scene", _CHOICES)):
        category, axis = capabilities[one.kind]
        yield _choice(index, one, 4) | {"category": category, "l2_category": axis}


def ai2d() -> Iterator[Columns]:
    for index, one in enumerate(questions("scene", ("where", "shape_of", "colour_of"))):
        yield _choice(index, one, 4) | {"category": "atomStructure" if one.kind == "where" else "foodChainsWebs"}


def scienceqa() -> Iterator[Columns]:
    for index, one in enumerate(questions("scene", _CHOICES)):
        hint = "All shapes are drawn." if index % 3 == 0 else None
        columns = _choice(index, one, 5) | {"hint": hint, "split": "test", "subject": "natural science"}
        yield columns | {"topic": "physics", "category": "Particle motion and energy" if hint else "Materials"}


def mmmu() -> Iterator[Columns]:
    """One row in ten is open, one in three is on two pictures."""
    scenes, pairs = questions("scene", _CHOICES), questions("pair", ("which_has", "more"))
    for index in count():
        subject, area = _SUBJECTS[index % len(_SUBJECTS)]
        pair = index % 3 == 1
        one = next(pairs if pair else scenes)
        columns = _choice(index, one, 4)
        if index % 10 == 9:
            columns = {key: value for key, value in columns.items() if key not in "ABCD"} | {"answer": one.answer}
        shown = "<image 1> <image 2> " if pair else "<image 1> "
        yield columns | {
            "id": f"validation_{subject}_{index + 1}",
            "question": shown + one.text,
            "question_type": "open" if index % 10 == 9 else "multiple-choice",
            "category": subject,
            "l2-category": area,
            "split": "validation",
            "topic_difficulty": ("Easy", "Medium", "Hard")[index % 3],
        }


def mathvista() -> Iterator[Columns]:
    """By choice, or with a whole number."""
    for index, one in enumerate(questions("chart", (*_VALUES, "chart_taller", "chart_colour"))):
        columns = _open(index, one) | {"unit": None, "precision": None, "answer_option": None, "choices": None}
        if one.kind in _VALUES:
            wish = "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end."
            columns |= {"question_type": "free_form", "answer_type": "integer"}
            listed, skills = "", ["statistical reasoning", "arithmetic reasoning"]
        else:
            wish = "and provide the correct option letter, e.g., A, B, C, D, at the end."
            texts, letter = one.options(4)
            columns |= {"question_type": "multi_choice", "answer_type": "text"}
            columns |= {"answer_option": letter, "choices": repr(texts)}
            listed = "\nChoices:" + "".join(f"\n({key}) {text}" for key, text in lettered(texts).items())
            skills = ["logical reasoning"]
        yield columns | {
            "question": f"Hint: Please answer the question {wish}\nQuestion: {one.text}{listed}",
            "task": "figure question answering",
            "skills": repr(skills),
            "category": "math-targeted-vqa",
            "context": "bar chart",
            "grade": "elementary school",
            "language": "english",
            "source": "drawn",
        }


def chartqa() -> Iterator[Columns]:
    for index, one in enumerate(questions("chart", (*_VALUES, "chart_highest", "chart_lowest", "chart_taller"))):
        yield _open(index, one) | {"split": "test_human" if index % 2 else "test_augmented"}


def docvqa() -> Iterator[Columns]:
    """Several questions on a page; those behind the first have its index in the place of the picture."""
    index = 0
    for one in questions("document", _PAPER):
        first = index
        for turn in one.alike:
            yield {
                "index": index,
                "questionId": 1000 + index,
                "docId": one.index,
                "question": turn.question,
                "answer": repr([turn.answer]),
                "question_types": repr(["table/list" if turn.kind == "price" else "form"]),
                "image": one.pictures if index == first else first,
            }
            index += 1


def docvqa_test() -> Iterator[Columns]:
    """Without answers, as the organisers keep them."""
    for columns in docvqa():
        yield columns | {"answer": None}


def textvqa() -> Iterator[Columns]:
    for index, one in enumerate(questions("read", ("read_1", "read_line", "read_number", "word_by"))):
        yield _open(index, one) | {"answer": repr(_people(one, one.answer.lower())), "image_id": f"drawn{one.index}"}


def ocrbench() -> Iterator[Columns]:
    recognition = (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Non-Semantic Text Recognition",
    )
    reading = questions("read", ("read_1", "read_2", "word_by"))
    papers = questions("document", _PAPER)
    for index in count():
        one = next(papers if index % 3 == 2 else reading)
        category = recognition[index % len(recognition)]
        if index % 3 == 2:
            category = "Key Information Extraction" if one.kind in ("price", "total") else "Doc-oriented VQA"
        elif one.kind == "word_by":
            category = "Scene Text-centric VQA"
        elif one.kind == "read_2":  # case and no spaces count
            category = "Handwritten Mathematical Expression Recognition"
        elif one.answer.isdigit():
            category = "Digit String Recognition"
        yield _open(index, one) | {"answer": repr([one.answer]), "category": category}


def vqav2() -> Iterator[Columns]:
    types = {
        "exists": ("yes/no", "is there a"),
        "count_all": ("number", "how many"),
        "colour_of": ("other", "what color"),
    }
    for index, one in enumerate(questions("scene", tuple(types))):
        answer_type, question_type = types[one.kind]
        other = {"yes": "no", "no": "yes"}.get(one.answer, "none")
        columns = _open(index, one) | {"answer": repr(_people(one, other)), "question_id": index}
        yield columns | {"answer_type": answer_type, "question_type": question_type}


ROWS: dict[str, Callable[[], Iterator[Columns]]] = {
    "ai2d": ai2d,
    "chartqa": chartqa,
    "docvqa": docvqa,
    "docvqa-test": docvqa_test,
    "mathvista": mathvista,
    "mmmu": mmmu,
    "mmstar": mmstar,
    "ocrbench": ocrbench,
    "scienceqa": scienceqa,
    "textvqa": textvqa,
    "vqav2": vqav2,
}


def draw_rows(name: str, rows: int) -> list[Columns]:
    return list(islice(ROWS[name](), rows))


def _open(index: int, one: Question) -> Columns:
    return {"index": index, "question": one.text, "answer": one.answer, "image": one.pictures}


def _choice(index: int, one: Question, most: int) -> Columns:
    texts, letter = one.options(most)
    return _open(index, one) | {"answer": letter} | lettered(texts)


def _people(one: Question, other: str) -> list[str]:
    """Ten answers, of which none to four differ."""
    rng = Random(f"people {one.index}")
    answers = [other] * rng.choice((0, 0, 1, 2, 4))
    answers += [one.answer] * (10 - len(answers))
    rng.shuffle(answers)
    return answers
