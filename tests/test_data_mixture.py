"""The order of a mixture: a function of seed and epoch, whatever reads it; and what happens to samples that are bad."""

from __future__ import annotations

import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from torch.utils.data import DataLoader

from smolvlm.errors import DataError, InputError
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.training.data import DataSet, Encoder, Mixture, Sample, Source, Step, Steps, Tally
from smolvlm.training.data.order import hashes, interleaved, permutation, shuffled_runs

PARTS = [("a", 13, 1.0), ("b", 7, 0.5), ("c", 10, 2.0)]  # name, rows, weight


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[DataSet]:
    """Two files of JSON lines and a parquet file of three groups; every text says where it is from."""
    folder = tmp_path_factory.mktemp("sets")
    found = []
    for name, count, weight in PARTS:
        rows = [{"question": f"{name}{number}?", "answer": "yes"} for number in range(count)]
        path = folder / (f"{name}.parquet" if name == "c" else f"{name}.jsonl")
        if name == "c":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)
        else:
            path.write_text("\n".join(map(json.dumps, rows)))
        found.append(DataSet(Source(str(path), weight=weight)))
    return found


def said(sample: Sample) -> str:
    return str(sample.messages[0]["content"][0]["text"])  # type: ignore[index]


def epochs(mixture: Mixture, count: int) -> list[list[str]]:
    ends = [mixture.start_of(epoch) for epoch in range(count + 1)]
    return [
        [said(mixture.sample(position)) for position in range(start, end)]
        for start, end in zip(ends, ends[1:], strict=False)
    ]


def test_an_epoch_takes_each_set_as_often_as_its_weight_says(sets: list[DataSet]) -> None:
    for number, one in enumerate(epochs(Mixture(sets), 4)):
        assert Counter(text[0] for text in one) == {"a": 13, "b": 3 + number % 2, "c": 20}
        assert set(Counter(text for text in one if text[0] == "a").values()) == {1}
        assert set(Counter(text for text in one if text[0] == "c").values()) == {2}


def test_a_weight_below_one_takes_other_samples_until_all_were_taken(sets: list[DataSet]) -> None:
    first, second = epochs(Mixture(sets), 2)
    taken = [text for text in first + second if text[0] == "b"]
    assert sorted(taken) == sorted(f"b{number}?" for number in range(7))


def test_epochs_and_seeds_differ_and_nothing_else_does(sets: list[DataSet]) -> None:
    first, second = epochs(Mixture(sets, seed=1), 2)
    assert first != second and epochs(Mixture(sets, seed=2), 1) != [first]
    assert epochs(Mixture(sets, seed=1), 2) == [first, second]
    backwards = Mixture(sets, seed=1)
    everything = [said(backwards.sample(position)) for position in reversed(range(len(first) + len(second)))]
    assert everything[::-1] == first + second


def splitmix64(start: int, count: int) -> list[int]:
    """The published generator, in whole numbers of any size."""
    found = []
    for step in range(1, count + 1):
        x = (start + step * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(x ^ (x >> 31))
    return found


def test_the_order_is_pinned_because_old_runs_must_go_on_with_it() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # as published
    assert hashes(50, 0, "x").tolist() == splitmix64(int.from_bytes(sha256(b"0/x").digest()[:8], "little"), 50)
    assert permutation(8, 5, 0, 1).tolist() == [1, 6, 5, 3, 2, 4, 0, 7]
    assert interleaved([3, 2], 7).tolist() == [0, 1, 0, 0, 1]


def test_sources_are_spread_evenly_over_an_epoch() -> None:
    order = interleaved([1000, 100, 10], 3)
    for source, count in enumerate((1000, 100, 10)):
        assert [(part == source).sum() for part in np.array_split(order, 10)] == pytest.approx([count / 10] * 10, abs=2)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 4), st.booleans(), st.integers())
def test_shuffled_runs_are_a_permutation_that_keeps_to_its_windows(
    runs: list[int], window: int, in_order: bool, seed: int
) -> None:
    order = shuffled_runs(np.array(runs), window, in_order, seed)
    assert sorted(order) == list(range(sum(runs)))
    run_of = np.repeat(np.arange(len(runs)), runs)[order]
    if len(runs) < sum(runs) or in_order:  # runs of one row each are shuffled freely
        last = {run: int(np.flatnonzero(run_of == run)[-1]) for run in range(len(runs))}
        first = {run: int(np.flatnonzero(run_of == run)[0]) for run in range(len(runs))}
        for place in range(len(order)):
            assert sum(first[run] <= place <= last[run] for run in last) <= window


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 200))
def test_ranks_only_split_what_one_rank_would_read(batch: int, ranks: int, step: int) -> None:
    mixture: Any = None
    if batch < ranks:
        with pytest.raises(InputError, match="no share"):
            Steps(mixture, mixture, batch, ranks=ranks)
        return
    shares = [Steps(mixture, mixture, batch, rank=rank, ranks=ranks).positions(step) for rank in range(ranks)]
    assert sorted(position for share in shares for position in share) == list(range(step * batch, (step + 1) * batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def steps(sets: list[DataSet], processor: SmolVLMProcessor) -> dict[str, Any]:
    return {"mixture": Mixture(sets, seed=3), "encoder": Encoder(processor), "batch_size": 6}


def ids(step: Step) -> list[tuple[int, ...]]:
    return [tuple(one.ids.tolist()) for one in step.learned]  # type: ignore[union-attr]


@pytest.mark.parametrize(("ranks", "workers", "start"), [(1, 0, 0), (2, 0, 3), (3, 2, 0), (1, 2, 5)])
def test_any_ranks_workers_and_beginning_give_the_same_steps(
    steps: dict[str, Any], ranks: int, workers: int, start: int
) -> None:
    alone = Steps(**steps)
    expected = [sorted(ids(alone[step])) for step in range(start, 9)]
    loaders = [
        DataLoader(
            Steps(**steps, rank=rank, ranks=ranks),  # type: ignore[arg-type]
            batch_size=None, sampler=range(start, 9), num_workers=workers,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    together = [sorted(one for share in shares for one in ids(share)) for shares in zip(*loaders, strict=True)]
    assert together == expected


def test_bad_samples_leave_their_places_empty_and_are_listed(tmp_path: Path, processor: SmolVLMProcessor) -> None:
    rows: list[dict[str, Any]] = [{"question": f"{number}?", "answer": "yes"} for number in range(40)]
    rows[3]["answer"] = "  "
    rows[7]["image"] = "missing.png"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixture = Mixture([DataSet(Source(str(tmp_path / "rows.jsonl")))])
    steps, patient, strict = Steps(mixture, Encoder(processor), 8), Tally(0.1), Tally(0.01)
    for step in range(5):
        patient.add(steps[step])
    assert (patient.seen, len(patient.skipped), patient.shrunk) == (40, 2, 0)
    found = {one.place.row: (one.kind, one.reason) for one in patient.skipped}
    assert found[3][0] == "PromptError" and "An answer is empty" in found[3][1]
    assert found[7][0] == "ImageError" and "missing.png" in found[7][1]
    with pytest.raises(DataError) as caught:
        for step in range(10):
            strict.add(steps[step])
    assert re.search(r"2 of \d+ samples can't be used, more than 1.0%: 1 \w+, 1 \w+\.", str(caught.value))
    assert "rows.jsonl, row 3: An answer is empty" in str(caught.value) and "rows.jsonl, row 7:" in str(caught.value)


def test_a_mixture_of_nothing_is_refused(sets: list[DataSet]) -> None:
    with pytest.raises(DataError, match="at least one"):
        Mixture([])
    with pytest.raises(DataError, match="no sample"):
        Mixture([DataSet(Source(sets[0].source.path, weight=0.01))])


def test_epochs_are_found_far_away_at_once(sets: list[DataSet]) -> None:
    mixture = Mixture(sets)
    for epoch in (1, 7, 1_000_001):
        start = mixture.start_of(epoch)
        assert [mixture.epoch_of(start - 1), mixture.epoch_of(start)] == [epoch - 1, epoch]
