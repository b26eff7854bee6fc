"""Draw the loss curves of training runs as one SVG: held-out perplexity and training loss against tokens read.

    python benchmarks/curve.py OUT.svg LABEL=LOG[,LOG...] [LABEL=...]     LOG: the log.jsonl in OUT/training of a run

Logs joined by commas are of runs that went on one from the other (--from): their tokens are added up, and the
evaluation with which a later one begins is left out, as it is the one that the earlier ended with.

Needs matplotlib, which elmokit itself does not. The same logs give the same file.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Colours of Okabe and Ito, apart for every kind of eye; lines and marks tell the curves apart in grey too.
STYLES = [
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#000000", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
]
MARKED = 30  # points up to which each has its mark
# Text as text: the file stays small and can be searched. A fixed salt: equal input, equal file.
LOOK = {"svg.fonttype": "none", "svg.hashsalt": "elmokit", "font.family": "sans-serif", "font.size": 10}


@dataclass(frozen=True)
class Run:
    """The curves of one run as (tokens read, value) pairs; `whole` was measured on more text than `heldout`."""

    label: str
    loss: list[tuple[int, float]]
    heldout: list[tuple[int, float]]
    whole: list[tuple[int, float]]


def read_run(argument: str) -> Run:
    """Read LABEL=LOG,LOG...; of lines that a resumed run wrote again the last counts."""
    label, equals, paths = argument.partition("=")
    if not equals:
        sys.exit(f"expected LABEL=LOG, found {argument!r}")
    entries: list[dict[str, Any]] = []
    for path in paths.split(","):
        before = entries[-1]["places"] if entries else 0
        new = [entry for entry in read_log(path) if entry["step"] or not before]
        entries += [entry | {"places": before + entry["places"]} for entry in new]
    evaluations = [entry for entry in entries if "mean" in entry]
    sizes = {entry["heldout_places"] for entry in evaluations}
    return Run(
        label,
        loss=series(entries, "loss"),
        heldout=series([e for e in evaluations if e["heldout_places"] == min(sizes)], "mean"),
        whole=series([e for e in evaluations if e["heldout_places"] != min(sizes)], "mean"),
    )


def read_log(path: str) -> list[dict[str, Any]]:
    """The lines of one log."""
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        sys.exit(f"{path} is not the log of a training run: {error}")


def series(entries: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Values of `name` by tokens read, rising."""
    return sorted({entry["places"]: entry[name] for entry in entries if name in entry}.items())


def draw(runs: list[Run]) -> Figure:
    """Two panels over one axis of tokens; without any evaluation only the lower one."""
    heights = [3, 2] if any(run.heldout for run in runs) else [1]
    figure = Figure(figsize=(7.2, 2.2 * len(heights) + 0.8), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    loss = panels[-1]
    for run, style in zip(runs, STYLES, strict=False):
        plot(loss, run.loss, style | {"marker": ""}, run.label)
        if len(heights) == 2:
            plot(panels[0], run.heldout, style, run.label)
            plot(panels[0], run.whole, style | {"markerfacecolor": "white", "markersize": 8}, "", line=False)
    if len(heights) == 2:
        perplexity_axis(panels[0], note=any(run.whole for run in runs))
    loss.set_ylabel("training loss\n(nats a token)")
    tokens_axis(loss)
    panels[0].legend(frameon=False)
    return figure


def plot(axes: Axes, points: list[tuple[int, float]], style: dict[str, Any], label: str, *, line: bool = True) -> None:
    """One curve; so many points that their marks would touch get a few marks only."""
    if not points:
        return
    x, y = zip(*points, strict=True)
    every = max(1, len(points) // MARKED)
    axes.plot(x, y, **style | ({} if line else {"linestyle": ""}), label=label, linewidth=1.6, markevery=every)


def perplexity_axis(axes: Axes, *, note: bool) -> None:
    """A log axis whose labels are plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("held-out perplexity\n(mean of both directions)" + "\nopen mark: all held-out text" * note)
    grid(axes)


def tokens_axis(axes: Axes) -> None:
    """A log axis of tokens: early on every update changes much, later little."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tokens read")
    grid(axes)


def tokens(value: float) -> str:
    """12,000 as 12 k, 3,000,000 as 3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def grid(axes: Axes) -> None:
    axes.grid(True, color="0.85", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the loss curves of training runs.")
    parser.add_argument("out", type=Path, help="SVG to write (another ending: what matplotlib makes of it)")
    parser.add_argument("runs", nargs="+", metavar="LABEL=LOG,...", help=f"log.jsonl of at most {len(STYLES)} runs")
    arguments = parser.parse_args()
    if len(arguments.runs) > len(STYLES):
        parser.error(f"{len(arguments.runs)} runs, expected at most {len(STYLES)}: more cannot be told apart")
    with mpl.rc_context(LOOK):
        figure = draw([read_run(argument) for argument in arguments.runs])
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if arguments.out.suffix == ".svg" else None
        figure.savefig(arguments.out, facecolor="white", dpi=150, metadata=metadata)


if __name__ == "__main__":
    main()
