"""From a name to a VLM: which runtime, dtype and end tokens are taken, and what the machine is said to have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from smolvlm.config import SmolVLMConfig
from smolvlm.errors import ConfigError
from smolvlm.runtimes import bindings, machine
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.vlm import choose_runtime, default_dtype, load, loading
from tests.tiny import tiny_checkpoint, tiny_config

built = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config() -> SmolVLMConfig:
    return SmolVLMConfig.from_dict(tiny_config())


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: False)


def test_the_tokenizers_end_token_counts_when_generation_config_has_none_or_a_wrong_one(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path)
    whole = load(directory)
    for content in (None, '{"eos_token_id": 2}', '{"eos_token_id": [2, 3]}'):
        path = directory / "generation_config.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        assert whole.processor.tokenizer.eos_token_id in load(directory)._end_ids


def test_dtype_and_device_can_be_chosen_and_are_shown(directory: Path) -> None:
    assert load(directory, dtype="bfloat16", device="cpu").dtype == "bfloat16"
    assert load(directory, dtype=torch.bfloat16, runtime="torch").model.dtype == torch.bfloat16
    shown = repr(load(directory, device="cpu"))
    assert "device='cpu'" in shown and "dtype='float32'" in shown, "a small model runs in float32 on a CPU"
    assert default_dtype("cpu", small=True) == torch.float32


# ---- runtimes ----


@built
@pytest.mark.parametrize(
    "options", [{}, {"device": "cpu"}, {"dtype": "int4"}, {"dtype": torch.bfloat16}, {"dtype": "auto"}]
)
def test_native_is_taken_where_it_can_run_the_model(config: SmolVLMConfig, options: dict[str, object]) -> None:
    if bindings.kernels_name() == "plain":
        pytest.skip("no kernels for this processor's instructions")
    runtime, reason = choose_runtime(config, **options)  # type: ignore[arg-type]
    assert runtime == "native" and bindings.kernels_name() in reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda:0"}, "device is cuda:0"),
        ({"device": torch.device("mps")}, "device is mps"),
        ({"dtype": "float16"}, "dtype is float16"),
        ({"attn_implementation": "eager"}, "attn_implementation is given"),
    ],
)
def test_torch_is_taken_for_what_only_it_has(config: SmolVLMConfig, options: dict[str, object], reason: str) -> None:
    assert choose_runtime(config, **options) == ("torch", reason)  # type: ignore[arg-type]


def test_torch_is_taken_where_there_is_a_gpu(config: SmolVLMConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: True)
    monkeypatch.setattr(loading, "best_device", lambda: "cuda")
    assert choose_runtime(config) == ("torch", "there is a GPU")
    assert choose_runtime(config, device="cpu")[1] != "there is a GPU"


def test_torch_is_taken_where_the_kernels_cannot(config: SmolVLMConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "kernels_name", lambda: "plain")
    assert choose_runtime(config) == ("torch", "the native kernels have no code for this processor's instructions")
    monkeypatch.setattr(bindings, "kernels_name", lambda: "avx2")
    config.text_config.hidden_act = "gelu"
    assert choose_runtime(config) == ("torch", "the native kernels can't run text hidden_act 'gelu'")

    def missing() -> str:
        raise ConfigError("no compiler")

    monkeypatch.setattr(bindings, "kernels_name", missing)
    runtime, reason = choose_runtime(config)
    assert runtime == "torch" and "not compiled" in reason


def test_a_runtime_that_is_chosen_is_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("torch", "native"):
        monkeypatch.setattr(loading, "choose_runtime", lambda *_, wanted=wanted, **__: (wanted, "because"))
        if wanted == "torch" or kernels.LIBRARY.is_file():
            assert load(directory).runtime == wanted


@built
def test_the_saved_dtype_is_kept_where_asked_for(directory: Path) -> None:
    assert load(directory, runtime="native", dtype="auto").dtype == "float32"
    assert load("nano", runtime="native", dtype="auto").dtype == "bfloat16"


# ---- the machine ----


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.available_memory()
    assert free > 2**20
    limit, used = tmp_path / "limit", tmp_path / "used"
    monkeypatch.setattr(machine, "CONTAINER", ((str(limit), str(used)),))
    for written, expected in (("max", None), ("3000000", 1000000), ("1000000", 0)):
        limit.write_text(written + "\n")
        used.write_text("2000000\n")
        found = machine.available_memory()
        assert found == expected if expected is not None else found > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="devices are files on Linux")
def test_a_machine_without_device_files_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = machine.may_have_gpu()
    if not found:
        assert not torch.cuda.is_available()


@pytest.mark.parametrize(("setting", "expected"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_the_number_of_threads_can_be_set(setting: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = machine.usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert cores >= 1 and machine.usable_cores() == (expected or cores)
