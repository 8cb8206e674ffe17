"""Requests with adapters of their own, side by side: each is answered as by a model with that adapter merged."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smolvlm
from smolvlm import LoraConfig
from smolvlm.errors import InputError
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.types import SamplingParams
from smolvlm.vlm import VLM, preview
from smolvlm.vlm.desk import Desk, Work
from smolvlm.vlm.tiles import TileCache
from tests.adapted import saved_adapter
from tests.callers import Caller, hand_in, prepare
from tests.tiny import tiny_checkpoint

needs_kernels = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
CONFIGS = {
    "text": LoraConfig("text", r=4, lora_alpha=8),
    "eyes": LoraConfig(["vision", "connector"], r=4, lora_alpha=8),
    "head": LoraConfig(["text.q_proj"], r=2, modules_to_save=["lm_head"]),
    "table": LoraConfig("all-linear", r=3, lora_alpha=6, modules_to_save=["embed_tokens"]),
}
OWNERS = (None, *CONFIGS)
PICTURE = Image.radial_gradient("L").resize((50, 40))
LONG = "Describe this image. " * 12  # more than the shortest prefix that is kept


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: saved_adapter(folder / name, base, config) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module", params=["torch", pytest.param("native", marks=needs_kernels)])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def merged(runtime: str, base: Path, adapters: dict[str, Path]) -> dict[str | None, VLM]:
    """A model for each adapter, merged into its weights, and one without any."""
    added: list[Path | None] = [None, *adapters.values()]
    loaded = [smolvlm.load(base, runtime=runtime, dtype="float32", adapter=one) for one in added]
    return dict(zip(OWNERS, loaded, strict=True))


@pytest.fixture
def vlm(runtime: str, base: Path, adapters: dict[str, Path]) -> VLM:
    """One model that holds all adapters, and has seen and read nothing."""
    vlm = smolvlm.load(base, runtime=runtime, dtype="float32")
    for name, directory in adapters.items():
        vlm.add_adapter(name, directory)
    return vlm


def ask(vlm: VLM, adapter: str | None = None) -> tuple[int, ...]:
    return vlm.ask(LONG, images=[PICTURE], max_new_tokens=8, adapter=adapter).token_ids


@pytest.fixture(scope="module")
def expected(merged: dict[str | None, VLM]) -> dict[str | None, tuple[int, ...]]:
    answers = {name: ask(merged[name]) for name in OWNERS}
    assert len(set(answers.values())) == len(OWNERS), "each adapter says something of its own"
    return answers


class Calls:
    """Counts the tiles that a model looks at."""

    def __init__(self, vlm: VLM) -> None:
        self.tiles, self._encode = 0, vlm._driver.encode
        vlm._tiles = TileCache(self.encode, vlm._driver.motor.join)  # type: ignore[arg-type]

    def encode(self, pixel_values: np.ndarray, adapter: object) -> object:
        self.tiles += len(pixel_values)
        return self._encode(pixel_values, adapter)  # type: ignore[arg-type]


# ---- answers ----


def test_a_batch_of_all_adapters_equals_the_merged_models(
    vlm: VLM, expected: dict[str | None, tuple[int, ...]]
) -> None:
    assert vlm.adapters == tuple(CONFIGS)
    owners = (*OWNERS, *reversed(OWNERS))
    asked = {"question": LONG, "images": [PICTURE], "max_new_tokens": 8}
    answers = vlm.ask_batch([{**asked, "adapter": name} for name in owners], batch_size=len(owners))  # type: ignore[typeddict-item]
    assert [answer.token_ids for answer in answers] == [expected[name] for name in owners]


def test_every_way_to_ask_takes_an_adapter(vlm: VLM, merged: dict[str | None, VLM]) -> None:
    for name in OWNERS:
        own = merged[name]
        by_merged = own.ask(LONG, images=[PICTURE], max_new_tokens=8)
        assert "".join(vlm.stream(LONG, images=[PICTURE], max_new_tokens=8, adapter=name)) == by_merged.text
        for choices in (("yes", "no"), ("the circle", "the square")):  # by one token, and whole
            found = vlm.decide(LONG, choices=choices, images=[PICTURE], adapter=name)
            told = own.decide(LONG, choices=choices, images=[PICTURE])
            assert found.probabilities == pytest.approx(told.probabilities, abs=1e-4)
        features = vlm.encode(images=[PICTURE], adapter=name)
        assert vlm.ask(LONG, features=features, max_new_tokens=8, adapter=name).token_ids == by_merged.token_ids
        assert vlm.tokens(LONG, images=[PICTURE], adapter=name) == own.tokens(LONG, images=[PICTURE])
        chats = vlm.chat("Be brief.", adapter=name), own.chat("Be brief.")
        for question, images in (("What is this?", [PICTURE]), ("And now?", [])):
            turns = [chat.ask(question, images=images, max_new_tokens=6).token_ids for chat in chats]
            assert turns[0] == turns[1]


def test_the_base_says_the_same_while_adapters_live_and_after(
    vlm: VLM, expected: dict[str | None, tuple[int, ...]]
) -> None:
    for name in (None, "table", None, "eyes", None):
        assert ask(vlm, name) == expected[name]
    for name in CONFIGS:
        vlm.remove_adapter(name)
    assert vlm.adapters == () and ask(vlm) == expected[None]


def test_works_on_the_desk_have_adapters_of_their_own(vlm: VLM, expected: dict[str | None, tuple[int, ...]]) -> None:
    inputs, params = prepare(vlm, {"question": LONG, "images": [PICTURE]}), SamplingParams(max_new_tokens=8)
    desk = Desk(vlm)
    try:
        callers = {name: hand_in(desk, Work(inputs, params, adapter=name))[0] for name in OWNERS}
        assert {name: caller.answer().token_ids for name, caller in callers.items()} == expected
        with pytest.raises(InputError, match="no adapter 'ears'"):
            desk.write(Work(inputs, params, adapter="ears"), Caller().told.put)
    finally:
        desk.close()


# ---- what is known already ----


def test_a_prefix_is_known_to_its_adapter_alone(vlm: VLM, expected: dict[str | None, tuple[int, ...]]) -> None:
    for name in OWNERS:
        first, second = (
            vlm.ask(LONG, images=[PICTURE], max_new_tokens=8, adapter=name) for _ in range(2)
        )  # fmt: skip
        assert first.cached_tokens == 0 and second.cached_tokens == first.prompt_tokens - 1
        assert first.token_ids == second.token_ids == expected[name]


def test_an_adapter_that_takes_anothers_name_takes_nothing_of_what_was_known(
    vlm: VLM, adapters: dict[str, Path], expected: dict[str | None, tuple[int, ...]]
) -> None:
    for owner in ("eyes", "text", "table"):
        if "guest" in vlm.adapters:
            vlm.remove_adapter("guest")
        vlm.add_adapter("guest", adapters[owner])
        assert ask(vlm, "guest") == expected[owner]


def test_pictures_are_looked_at_again_only_through_other_eyes(vlm: VLM) -> None:
    calls = Calls(vlm)
    ask(vlm)
    tiles = calls.tiles
    assert tiles > 0
    for name, looks in (("text", 1), ("head", 1), ("eyes", 2), ("eyes", 2), ("table", 3), (None, 3)):
        ask(vlm, name)
        assert calls.tiles == looks * tiles, name


def test_features_go_with_every_adapter_that_sees_alike(vlm: VLM) -> None:
    plain, eyes = vlm.encode(images=[PICTURE]), vlm.encode(images=[PICTURE], adapter="eyes")
    assert vlm.encode(images=[PICTURE], adapter="text").fingerprint == plain.fingerprint == vlm.fingerprint()
    assert eyes.fingerprint == vlm.fingerprint(adapter="eyes") != plain.fingerprint
    for name in (None, "text", "head"):
        assert vlm.ask(LONG, features=plain, max_new_tokens=8, adapter=name).token_ids == ask(vlm, name)
    for features, name in ((plain, "eyes"), (plain, "table"), (eyes, None), (eyes, "text")):
        with pytest.raises(InputError, match="other weights"):
            vlm.ask(LONG, features=features, adapter=name)


# ---- names ----


@pytest.fixture
def named(vlm: VLM) -> Iterator[VLM]:
    """Only for what doesn't depend on the runtime."""
    if vlm.runtime == "native":
        pytest.skip("done with torch")
    yield vlm


def test_a_name_that_is_not_known_is_refused_with_those_that_are(named: VLM, base: Path) -> None:
    known = "no adapter 'ears': there are 'text', 'eyes', 'head', 'table'"
    for call in (
        lambda: named.ask("?", adapter="ears"), lambda: named.stream("?", adapter="ears"),
        lambda: named.ask_batch([{"question": "?", "adapter": "ears"}]), lambda: named.decide("?", adapter="ears"),
        lambda: named.encode(images=[PICTURE], adapter="ears"), lambda: named.tokens("?", adapter="ears"),
        lambda: named.chat(adapter="ears"), lambda: named.remove_adapter("ears"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=known):
            call()
    with pytest.raises(InputError, match=r"no adapter \['text'\]"):
        named.ask("?", adapter=["text"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there are none"):
        smolvlm.load(base, runtime="torch").ask("?", adapter="ears")
    with pytest.raises(InputError, match="preview has no option 'adapter'"):
        preview(base, "?", adapter="text")  # type: ignore[call-arg]


def test_a_name_is_given_once(named: VLM, adapters: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="There is an adapter 'eyes' already"):
        named.add_adapter("eyes", adapters["text"])
    with pytest.raises(InputError, match="can't be called ''"):
        named.add_adapter("", adapters["text"])


def test_a_chat_keeps_its_adapter(named: VLM) -> None:
    with pytest.raises(InputError, match="A chat keeps its own adapter"):
        named.chat().ask("?", adapter="text")


def test_a_request_that_runs_keeps_its_adapter_when_the_name_goes(
    vlm: VLM, expected: dict[str | None, tuple[int, ...]]
) -> None:
    stream = vlm.stream(LONG, images=[PICTURE], max_new_tokens=8, adapter="table")
    memory = weakref.ref(vlm._adapters["table"])
    vlm.remove_adapter("table")
    assert memory() is not None
    for _ in stream:
        pass
    assert stream.answer.token_ids == expected["table"]
    del stream
    gc.collect()
    assert memory() is None
