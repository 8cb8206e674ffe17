"""Drawn scenes: the same everywhere, splits apart, and answers that a second pair of eyes reads off the pixels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from smolvlm import scenes
from smolvlm.errors import InputError
from smolvlm.scenes import Scene
from smolvlm.scenes.ask import paraphrases
from smolvlm.scenes.wording import PHRASES
from smolvlm.scenes.words import HELD_OUT_WORDS

YES_NO = {"yes", "no"}
# Written down apart from the drawing code: what a person would call these colours.
EYES = {
    "red": (220, 40, 40), "orange": (245, 140, 25), "yellow": (240, 210, 30), "green": (40, 160, 65),
    "blue": (40, 90, 215), "purple": (130, 50, 170), "pink": (245, 130, 190), "black": (30, 30, 30),
}  # fmt: skip
GRID = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]


def images(scene: Scene) -> tuple[Image.Image, ...]:
    return scene.pictures + (scene.clip.frames if scene.clip else ())


def digest(scene: Scene) -> str:
    return sha256(b"".join(image.tobytes() for image in images(scene)) + repr(scene.turns).encode()).hexdigest()


def answers(scene: Scene, kind: str) -> list[str]:
    return [turn.answer for turn in scene.turns if turn.kind == kind]


def blobs(image: Image.Image) -> list[dict[str, object]]:
    """Connected patches of strong colour: where they are, how large, which colour."""
    pixels = np.asarray(image, np.int16)
    strong = (pixels.max(2) - pixels.min(2) > 75) | (pixels.mean(2) < 115)
    seen = np.zeros_like(strong)
    found = []
    for start in zip(*np.nonzero(strong), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        queue, members = deque([start]), []
        while queue:
            row, column = queue.popleft()
            members.append((row, column))
            for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if min(near) >= 0 and max(near) < image.width and strong[near] and not seen[near]:
                    seen[near] = True
                    queue.append(near)
        if len(members) < 30:
            continue
        rows, columns = np.array(members).T
        middle = (rows.min() + rows.max()) / 2 / image.width, (columns.min() + columns.max()) / 2 / image.width
        extent = max(np.ptp(rows), np.ptp(columns)) / image.width
        colour = np.median(pixels[rows, columns], axis=0)
        found.append(
            {
                "place": GRID[3 * int(middle[0] * 3) + int(middle[1] * 3)],
                "size": "large" if extent > 0.19 else "small",
                "colour": min(EYES, key=lambda name: float(np.abs(colour - EYES[name]).sum())),
                "centre": middle,
            }
        )
    return found


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_the_same_arguments_draw_the_same_bytes(skill: str) -> None:
    for index in range(5):
        assert digest(scenes.draw(skill, 3, index)) == digest(scenes.draw(skill, 3, index))


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_no_scene_is_in_two_splits_or_at_two_indices(skill: str) -> None:
    found = [digest(scenes.draw(skill, 1, index, split)) for split in scenes.SPLITS for index in range(40)]
    assert len(set(found)) == len(found)


def test_a_picture_shows_what_its_description_says() -> None:
    checked = 0
    for index in range(150):
        scene = scenes.draw("scene", 11, index)
        for text in answers(scene, "describe"):
            told = re.findall(r"[Aa] (small|large) (\w+) \w+ at the ([a-z ]+)[,.]", text)
            seen = [(blob["size"], blob["colour"], blob["place"]) for blob in blobs(scene.pictures[0])]
            assert sorted(told) == sorted(seen), f"scene {index}: {text}"
            checked += 1
    assert checked > 50


def test_counts_are_the_number_of_blobs() -> None:
    checked = 0
    for index in range(200):
        scene = scenes.draw("scene", 12, index)
        for answer in answers(scene, "count_all"):
            assert int(answer) == len(blobs(scene.pictures[0])), f"scene {index}"
            checked += 1
    assert checked > 30


def test_relations_hold_between_the_marked_centres() -> None:
    checked = 0
    for index in range(400):
        scene = scenes.draw("scene", 13, index)
        centres = {
            f"{scenes.ALL_COLOURS[mark.colour]} {scenes.ALL_SHAPES[mark.shape]}": (
                mark.box[0] + mark.box[2],
                mark.box[1] + mark.box[3],
            )
            for mark in scene.marks
        }
        for turn in scene.turns:
            if turn.kind != "is_relation":
                continue
            asked = re.search(r"the (\w+ \w+) (?:is |sit )?(left of|right of|above|below) the (\w+ \w+)", turn.question)
            assert asked, turn.question
            (x, y), (other_x, other_y) = centres[asked[1]], centres[asked[3]]
            holds = {"left of": x < other_x, "right of": x > other_x, "above": y < other_y, "below": y > other_y}
            assert turn.answer == ("yes" if holds[asked[2]] else "no"), turn
            checked += 1
    assert checked > 50


def test_the_letters_read_are_the_letters_printed() -> None:
    for index in range(150):
        scene = scenes.draw("read", 5, index)
        printed = "".join(scenes.CHARACTERS[mark.character] for mark in scene.marks if mark.character >= 0)
        told = [turn.answer for turn in scene.turns if turn.kind.startswith("read_") and turn.kind[5:].isdigit()]
        assert [text.replace(" ", "") for text in told] == [printed]
        pixels = np.asarray(scene.pictures[0].convert("L"), np.int16)
        for mark in (mark for mark in scene.marks if mark.character >= 0):
            x0, y0, x1, y1 = (int(edge * 128) for edge in mark.box)
            assert min(x0, y0) >= 0 and max(x1, y1) <= 128, f"scene {index} is cut"
            assert np.ptp(pixels[y0 : y1 + 1, x0 : x1 + 1]) > 80, f"scene {index} is too faint to read"


def test_bars_are_as_high_as_their_values() -> None:
    checked = 0
    for index in range(80):
        scene = scenes.draw("chart", 5, index)
        pixels = np.asarray(scene.pictures[0], np.int16)
        for text in answers(scene, "chart_read"):
            values = [int(value) for value in re.findall(r" (\d+)[,.]", text)]
            bars = [mark for mark in scene.marks if mark.colour >= 0]
            assert len(values) == len(bars)
            for value, mark in zip(values, bars, strict=True):
                column = int((mark.box[0] + mark.box[2]) / 2 * 128)
                bar = pixels[104, column]
                top = next(row for row in range(104, 0, -1) if np.abs(pixels[row, column] - bar).sum() > 120)
                assert abs((107 - top) / 9.6 - value) < 0.35, f"chart {index}: {text}"
                checked += 1
    assert checked > 100


def test_totals_add_up_and_due_dates_come_later() -> None:
    checked = Counter[str]()
    for index in range(150):
        scene = scenes.draw("document", 5, index)
        for listed in answers(scene, "list_items"):
            prices = [round(100 * float(price)) for price in re.findall(r"(\d+\.\d\d)", listed)]
            for total in answers(scene, "total"):
                assert sum(prices) == round(100 * float(total))
                checked["total"] += 1
        for issued in answers(scene, "issue_date"):
            for due in answers(scene, "due_date"):
                assert issued.split("/")[::-1] < due.split("/")[::-1]
                checked["dates"] += 1
    assert min(checked["total"], checked["dates"]) > 20


def test_what_moves_moves_in_the_direction_told() -> None:
    checked = Counter[str]()
    for index in range(300):
        scene = scenes.draw("video", 5, index, level=0.2)
        assert scene.clip is not None
        first, last = blobs(scene.clip.frames[0]), blobs(scene.clip.frames[-1])
        told = re.fullmatch(r"The (\w+) \w+ moves from ([a-z ]+)\.", answers(scene, "happens")[0])
        if told is None or len(first) != 1 or len(last) != 1:
            continue
        (y, x), (end_y, end_x) = first[0]["centre"], last[0]["centre"]  # type: ignore[misc]
        ways = {
            "left to right": end_x - x,
            "right to left": x - end_x,
            "top to bottom": end_y - y,
            "bottom to top": y - end_y,
        }
        assert first[0]["colour"] == told[1]
        assert max(ways, key=lambda way: ways[way]) == told[2] and ways[told[2]] > 0.4
        checked[told[2]] += 1
    assert len(checked) == 4


def test_shapes_left_at_the_end_are_counted_right() -> None:
    for index in range(150):
        scene = scenes.draw("video", 6, index)
        assert scene.clip is not None
        for kind, frame in (("count_start", scene.clip.frames[0]), ("count_end", scene.clip.frames[-1])):
            for answer in answers(scene, kind):
                assert int(answer) == len(blobs(frame)), f"clip {index}, {kind}"


def test_the_picture_with_more_shapes_is_the_one_told() -> None:
    told = {"the first": 1, "the second": -1, "the same": 0}
    for index in range(150):
        scene = scenes.draw("pair", 5, index)
        one, two = (len(blobs(picture)) for picture in scene.pictures)
        for answer in answers(scene, "more"):
            assert told[answer] == np.sign(one - two), f"pair {index}"


@pytest.mark.parametrize("skill", [skill for skill in scenes.SKILLS if skill not in ("text", "photograph")])
def test_yes_and_no_are_about_as_frequent(skill: str) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(1200):
        for turn in scenes.draw(skill, 21, index).turns:
            if turn.answer in YES_NO:
                counts[turn.kind][turn.answer] += 1
    assert counts
    for kind, count in counts.items():
        if count.total() >= 100:
            # four standard errors, and two points for kinds whose rate is set by thinning out
            assert abs(count["yes"] / count.total() - 0.5) < 2 / count.total() ** 0.5 + 0.03, (kind, count)


@pytest.mark.parametrize("skill", scenes.HELD_OUT_SKILLS)
def test_held_out_pairs_and_words_are_neither_drawn_nor_named_without_asking(skill: str) -> None:
    names = re.compile("|".join(rf"\b{colour} {shape}" for colour, shape in sorted(scenes.HELD_OUT_PAIRS)))
    words = re.compile(rf"\b({'|'.join(HELD_OUT_WORDS)})\b")
    for split in ("train", "test"):
        for index in range(250):
            scene = scenes.draw(skill, 31, index, split)
            for turn in scene.turns:
                assert not names.search(turn.question.lower()) and not names.search(turn.answer.lower()), turn
                assert not words.search(turn.question) and not words.search(turn.answer), turn
            for mark in scene.marks:
                pair = (scenes.ALL_COLOURS[mark.colour], scenes.ALL_SHAPES[mark.shape])
                assert mark.shape < 0 or pair not in scenes.HELD_OUT_PAIRS


@pytest.mark.parametrize("skill", ["scene", "pair", "video", "tiles"])
def test_the_held_out_group_shows_a_held_out_pair(skill: str) -> None:
    for index in range(60):
        scene = scenes.draw(skill, 31, index, "test", held_out=True)
        shown = {
            (scenes.ALL_COLOURS[mark.colour], scenes.ALL_SHAPES[mark.shape]) for mark in scene.marks if mark.shape >= 0
        }
        assert shown & scenes.HELD_OUT_PAIRS, f"scene {index}"


def test_reserved_shapes_and_colours_appear_only_when_asked_for() -> None:
    for skill in scenes.SKILLS:
        for index in range(60):
            for mark in scenes.draw(skill, 41, index).marks:
                assert mark.shape < len(scenes.SHAPES) and mark.colour < len(scenes.COLOURS)
    for index in range(60):
        marks = scenes.draw_reserved(41, index).marks
        assert any(mark.shape >= len(scenes.SHAPES) or mark.colour >= len(scenes.COLOURS) for mark in marks)


def test_level_zero_is_one_thing_one_letter_two_bars_two_frames() -> None:
    for index in range(40):
        assert len(scenes.draw("scene", 0, index, level=0).marks) <= 1
        assert all(len(text) <= 3 for text in answers(scenes.draw("read", 0, index, level=0), "read_1"))
        assert sum(mark.colour >= 0 for mark in scenes.draw("chart", 0, index, level=0).marks) == 2
        clip = scenes.draw("video", 0, index, level=0).clip
        assert clip is not None and len(clip.frames) == 2


def test_a_clip_at_another_rate_holds_the_same_frames_at_whole_seconds() -> None:
    for index in range(6):
        clip = scenes.draw("video", 2, index).clip
        finer = scenes.render_clip(2, index, fps=4)
        assert clip is not None and finer.duration_s == clip.duration_s and len(finer.frames) == 4 * len(clip.frames)
        assert finer.timestamps_s[4] == 1.0
        for frame, same in zip(clip.frames, finer.frames[::4], strict=True):
            assert frame.tobytes() == same.tobytes()


def test_picture_sizes_are_one_tile_or_four() -> None:
    for skill in set(scenes.SKILLS) - {"photograph"}:
        scene = scenes.draw(skill, 0, 0)
        side = 256 if skill in ("tiles", "document") else 128
        assert {image.size for image in images(scene)} <= {(side, side)}
        assert {image.mode for image in images(scene)} <= {"RGB"}
        assert scene.detail == ("auto" if side == 256 else "low")


def test_every_question_has_eight_ways_to_be_put_and_all_slots_are_filled() -> None:
    for key in PHRASES:
        assert len(set(paraphrases(key))) >= 8, key
    for skill in scenes.SKILLS:
        for index in range(100):
            scene = scenes.draw(skill, 51, index)
            assert scene.turns
            for turn in scene.turns:
                assert not set("{}|") & set(turn.question + turn.answer), turn
                assert turn.question.strip() and turn.answer == turn.answer.strip() != ""


def test_articles_fit_their_nouns() -> None:
    for skill in scenes.SKILLS:
        for index in range(100):
            for turn in scenes.draw(skill, 61, index).turns:
                assert not re.search(r"\b(a|A) orange|\b(an|An) [^aeiou]", turn.question + " " + turn.answer), turn


def test_baselines_tell_the_majority_of_train_and_its_score_in_test() -> None:
    found = scenes.baselines("scene", 0, 150)
    assert found["unknowable"].majority == 1.0 and found["unknowable"].num_answers == 1
    assert found["exists"].chance == pytest.approx(0.5, abs=0.03)
    assert found["describe"].majority < 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"skill": "poetry"}, "no skill 'poetry'"),
        ({"split": "exam"}, "no split 'exam'"),
        ({"level": 1.5}, "level=1.5"),
        ({"held_out": True}, "held_out=True"),
        ({"skill": "chart", "split": "test", "held_out": True}, "held_out=True"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scenes.draw(**{"skill": "scene", "seed": 0, "index": 0, **arguments})  # type: ignore[arg-type]


def test_a_frame_rate_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="fps=0"):
        scenes.render_clip(0, 0, fps=0)


def test_photographs_are_refused_whatever_is_asked() -> None:
    for index in range(60):
        scene = scenes.draw("photograph", 3, index)
        assert {turn.answer for turn in scene.turns} == {"I only understand drawn pictures."}
        pictures = scene.clip.frames if scene.clip else scene.pictures
        assert pictures and not scene.marks
        assert all(picture.size in ((128, 128), (256, 256)) for picture in pictures)


def test_long_lines_have_nine_to_twelve_letters_and_fit() -> None:
    lengths = set()
    for index in range(400):
        scene = scenes.draw("read", 5, index)
        told = next((turn.answer for turn in scene.turns if turn.kind == "read_1"), "")
        lengths.add(len(told))
        assert all(mark.box[0] >= 0 and mark.box[2] <= 1 for mark in scene.marks)
    assert lengths >= set(range(1, 13)) and max(lengths) == 12
