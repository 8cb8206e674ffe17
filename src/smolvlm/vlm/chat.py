"""A conversation of several turns. It keeps messages and encoded pictures; answering is vlm.py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, cast

from ..errors import InputError
from ..types import Answer, Features
from .answers import AnswerStream
from .requests import AskOptions, LookOptions, Message, as_list, kinds_of, user_turn

if TYPE_CHECKING:
    from .vlm import VLM

_LOOK = tuple(LookOptions.__annotations__)


class Chat:
    """Ask again and again; every question sees all turns before it. Pictures are opened and encoded only once.

    `VLM.chat()` makes one. A turn counts when its answer is complete: what fails or is stopped leaves no trace.
    """

    def __init__(self, vlm: VLM, system: str | None = None, adapter: str | None = None) -> None:
        self._vlm = vlm
        self._system = system
        self._adapter = adapter
        self._messages: list[Message] = []
        self._features: list[Features] = []

    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """The next turn, as `VLM.ask` answers it. options: those of ask, without messages, system and adapter."""
        stream = self.stream(question, **options)
        for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str, **options: Unpack[AskOptions]) -> AnswerStream:
        """The next turn, piece by piece."""
        for name in ("messages", "system", "adapter"):
            if options.get(name) is not None:
                raise InputError(f"A chat keeps its own {name}: start another with VLM.chat(system=..., adapter=...).")
        images, videos = as_list(options.pop("images", ())), as_list(options.pop("videos", ()))
        given = options.pop("features", None)
        new = [] if given is None else [given] if isinstance(given, Features) else list(given)
        if images or videos:
            look = cast(LookOptions, {name: options[name] for name in _LOOK if name in options})  # type: ignore[literal-required]
            new.append(self._vlm.encode(images=images, videos=videos, adapter=self._adapter, **look))
        turn = user_turn(question, [{"type": kind} for features in new for kind in kinds_of(features)])
        messages, features = [*self._messages, turn], [*self._features, *new]
        whole: AskOptions = {
            **options, "messages": messages, "system": self._system, "features": features, "adapter": self._adapter,
        }  # fmt: skip
        stream = self._vlm.stream(**whole)

        def remember(answer: Answer) -> None:
            self._messages = [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer.text}]}]
            self._features = features

        stream.when_complete(remember)
        return stream

    def reset(self) -> None:
        """Forget all turns; the system text stays."""
        self._messages, self._features = [], []

    def transcript(self) -> list[dict[str, str]]:
        """The turns as {"role": ..., "text": ...}; a picture or video stands there as [image] or [video]."""
        return [{"role": str(message["role"]), "text": _plain(message)} for message in self._messages]


def _plain(message: Message) -> str:
    blocks = cast("list[dict[str, str]]", message["content"])
    return " ".join(block["text"] if block["type"] == "text" else f"[{block['type']}]" for block in blocks)
