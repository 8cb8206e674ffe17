"""What the clients of server_load.py ask: about drawn pictures, videos and text, with the library's answers.

Request number `index` is the same in every run. A quarter is sampled, with a seed; half is streamed.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from random import Random
from typing import Any

import av
from PIL import Image

from smolvlm import VLM
from smolvlm.scenes import Scene, draw, render_clip

SEED = 7
MAX_TOKENS = 48
FRAMES_A_SECOND = 8
WHOLE_MIX = ("picture",) * 8 + ("text",) * 4 + ("several",) * 4 + ("video",) * 4
PICTURES_AND_TEXT = ("picture",) * 2 + ("text",)  # what servers without video can answer
PICTURES = ("scene", "read", "chart", "document", "tiles", "photograph")


@dataclass(frozen=True)
class Question:
    """body: of the request, without what each server calls the model. text, reason: the library's answer."""

    kind: str
    body: dict[str, Any]
    text: str
    reason: str

    @property
    def streamed(self) -> bool:
        return bool(self.body["stream"])

    def to_send(self, model: str | None, more: dict[str, Any]) -> bytes:
        """more: fields that not every server knows; `stream_options` only with a stream."""
        fields = {name: value for name, value in more.items() if name != "stream_options" or self.streamed}
        named = {} if model is None else {"model": model}
        return json.dumps({**named, **self.body, **fields}).encode()


def make_question(vlm: VLM, index: int, kinds: tuple[str, ...], *, plain: bool) -> Question:
    """Question `index` of a mix, answered by the library. plain: pictures are cut as the released models cut them, and
    nothing is sampled, so that other servers mean the same by it."""
    kind = kinds[Random(f"{SEED}/{index}").randrange(len(kinds))]
    messages = [{"role": "user", "content": _content(kind, index, "high" if plain else "auto")}]
    sampled = index % 4 == 3 and not plain
    choosing: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": index}
    choosing = choosing if sampled else {"temperature": 0.0}
    options: dict[str, Any] = {"messages": messages, "max_new_tokens": MAX_TOKENS, "loop_guard": True, **choosing}
    answer = vlm.ask(**options)
    body = {"messages": messages, "max_tokens": MAX_TOKENS, "stream": index % 2 == 1, **choosing}
    return Question(kind, body, answer.text, answer.finish_reason)


def _content(kind: str, index: int, detail: str) -> list[dict[str, Any]]:
    scenes = _scenes(kind, index)
    turns = scenes[-1].turns
    media = [_picture(picture, detail) for scene in scenes for picture in scene.pictures]
    if kind == "video":
        media = [{"type": "video_url", "video_url": {"url": _video(index)}}]
    return [*media, {"type": "text", "text": turns[index % len(turns)].question}]


def _scenes(kind: str, index: int) -> list[Scene]:
    """One or several, of which the last is asked about."""
    if kind == "picture":
        return [draw(PICTURES[index % len(PICTURES)], SEED, index, "test")]
    if kind == "several":
        before = [draw("scene", SEED, index, "test")] if index % 2 else []
        return [*before, draw("pair", SEED, index, "test")]
    return [draw(kind, SEED, index, "test")]


def _picture(picture: Image.Image, detail: str) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": _uri("image/png", file), "detail": detail}}


def _video(index: int) -> str:
    clip, file = render_clip(SEED, index, "test", fps=FRAMES_A_SECOND), io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND, options={"preset": "veryfast"})
        stream.width, stream.height = clip.frames[0].size
        stream.pix_fmt = "yuv420p"
        for picture in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    return _uri("video/mp4", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
