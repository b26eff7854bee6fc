"""How fast the page of a map is in a browser: opened, searched, switched, dragged.

    python benchmarks/page.py [--points N ...]

The map has points drawn at random around 60 centres on the plane, two views, 10 neighbours each, and sentences of 20
words. The browser is Chromium without a window; without a graphics card it draws in software. Milliseconds are the
median of several; a frame is what comes between two drawings while the map is dragged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from elmokit import plot

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import browser  # noqa: E402

WORDS = 20
# What is measured in the page: each a function that ends when the next frame is drawn.
MODEL = "Bokeh.documents[0].get_model_by_name"
DRAWN = "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
ACTIONS = {
    "switch_ms": f"{MODEL}('layer').active = 1 - {MODEL}('layer').active",
    "click_ms": "location.hash = '#point-' + Math.floor(Math.random() * 1000)",
    "search_ms": f"{MODEL}('search').value_input = 'word' + Math.floor(100 + Math.random() * 800)",
}


def main() -> None:
    """Measure and write benchmarks/results/page.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "page.json")
    told = parser.parse_args()
    found = {"machine": machine(), "runs": [measure(n) for n in told.points]}
    told.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return what it ran on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("elmokit", "bokeh", "playwright")},
        "date": time.strftime("%Y-%m-%d"),
    }


def measure(n: int) -> dict[str, Any]:
    """Return what one map takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.html"
        path.write_text(plot.page(made(n)), encoding="utf-8")
        with sync_playwright() as playwright:
            running = playwright.chromium.launch(
                executable_path=browser.find(), args=["--no-sandbox", "--enable-unsafe-swiftshader"]
            )
            page = running.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(300_000)
            start = time.monotonic()
            page.goto(path.as_uri())
            page.wait_for_function("window.Bokeh?.documents.length && Bokeh.documents[0].is_idle")
            opened = time.monotonic() - start
            times = {name: median_ms(page, action) for name, action in ACTIONS.items()}
            frames = dragged(page)
            running.close()
        size = path.stat().st_size / 1e6
    return {"points": n, "megabytes": round(size, 1), "open_s": round(opened, 1), **times, **frames}


def made(n: int) -> plot.Map:
    """Return a map of random points."""
    generator = np.random.default_rng(0)
    rows = -(-n // WORDS)
    sentences = [[f"word{word}" for word in row] for row in generator.integers(0, 1000, (rows, WORDS))]
    places = np.tile(np.arange(WORDS), rows)[:n]
    points = plot.Points(sentences, np.repeat(np.arange(rows), WORDS)[:n], places)
    group_N = generator.integers(0, 12, n)
    views = {}
    for name in ("average", "top"):
        xy_N2 = generator.normal(size=(60, 2))[generator.integers(0, 60, n)] + generator.normal(0, 0.1, (n, 2))
        views[name] = plot.View(xy_N2.astype(np.float32), plot.Plane(xy_N2.astype(np.float32), "tsne"))
    return plot.Map(f"{n:,} points", points, plot.Colouring("group", [f"g{k}" for k in range(12)], group_N), views)


def median_ms(page: Page, action: str, times: int = 7) -> float:
    """Return how long an action takes until it is drawn."""
    body = f"async () => {{ const start = performance.now(); {action}; {DRAWN}; return performance.now() - start }}"
    return round(float(np.median([page.evaluate(body) for _ in range(times)])), 1)


def dragged(page: Page) -> dict[str, float]:
    """Drag the map to and fro; return the frames that were drawn each second, and the longest pause between two."""
    page.evaluate(
        """() => { window.frames_at = []; const tick = (t) => { frames_at.push(t); requestAnimationFrame(tick) }
        requestAnimationFrame(tick) }"""
    )
    page.mouse.move(400, 400)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(400 + 4 * (step % 20), 400 + 3 * (step % 15))
    page.mouse.up()
    pauses = np.diff(page.evaluate("frames_at"))[2:]
    return {"frame_ms": round(float(np.median(pauses)), 1), "longest_frame_ms": round(float(pauses.max()), 1)}


if __name__ == "__main__":
    main()
