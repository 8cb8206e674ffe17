"""Cases for server_fuzz.py: damaged requests and files, and what of the server they are put before.

Each target does one case with the chances it is given, says what came of it, and lets out only what nobody expected.
Not a benchmark by itself.
"""

from __future__ import annotations

import base64
import io
import json
import random
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from server_bombs import PICTURE, VIDEO, data_uri, gif

from smolvlm.errors import FetchError, MediaError, SmolVLMError
from smolvlm.media.fetch import FetchPolicy, fetch
from smolvlm.media.image import ImageLimits, measure_image, open_image
from smolvlm.media.video import VideoLimits, open_video
from smolvlm.server.failures import RequestError, describe
from smolvlm.server.parts import read_chat, read_prompt, read_responses_input
from smolvlm.server.settings import Settings
from smolvlm.server.sources import Access, fill, refer
from smolvlm.server.worker import fill_all

Target = Callable[[random.Random], str]
SETTINGS = Settings()
OPEN = Settings(allow_url=True)
ACCESS = Access.of(SETTINGS)
PIXELS, FRAMES = 4_000_000, 4

# ---- making cases --------------------------------------------------------------------------------------------------

ATOMS: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320, "", " ", "x",
    "a" * 300, "\0", "💥",
    "\u202e", "\ufdd0", "<image>", "<video>", "<end_of_utterance>", "<|im_start|>", "auto", "low", "user",
    "system", "text",
    "image_url", "video_url", "json_object", "json_schema", "stop", "nano", [], {}, [[]], [None], {"": None},
]  # fmt: skip
WORDS = [
    "messages", "role", "content", "type", "text", "image_url", "video_url", "url", "detail", "frames", "fps",
    "timestamps_s",
    "max_frames", "input", "instructions", "prompt", "questions", "choices", "value", "levels", "label", "n",
    "stop", "seed",
    "temperature", "top_p", "top_k", "max_tokens", "logprobs", "top_logprobs", "stream", "stream_options",
    "include_usage",
    "response_format", "schema", "structured_outputs", "regex", "choice", "json", "model", "input_image",
    "base64", "data",
    "tools", "user", "loop_guard", "max_image_tokens", "text.format", "name", "format", "file_id", "input_json",
]  # fmt: skip
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "ChatBody": [
        {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, "n": 2, "stop": ["x"], "seed": 3},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "video", "frames": ["data:image/png;base64,AAAA"], "fps": 2}, {"type": "text", "text": "?"}]}],
         "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    ],
    "CompletionBody": [{"prompt": "Once", "max_tokens": 3, "logprobs": 2, "stop": "x",
    "structured_outputs": {"regex": "a+"}}],
    "ResponseBody": [{"input": "Hi", "instructions": "s", "max_output_tokens": 3, "text": {"format": {"type": "text"}}},
                 {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "stream": True}],
    "DecisionBody": [{"input": "It rains.", "questions": [
        {"type": "predicate", "instructions": "?"}, {"type": "choice", "instructions": "?", "choices": [
            {"value": "a"}, {"value": True, "description": "d"}]},
        {"type": "score", "instructions": "?", "levels": [{"label": "low"}, {"label": "high"}]}]}],
    "CountBody": [{"messages": [{"role": "user", "content": "Hi"}]}, {"prompt": "x"}],
}  # fmt: skip


def value(chance: random.Random, depth: int = 3) -> Any:
    """Any JSON value, with words that mean something here."""
    roll = chance.random()
    if depth == 0 or roll < 0.5:
        return chance.choice(ATOMS)
    if roll < 0.6:
        return data_uri(mutated(PICTURE, chance))
    if roll < 0.75:
        return [value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(WORDS): value(chance, depth - 1) for _ in range(chance.randrange(4))}


def changed(given: Any, chance: random.Random) -> Any:
    """The same with one thing in it replaced, added or left out."""
    if not isinstance(given, dict | list) or not given or chance.random() < 0.2:
        return value(chance)
    copy = given.copy()
    keys = list(copy) if isinstance(copy, dict) else list(range(len(copy)))
    key = chance.choice(keys)
    roll = chance.random()
    if roll < 0.1:
        del copy[key]
    elif roll < 0.2 and isinstance(copy, dict):
        copy[chance.choice(WORDS)] = value(chance)
    elif roll < 0.3 and isinstance(copy, list):
        copy.insert(key, value(chance))
    else:
        copy[key] = changed(copy[key], chance)
    return copy


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes with some of them changed, doubled, left out, or cut off."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        if not data:
            break
        place, roll = chance.randrange(len(data)), chance.random()
        if roll < 0.5:
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif roll < 0.65:
            data[place : place + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        elif roll < 0.75:
            length = chance.randrange(1, 64)
            data[place:place] = data[max(0, place - length) : place]
        elif roll < 0.85:
            del data[place : place + chance.randrange(1, 64)]
        elif roll < 0.95:
            data[place:place] = chance.randbytes(chance.randrange(1, 16))
        else:
            del data[place:]
    return bytes(data)


def mutated_text(text: str, chance: random.Random) -> str:
    letters = list(text)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        place = chance.randrange(len(letters) + 1)
        strange = chance.choice(
            "\0\r\n\t %:/\\@[]?#.,;=&+-_~<>{}|\"'`^$\x7f\u00ad\u3002\uff0e\u2460\u0130\u017f\ufeff\ud800🙂09aZ"
        )
        if chance.random() < 0.6:
            letters.insert(place, strange)
        elif letters:
            letters[min(place, len(letters) - 1)] = strange
    if chance.random() < 0.1:
        letters = letters[: chance.randrange(len(letters) + 1)]
    return "".join(letters)


# ---- targets: each does one case, and says what came of it ----------------------------------------------------------


def told(error: BaseException) -> str:
    """What a refusal is called, once it has been described as a client gets it."""
    found = describe(error)
    text = json.dumps(found.body).encode()
    assert found.status < 500, f"a client would get {found.status}"
    assert len(text) < 10_000 and set(found.body["error"]) == {"message", "type", "param", "code"}
    return f"{found.status} {found.body['error']['code']}"


@lru_cache
def readers() -> dict[str, Any]:
    """What reads the body of each route."""
    from smolvlm.server import app, wire  # app imports all routes

    found, left = {}, [wire.Body]
    while left:
        one = left.pop()
        left += one.__subclasses__()
        found[one.__name__] = one
    assert app and set(SAMPLES) <= set(found), f"there are {sorted(found)}"
    return {name: found[name] for name in SAMPLES}


def bodies(chance: random.Random) -> str:
    """JSON of every route, from bytes to what the engine is asked for."""
    from pydantic import ValidationError

    name = chance.choice(list(SAMPLES))
    reader, sample = readers()[name], chance.choice(SAMPLES[name])
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        sample = changed(sample, chance)
    raw = json.dumps(sample).encode()
    raw = mutated(raw, chance) if chance.random() < 0.5 else raw
    try:
        body = reader.read(raw, SETTINGS)
        for method, arguments in (("rule", (SETTINGS,)), ("choose_all", (SETTINGS, None, None)), ("look", ())):
            getattr(body, method, lambda *_: None)(*arguments)
        _read_texts(name, body)
    except (SmolVLMError, ValidationError) as error:
        return told(error)
    return "accepted"


def _read_texts(name: str, body: Any) -> None:
    """What the route does with the texts of its body."""
    if name == "ChatBody":
        read_chat(body.messages, SETTINGS)
    elif name == "CompletionBody":
        read_prompt(body.prompt, SETTINGS)
    elif name == "ResponseBody":
        read_responses_input(body.input, body.instructions, SETTINGS)
    elif name == "DecisionBody":
        from smolvlm.server.decisions import order_of

        for question in body.questions:
            order_of(body, question, SETTINGS)


def messages(chance: random.Random) -> str:
    """Python values in the place of messages, and their media filled."""
    given: Any = chance.choice(SAMPLES["ChatBody"])["messages"]
    for _ in range(chance.choice((1, 2, 4))):
        given = changed(given, chance)
    reader = chance.choice((read_chat, lambda one, settings: read_responses_input(one, "Be brief.", settings)))
    try:
        fill_all(reader(given, chance.choice((SETTINGS, SETTINGS, OPEN))), ACCESS)
    except SmolVLMError as error:
        return told(error)
    return "accepted"


def data_uris(chance: random.Random) -> str:
    """Strings for pictures: data URIs, base64, names of files, damaged."""
    text = chance.choice((
        data_uri(PICTURE), base64.b64encode(PICTURE).decode(), data_uri(VIDEO, "video/mp4"), "data:image/png;base64,",
        "data:,", "file:///etc/passwd", "/etc/passwd", "cat.png", "https://a.example/x.png",
        "data:image/svg+xml,<svg/>",
    ))  # fmt: skip
    text = mutated_text(text[: chance.choice((40, 200, 2000, 100_000))], chance)
    kind: Any = chance.choice(("image", "video"))
    try:
        source = fill(refer(text, kind, f"{kind} 1", SETTINGS, "x"), ACCESS)
        assert isinstance(source.content, bytes), "no name of a file may become one"
        if kind == "image":
            measure_image(source, limits=ImageLimits(max_pixels=PIXELS))
    except (RequestError, MediaError) as error:
        return told(error)
    return "accepted"


ADDRESSES = (
    "http://a.example/x.png?y=1#z", "https://127.0.0.1:8080/", "http://[::1]:80/", "http://user:word@a.example/",
    "http://xn--nxasmq6b.example/", "http://bücher.example/", "http://0x7f.1/", "http://a.example:99999/",
    "HTTP://A.EXAMPLE",
)  # fmt: skip


def addresses(chance: random.Random) -> str:
    """URLs, whose hosts are unknown or of this machine: nothing may be connected to."""
    found = chance.choice(([], ["127.0.0.1"], ["::1"], ["10.0.0.1", "8.8.8.8"], ["not an address"], [""]))
    policy = FetchPolicy(resolve=lambda host, port: found, allowed_hosts=chance.choice(((), (".example",))))
    try:
        fetch(mutated_text(chance.choice(ADDRESSES), chance), policy=policy, timeout_s=5)
    except FetchError as error:
        return told(error)
    raise AssertionError("something was fetched")


def headers(chance: random.Random) -> str:
    """Hosts, origins and keys."""
    from smolvlm.server import guard

    settings = Settings(hosts=("vlm.example",), cors_origins=("https://app.example",))
    given = {
        "host": chance.choice(("localhost:80", "[::1]:8000", "vlm.example", "127.0.0.1")),
        "origin": chance.choice(("https://app.example", "http://localhost:80", "null")),
        "authorization": "Bearer abcdefgh",
    }
    for name in chance.sample(list(given), 2):
        given[name] = mutated_text(given[name], chance)
    keys = [guard._digest("abcdefgh")]
    try:
        guard.check_size(
            [(name.encode(), text.encode("utf-8", "replace")) for name, text in given.items()], settings.limits
        )
        guard.check_host(given, settings)
        guard.check_origin("POST", given, settings)
        guard.check_key("POST", mutated_text("/v1/models", chance), given, keys)
    except RequestError as error:
        return told(error)
    return "accepted"


@lru_cache
def seeds() -> list[bytes]:
    """A small picture of every format that is opened."""
    found = []
    for form, mode, options in (
        ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {}), ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {}), ("JPEG", "L", {"progressive": True}), ("WEBP", "RGB", {}), ("WEBP",
        "RGBA", {"lossless": True}),
        ("GIF", "P", {}), ("BMP", "RGB", {}), ("TIFF", "RGB", {}), ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}), ("PPM", "RGB", {}), ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}),
        ("MPO", "RGB", {}),
    ):  # fmt: skip
        file = io.BytesIO()
        try:
            Image.effect_noise((24, 24), 64).convert("RGB").convert(mode).save(file, form, **options)
        except (KeyError, OSError, ValueError):  # a Pillow without it
            continue
        found.append(file.getvalue())
    return [*found, gif(16, 3), PICTURE]


def pictures(chance: random.Random) -> str:
    """Damaged pictures through the door."""
    content = mutated(chance.choice(seeds()), chance)
    limits = ImageLimits(max_pixels=PIXELS)
    try:
        size = measure_image(content, limits=limits)
        picture = open_image(content, limits=limits)
        assert picture.mode == "RGB" and picture.size == size, f"{picture.mode}, {picture.size} instead of {size}"
    except MediaError as error:
        return told(error)
    return "opened"


@lru_cache
def films() -> list[bytes]:
    """A small film of every container that is opened."""
    import av

    found = []
    for container, codec in (
        ("mp4", "mpeg4"), ("mp4", "libx264"), ("mov", "mjpeg"), ("matroska", "libx264"), ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("mpegts", "mpeg2video"), ("mpeg", "mpeg1video"), ("flv", "flv"), ("ogg", "libtheora"), ("asf", "wmv2"),
    ):  # fmt: skip
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=container) as out:
                stream: Any = out.add_stream(codec, rate=10)
                stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p" if codec == "mjpeg" else "yuv420p"
                for number in range(6):
                    picture = Image.new("RGB", (32, 32), (40 * number, 0, 0))
                    out.mux(stream.encode(av.VideoFrame.from_image(picture)))
                out.mux(stream.encode(None))
        except (av.FFmpegError, ValueError, OSError):  # an FFmpeg without it
            continue
        found.append(file.getvalue())
    file = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), (60 * number, 0, 0)) for number in range(4)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=100)
    return [*found, gif(16, 6), file.getvalue(), VIDEO]


def videos(chance: random.Random) -> str:
    """Damaged films through the door."""
    content = mutated(chance.choice(films()), chance)
    limits = VideoLimits(max_pixels=PIXELS, max_seconds=3600, max_streams=8, max_frames=2000, decode_s=20)
    try:
        film = open_video(content, limits=limits)
        wanted = sorted({index * film.info.num_frames // FRAMES for index in range(FRAMES)})
        for frame in film.frames(wanted):
            assert frame.image.mode == "RGB"
    except MediaError as error:
        return told(error)
    return "opened"


TARGETS: dict[str, tuple[Target, float]] = {
    "bodies": (bodies, 0.34), "messages": (messages, 0.2), "data URIs": (data_uris, 0.15),
    "addresses": (addresses, 0.1),
    "headers": (headers, 0.06), "pictures": (pictures, 0.12), "videos": (videos, 0.03),
}  # fmt: skip
