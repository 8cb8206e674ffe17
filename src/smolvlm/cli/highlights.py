"""Cut the highlights out of a video of any length: a reel, and beside it lists for players and editors.

examples:
  smolvlm highlights match.mp4 -o reel.mp4 --criteria "a goal is scored" --target-length 60
  smolvlm highlights match.mp4 -o reel.mp4                       the model says what a highlight of such a video is
  smolvlm highlights clip.mp4 --criteria "Does anything move?" --dry-run
  smolvlm highlights frames/ -o marks.html --frame-fps 5         a folder of pictures; lists and a page, no reel
  smolvlm highlights --from reel.highlights.json -o reel.mp4 --threshold 0.7      cut again, no model needed

What counts is asked about every window of the video, and the probability of yes is its score. A criterion that ends
with a question mark is asked as it is. Frames are looked at once and kept: another question takes little time.
Beside reel.mp4: reel.highlights.json (segments, scores, prompts, frames seen), .vtt (chapters), .xspf (playlist that
VLC plays from the video itself), .edl, .png (contact sheet) and .html (page). Of -o marks.html, these without a reel.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Parser, UsageError, add_model_options, limit, whole_limit
from .inputs import check_output, is_url
from .looking import add_look_options, check_videos, look_at, warn_of_doubt
from .terminal import load_model, progress_bar, quieten, waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..highlights import Curve, Highlights, Proposal, Reel, Segment, Selection

# option -> field of Selection
CHOICES = {
    "threshold": "threshold", "top": "top", "target_length": "target_length_s", "min_gap": "min_gap_s",
    "padding": "padding_s", "longest": "longest_s",
}  # fmt: skip
# What the page's command for other criteria says again, beside those and the choice.
REPEATED = (
    "question", "titles", "method", "seed", "fps", "max_frames", "max_image_tokens", "frame_fps", "cache", "cache_gb",
    "model", "adapter", "revision", "offline", "device", "dtype", "runtime",
)  # fmt: skip
NEEDED = ("source", "selection", "duration_s", "cuts_s", "criteria")  # of a record that is cut again
PAGE = ".html"


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm highlights VIDEO -o REEL [options]"
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="a video file or address, or a folder of pictures")
    parser.add_argument(
        "-o", "--output", metavar="REEL", type=Path,
        help=".mp4, .mkv or .webm; lists go beside it. .html: lists and page alone",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="find and show the segments, write nothing")
    parser.add_argument("--from", metavar="JSON", dest="record", type=Path, help="cut again from a .highlights.json")
    group = parser.add_argument_group("what counts")
    group.add_argument(
        "--criteria", metavar="TEXT", action="append",
        help="in words or as a question; may repeat: one is enough; default: the model proposes some",
    )  # fmt: skip
    group.add_argument(
        "--question", metavar="TEXT", help='asked of each window; default: "Does this clip show: {criteria}? yes or no"'
    )
    group.add_argument("--titles", action="store_true", help="let the model give each segment a title")
    group.add_argument(
        "--method", choices=("windows", "published"), default="windows",
        help="published: the procedure of the published demo, pieces of 10 s and 'yes' in a text; to compare with",
    )  # fmt: skip
    group.add_argument("--seed", metavar="N", type=int, help="of --method published, which samples; default: 0")
    group = parser.add_argument_group("how much is kept")
    group.add_argument("--threshold", metavar="P", type=float, help="least score, 0 to 1; default: 0.5")
    group.add_argument("--top", metavar="N", type=whole_limit, help="most segments; 0: all")
    group.add_argument(
        "--target-length", metavar="S", type=limit, help="most seconds of the reel: the best are kept; 0: any"
    )
    group.add_argument(
        "--min-gap", metavar="S", type=float, help="the weaker of two nearer ones is dropped; default: 0"
    )
    group.add_argument("--padding", metavar="S", type=float, help="shown before and after, up to a cut; default: 0.5")
    group.add_argument("--longest", metavar="S", type=limit, help="of one segment; default: 30; 0: any")
    group = parser.add_argument_group("writing")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="never encode: borders move to key frames")
    how.add_argument("--encode", action="store_true", help="always encode: borders are exact to the frame")
    group.add_argument("--open", action="store_true", help="open the page in the browser")
    add_look_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    if (options.video is None) == (options.record is None):
        raise UsageError("give a video, or --from with a .highlights.json that was written before (see --help)")
    if options.output is None and not options.dry_run:
        raise UsageError("name the reel, e.g. -o reel.mp4; or see what it would hold with --dry-run")
    if options.seed is not None and options.method != "published":
        raise UsageError("--seed has no effect without --method published: windows are scored without chance")
    if options.record is not None:
        return _cut_again(options)
    check_videos([options.video], options)
    if is_url(options.video) and not options.dry_run:
        raise UsageError("a reel is cut out of a file: download the video first, or look with --dry-run")
    _check_output(options, Path(options.video))
    selection = _selection(options, {})
    found = _published(options) if options.method == "published" else _find(options, selection)
    _show(found.segments, found.curve.scores, found.selection)
    if options.dry_run:
        return 0 if found.segments else 1
    facts = {**found.facts(), "source": str(Path(options.video).absolute()), "frame_fps": options.frame_fps}
    facts["options"] = _repeated(options)
    return _write(options, Path(options.video), found.segments, found.curve, facts)


def _check_output(options: argparse.Namespace, video: Path) -> None:
    """Raises UsageError or InputError for a name that can't be written to, before anything takes time."""
    if options.dry_run:
        return
    check_output(options.output)
    is_page = options.output.suffix.lower() == PAGE
    if is_page and (options.copy or options.encode):
        raise UsageError(
            f"--copy and --encode are of a reel, and {options.output} is a page: name a reel, e.g. -o reel.mp4"
        )
    if video.is_dir() and not is_page:
        raise UsageError(
            f"a reel is cut out of a video, and {video} is a folder of pictures: name a page, e.g. -o "
            f"{options.output.with_suffix(PAGE)}, or look with --dry-run"
        )
    if not is_page:
        from ..highlights.reel import check_reel_name

        check_reel_name(video, options.output)


def _find(options: argparse.Namespace, selection: Selection) -> Highlights:
    vlm = load_model(options)
    from ..highlights import find_highlights, propose_criteria, titled

    index = look_at(vlm, options.video, options)
    criteria, proposal = options.criteria, None
    if criteria is None:
        with waiting("Thinking of what may be a highlight ...", options):
            proposal = propose_criteria(vlm, index, max_image_tokens=options.max_image_tokens)
        criteria = proposal.criteria
        _tell(proposal)
    with progress_bar("Judging", options, unit="samples") as progress:
        found = find_highlights(
            vlm, index, criteria=criteria, question=options.question, selection=selection,
            max_image_tokens=options.max_image_tokens, on_progress=progress,
        )  # fmt: skip
    warn_of_doubt(found.label_mass, options)
    if options.titles:
        found = replace(found, segments=titled(vlm, index, found.segments))
    return replace(found, proposal=proposal)


def _tell(proposal: Proposal) -> None:
    """Say what is looked for, since nobody said, and why."""
    if not proposal.is_own:
        print(
            f"smolvlm: what the model would look for is {proposal.moments!r}, but it can't judge by that: only "
            f"{proposal.label_mass:.1%} of its answers lay on yes and no. So it is asked what any video can be asked.",
            file=sys.stderr,
        )
    listed = "\n".join(f"  {line}" for one in proposal.criteria for line in one.splitlines())
    print(f"smolvlm: looking for this; --criteria TEXT looks for something else:\n{listed}", file=sys.stderr)


def _published(options: argparse.Namespace) -> Highlights:
    """The demo's procedure, which has none of our choices; one that is given is refused, since it would do nothing."""
    without = [
        *CHOICES,
        "titles",
        "fps",
        "max_frames",
        "max_image_tokens",
        "frame_fps",
        "allow_url",
        "cache",
        "cache_gb",
    ]
    if given := [name for name in without if _is_given(getattr(options, name))]:
        raise UsageError(f"--{given[0].replace('_', '-')} has no effect with --method published")
    if options.criteria is not None and len(options.criteria) > 1:
        raise UsageError("--method published has one list of criteria: give --criteria once, with a line for each")
    vlm = load_model(options)
    from ..highlights import find_published

    with progress_bar("Judging", options, unit="samples") as progress:
        return find_published(
            vlm, Path(options.video), criteria=options.criteria[0] if options.criteria else None,
            question=options.question, seed=options.seed or 0, on_progress=progress,
        )  # fmt: skip


def _cut_again(options: argparse.Namespace) -> int:
    """Select anew from the scores of a record. Nothing that would need the model may be asked for."""
    for name in ("criteria", "question", "titles", "fps", "max_frames", "max_image_tokens", "frame_fps"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} needs the model: give the video instead of --from")
    quieten(options)
    from ..highlights import read_record, select

    record = read_record(options.record)
    facts = dict(record.facts)
    if missing := [name for name in NEEDED if name not in facts]:
        raise UsageError(
            f"{options.record} holds no {missing[0]!r}: give one that `smolvlm highlights` wrote, or the video"
        )
    _check_output(options, Path(facts["source"]))
    selection = _selection(options, facts["selection"])
    segments = select(record.curve, facts["duration_s"], facts["cuts_s"], selection)
    _show(segments, record.curve.scores, selection)
    if options.dry_run:
        return 0 if segments else 1
    facts["selection"] = asdict(selection)
    return _write(options, Path(facts["source"]), segments, record.curve, facts)


def _selection(options: argparse.Namespace, known: Mapping[str, Any]) -> Selection:
    """What the options say, else what is known, else the defaults."""
    from ..highlights import Selection

    given = {field: getattr(options, name) for name, field in CHOICES.items() if getattr(options, name) is not None}
    for field in ("top", "target_length_s", "longest_s"):
        if given.get(field) == 0:
            given[field] = None
    return Selection(**{**known, **given})


def _repeated(options: argparse.Namespace) -> list[str]:
    """The words of this command line that hold for other criteria, too."""
    words: list[str] = []
    for name in REPEATED:
        value, flag = getattr(options, name), "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif _is_given(value) and (name, value) not in (("method", "windows"), ("runtime", "auto")):
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def _is_given(value: object) -> bool:
    return value is not None and value is not False  # 0 is given


def _show(segments: Sequence[Segment], scores: Sequence[float], selection: Selection) -> None:
    """A line a segment; when there is none, what the best score was."""
    from ..highlights import short_clock

    for place, segment in enumerate(segments, 1):
        times = f"{short_clock(segment.start_s)} - {short_clock(segment.end_s)}"
        print(f"{place:>3}  {times:<19}  {segment.score:.2f}  {segment.title}".rstrip())
    if not segments:
        best = max(scores, default=0.0)
        print(f"Nothing reaches the threshold of {selection.threshold:g}; the best score is {best:.2f}.")


def _write(
    options: argparse.Namespace, video: Path, segments: Sequence[Segment], curve: Curve, facts: Mapping[str, Any]
) -> int:
    """The reel, if one is asked for, and what lies beside it. Exits with 1 when there is nothing to write."""
    if not segments:
        print("smolvlm: nothing was written; lower --threshold, or change --criteria", file=sys.stderr)
        return 1
    from ..highlights import webvtt, write_page, write_record, write_sheet
    from ..highlights.writing import write_text

    output: Path = options.output
    record, page = output.with_suffix(".highlights.json"), output.with_suffix(PAGE)
    reel = None if output.suffix.lower() == PAGE else _write_reel(options, video, segments)
    title = " · ".join(facts["criteria"])
    write_record(record, segments, curve, facts, reel)
    write_text(output.with_suffix(".vtt"), webvtt(segments if reel is None else reel.segments()))
    if not video.is_dir():
        _write_lists(output, video, segments, title)
    write_sheet(
        output.with_suffix(".png"), video, segments, curve, duration_s=facts["duration_s"], title=title,
        threshold=facts["selection"]["threshold"], frame_fps=facts.get("frame_fps"),
    )  # fmt: skip
    again = output if reel is not None or video.is_dir() else output.with_suffix(".mp4")
    write_page(page, video, segments, curve, facts, record=record, reel=again)
    told = f"{output}: {len(segments)} segment{'s' * (len(segments) > 1)}"
    if reel is None:
        print(f"{told}; {record} and lists beside it")
    else:
        how = f"{reel.duration_s:.1f} s, {'copied' if reel.copied else 'encoded'}"
        print(f"{told}, {how}; {record}, {page} and lists beside it")
    if options.open:
        webbrowser.open(page.absolute().as_uri())
    return 0


def _write_reel(options: argparse.Namespace, video: Path, segments: Sequence[Segment]) -> Reel:
    from ..highlights import write_reel

    copy = True if options.copy else False if options.encode else None
    with progress_bar(f"Writing {options.output}", options, unit="samples") as progress:
        return write_reel(video, segments, options.output, copy=copy, on_progress=progress)


def _write_lists(output: Path, video: Path, segments: Sequence[Segment], title: str) -> None:
    """Those that name the video: for VLC and for editors."""
    from ..highlights import edl, relative_uri, xspf
    from ..highlights.footage import HOURS, has_sound
    from ..highlights.writing import write_text
    from ..media.video import probe

    write_text(output.with_suffix(".xspf"), xspf(segments, relative_uri(video, output.parent), title))
    fps = probe(video, limits=HOURS).fps
    write_text(output.with_suffix(".edl"), edl(segments, video.name, title, fps=fps, sound=has_sound(video)))
