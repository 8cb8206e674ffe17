"""Highlights, chapters, search and a watchful eye: what is worth seeing in videos of any length, and files of it.

    from smolvlm.highlights import find_highlights, write_reel
    found = find_highlights(vlm, "match.mp4", criteria="a goal is scored")
    write_reel(Path("match.mp4"), found.segments, Path("reel.mp4"))

Finding: look.py looks at a video once, index.py is what was seen, cache.py bounds it; shots.py and windows.py cut it,
score.py judges, select.py chooses, find.py joins these; propose.py says what counts when nobody else does; published.py
is the rival.
chapters.py, search.py and describe.py ask other questions of the same index; watch.py looks at what has no end.
Writing: reel.py, lists.py, record.py, sheet.py and page.py.
"""

from .chapters import find_chapters
from .describe import LongAnswer, ask_long, describe, titled
from .find import Highlights, find_highlights
from .index import Index
from .lists import edl, relative_uri, short_clock, webvtt, xspf, youtube_chapters
from .look import build_index
from .page import write_page
from .propose import Proposal, propose_criteria
from .published import find_published
from .record import Record, read_record, write_record
from .reel import Reel, write_reel
from .search import Hit, search
from .segments import Curve, Segment
from .select import Selection, select
from .sheet import write_sheet
from .watch import Change, Watching, watch

__all__ = [
    "Change",
    "Curve",
    "Highlights",
    "Hit",
    "Index",
    "LongAnswer",
    "Proposal",
    "Record",
    "Reel",
    "Segment",
    "Selection",
    "Watching",
    "ask_long",
    "build_index",
    "describe",
    "edl",
    "find_chapters",
    "find_highlights",
    "find_published",
    "propose_criteria",
    "read_record",
    "relative_uri",
    "search",
    "select",
    "short_clock",
    "titled",
    "watch",
    "webvtt",
    "write_page",
    "write_record",
    "write_reel",
    "write_sheet",
    "xspf",
    "youtube_chapters",
]
