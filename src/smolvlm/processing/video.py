"""Videos -> the frames the model is shown, one unsplit tile each, with their times. Knows no text; see chat.py.

frames.py decides which frames, media/video.py decodes them one by one. Source: transformers'
video_processing_smolvlm.py (5.23); where we differ from it, docs/internals.md says why, and reference_quirks=True
goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media.video import Video
from ..types import VideoInfo
from .batch import BatchFeature, tensor_kind, to_tensors
from .clips import Clip, VideoMetadata, open_clips
from .frames import DEFAULT_MAX_FRAMES, UNIFORM_FRAMES, sample_indices, uniform_indices
from .options import (
    DEFAULTS,
    FILE_KEYS,
    PixelOptions,
    check_options,
    parse_order,
    read_settings,
    refuse_unknown,
    write_settings,
)
from .scale import normalise
from .tiles import MAX_SIDE, fit_longest_edge

__all__ = ["SmolVLMVideoProcessor", "VideoMetadata", "frames_to_tiles", "sample_indices", "uniform_indices"]

_SETTINGS = tuple(name for name in DEFAULTS if name != "do_image_splitting")
_SAMPLING = ("do_sample_frames", "num_frames", "fps", "skip_secs", "return_metadata")
_CALL_ARGUMENTS = (*_SETTINGS, *_SAMPLING, "video_metadata", "return_tensors", "data_format", "input_data_format")


class SmolVLMVideoProcessor:
    """Videos -> pixel_values and pixel_attention_mask, with the documented arguments of the reference.

    num_frames, fps: at most so many frames, so many a second; without fps, num_frames (50) evenly spaced ones.
    video_sampling: the same as checkpoints write it, {"fps", "max_frames", "video_size"}. do_sample_frames: choose
    among frames given as a list too (files are always sampled, unless a call says False). max_image_size: side of a
    frame. size: first resize of the reference, used with reference_quirks alone; without it a frame goes to
    max_image_size in one step, never through 2048 pixels. Others as in SmolVLMImageProcessor.
    """

    model_input_names = ("pixel_values", "pixel_attention_mask")

    def __init__(
        self,
        do_convert_rgb: bool = True,
        do_resize: bool = True,
        size: Mapping[str, int] | int | None = None,
        resample: int = 1,
        max_image_size: Mapping[str, int] | int | None = None,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
        do_pad: bool = True,
        do_sample_frames: bool = False,
        num_frames: int | None = None,
        fps: float | None = None,
        skip_secs: float = 1,
        video_sampling: Mapping[str, Any] | None = None,
        return_metadata: bool = False,
        reference_quirks: bool = False,
        **extra: Any,
    ) -> None:
        refuse_unknown("video processor", extra, (*_CALL_ARGUMENTS, *FILE_KEYS))
        sampling = dict(video_sampling or {})
        self.do_convert_rgb = do_convert_rgb
        self.do_resize = do_resize
        self.size = size or sampling.get("video_size") or dict(DEFAULTS["size"])  # a file's size wins, as there
        self.resample = resample
        self.max_image_size = max_image_size or dict(DEFAULTS["max_image_size"])
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = image_mean if image_mean is not None else list(DEFAULTS["image_mean"])
        self.image_std = image_std if image_std is not None else list(DEFAULTS["image_std"])
        self.do_pad = do_pad
        self.do_sample_frames = do_sample_frames
        self.num_frames = num_frames if num_frames is not None else sampling.get("max_frames")
        self.fps = fps if fps is not None else sampling.get("fps")
        self.skip_secs = skip_secs
        self.video_sampling = sampling or None
        self.return_metadata = return_metadata
        self.reference_quirks = reference_quirks
        self.extra = extra
        check_options(self._settings())

    @property
    def options(self) -> PixelOptions:
        """The settings as they stand, checked."""
        return check_options(self._settings())

    def choose(self, video: Video, *, fps: float | None = None, max_frames: int | None = None) -> list[int]:
        """Numbers of the frames to show. fps, max_frames: instead of the checkpoint's.

        A list of frames was chosen by whoever gave it: all of it is shown, unless fps or max_frames says less.
        """
        rate = fps if fps is not None else self.fps
        most = max_frames if max_frames is not None else self.num_frames
        if video.sampled and fps is None:
            return uniform_indices(video.info.num_frames, max_frames or video.info.num_frames)
        if rate is None:
            return uniform_indices(video.info.num_frames, UNIFORM_FRAMES if most is None else most)
        limit = DEFAULT_MAX_FRAMES if most is None else most
        return sample_indices(video.info, fps=rate, max_frames=limit, skip_secs=self.skip_secs)

    def sample_frames(
        self,
        metadata: VideoMetadata | Mapping[str, Any],
        num_frames: int | None = None,
        fps: float | None = None,
        skip_secs: float | None = None,
    ) -> list[int]:
        """sample_indices() under the reference's name, for metadata with total_num_frames, fps and duration."""
        known = metadata if isinstance(metadata, Mapping) else vars(metadata)
        rate = fps if fps is not None else self.fps
        most = num_frames if num_frames is not None else self.num_frames
        if known.get("fps") is None or rate is None:
            raise InputError(
                "Sampling needs the frame rate of the video (metadata.fps) and the one to sample at (fps). Give both, "
                "or leave do_sample_frames off."
            )
        duration_s = known.get("duration")
        if duration_s is None:
            duration_s = known["total_num_frames"] / known["fps"]
        info = VideoInfo(float(duration_s), float(known["fps"]), int(known["total_num_frames"]), 0, 0)
        skip = self.skip_secs if skip_secs is None else skip_secs
        return sample_indices(info, fps=rate, max_frames=most or DEFAULT_MAX_FRAMES, skip_secs=skip)

    def __call__(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """The same as preprocess()."""
        return self.preprocess(videos, **kwargs)

    def preprocess(
        self,
        videos: Any,
        *,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        return_metadata: bool | None = None,
        return_tensors: str | None = None,
        data_format: Any = "channels_first",
        reference_quirks: bool | None = None,
        allow_url: bool = False,
        **overrides: Any,
    ) -> BatchFeature:
        """Videos -> pixel_values (batch, frames, 3, side, side) float32 and pixel_attention_mask int64.

        videos: one video or a batch: paths, URLs (with allow_url), bytes, lists of frames, arrays of 4 or 5 axes.
        video_metadata: one mapping a video with `fps` and, for frames picked before, `frames_indices`.
        num_frames, fps: instead of the processor's. Shorter videos are filled with zero frames. return_metadata:
        `video_metadata` too, one VideoMetadata a video. Other arguments override the processor's own.
        Raises InputError for an unknown argument, VideoError for a video that can't be used.
        """
        refuse_unknown("video processor", overrides, _CALL_ARGUMENTS)
        call = self._with({**overrides, "do_sample_frames": do_sample_frames, "reference_quirks": reference_quirks})
        clips = open_clips(videos, video_metadata, quirks=call.reference_quirks, allow_url=allow_url)
        tiles: list[np.ndarray] = []
        described: list[VideoMetadata] = []
        for clip in clips:
            every = do_sample_frames is False  # all frames, of files too
            indices = call._indices_of(clip, fps=fps, max_frames=num_frames, every=every)
            numbers: list[int] = []
            tiles.append(frames_to_tiles(_collect_numbers(clip, indices, numbers), call))
            described.append(clip.describe(tuple(numbers)))
        batch = call._join(tiles, clips, last=parse_order("data_format", data_format) == "channels_last")
        kind = tensor_kind(return_tensors)
        for name, value in batch.items():
            batch[name] = list(value) if kind is None else to_tensors(value, kind, name)
        if self.return_metadata if return_metadata is None else return_metadata:
            batch["video_metadata"] = described
        return batch

    def to_dict(self) -> dict[str, Any]:
        """The settings as a checkpoint file holds them, unknown keys of the file they came from included."""
        own = {"video_processor_type": type(self).__name__, **self.extra, **self._settings()}
        del own["do_image_splitting"]
        for name in ("do_sample_frames", "return_metadata", "num_frames", "fps", "video_sampling"):
            if getattr(self, name) is not None:
                own[name] = getattr(self, name)
        if self.skip_secs != 1:
            own["skip_secs"] = self.skip_secs
        return {**own, "reference_quirks": True} if self.reference_quirks else own

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **overrides: Any) -> SmolVLMVideoProcessor:
        """A processor from the content of a file, the image processor's among them; unknown keys are kept."""
        known = (*_SETTINGS, *_SAMPLING, "video_sampling", "reference_quirks")
        picked = {name: settings[name] for name in known if settings.get(name) is not None}
        processor = cls(**{**picked, **overrides})
        foreign = (*known, "image_processor_type", "do_image_splitting")
        rest = {name: value for name, value in settings.items() if name not in foreign}
        processor.extra = {**rest, **processor.extra}
        return processor

    @classmethod
    def from_pretrained(cls, directory: str | Path, **overrides: Any) -> SmolVLMVideoProcessor:
        """A processor from a local checkpoint directory; older ones keep its settings in preprocessor_config.json."""
        files = ("video_preprocessor_config.json", "preprocessor_config.json")
        return cls.from_dict(read_settings(directory, "video_processor", files), **overrides)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write video_preprocessor_config.json. Returns the file."""
        return write_settings(directory, "video_preprocessor_config.json", self.to_dict())

    def _settings(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in _SETTINGS}, "do_image_splitting": False}

    def _with(self, changes: Mapping[str, Any]) -> SmolVLMVideoProcessor:
        """This processor with what a call changes."""
        names = (*_SETTINGS, *_SAMPLING, "reference_quirks")
        changed = {name: changes[name] for name in names if changes.get(name) is not None}
        return SmolVLMVideoProcessor(**{**{name: getattr(self, name) for name in names}, **changed})

    def _indices_of(self, clip: Clip, *, fps: float | None, max_frames: int | None, every: bool) -> list[int]:
        """Numbers of the frames a call takes from one video."""
        asked = self.do_sample_frames or fps is not None or max_frames is not None
        if every or (clip.listed and not asked):
            return list(range(clip.video.info.num_frames))
        rate = fps if fps is not None else self.fps
        if not clip.listed or rate is None:
            return self.choose(clip.video, fps=fps, max_frames=max_frames)
        if not clip.timed:
            raise InputError(
                "Frames without times can't be sampled at a rate. Give video_metadata={'fps': ...}, or leave "
                "do_sample_frames and fps off."
            )
        return self.choose(clip.video, fps=rate, max_frames=max_frames)

    def _join(self, tiles: list[np.ndarray], clips: list[Clip], *, last: bool) -> BatchFeature:
        """Frames of all videos -> one batch, with zero frames (and rims) where a video has fewer (or smaller) ones."""
        options = self.options
        shapes = [one.shape for one in tiles]  # (frames, height, width, 3)
        if not self.do_pad and len(set(shapes)) > 1:
            raise InputError(
                f"The videos have {[shape[0] for shape in shapes]} frames, which is no single array. Set do_pad=True."
            )
        frames, height, width = (max(shape[axis] for shape in shapes) for axis in range(3))
        values = np.zeros((len(tiles), frames, 3, height, width), np.float32)
        mask = np.zeros((len(tiles), frames, height, width), np.int64)
        for one, clip, video, present in zip(tiles, clips, values, mask, strict=True):
            count, rows, cols = one.shape[:3]
            video[:count, :, :rows, :cols] = normalise(one, options, unit=clip.unit, twice=self.reference_quirks)
            # The reference marks zero frames as real; the model drops them by their values all the same.
            present[: None if self.reference_quirks else count, :rows, :cols] = 1
        batch = BatchFeature(pixel_values=np.ascontiguousarray(np.moveaxis(values, -3, -1)) if last else values)
        if self.do_pad:
            batch["pixel_attention_mask"] = mask
        return batch


def frames_to_tiles(frames: Iterable[Image.Image], processor: SmolVLMVideoProcessor) -> np.ndarray:
    """RGB frames -> (frames, side, side, 3) uint8, each one unsplit tile of the processor's max_image_size."""
    options = processor.options
    tiles = [_frame_tile(frame, options, quirks=processor.reference_quirks) for frame in frames]
    if len({tile.shape for tile in tiles}) > 1:
        raise InputError("The frames differ in size, and do_resize is off. Turn it on to make them equal.")
    return np.stack(tiles)


def _frame_tile(frame: Image.Image, options: PixelOptions, *, quirks: bool) -> np.ndarray:
    """(height, width, 3) uint8 of one frame."""
    if not options.do_resize:
        return np.asarray(frame)
    if quirks:
        first = options.exact_size or fit_longest_edge(*frame.size, min(options.longest_edge or MAX_SIDE, MAX_SIDE))
        frame = frame.resize(first, options.resample)
    side = (options.tile_size, options.tile_size)
    return np.asarray(frame if frame.size == side else frame.resize(side, options.resample))


def _collect_numbers(clip: Clip, indices: list[int], numbers: list[int]) -> Iterator[Image.Image]:
    """The frames of a video one by one; the numbers of those that could be had are noted."""
    for number, _, image in clip.video.frames(indices):
        numbers.append(number)
        yield image
