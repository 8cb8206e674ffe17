"""What callers of the hall may pass, and how it becomes one conversation. Knows no model and opens no files."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar, cast

from ..errors import InputError
from ..types import Detail, Features, OutputRule, SamplingParams
from .rules import Parse, RuleOptions, read_rule

Message = Mapping[str, object]
Item = TypeVar("Item")


class LookOptions(TypedDict, total=False):
    """How pictures and videos are looked at.

    detail: "low" is one tile a picture, "auto" as many tiles as it has pixels for, "high" what the released models do.
    max_image_tokens: most tokens one picture may take. fps, max_frames: of videos. allow_url: fetch http(s) addresses
    of public hosts.
    """

    detail: Detail
    max_image_tokens: int | None
    fps: float | None
    max_frames: int | None
    allow_url: bool


class AdapterOption(TypedDict, total=False):
    """adapter: a name from `VLM.add_adapter`; None: the model as it was loaded."""

    adapter: str | None


class EncodeOptions(LookOptions, AdapterOption, total=False):
    """LookOptions, and the adapter to look with."""


class MediaOptions(LookOptions, total=False):
    """What is looked at: `images` and `videos` (one, or a list) with a question or a `prompt`, or whole `messages`.

    images: path, URL, data URI, base64, bytes, PIL image, array or tensor. videos: path, URL, bytes, or a list of
    frames inside the list. messages: [{"role": "user", "content": text or blocks}, ...]. system: instructions ahead.
    prompt: the whole prompt as the model reads it, no template around it, `<image>` and `<video>` where the media go,
    pictures first; its control tokens count, so it is nothing for a stranger's text.
    features: what `VLM.encode` returned, instead of images and videos.
    """

    images: object
    videos: object
    messages: Sequence[Message] | None
    system: str | None
    prompt: str | None
    features: Features | Sequence[Features] | None


class DecideOptions(MediaOptions, AdapterOption, total=False):
    """MediaOptions, and the adapter to answer with."""


class AskOptions(DecideOptions, RuleOptions, total=False):
    """DecideOptions, RuleOptions, and how the answer is chosen: the fields of SamplingParams."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    seed: int | None
    logprobs: int | None
    loop_guard: bool


class AskRequest(AskOptions, total=False):
    """One request of a batch: the arguments of `VLM.ask`."""

    question: str | None


_LOOK = tuple(LookOptions.__annotations__)
_SAMPLING = tuple(name.name for name in dataclasses.fields(SamplingParams))


@dataclass(frozen=True)
class Request:
    """One request in its plainest form. `messages` hold placeholders where `features` go, in the same order.

    prompt: written already; the messages only carry its pictures and videos then. rule: that the answer follows; parse:
    what an answer that does stands for. adapter: the name of the one to answer with.
    """

    messages: tuple[Message, ...]
    look: LookOptions = field(default_factory=lambda: LookOptions())
    params: SamplingParams = field(default_factory=SamplingParams)
    features: tuple[Features, ...] = ()
    prompt: str | None = None
    rule: OutputRule | None = None
    parse: Parse | None = None
    adapter: str | None = None


def read_request(caller: str, question: str | None, options: Mapping[str, object], known: type) -> Request:
    """Arguments of a method of the hall -> Request. known: the TypedDict of what that method takes.

    Raises InputError for an unknown keyword, and for arguments that contradict each other.
    """
    _refuse_unknown(caller, options, tuple(name for name in _keys(known) if name != "question"))
    features = as_tuple(cast("Features | Sequence[Features] | None", options.get("features")), Features)
    prompt = cast("str | None", options.get("prompt"))
    sampling = {name: options[name] for name in _SAMPLING if name in options}
    if "stop" in sampling:
        sampling["stop"] = as_tuple(cast("str | Sequence[str] | None", sampling["stop"]), str)
    rule, parse = read_rule(options)
    return Request(
        messages=conversation(
            question,
            images=as_list(options.get("images", ())),
            videos=as_list(options.get("videos", ())),
            messages=cast("Sequence[Message] | None", options.get("messages")),
            system=cast("str | None", options.get("system")),
            features=features,
            prompt=prompt,
        ),
        look=cast(LookOptions, {name: options[name] for name in _LOOK if name in options}),
        params=SamplingParams(**sampling),  # type: ignore[arg-type]
        features=features,
        prompt=prompt,
        rule=rule,
        parse=parse,
        adapter=cast("str | None", options.get("adapter")),
    )


def conversation(
    question: str | None,
    *,
    images: Sequence[object] = (),
    videos: Sequence[object] = (),
    messages: Sequence[Message] | None = None,
    system: str | None = None,
    features: Sequence[Features] = (),
    prompt: str | None = None,
) -> tuple[Message, ...]:
    """One user turn of a question behind its pictures and videos, or the messages given; the system text ahead.

    Of a written prompt, its pictures and videos alone.
    """
    if [question, messages, prompt].count(None) != 2:
        raise InputError("Give either a question or a whole prompt=, with images= and videos=, or messages=.")
    if features and (images or videos):
        raise InputError("features= hold the pictures already: leave images= and videos= out, or encode them too.")
    if messages is not None:
        if images or videos:
            raise InputError("messages= carry their own pictures: put images= and videos= into them as blocks.")
        turns = (messages,) if isinstance(messages, Mapping) else tuple(messages)
    elif prompt is not None:
        if system is not None:
            raise InputError("A prompt= is whole: write the system text into it and leave system= out.")
        if not isinstance(prompt, str):
            raise InputError(f"The prompt must be a text; got {type(prompt).__name__}. Pictures go into images=.")
        return ({"role": "user", "content": [*_placeholders(features), *media_blocks(images, videos)]},)
    else:
        assert question is not None, "one of the three is given"
        if not isinstance(question, str):
            raise InputError(f"The question must be a text; got {type(question).__name__}. Pictures go into images=.")
        turns = (user_turn(question, [*_placeholders(features), *media_blocks(images, videos)]),)
    if system is None:
        return turns
    if any(str(turn.get("role", "")).lower() == "system" for turn in turns):
        raise InputError("The messages begin with a system message of their own: leave system= out.")
    return ({"role": "system", "content": [{"type": "text", "text": system}]}, *turns)


def user_turn(question: str, blocks: Sequence[Message]) -> Message:
    return {"role": "user", "content": [*blocks, {"type": "text", "text": question}]}


def media_blocks(images: Sequence[object], videos: Sequence[object]) -> list[Message]:
    for name, given in (("images", images), ("videos", videos)):
        if any(source is None for source in given):
            raise InputError(f"{name}[{list(given).index(None)}] is None. Give a path, bytes, a PIL image or an array.")
    pictures: list[Message] = [{"type": "image", "image": image} for image in images]
    return pictures + [{"type": "video", "video": video} for video in videos]


def kinds_of(features: Features) -> list[str]:
    """ "image" or "video" of each thing encoded: pictures come first."""
    frames = sum(len(seen.indices) for seen in features.frames)
    return ["image"] * (len(features.tile_rows_cols) - frames) + ["video"] * len(features.frames)


def as_list(media: object) -> list[object]:
    """One picture or video, or a list of them -> a list."""
    if media is None:
        return []
    return list(media) if isinstance(media, list | tuple) else [media]


def as_tuple(given: Item | Sequence[Item] | None, kind: type[Item]) -> tuple[Item, ...]:
    """None, one, or several things of one kind -> a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, kind) else tuple(cast("Sequence[Item]", given))


def _placeholders(features: Sequence[Features]) -> list[Message]:
    return [{"type": kind} for one in features for kind in kinds_of(one)]


def _keys(known: type) -> tuple[str, ...]:
    return tuple(known.__required_keys__ | known.__optional_keys__)  # type: ignore[attr-defined]


def _refuse_unknown(caller: str, options: Mapping[str, object], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(known))}."
            raise InputError(f"{caller} has no option {name!r}. {hint}")
