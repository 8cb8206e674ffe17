"""Frames chosen, their pixels and their padding against transformers' video processor.

Its constructor needs torchvision, which this project never installs, so its methods are called on an object made
without the constructor, with torch's own Lanczos resize (the one torchvision calls) put in. Golden values of real
runs are in the last table.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.processing.frames import sample_indices
from smolvlm.processing.video import SmolVLMVideoProcessor
from smolvlm.types import VideoInfo

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SETTINGS: dict[str, Any] = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 128}}
TWO_LEVELS = 2 / 127.5 + 1e-6  # torch's Lanczos and Pillow's round differently, by at most two of 255 levels


def info(frames: int, fps: float) -> VideoInfo:
    return VideoInfo(frames / fps, fps, frames, 64, 48)


def oracle_indices(video: VideoInfo, fps: float, max_frames: int, skip_secs: float = 1) -> list[int]:
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor as Reference
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(total_num_frames=video.num_frames, fps=video.fps, duration=video.duration_s)
    settings: Any = SimpleNamespace(num_frames=max_frames, fps=fps)
    return [int(index) for index in Reference.sample_frames(settings, metadata, skip_secs=skip_secs)]


@pytest.mark.parametrize("rate", [1, 10, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120])
@pytest.mark.parametrize("fps,most", [(1, 64), (2, 64), (0.5, 64), (1, 8), (4, 16), (1, 1), (0.1, 50), (30, 64)])
def test_the_same_frames_are_chosen(rate: float, fps: float, most: int) -> None:
    for frames in [1, 2, 3, 9, 10, 11, 29, 30, 45, 75, 100, 299, 1000, 1800, 1979, 1980, 1981, 2000, 5000, 108_000]:
        video = info(frames, rate)
        assert sample_indices(video, fps=fps, max_frames=most) == oracle_indices(video, fps, most)


@pytest.mark.parametrize("skip", [0, 0.5, 1, 3, 100])
def test_the_same_ends_are_skipped(skip: float) -> None:
    for frames in [30, 600, 1921, 1980, 2000, 4000]:
        video = info(frames, 30)
        assert sample_indices(video, fps=1, max_frames=64, skip_secs=skip) == oracle_indices(video, 1, 64, skip)


@pytest.mark.parametrize(
    "frames,rate,expected",
    [
        (270, 30, [0, 33, 67, 100, 134, 168, 201, 235, 269]),
        (559, 59.94, [0, 69, 139, 209, 279, 348, 418, 488, 558]),
        (75, 30, [0, 74]),
        (45, 30, [0, 44]),
        (10, 30, [0]),
    ],
)
def test_recorded_runs_of_the_reference_chose_these_frames(frames: int, rate: float, expected: list[int]) -> None:
    assert sample_indices(info(frames, rate), fps=1, max_frames=64) == expected


def test_recorded_runs_of_the_reference_on_long_videos() -> None:
    long = sample_indices(info(3000, 30), fps=1, max_frames=64)
    assert (len(long), long[0], long[-1]) == (64, 30, 2970)
    minute = sample_indices(info(1800, 30), fps=1, max_frames=64)
    assert (len(minute), minute[0], minute[-1]) == (60, 0, 1799)


def moving_noise(frames: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """(frames, height, width, 3) uint8: smooth enough to be a picture, rough enough to show every rounding."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 12, 16, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in coarse]
    return np.stack(large)


def oracle_pixels(videos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> Any:
    """The reference's own steps (sizes, scale, padding) with torch's Lanczos in the place of torchvision's."""
    from transformers.image_processing_backends import TorchvisionBackend
    from transformers.image_utils import SizeDict
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor as Reference

    def resize(self: Any, image: Any, size: Any, **_: Any) -> Any:
        flat = image.flatten(0, -4)  # (all frames, 3, height, width)
        resized = torch.nn.functional.interpolate(flat, (size.height, size.width), mode="lanczos", antialias=True)
        return resized.reshape(*image.shape[:-2], size.height, size.width)

    monkeypatch.setattr(TorchvisionBackend, "resize", resize)
    monkeypatch.setattr(TorchvisionBackend, "rescale_and_normalize", scale)
    processor = object.__new__(Reference)
    processor.max_image_size = settings["max_image_size"]
    return processor._preprocess(
        [torch.from_numpy(video.transpose(0, 3, 1, 2).copy()) for video in videos],
        do_resize=True,
        size=SizeDict(**settings["size"]),
        resample=1,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        do_pad=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        return_tensors="pt",
    )


def scale(self: Any, images: Any, *_: Any) -> Any:
    return (images.float() - 127.5) / 127.5


def needs_torch_lanczos() -> None:
    try:
        torch.nn.functional.interpolate(
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4), mode="lanczos", antialias=True
        )
    except (NotImplementedError, ValueError, RuntimeError):
        pytest.skip("this torch has no Lanczos resize (2.12 and later have)")


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (64, 48), (128, 128), (700, 90)], ids=str)
def test_pixels_are_within_two_levels_of_the_reference(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch_lanczos()
    videos = [moving_noise(3, *size)]
    expected = oracle_pixels(videos, monkeypatch, SETTINGS)
    quirky = SmolVLMVideoProcessor(**SETTINGS, reference_quirks=True)(videos[0], return_tensors="pt")
    assert quirky["pixel_values"].shape == expected["pixel_values"].shape
    torch.testing.assert_close(quirky["pixel_values"], expected["pixel_values"], atol=TWO_LEVELS, rtol=0)
    assert torch.equal(quirky["pixel_attention_mask"], expected["pixel_attention_mask"])


@pytest.mark.parametrize("size", [(320, 240), (90, 200)], ids=str)
def test_one_step_pixels_are_within_two_levels_of_one_step_of_the_reference(size: tuple[int, int]) -> None:
    """Without the detour over size.longest_edge, which is the correction, a frame is one Lanczos resize."""
    needs_torch_lanczos()
    video = moving_noise(2, *size)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(video.transpose(0, 3, 1, 2).copy()), (128, 128), mode="lanczos", antialias=True
    )
    expected = scale(None, resized)
    ours = SmolVLMVideoProcessor(**SETTINGS)(video, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours, expected, atol=TWO_LEVELS, rtol=0)


def test_shorter_videos_are_filled_with_zero_frames_as_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch_lanczos()
    videos = [moving_noise(3, 64, 48), moving_noise(1, 90, 60, seed=1)]
    expected = oracle_pixels(videos, monkeypatch, SETTINGS)
    quirky = SmolVLMVideoProcessor(**SETTINGS, reference_quirks=True)(videos, return_tensors="pt")
    torch.testing.assert_close(quirky["pixel_values"], expected["pixel_values"], atol=TWO_LEVELS, rtol=0)
    assert torch.equal(quirky["pixel_attention_mask"], expected["pixel_attention_mask"])
    assert not quirky["pixel_values"][1, 1:].any()
