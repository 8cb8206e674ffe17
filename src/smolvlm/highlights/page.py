"""A result as one page to look at: player, score curve, clips, and controls that choose other segments in the page.

One file that loads nothing but the video beside it, see pages.py. The page cuts no files; it plays the source from
segment to segment, and shows the command that makes the reel. What comes from a model, a user or a file name enters as
JSON and is shown as text.

page.js draws, page_select.js is select.py once more, page.css is how it looks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..media.folder import is_folder
from ..pages import whole_page
from .lists import one_line, relative_uri, short_clock
from .segments import Curve, Segment
from .select import Selection
from .thumbnails import data_uri, thumbnails
from .writing import write_text

POSTER = (320, 320)  # pixels at most
SPREAD_POSTERS = 40  # over the whole video, for segments that are chosen in the page
MOST_POSTERS = 60  # of the segments that were chosen already, the best
LONGEST_HEADING = 120  # letters; what a model proposes is a list of several lines
MOST_TARGET_S, MOST_GAP_S = 600, 60  # where the sliders end
SCRIPTS = ("page_select.js", "page.js")


def write_page(
    path: Path,
    video: Path,
    segments: Sequence[Segment],
    curve: Curve,
    facts: Mapping[str, Any],
    *,
    record: Path,
    reel: Path,
) -> None:
    """Write the page. facts: of the result, as its record holds them. record, reel: where those are, for the commands.

    facts["options"]: words of a command line that its own commands repeat; facts["frame_fps"]: of a folder of frames.

    Raises VideoError when the video can't be read or the page can't be written.
    """
    duration_s = float(facts["duration_s"])
    folder = path.parent
    content = {
        "duration_s": duration_s,
        "segments": [
            {"start_s": one.start_s, "end_s": one.end_s, "score": one.score, "title": one_line(one.title)}
            for one in segments
        ],
        "curve": {"times_s": curve.times_s, "scores": curve.scores},
        "cuts_s": list(facts["cuts_s"]),
        "selection": dict(facts["selection"]),
        "defaults": asdict(Selection()) if facts.get("method") != "published" else dict(facts["selection"]),
        "options": list(facts.get("options", ())),
        "criteria": [one_line(one) for one in facts["criteria"]],
        "posters": _posters(video, segments, duration_s, facts.get("frame_fps")),
        "source": str(video),
        "record": str(record),
        "reel": str(reel),
    }
    has_reel = reel.exists() and reel != path
    links = [f'<a href="{escape(relative_uri(reel, folder))}">{escape(reel.name)}</a>'] if has_reel else []
    write_text(path, _html(video, relative_uri(video, folder), facts, content, links))


def _html(video: Path, source: str, facts: Mapping[str, Any], content: Mapping[str, Any], links: Sequence[str]) -> str:
    told = {"video": video.name, "length": short_clock(content["duration_s"]), **_told(facts)}
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    if links:
        listed += f"<div><dt>reel</dt><dd>{', '.join(links)}</dd></div>"
    # No tag can end early, nor begin, inside: JSON has other ways to write <, > and &.
    safe = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for char in "<>&\u2028\u2029":
        safe = safe.replace(char, f"\\u{ord(char):04x}")
    body = f"""<header>
<h1>{escape(_heading(content["criteria"], video.name))}</h1>
<dl>{listed}</dl>
</header>
<main>
{_player(_screen(source, video), content["duration_s"])}
{_controls(content)}
{_words()}
</main>
<script type="application/json" id="result">{safe}</script>"""
    script = "".join(_asset(name) for name in SCRIPTS)
    return whole_page(f"{video.name}: highlights", body, _asset("page.css"), script=script, media="'self' file:")


def _screen(source: str, video: Path) -> str:
    """Where the video plays, and why it doesn't."""
    name = escape(video.name)
    if is_folder(video):
        return f"""<video id="video" hidden></video>
<p class="note" id="missing">{name} is a folder of pictures, which can't be played. The curve, the clips and the
commands work without that.</p>"""
    return f"""<video id="video" controls preload="metadata" playsinline src="{escape(source)}"></video>
<p class="note" id="missing" hidden>{name} can't be played here: it isn't where it was when this page was
made, or the browser doesn't know its coding. The curve, the clips and the commands work without it.</p>"""


def _player(screen: str, duration_s: float) -> str:
    return f"""<section aria-label="player">
{screen}
<div id="timeline" role="slider" tabindex="0" aria-label="time in the video" aria-valuemin="0"
 aria-valuemax="{duration_s:.1f}" aria-valuenow="0">
<svg id="plot" viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"></svg>
<span id="now"></span></div>
<div class="ticks" id="ticks" aria-hidden="true"></div>
<div class="row"><button id="play" class="main" type="button">Play the segments</button>
<button id="before" type="button">Previous</button><button id="after" type="button">Next</button>
<output id="summary" class="soft"></output></div>
<ul id="clips"></ul>
<p class="note"><kbd>n</kbd> and <kbd>p</kbd> go to the next and the previous segment; on the curve, arrow keys move by
1 s and 5 s.</p>
</section>"""


def _controls(content: Mapping[str, Any]) -> str:
    how = content["selection"]
    most_s = min(MOST_TARGET_S, max(5, int(content["duration_s"])))
    target_s, gap_s = how["target_length_s"] or 0, how["min_gap_s"] or 0
    sliders = (
        ("threshold", "Threshold", 0, 1, 0.01),
        ("top", "At most", 1, 2 * max(10, len(content["segments"]), how["top"] or 0), 1),
        ("min_gap_s", "Apart by at least", 0, max(MOST_GAP_S, int(gap_s)), 0.5),
        ("target_length_s", "Together at most", 1, max(most_s, int(target_s) + 1), 1),
    )
    inputs = "".join(
        f'<label><span>{label} <output></output></span><input type="range" data-key="{key}" min="{low}" max="{high}" '
        f'step="{step}"></label>'
        for key, label, low, high, step in sliders
    )
    return f"""<section>
<h2>Cut again</h2>
<div class="controls">{inputs}</div>
<div class="command"><code id="recut"></code><button type="button" data-copies="recut">Copy</button></div>
<p class="note">Chosen from the stored scores: this command looks at no frame again.</p>
</section>"""


def _words() -> str:
    return """<section>
<h2>Look for something else</h2>
<label class="words">What counts, one a line
<textarea id="criteria" rows="3" spellcheck="false"></textarea></label>
<div class="command"><code id="again"></code><button type="button" data-copies="again">Copy</button></div>
<p class="note">Scores every window anew; frames that were seen before come from the cache.</p>
</section>"""


def _heading(criteria: Sequence[str], name: str) -> str:
    wanted = " · ".join(criteria)
    return wanted if 0 < len(wanted) <= LONGEST_HEADING else f"Highlights of {name}"


def _told(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts that the head of the page shows, where the result has them."""
    told = {name: str(facts[name]) for name in ("model", "method") if facts.get(name)}
    seen = facts.get("frames_seen")
    if isinstance(seen, Mapping) and "timestamps_s" in seen:
        told["frames seen"] = f"{len(seen['timestamps_s']):,}"
    if isinstance(facts.get("label_mass"), float):
        told["probability on yes and no"] = f"{facts['label_mass']:.2f}"
    return told


def _posters(
    video: Path, segments: Sequence[Segment], duration_s: float, frame_fps: float | None
) -> list[dict[str, Any]]:
    """The middle of each segment, and pictures from all over the video for segments that don't exist yet."""
    step_s = duration_s / SPREAD_POSTERS
    best = sorted(segments, key=lambda one: -one.score)[:MOST_POSTERS]
    places = [*best, *(Segment(step_s * number, step_s * (number + 1)) for number in range(SPREAD_POSTERS))]
    pictures_of_places = thumbnails(video, places, 1, POSTER, frame_fps=frame_fps)
    return [
        {"second": round((place.start_s + place.end_s) / 2, 3), "picture": data_uri(pictures[0])}
        for place, pictures in zip(places, pictures_of_places, strict=True)
        if pictures
    ]


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
