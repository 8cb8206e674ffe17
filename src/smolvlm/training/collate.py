"""Samples -> one padded batch. A row may hold several samples; they don't see each other, nor do branches of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from .samples import Branch, Sample

PADDING = -1  # in `sample`: not a real token
PREFIX = 0  # in `branch`: seen by all branches of the sample
Row = Sequence[Sample]


@dataclass
class Batch:
    """Padded on the right. Places are indices into the flattened (rows * tokens).

    input_ids, position_ids: (rows, tokens) int64; positions count from 0 in each sample. sample: (rows, tokens) int16,
    number of the sample in its row, or PADDING. branch: (rows, tokens) int16, PREFIX or 1, 2, ... in its sample.
    tiles: (tiles, side, side, 3) uint8. patch_labels: (tiles, patches, 3) int16. place: (targets,) which token
    predicts, target: (targets,) what it must say, turn and talk: (targets,) which turn and which branch of the batch it
    belongs to, weight: (targets,) how much it counts. skill_kinds: (skill, kind) of each turn. talks: how many branches
    there are. names: of the samples.
    """

    input_ids: Tensor
    position_ids: Tensor
    sample: Tensor
    branch: Tensor
    tiles: Tensor
    patch_labels: Tensor
    place: Tensor
    target: Tensor
    turn: Tensor
    talk: Tensor
    weight: Tensor
    skill_kinds: list[tuple[str, str]]
    talks: int
    names: list[str]

    @property
    def tokens(self) -> int:
        """Real ones."""
        return int((self.sample != PADDING).sum())

    def to(self, device: torch.device | str) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**{**vars(self), **moved})

    def attention_mask(self) -> Tensor:
        """(rows, 1, tokens, tokens) bool: earlier tokens of the same sample, of its prefix or of the own branch."""
        tokens = self.branch.shape[1]
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=self.branch.device).tril()
        seen = self.branch[:, None, :]  # (rows, 1, tokens)
        together = self.sample[:, None, :] == self.sample[:, :, None]
        return (causal & together & ((seen == PREFIX) | (seen == self.branch[:, :, None])))[:, None]

    def pixel_values(self) -> Tensor:
        """(tiles, 3, side, side) float32 from -1 to 1."""
        return pixels_of(self.tiles)

    def per_talk(self, values: Tensor) -> Tensor:
        """(targets,) -> (talks,): the sum of each branch."""
        return values.new_zeros(self.talks).index_add(0, self.talk, values)


def pixels_of(tiles: Tensor) -> Tensor:
    """(tiles, side, side, 3) uint8 -> (tiles, 3, side, side) float32 from -1 to 1."""
    return tiles.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@dataclass
class _Targets:
    """What a batch must say, as it is gathered."""

    place: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    talk: list[int] = field(default_factory=list)
    skill_kinds: list[tuple[str, str]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)  # of turns
    talks: int = 0

    def add(self, branch: Branch, skill: str, start: int, before: int) -> None:
        """start: place of the branch's first token. before: of the token that predicts it, -1 when there is none."""
        turn, learned = len(self.skill_kinds) - 1, False
        for offset, (token, answer) in enumerate(zip(branch.ids, branch.is_answer, strict=True)):
            if answer and (offset or before >= 0):
                turn += not learned  # the first token of an answer
                self.place.append(start + offset - 1 if offset else before)
                self.target.append(token)
                self.turn.append(turn)
                self.talk.append(self.talks)
            learned = answer
        self.skill_kinds += [(skill, kind) for kind in branch.kinds]
        self.factors += [branch.weight] * len(branch.kinds)
        self.talks += 1
        assert turn == len(self.skill_kinds) - 1, "every turn has an answer"


def collate(
    rows: Sequence[Sample | Row],
    pad_token_id: int,
    even_answers: float = 0.0,
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> Batch:
    """Join samples, or rows of samples; the batch is as long as the longest row. even_answers, emphasis: see Stage."""
    packed = [[row] if isinstance(row, Sample) else list(row) for row in rows]
    tokens = max(sum(sample.length for sample in row) for row in packed)
    ids = np.full((len(packed), tokens), pad_token_id, np.int64)
    positions = np.zeros((len(packed), tokens), np.int64)
    sample_of = np.full((len(packed), tokens), PADDING, np.int16)
    branch_of = np.full((len(packed), tokens), PREFIX, np.int16)
    said = _Targets()
    for index, row in enumerate(packed):
        start = 0
        for number, sample in enumerate(row):
            end = start + len(sample.prefix)
            ids[index, start:end], positions[index, start:end] = sample.prefix, np.arange(end - start)
            sample_of[index, start : start + sample.length] = number
            before = index * tokens + end - 1 if sample.prefix else -1
            for branch_number, branch in enumerate(sample.branches, start=1):
                start, end = end, end + len(branch.ids)
                ids[index, start:end], branch_of[index, start:end] = branch.ids, branch_number
                positions[index, start:end] = len(sample.prefix) + np.arange(len(branch.ids))
                said.add(branch, sample.skill, index * tokens + start, before)
            start = end
    samples = [sample for row in packed for sample in row]
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        sample=torch.from_numpy(sample_of),
        branch=torch.from_numpy(branch_of),
        tiles=torch.from_numpy(np.concatenate([sample.tiles for sample in samples])),
        patch_labels=torch.from_numpy(np.concatenate([sample.patch_labels for sample in samples])),
        place=torch.tensor(said.place),
        target=torch.tensor(said.target),
        turn=torch.tensor(said.turn),
        talk=torch.tensor(said.talk),
        weight=_weights(said, even_answers, emphasis),
        skill_kinds=said.skill_kinds,
        talks=said.talks,
        names=[sample.name for sample in samples],
    )


def _weights(said: _Targets, even_answers: float, emphasis: Mapping[str, float]) -> Tensor:
    """(targets,) float32."""
    counts = torch.tensor([emphasis.get(kind, 1.0) for _, kind in said.skill_kinds], dtype=torch.float32)  # (turns,)
    counts *= torch.bincount(torch.tensor(said.turn)).float() ** -even_answers
    return (counts * torch.tensor(said.factors))[said.turn]


def batches_of(
    samples: Sequence[Sample], pad_token_id: int, max_tiles: int, max_tokens: int, *, pack: bool, **weighting: object
) -> Iterator[Batch]:
    """Samples -> batches of at most so many tiles and tokens, padding included (at least one sample each).

    pack: several samples in a row, where they fit in beside the longest. weighting: collate's.
    """
    fill = _packed if pack else _padded
    for rows in fill(samples, max_tiles, max_tokens):
        yield collate(rows, pad_token_id, **weighting)  # type: ignore[arg-type]


def _padded(samples: Sequence[Sample], max_tiles: int, max_tokens: int) -> Iterator[list[Row]]:
    """A row each, alike lengths together."""
    members: list[Row] = []
    tiles = longest = 0
    for sample in sorted(samples, key=lambda sample: (sample.length, len(sample.tiles))):
        tiles, longest = tiles + len(sample.tiles), max(longest, sample.length)
        if members and (tiles > max_tiles or longest * (len(members) + 1) > max_tokens):
            yield members
            members, tiles, longest = [], len(sample.tiles), sample.length
        members.append([sample])
    if members:
        yield members


def _packed(samples: Sequence[Sample], max_tiles: int, max_tokens: int) -> Iterator[list[Row]]:
    """Rows as long as the batch's longest sample, filled first-fit with the longest that still fits."""
    left = sorted(samples, key=lambda sample: sample.length, reverse=True)
    while left:
        capacity = left[0].length
        most_rows = max(1, max_tokens // capacity)
        rows: list[list[Sample]] = []
        room: list[int] = []
        tiles, others = 0, []
        for sample in left:
            fits = [number for number, free in enumerate(room) if free >= sample.length]
            if (rows and tiles + len(sample.tiles) > max_tiles) or not (fits or len(rows) < most_rows):
                others.append(sample)
                continue
            if not fits:
                rows.append([])
                room.append(capacity)
                fits = [len(rows) - 1]
            rows[fits[0]].append(sample)
            room[fits[0]] -= sample.length
            tiles += len(sample.tiles)
        yield list(rows)
        left = others
