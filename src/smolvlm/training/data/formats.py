"""The formats that are known, and which of them a row has: told by the names of its columns.

A format is a name, the columns it needs, and a converter (conversations.py, clips.py). The first that fits is taken, so
the particular stand before the general.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from ...errors import DataError, InputError
from . import clips, conversations
from .sample import Row, Sample

Need = tuple[str, ...]  # one of these columns
_MEDIA: Need = ("image", "images", "video", "videos", "file_name")
_ANSWERS: Need = ("multiple_choice_answer", "answer", "answers", "label")


@dataclass(frozen=True)
class Format:
    """needs: for each, a row must have one of its columns. known_from: data sets that are written so."""

    name: str
    needs: tuple[Need, ...]
    convert: Callable[[Row], Sample]
    known_from: str

    def missing(self, columns: Iterable[str]) -> list[Need]:
        """What a row of these columns lacks."""
        return [need for need in self.needs if not set(need) & set(columns)]


FORMATS = {
    one.name: one
    for one in (
        Format("cauldron", (("texts",),), conversations.from_cauldron, "The Cauldron, FineVision, Docmatix"),
        Format("preference", (("chosen",), ("rejected",)), conversations.from_preference, "TRL, RLAIF-V"),
        Format("prompt", (("prompt",), ("completion",)), conversations.from_prompt_completion, "TRL"),
        Format("messages", (("messages",),), conversations.from_messages, "OpenAI, TRL"),
        Format(
            "videofeedback", (("text prompt",), ("images", "video link")), clips.from_videofeedback, "VideoFeedback"
        ),
        Format(
            "llava", (("conversations", "conversation"),), conversations.from_llava,
            "LLaVA, OneVision, M4-Instruct, MAmmoTH-VL, LLaVA-Video-178K, Video-STaR, VISTA-400K",
        ),
        Format("sharegpt4video", (("captions",), ("video_path",)), clips.from_sharegpt4video, "ShareGPT4Video"),
        Format("finevideo", (("mp4",), ("json",)), clips.from_finevideo, "FineVideo"),
        Format("vript", (("meta",), ("data",)), clips.from_vript, "Vript"),
        Format("moviechat", (("info",), ("global", "breakpoint", "caption")), clips.from_moviechat, "MovieChat-1K"),
        Format("vqa", (("question",), _ANSWERS), conversations.from_vqa, "VQAv2, TextVQA, DocVQA"),
        Format("caption", (_MEDIA, ("caption", "text")), conversations.from_caption, "folders of captioned files"),
        Format("text", (("text",),), conversations.from_text, "plain text"),
    )
}  # fmt: skip


def convert(row: Row, name: str = "") -> tuple[str, Sample]:
    """A row -> the name of its format, and the sample. name: the format, told by the columns when empty.

    Raises DataError and PromptError for a row that can't be understood, whatever is inside it.
    """
    found = format_named(name) if name else recognise(frozenset(row.columns))
    try:
        return found.name, found.convert(row)
    except InputError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"The row isn't written as the format {found.name!r} is ({reason}).") from error


def format_named(name: str) -> Format:
    """Raises DataError for a name that is none."""
    if name not in FORMATS:
        raise DataError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]


@lru_cache(maxsize=1024)
def recognise(columns: frozenset[str]) -> Format:
    """The format that these columns are. Raises DataError saying what each format would need."""
    for one in FORMATS.values():
        if not one.missing(columns):
            return one
    general_first = list(FORMATS.values())[::-1]
    lacks = sorted(general_first, key=lambda one: len(one.missing(columns)) / len(one.needs))  # the nearest first
    raise DataError(
        f"No format fits the columns {', '.join(sorted(columns)) or '(none)'}. "
        + " ".join(f"{one.name} needs {_say(one.missing(columns))}." for one in lacks)
        + " Rename columns, or name a format."
    )


def _say(needs: list[Need]) -> str:
    return " and ".join(" or ".join(map(repr, need)) for need in needs)
