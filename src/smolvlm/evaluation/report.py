"""A run as one page to look at: scores, bars by category, and the answers that were wrong, with their pictures.

One file that loads nothing, see pages.py. Whatever comes from a model or from data is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ..pages import whole_page
from .records import Record
from .summary import Figure, TaskSummary
from .thumbnails import Thumbnail

MOST_SHOWN = 100  # wrong answers of a task, evenly spread
RIGHT = 0.5  # from this score on an answer isn't among the wrong ones


def shown_records(records: Sequence[Record]) -> list[Record]:
    """The wrong answers of a task that a report shows."""
    wrong = [record for record in records if _kind(record) != "right"]
    step = max(1.0, len(wrong) / MOST_SHOWN)
    return [wrong[int(number * step)] for number in range(min(len(wrong), MOST_SHOWN))]


def report_page(
    title: str,
    facts: Mapping[str, Any],
    summaries: Sequence[TaskSummary],
    records: Sequence[Record],
    pictures: Mapping[tuple[str, str], Sequence[Thumbnail]],
    published: Mapping[str, float],
) -> str:
    """The whole page. facts: name -> value, told under the title. records: those to show. pictures: place -> pictures.

    published: task -> score from 0 to 1.
    """
    cards = "".join(_card(record, pictures.get(record.place, ())) for record in records)
    sections = "".join(_section(summary) for summary in summaries)
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items()
    )
    chosen = filters((one.task for one in records), map(_kind, records), len(records))
    return page(
        title,
        f"<dl>{listed}</dl>",
        f"<section><h2>Scores</h2>{_table(summaries, published)}</section>\n{sections}"
        f"<section><h2>Wrong answers</h2>{chosen}{cards}</section>",
    )


def page(title: str, header: str, main: str) -> str:
    """A page of its own around two pieces of HTML."""
    style, script = (
        files(__package__).joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    body = f"<header>\n<h1>{escape(title)}</h1>\n{header}\n</header>\n<main>\n{main}\n</main>"
    return whole_page(title, body, style, script=script)


def percent(score: float) -> str:
    return f"{100 * score:.1f}"


# ---- scores ----


def _table(summaries: Sequence[TaskSummary], published: Mapping[str, float]) -> str:
    names = ["task", "score, %", "95 % interval", "", "samples", "undecided", "empty", "failed"]
    head = "".join(f"<th>{name}</th>" for name in [*names, *(["published"] if published else [])])
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(_row(one, published) for one in summaries)}</table></div>'


def _row(summary: TaskSummary, published: Mapping[str, float]) -> str:
    one = summary.figure
    cells = [
        f'<a href="#{escape(summary.task)}">{escape(summary.title)}</a>',
        f"<b>{percent(one.score)}</b>",
        f"{percent(one.low)} – {percent(one.high)} <small>{one.interval}</small>",
        _bar(one),
        f"{one.n:,}",
        *(f"{count:,}" if count else "" for count in (one.undecided, one.empty, one.failed)),
    ]
    if published:
        cells.append(percent(published[summary.task]) if summary.task in published else "")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _section(summary: TaskSummary) -> str:
    charts = "".join(
        f"<details{' open' if number == 0 else ''}><summary>by {escape(name)}</summary>"
        f'<div class="chart">{"".join(_line(group, figure) for group, figure in groups.items())}</div></details>'
        for number, (name, groups) in enumerate(summary.groups.items())
        if groups
    )
    tokens = f"{summary.prompt_tokens:,} tokens read, {summary.image_tokens:,} of them of pictures; "
    tokens += f"{summary.new_tokens:,} written; {summary.cut:,} answers cut"
    name = f'<h2 id="{escape(summary.task)}">{escape(summary.title)}</h2>'
    return f'<section>{name}<p class="soft">{escape(summary.metric)}; {tokens}</p>{charts}</section>\n'


def _line(group: str, one: Figure) -> str:
    hint = f"{percent(one.low)} to {percent(one.high)}, {one.n} samples"
    return (
        f'<div class="line" title="{hint}"><span>{escape(group)} <small>{one.n}</small></span>{_bar(one)}'
        f"<b>{percent(one.score)}</b></div>"
    )


def _bar(one: Figure) -> str:
    """A bar as long as the score, and a stroke over its interval."""
    low, high = (min(100.0, 100 * value) for value in (one.low, one.high))
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="rail" width="100" '
        f'height="10"/><rect class="bar" width="{min(100.0, 100 * one.score):.2f}" height="10"/>'
        f'<rect class="range" x="{low:.2f}" y="4" width="{max(0.3, high - low):.2f}" height="2"/></svg>'
    )


# ---- wrong answers ----


def _kind(record: Record) -> str:
    if record.status != "ok":
        return record.status
    return "right" if record.score >= RIGHT else "wrong"


def filters(tasks: Iterable[str], kinds: Iterable[str], count: int) -> str:
    """What report.js shows cards by."""
    return (
        '<p class="filters"><input id="text" type="search" placeholder="find in questions and answers" '
        'aria-label="find in questions and answers">'
        f"{_choice('task', dict.fromkeys(tasks))}{_choice('kind', dict.fromkeys(kinds))}"
        f'<output id="count">{count} shown</output></p>'
    )


def _choice(name: str, values: Iterable[str]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return f'<select id="{name}" aria-label="{name}"><option value="">all {name}s</option>{options}</select>'


def _card(record: Record, pictures: Sequence[Thumbnail]) -> str:
    lines = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _said(record))
    groups = ", ".join(of if isinstance(of, str) else ", ".join(of) for of in record.groups.values())
    kind = _kind(record)
    return (
        f'<article data-task="{escape(record.task)}" data-kind="{kind}">'
        f'<p class="badges"><b>{escape(record.task)}</b> {escape(record.key)} <span class="{kind}">{kind}</span> '
        f"{escape(groups)}</p>{picture_strip(pictures)}"
        f'<p class="question">{escape(record.question)}</p><dl>{lines}</dl>'
        f"<details><summary>prompt, {record.prompt_tokens:,} tokens, tiles: {record.tiles:,}</summary>"
        f"<pre>{escape(record.prompt)}</pre></details></article>\n"
    )


def _said(record: Record) -> Iterator[tuple[str, str]]:
    if record.status != "failed":
        cut = " <small>(cut)</small>" if record.finish_reason == "length" else ""
        yield "answer", (escape(record.output) or "<i>nothing</i>") + cut
        if record.parsed and record.parsed != record.output:
            yield "read as", escape(record.parsed)
    yield "right", " · ".join(escape(one) for one in dict.fromkeys(record.references))
    if 0 < record.score < 1:
        yield "score", percent(record.score)
    if record.reason:
        yield "reason", escape(record.reason)


def picture_strip(pictures: Sequence[Thumbnail]) -> str:
    figures = "".join(
        f'<figure><img width="{one.width}" height="{one.height}" alt="{escape(one.name)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(one.jpeg).decode()}"><figcaption>{escape(one.name)}</figcaption>'
        "</figure>"
        for one in pictures
    )
    return f'<div class="media">{figures}</div>' if figures else ""
