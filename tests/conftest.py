"""What every test shares: one thread a process, no network but loopback, markers by folder, repeatable properties."""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from smolvlm.processing.processor import SmolVLMProcessor

# Read when torch and huggingface_hub are first imported, so they are set before any test is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.pop(variable, None)
importlib.import_module("huggingface_hub.constants")  # now, before a test sets one of them

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")

REFERENCE_TESTS = Path(__file__).parent / "reference"
TIERS_WITH_NETWORK = ("browser", "cluster", "harness", "checkpoint")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_transformers = importlib.util.find_spec("transformers") is not None
    for item in items:
        if item.path.is_relative_to(REFERENCE_TESTS):
            item.add_marker(pytest.mark.reference)
        if item.get_closest_marker("reference") and not has_transformers:
            item.add_marker(pytest.mark.skip(reason="transformers isn't installed: pip install -e '.[dev]'"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout (or SMOLVLM_SHARED); without it the test is skipped."""
    folder = Path(os.environ.get("SMOLVLM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the folder of reference data {folder} isn't here; SMOLVLM_SHARED names another place")
    return folder


@pytest.fixture(autouse=True)
def _only_loopback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that would leave this machine fails, also where the code under test swallows connection errors."""
    if not any(request.node.get_closest_marker(tier) for tier in TIERS_WITH_NETWORK):
        connect = socket.socket.connect

        def guarded(self: socket.socket, address: object) -> None:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                host = str(address[0])  # type: ignore[index]
                if host != "localhost" and not ipaddress.ip_address(host.split("%")[0]).is_loopback:
                    pytest.fail(f"the test tried to connect to {host}; default tests use loopback only")
            connect(self, address)  # type: ignore[arg-type]

        monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a real small tokenizer."""
    from tests.tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture()
def processor(checkpoint: Path) -> SmolVLMProcessor:
    from smolvlm.processing.processor import SmolVLMProcessor

    return SmolVLMProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds at ten frames a second: at 1 fps, frames 0, 12, 24, 36 and 49."""
    from tests.videos import write_video

    return write_video(tmp_path_factory.mktemp("video") / "five.mp4", frames=50, rate=10)
