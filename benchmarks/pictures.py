"""Draw the pictures of docs/benchmarks.md from the results; needs the extra `plot`.

python benchmarks/pictures.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altair
from table import LABELS

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
INK = "#1b4965"


def main() -> None:
    """Draw every picture whose results are there."""
    for name, draw in (("embed", speeds), ("growth", growth), ("search", recall)):
        file = HERE / "results" / f"{name}.json"
        if file.exists():
            draw(json.loads(file.read_text(encoding="utf-8"))).save(str(IMAGES / f"benchmark-{name}.svg"))


def speeds(results: dict[str, Any]) -> Any:
    """Tokens a second of every engine, a panel for each shape."""
    panels = []
    for shape, measured in sorted(results.items(), reverse=True):
        values = [
            {"engine": LABELS[name].format(**run), "rate": run["tokens_per_s"], "label": f"{run['tokens_per_s']:,.0f}"}
            for name, run in measured["runs"].items()
        ]
        base = altair.Chart(altair.Data(values=values)).encode(
            y=altair.Y("engine:N", title=None, sort=None, axis={"labelLimit": 320}),
            x=altair.X("rate:Q", title="tokens a second"),
        )
        title = f"{shape}, {measured['machine']['threads']} threads"
        text = base.mark_text(align="left", dx=4).encode(text="label:N")
        panels.append((base.mark_bar(color=INK) + text).properties(width=420, height={"step": 26}, title=title))
    return altair.vconcat(*panels)


def growth(found: dict[str, Any]) -> Any:
    """Seconds against tokens, both on logarithmic axes."""
    cells = found["runs"][0]["cells"]
    asked = [run for run in found["runs"] if not run["length"] and run["layers"] == 2 and run["cells"] == cells]
    values = list({run["tokens"]: run for run in reversed(asked)}.values())
    scale = altair.Scale(type="log")
    return (
        altair.Chart(altair.Data(values=values))
        .mark_line(point=True, color=INK)
        .encode(
            x=altair.X("tokens:Q", scale=scale, title="tokens"), y=altair.Y("seconds:Q", scale=scale, title="seconds")
        )
        .properties(width=420, height=260, title=f"{found['shape']}: slope {found['slope']:.3f}")
    )


def recall(found: dict[str, Any]) -> Any:
    """Recall@10 against latency, a panel for each size: the default effort is large, comparing with all is hollow."""
    panels = []
    ticks = altair.Axis(values=[10**power * step for power in range(-1, 5) for step in (1, 2, 5)], labelOverlap=True)
    for size, measured in found["sizes"].items():
        values = [
            {
                "store": store,
                "recall": run["recall@10"],
                "latency": run["latency_ms"]["median"],
                "effort": run["effort"],
            }
            for store in ("LanceDB", "PostgreSQL")
            for run in measured[store]["runs"]
        ]
        base = altair.Chart(altair.Data(values=values)).encode(
            x=altair.X("latency:Q", scale=altair.Scale(type="log"), axis=ticks, title="median latency, ms"),
            y=altair.Y("recall:Q", scale=altair.Scale(zero=False), title="recall@10"),
            color=altair.Color("store:N", scale=altair.Scale(range=[INK, "#e07a1f"]), title=None),
            shape=altair.Shape("store:N", title=None),
        )
        graph = base.transform_filter("isValid(datum.effort)")
        size_of = altair.condition("datum.effort == 100", altair.value(160), altair.value(50))
        points = graph.mark_point(filled=True, opacity=1).encode(
            shape=altair.Shape("store:N", title=None), size=size_of
        )
        every = base.transform_filter("!isValid(datum.effort)").mark_point(size=120, strokeWidth=2.5)
        shown = graph.mark_line().encode(order="effort:Q", shape=altair.Undefined) + points + every
        panels.append(shown.properties(width=240, height=220, title=f"{int(size):,} vectors"))
    return altair.hconcat(*panels)


if __name__ == "__main__":
    main()
