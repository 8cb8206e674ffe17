"""Which checkpoint is the best: scores of several tasks, weighted into one number, step by step.

The family's checkpoints were chosen so (every 25 steps, MMMU, MMStar, DocVQA, TextVQA, MathVista and AI2D, weighted by
hand). The published texts don't tell the weights; here they are equal unless a recipe says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependencyError

LOWER_IS_BETTER = "loss"


def combined(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean; of a score named loss, or ".../loss", its negative. Without weights: all the same, losses out
    unless there is nothing else, "skill/kind" beside its skill not counted twice.

    Raises ConfigError for a weight without a score.
    """
    missing = [name for name in weights if name not in scores]
    if missing:
        raise ConfigError(f"selection: there is no score {missing[0]!r}; there are {', '.join(scores)}.")
    chosen = weights or _whole(scores)
    total = sum(chosen.values())
    return sum(weight * _risen(name, scores[name]) for name, weight in chosen.items()) / total


def table(history: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a step, the best marked. history: of {"step", "scores", "combined"}."""
    names = [name for name in history[0]["scores"] if "/" not in name]
    best = max(history, key=lambda one: one["combined"])
    lines = ["| step | " + " | ".join(names) + " | together |", "|---" * (len(names) + 2) + "|"]
    for one in history:
        cells = [f"{one['scores'].get(name, float('nan')):.4g}" for name in names]
        mark = " (best)" if one is best else ""
        lines.append(f"| {one['step']} | " + " | ".join(cells) + f" | {one['combined']:.4g}{mark} |")
    return "\n".join(lines)


def plot(metrics: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], file: Path, title: str) -> None:
    """Draw loss and scores against steps into a PNG. metrics: lines of metrics.jsonl.

    Raises MissingDependencyError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The plot of a run is drawn by matplotlib: pip install 'smolvlm[train]'."
        ) from error
    figure = Figure(figsize=(8, 6 if history else 3.5), layout="constrained")
    loss, *rest = figure.subplots(2 if history else 1, 1, sharex=True, squeeze=False)[:, 0]
    steps = [line["step"] for line in metrics]
    loss.plot(steps, [line["loss"] for line in metrics], color="0.75", linewidth=0.8, label="loss of a step")
    loss.plot(steps, smoothed([line["loss"] for line in metrics]), color="tab:blue", label="smoothed")
    loss.set(title=title, ylabel="loss")
    loss.legend(frameon=False)
    for axes in rest:
        for name in [name for name in history[0]["scores"] if "/" not in name and LOWER_IS_BETTER not in name]:
            axes.plot([one["step"] for one in history], [one["scores"].get(name) for one in history], ".-", label=name)
        axes.plot([one["step"] for one in history], [one["combined"] for one in history], "k.--", label="together")
        axes.set(xlabel="step", ylabel="score")
        axes.legend(frameon=False, fontsize="small", ncols=2)
    figure.savefig(file, dpi=120)


def smoothed(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """Exponential mean, which starts as the plain one."""
    found: list[float] = []
    for index, value in enumerate(values):
        share = min(keep, index / (index + 1))
        found.append(value if not found else share * found[-1] + (1 - share) * value)
    return found


def _whole(scores: Mapping[str, float]) -> dict[str, float]:
    names = [name for name in scores if "/" not in name] or list(scores)
    better = [name for name in names if LOWER_IS_BETTER not in name]
    return dict.fromkeys(better or names, 1.0)


def _risen(name: str, score: float) -> float:
    return -score if name.rpartition("/")[2] == LOWER_IS_BETTER else score
