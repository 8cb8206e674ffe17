"""Two runs as one page to look at: the table of differences, and the samples whose score changed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .diff import Difference
from .records import Record
from .report import filters, page, percent


def comparison_page(before: str, after: str, differences: Sequence[Difference]) -> str:
    """before, after: what to call the runs."""
    names = ["task", "samples", "before", "after", "fixed", "broken", "other words, same score", "p", "test"]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(one) for one in differences)
    changed = [(one, kind, pair) for one in differences for kind in ("broken", "fixed") for pair in getattr(one, kind)]
    cards = "".join(_card(one.task, kind, *pair) for one, kind, pair in changed)
    chosen = filters((one.task for one in differences), ("broken", "fixed"), len(changed))
    return page(
        "What changed",
        f"<dl><div><dt>before</dt><dd>{escape(before)}</dd></div><div><dt>after</dt><dd>{escape(after)}</dd></div></dl>",
        f'<section><h2>Scores</h2><div class="wide"><table><tr>{head}</tr>{rows}</table></div></section>'
        f"<section><h2>Samples whose score changed</h2>{chosen}{cards}</section>",
    )


def _row(one: Difference) -> str:
    cells = [
        escape(one.task), f"{one.n:,}", percent(one.before), percent(one.after), f"{len(one.fixed):,}",
        f"{len(one.broken):,}", f"{one.reworded:,}", f"{one.p_value:.3g}", f"<small>{one.test}</small>",
    ]  # fmt: skip
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _card(task: str, kind: str, before: Record, after: Record) -> str:
    said = {"before": before, "after": after}
    lines = "".join(f"<div><dt>{name}</dt><dd>{_answer(record)}</dd></div>" for name, record in said.items())
    right = " · ".join(escape(one) for one in dict.fromkeys(before.references))
    return (
        f'<article data-task="{escape(task)}" data-kind="{kind}"><p class="badges"><b>{escape(task)}</b> '
        f'{escape(before.key)} <span class="{kind}">{kind}</span></p><p class="question">{escape(before.question)}</p>'
        f"<dl>{lines}<div><dt>right</dt><dd>{right}</dd></div></dl></article>\n"
    )


def _answer(record: Record) -> str:
    score = "" if record.score in (0.0, 1.0) else f" <small>{percent(record.score)}</small>"
    return (escape(record.output or record.reason) or "<i>nothing</i>") + score
