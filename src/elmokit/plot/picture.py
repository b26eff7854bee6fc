"""Static pictures of maps, with matplotlib.

Axes: N points.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import require
from elmokit.plot.map import Map, View
from elmokit.plot.style import looks

# Inches: of one panel, and the most panels in a row.
_PANEL = 6.4
_SMALL_PANEL = 4.6
_IN_A_ROW = 3
# Of the area of a panel, in square points (1/72 inch), what all markers together may cover.
_COVERED = 0.12
_LARGEST, _SMALLEST = 64.0, 2.0
# In SVG more points than these are drawn as an image inside the picture.
_DRAWN = 5_000
_FONT_SIZE = 7.5
_AROUND = 3
_LABEL_LETTERS = 34


def figure(map: Map, *, labels: int = 40) -> Any:
    """Return the picture as a `matplotlib.figure.Figure`: a panel for each view, one legend.

    `labels`: at most so many points are named, by the words around them; only those whose name hides no point and no
    other name. Raises `MissingExtra` without the extra `plot`.
    """
    figures: Any = require("matplotlib.figure", extra="plot")
    columns = min(_IN_A_ROW, len(map.views))
    rows = -(-len(map.views) // columns)
    side = _PANEL if len(map.views) == 1 else _SMALL_PANEL
    drawn = figures.Figure(figsize=(side * columns + 2.0, side * rows * 0.86 + 0.4), layout="constrained")
    panels = np.ravel(drawn.subplots(rows, columns, squeeze=False))
    for panel, (name, view) in zip(panels, map.views.items(), strict=False):
        _draw_points(panel, map, view)
        _describe(panel, name, view)
    for panel in panels[len(map.views) :]:
        panel.set_axis_off()
    drawn.suptitle(map.title, fontsize=13)
    _draw_legend(drawn, map)
    drawn.draw_without_rendering()  # places everything, so that names are put where they will be
    drawn.set_layout_engine("none")
    for panel, view in zip(panels, map.views.values(), strict=False):
        _name_points(panel, map, view, labels // len(map.views))
    return drawn


def _draw_points(panel: Any, map: Map, view: View) -> None:
    size = _marker_size(map, len(map.views))
    for number, look in enumerate(looks(map.colouring)):
        x, y = view.plane.xy_N2[map.colouring.group_N == number].T
        panel.scatter(
            x,
            y,
            s=size * (1.5 if look.marker == "*" else 1),
            c=look.colour,
            marker=look.marker,
            edgecolors="#222222",
            linewidths=min(0.5, size**0.5 / 20),
            alpha=0.9 if len(map.points) < 500 else 0.75,
            rasterized=len(map.points) > _DRAWN,
            zorder=2,
        )
    panel.margins(0.08)


def _marker_size(map: Map, panels: int) -> float:
    """Return the area of a marker, in square points."""
    side = 72 * (_PANEL if panels == 1 else _SMALL_PANEL)
    return min(_LARGEST, max(_SMALLEST, _COVERED * side**2 / len(map.points)))


def _describe(panel: Any, name: str, view: View) -> None:
    """Name the panel and its axes; only principal components have axes that mean something."""
    plane = view.plane
    method = {"tsne": "t-SNE", "umap": "UMAP", "pca": "principal components"}[plane.method]
    layer = f"layer {name}" if name.isdecimal() else {"average": "average of the layers", "top": "top layer"}.get(name, name)
    panel.set_title(f"{layer}, {method}", fontsize=10, color="#444444")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color("#bbbbbb")
    if plane.variance:
        first, second = plane.variance
        panel.set_xlabel(f"first, {first:.0%} of the variance", fontsize=8, color="#444444")
        panel.set_ylabel(f"second, {second:.0%}", fontsize=8, color="#444444")


def _draw_legend(drawn: Any, map: Map) -> None:
    lines: Any = require("matplotlib.lines", extra="plot")
    marks = [
        lines.Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markeredgecolor="#222222", label=name)
        for look, name in zip(looks(map.colouring), map.colouring.names, strict=True)
    ]
    for mark in marks:
        mark.set(markersize=7, markeredgewidth=0.5)
    heading = map.colouring.by.replace(", ", "\n")
    drawn.legend(handles=marks, loc="outside right upper", title=heading, frameon=False, fontsize=9, alignment="left")


# ---------------------------------------------------------------- names of points


def _name_points(panel: Any, map: Map, view: View, most: int) -> None:
    """Name points that are far from each other, where there is room."""
    if most < 1:
        return
    allocator: Any = require("textalloc", extra="plot")
    x, y = view.plane.xy_N2.T.astype(float)
    chosen = _spread(view.plane.xy_N2, most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not every name found a place
        allocator.allocate(
            panel,
            x[chosen],
            y[chosen],
            [_short(map.points.around(n, _AROUND)) if _in_context(map) else map.points.words()[n] for n in chosen],
            x_scatter=x,
            y_scatter=y,
            scatter_sizes=np.full(len(x), _marker_size(map, len(map.views))),
            textsize=_FONT_SIZE,
            draw_all=False,
            draw_lines=True,
            linecolor="#999999",
            linewidth=0.5,
            textcolor="#222222",
            max_distance=0.12,
        )


def _in_context(map: Map) -> bool:
    """Tell whether words say nothing without those around them: all are uses of few words, or whole sentences."""
    return map.points.whole or len({word.casefold() for word in map.points.words()}) <= 5


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_LETTERS else text[: _LABEL_LETTERS - 2].rstrip() + " …"


def _spread(xy_N2: NDArray[np.float32], most: int) -> list[int]:
    """Return points that are each as far as can be from those before it; equal places are named once."""
    chosen = [int(np.linalg.norm(xy_N2 - xy_N2.mean(0), axis=1).argmin())]
    distance_N = np.linalg.norm(xy_N2 - xy_N2[chosen[0]], axis=1)
    while len(chosen) < most and distance_N.max() > 0:
        chosen.append(int(distance_N.argmax()))
        distance_N = np.minimum(distance_N, np.linalg.norm(xy_N2 - xy_N2[chosen[-1]], axis=1))
    return chosen
