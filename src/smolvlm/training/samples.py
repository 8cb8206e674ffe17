"""From drawn scenes to token ids and tiles, with the answers told apart from everything else.

A sample is a prefix that holds the pictures, and branches that follow it: each branch is a question with its answer,
or a whole chat. Prompts are exactly those of `processing`: tests compare the ids with the processor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from ..processing.chat import TileTokens, image_block, normalise_messages, video_block
from ..processing.image import SmolVLMImageProcessor, tile
from ..processing.tokenizer import SmolVLMTokenizer
from ..scenes import Scene, Turn
from ..types import Detail
from .spans import answer_pieces, encode_pieces

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture
View = tuple[int, Box]  # which picture a tile shows, and which box of it

# Where the pictures of a prompt end: the branch begins after the last of these.
MEDIA_TOKENS = ("<fake_token_around_image>", "<|im_start|>")


@dataclass(frozen=True)
class Branch:
    """Tokens after the prefix. is_answer: which of them the model must say. kinds: one a turn, for the scores.

    weight: how much it counts in the loss.
    """

    ids: tuple[int, ...]
    is_answer: tuple[bool, ...]
    kinds: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Sample:
    """tiles: (tiles, side, side, 3) uint8, in the order of the prefix's image tokens.

    patch_labels: (tiles, patches, 3) int16 of shape, colour and character that cover each patch, -1 = nothing.
    name: where it is from, for messages.
    """

    skill: str
    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]
    tiles: np.ndarray
    patch_labels: np.ndarray
    name: str = ""

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(len(branch.ids) for branch in self.branches)


class SampleMaker:
    """Turns scenes into samples for one vocabulary and geometry."""

    def __init__(
        self,
        tokenizer: SmolVLMTokenizer,
        image_processor: SmolVLMImageProcessor,
        image_seq_len: int,
        patches_per_side: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_seq_len = image_seq_len
        self.patches_per_side = patches_per_side
        self.tokens = TileTokens()

    def make(
        self,
        scene: Scene,
        rng: Random,
        *,
        linear_share: float = 0.0,
        split_share: float = 0.0,
        rounds: int = 1,
    ) -> Sample:
        """rng decides which scenes become one linear chat, and which single pictures are blown up and cut.

        rounds: how often questions are drawn for each picture; a linear chat has those of the first round only.
        """
        linear, split = rng.random() < linear_share, rng.random() < split_share
        detail: Detail = "high" if split and len(scene.pictures) == 1 else scene.detail
        media, tiles, views = self._media(scene, "low" if scene.clip else detail)
        groups = [scene.turns] if linear else [(turn,) for turn in _all_turns(scene, rng, rounds)]
        said = [self._branch(media, turns) for turns in groups]
        prefix = tuple(self.tokenizer.encode(said[-1][0]))  # the same of all
        branches = tuple(branch for _, branch in said)
        return Sample(scene.skill, prefix, branches, tiles, self._patch_labels(scene, views))

    def _media(self, scene: Scene, detail: Detail) -> tuple[str, np.ndarray, list[View]]:
        """Prompt text of pictures or clip, tiles, and for each tile (picture, the box of it that it shows)."""
        side = self.image_processor.options.tile_size
        text, tiles = "", [np.zeros((0, side, side, 3), np.uint8)]
        views: list[View] = []
        pictures: tuple[Image.Image, ...] = scene.clip.frames if scene.clip else scene.pictures
        for index, picture in enumerate(pictures):
            tiled = tile(picture, self.image_processor, detail)
            tiles.append(tiled.tiles)
            views += [(index, box) for box in _boxes(tiled.rows, tiled.cols)]
            if not scene.clip:
                text += image_block(tiled.rows, tiled.cols, self.image_seq_len, self.tokens)
        if scene.clip:
            text = video_block(scene.clip.timestamps_s, scene.clip.duration_s, self.image_seq_len, self.tokens)
        return text, np.concatenate(tiles), views

    def _branch(self, media: str, turns: tuple[Turn, ...]) -> tuple[str, Branch]:
        """(the text before it, of pictures or clip; what follows)."""
        kind = "image" if media.startswith(self.tokens.fake) else "text"
        messages: list[dict[str, object]] = []
        for turn in turns:
            question: list[dict[str, object]] = [{"type": "text", "text": turn.question}]
            if media and not messages:
                question.insert(0, {"type": "image"} if kind == "image" else {"type": "text", "text": media})
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        (text, _), *rest = answer_pieces(normalise_messages(messages))
        text = text.replace(self.tokens.image, media, 1 if kind == "image" else 0)
        cut = max(text.rfind(token) + len(token) for token in MEDIA_TOKENS if token in text)
        ids, is_answer = encode_pieces(self.tokenizer, [(text[cut:], False), *rest])
        branch = Branch(tuple(ids), tuple(is_answer), tuple(turn.kind for turn in turns))
        return text[:cut], branch

    def _patch_labels(self, scene: Scene, views: list[View]) -> np.ndarray:
        side = self.patches_per_side
        labels = np.full((len(views), side, side, 3), -1, np.int16)
        for number, (picture, (left, top, right, bottom)) in enumerate(views):
            for mark in scene.marks:
                if mark.picture != picture:
                    continue
                x0, x1 = _covered(mark.box[0], mark.box[2], left, right, side)
                y0, y1 = _covered(mark.box[1], mark.box[3], top, bottom, side)
                for plane, value in enumerate((mark.shape, mark.colour, mark.character)):
                    if value >= 0:
                        labels[number, y0:y1, x0:x1, plane] = value
        return labels.reshape(len(views), side * side, 3)


def _all_turns(scene: Scene, rng: Random, rounds: int) -> list[Turn]:
    """The scene's questions and those of further rounds; a whole sentence is asked for once."""
    turns = list(scene.turns)
    for _ in range(rounds - 1):
        asked = {turn.question.lower() for turn in turns}
        told = {turn.answer for turn in turns if turn.answer.endswith(".")}
        more = scene.ask_more(rng) if scene.ask_more else ()
        turns += [turn for turn in more if turn.question.lower() not in asked and turn.answer not in told]
    return turns


def _boxes(rows: int, cols: int) -> list[Box]:
    grid = [(c / cols, r / rows, (c + 1) / cols, (r + 1) / rows) for r in range(rows) for c in range(cols)]
    return [*grid, (0.0, 0.0, 1.0, 1.0)]


def _covered(low: float, high: float, start: float, end: float, side: int) -> tuple[int, int]:
    """Patches whose centres lie between low and high, in a view of start to end."""
    scale = side / (end - start)
    first = max(0, int(np.ceil((low - start) * scale - 0.5)))
    last = min(side, int(np.floor((high - start) * scale - 0.5)) + 1)
    return first, max(first, last)
