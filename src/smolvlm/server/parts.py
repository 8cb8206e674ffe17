"""Messages as OpenAI's clients send them -> an order for the kitchen: the library's messages, media as references.

Everything is checked here before anything is decoded or fetched: types, counts, lengths, schemes. Numbers of a body
are bodies.py's, what a media string may mean is sources.py's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..vlm.requests import LookOptions
from .bodies import check_depth
from .failures import RequestError
from .settings import Settings
from .sources import NOUNS, Kind, Reference, refer

Block = dict[str, object]
Message = dict[str, object]

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
DETAILS = {"low": "low", "auto": "auto", "high": "high", "original": "high"}
MOST_FPS = 1000.0
MOST_SECONDS = 1e6
SMALL = 4000  # characters: they take a few milliseconds
_TURN = 16  # characters that take as long as a turn does
JSON_BYTES, JSON_VALUES, JSON_DEPTH = 262_144, 10_000, 32  # of an input_json part, as the service has it

_MESSAGE_KEYS = {
    "role", "content", "type", "id", "status", "phase", "name", "refusal", "annotations", "audio", "tool_calls",
    "function_call", "reasoning", "reasoning_content",
}  # fmt: skip
_CALLS = ("tool_calls", "function_call", "audio")
_IDLE_KEYS = {"type", "cache_control", "prompt_cache_breakpoint", "uuid", "annotations", "logprobs"}
_TEXT_TYPES = ("text", "input_text", "output_text")
_SOUND_TYPES = ("input_audio", "audio", "audio_url")
_INNER_KEYS = ("url", "data", "base64")
_MISSING = "missing_required_parameter"
_IMAGE_TYPES = ("image_url", "input_image", "image")
_VIDEO_TYPES = ("video_url", "input_video", "video")
_SOURCE_KEYS: dict[Kind, tuple[str, ...]] = {
    "image": ("image_url", "input_image", "image", "url", "base64", "data"),
    "video": ("video_url", "input_video", "video", "url", "base64", "data", "frames"),
}
_OPTIONS: dict[Kind, tuple[str, ...]] = {
    "image": ("detail", "max_image_tokens"),
    "video": ("detail", "fps", "max_frames", "timestamps_s", "max_image_tokens"),
}


@dataclass(frozen=True)
class Order:
    """What is to be prepared: strings and numbers only, so that it can be sent to a worker.

    messages: of the library, with a Reference (a list of them for the frames of a video) as "source" of its media.
    prompt: a text to go on with, instead of messages; control tokens in it are text.
    """

    messages: tuple[Message, ...]
    look: LookOptions
    prompt: str | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @property
    def blocks(self) -> list[Block]:
        """Of all messages."""
        return [block for message in self.messages for block in message["content"]]  # type: ignore[attr-defined]

    @property
    def is_small(self) -> bool:
        """Whether it can be prepared in no time: a few words, nothing to open."""
        costs = (len(str(block["text"])) if block["type"] == "text" else SMALL for block in self.blocks)
        return sum(_TURN + cost for cost in costs) + len(self.prompt or "") < SMALL


def read_chat(messages: object, settings: Settings, look: LookOptions | None = None) -> Order:
    """`messages` of chat completions. Raises RequestError."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "messages must be a list of at least one message.")
    return _Reader(settings).order(messages, "messages", look)


def read_responses_input(
    given: object, instructions: str | None, settings: Settings, look: LookOptions | None = None
) -> Order:
    """`input` of responses and of decisions: a text, or a list of messages. Raises RequestError."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise _wrong("input", "input must be a text or a list of at least one message.")
    ahead: Message | None = {"role": "system", "content": instructions} if instructions else None
    return _Reader(settings).order(items, "input", look, ahead)


def read_prompt(prompt: object, settings: Settings, look: LookOptions | None = None) -> Order:
    """`prompt` of completions: one text, to go on with. Raises RequestError."""
    if not isinstance(prompt, str) or not prompt:
        raise _wrong("prompt", "prompt must be a text of at least one character.")
    reader = _Reader(settings)
    reader.text(prompt, "prompt")
    return Order((), reader.look(look), prompt)


class _Reader:
    """Reads the messages of one request, and counts what they hold."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._parts = self._characters = self._images = self._videos = self._frames = 0

    def order(self, given: list[Any], name: str, look: LookOptions | None, ahead: Message | None = None) -> Order:
        _limit("messages", len(given), self._limits.messages, name)
        first = [] if ahead is None else [self._message(ahead, "instructions")]
        read = [self._message(one, f"{name}[{index}]") for index, one in enumerate(given)]
        return Order((*first, *read), self.look(look))

    def look(self, look: LookOptions | None) -> LookOptions:
        _limit("frames", (look or {}).get("max_frames") or 0, self._limits.frames, "max_frames")
        return look or {}

    def text(self, given: object, param: str) -> str:
        if not isinstance(given, str):
            raise _wrong(param, f"{param} must be a text; got {kind_of(given)}.", "invalid_type")
        self._characters += len(given)
        if self._characters > self._limits.text_chars:
            most = f"{self._limits.text_chars:,}"
            raise _wrong(param, f"The texts have more than {most} characters together.", "text_too_long", 413)
        return given

    def _message(self, given: object, param: str) -> Message:
        if not isinstance(given, dict):
            raise _wrong(param, f"{param} must be an object; got {kind_of(given)}.", "invalid_type")
        if given.get("type", "message") != "message":
            what = _shown(given["type"])
            raise _wrong(f"{param}.type", f"{param}.type={what} can't be used: this server takes messages alone.")
        _refuse_unknown(given, _MESSAGE_KEYS, param)
        role = given.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise _wrong(f"{param}.role", f"{param}.role={_shown(role)} can't be used: it must be {_either(ROLES)}.")
        for key in _CALLS:
            if given.get(key):
                raise _wrong(f"{param}.{key}", f"{param}.{key} can't be used: this model calls nothing.")
        return {"role": ROLES[role], "content": self._content(given.get("content"), ROLES[role], f"{param}.content")}

    def _content(self, given: object, role: str, param: str) -> list[Block]:
        if given is None and role == "assistant":
            given = ""
        if isinstance(given, str):
            self._count_part(param)
            return [{"type": "text", "text": self.text(given, param)}]
        if not isinstance(given, list) or not given:
            got = "an empty list" if given == [] else kind_of(given)
            raise _wrong(param, f"{param} must be a text or a list of at least one part; got {got}.", "invalid_type")
        return [self._part(one, role, f"{param}[{index}]") for index, one in enumerate(given)]

    def _part(self, given: object, role: str, param: str) -> Block:
        self._count_part(param)
        if not isinstance(given, dict):
            raise _wrong(param, f"{param} must be an object; got {kind_of(given)}.", "invalid_type")
        kind = given.get("type", next((key for key in ("text", "image_url", "video_url") if key in given), None))
        if kind in _TEXT_TYPES or kind == "refusal":
            key = "refusal" if kind == "refusal" else "text"
            _refuse_unknown(given, {key}, param)
            return {"type": "text", "text": self.text(given.get(key), f"{param}.{key}")}
        if kind == "input_json":
            _refuse_unknown(given, {"data"}, param)
            return {"type": "text", "text": self.text(_compact(given.get("data"), f"{param}.data"), f"{param}.data")}
        if kind not in _IMAGE_TYPES and kind not in _VIDEO_TYPES:
            heard = "this model hears no sound; " if kind in _SOUND_TYPES else ""
            types = _either((*_TEXT_TYPES, *_IMAGE_TYPES, *_VIDEO_TYPES))
            raise _wrong(f"{param}.type", f"{param}.type={_shown(kind)} can't be used: {heard}parts are {types}.")
        if role != "user":
            raise _wrong(param, f"{param}: pictures and videos belong in messages of the user.")
        return self._media(given, "image" if kind in _IMAGE_TYPES else "video", param)

    def _media(self, given: dict[str, Any], kind: Kind, param: str) -> Block:
        if given.get("file_id") is not None:
            cure = "this server keeps no files. Send the content as a data URI."
            raise _wrong(f"{param}.file_id", f"{param}.file_id can't be used: {cure}")
        _refuse_unknown(given, {*_SOURCE_KEYS[kind], *_OPTIONS[kind], "file_id"}, param)
        key = _one_of(given, _SOURCE_KEYS[kind], param)
        source, param = given[key], f"{param}.{key}"
        options = {name: given[name] for name in _OPTIONS[kind] if given.get(name) is not None}
        if isinstance(source, dict):  # {"url": ..., "detail": ...}
            _refuse_unknown(source, {*_INNER_KEYS, "format", *_OPTIONS[kind]}, param)
            options |= {name: source[name] for name in _OPTIONS[kind] if source.get(name) is not None}
            key = _one_of(source, _INNER_KEYS, param)
            source, param = source[key], f"{param}.{key}"
        read = {"type": kind, "source": self._source(source, kind, param), **self._read_options(options, param)}
        if "timestamps_s" in read and not isinstance(read["source"], list):
            raise _wrong(param, f"timestamps_s belongs to a list of frames; {param} is one file.")
        return read

    def _source(self, given: object, kind: Kind, param: str) -> Reference | list[Reference]:
        if kind == "image":
            self._images += 1
            _limit("pictures", self._images, self._limits.images, param)
            return self._reference(given, kind, f"picture {self._images}", param)
        self._videos += 1
        _limit("videos", self._videos, self._limits.videos, param)
        name = f"video {self._videos}"
        if isinstance(given, str) and given[:16].lower().startswith("data:video/jpeg;"):  # frames, with commas between
            head, _, frames = given.partition(",")
            given = [f"data:image/jpeg{head[15:]},{one}" for one in frames.split(",", self._limits.frames + 1)]
        if not isinstance(given, list):
            return self._reference(given, kind, name, param)
        if not given:
            raise _wrong(param, f"{param} is an empty list: give at least one frame.")
        self._frames += len(given)
        _limit("frames", self._frames, self._limits.frames, param)
        return [
            self._reference(one, "image", f"frame {index} of {name}", f"{param}[{index}]")
            for index, one in enumerate(given)
        ]

    def _reference(self, given: object, kind: Kind, name: str, param: str) -> Reference:
        if isinstance(given, dict):
            given = given.get("image_url", given.get("url"))
            given = given.get("url") if isinstance(given, dict) else given
        if not isinstance(given, str) or not given:
            wanted = f"a text with the {NOUNS[kind]}, such as a data URI"
            raise _wrong(param, f"{param} must be {wanted}; got {kind_of(given)}.", "invalid_type")
        return refer(given, kind, name, self._settings, param)

    def _read_options(self, given: Mapping[str, Any], param: str) -> Block:
        read: Block = dict(given)
        if "detail" in given:
            detail = given["detail"]
            if not isinstance(detail, str) or detail not in DETAILS:
                raise _wrong(param, f"detail={_shown(detail)} of {param} is unknown: it must be {_either(DETAILS)}.")
            read["detail"] = DETAILS[detail]
        for name in ("max_frames", "max_image_tokens"):
            if name in given and (type(given[name]) is not int or not 0 < given[name] < 2**31):
                raise _wrong(param, f"{name} of {param} must be a whole number from 1.")
        _limit("frames", given.get("max_frames", 0), self._limits.frames, param)
        if "fps" in given and not (_is_number(given["fps"]) and 0 < given["fps"] <= MOST_FPS):
            raise _wrong(param, f"fps of {param} must be above 0 and at most {MOST_FPS:g}.")
        times = given.get("timestamps_s", [])
        if not isinstance(times, list) or not all(_is_number(time) and 0 <= time < MOST_SECONDS for time in times):
            raise _wrong(param, f"timestamps_s of {param} must be a list of seconds from 0.")
        return read

    def _count_part(self, param: str) -> None:
        self._parts += 1
        _limit("parts", self._parts, self._limits.parts, param)


def _limit(what: str, given: int, most: int, param: str) -> None:
    if given > most:
        raise _wrong(param, f"{given} {what} are more than this server's limit of {most}.", "limit_exceeded")


def _one_of(given: Mapping[str, Any], keys: Sequence[str], param: str) -> str:
    found = [key for key in keys if given.get(key) is not None]
    if not found:
        raise _wrong(f"{param}.{keys[0]}", f"Missing required parameter: '{param}.{keys[0]}'.", _MISSING)
    if len(found) > 1:
        raise _wrong(param, f"{param} has {' and '.join(found)}: give one of them.")
    return found[0]


def _wrong(param: str, message: str, code: str = "invalid_value", status: int = 400) -> RequestError:
    return RequestError(message, status=status, param=param, code=code)


def kind_of(value: object) -> str:
    """A JSON value's kind, as messages say it."""
    names: dict[type, str] = {
        type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list",
    }  # fmt: skip
    return names.get(type(value), "an object")


def _compact(given: object, param: str) -> str:
    """The text of an input_json part."""
    if not isinstance(given, dict | list):
        raise _wrong(param, f"{param} must be an object or a list of objects.", "invalid_type")
    check_depth(given, JSON_DEPTH, JSON_VALUES, param)
    text = json.dumps(given, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > JSON_BYTES:
        raise _wrong(param, f"{param} has more than {JSON_BYTES:,} bytes of JSON.", "limit_exceeded")
    return text


def _refuse_unknown(given: Mapping[str, object], known: set[str], param: str) -> None:
    for name, value in given.items():
        if name not in known and name not in _IDLE_KEYS and value is not None:
            where = f"{param}.{name[:100]}"
            raise _wrong(where, f"Unknown parameter: '{where}'.", "unknown_parameter")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    return repr(value[:60]) if isinstance(value, str) else kind_of(value)


def _either(values: Sequence[str] | Mapping[str, str]) -> str:
    names = [repr(value) for value in values]
    return f"{', '.join(names[:-1])} or {names[-1]}"
