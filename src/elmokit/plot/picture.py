"""Static pictures of maps, with matplotlib.

Axes: N points.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import require
from elmokit.layers import called
from elmokit.plot.fonts import families
from elmokit.plot.map import Map, View
from elmokit.plot.style import LEGEND_LETTERS, TITLE_LETTERS, looks, shortened

# Dots an inch: letters are measured at the size at which they are drawn.
DPI = 160
# How much wider letters may come out elsewhere, as in SVG.
_SLACK = 1.05
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
# Where names are put beside a dot, the best place first: right, left, above, below, and between these.
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
# Uses of up to so many words are named by the words around them: so many at each side, and so many letters.
_FEW_WORDS = 5
_AROUND = 3
_LABEL_LETTERS = 40


def figure(map: Map, *, labels: int = 40) -> Any:
    """Return the picture as a `matplotlib.figure.Figure`: a panel for each view, one legend.

    `labels`: at most so many points of a panel are named; only those whose name hides no point and no other name.
    Raises `MissingExtra` without the extra `plot`.
    """
    matplotlib: Any = require("matplotlib", extra="plot")
    fonts = families([map.title, *map.colouring.names, *_names(map)])
    with matplotlib.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        return _drawn(map, labels)


def _names(map: Map) -> list[str]:
    """Return the words that may come to stand in names of points."""
    return [token for number in np.unique(map.points.sentence_N) for token in map.points.sentences[number]]


def _drawn(map: Map, labels: int) -> Any:
    figures: Any = require("matplotlib.figure", extra="plot")
    agg: Any = require("matplotlib.backends.backend_agg", extra="plot")
    columns = 2 if len(map.views) == 4 else min(_IN_A_ROW, len(map.views))
    rows = -(-len(map.views) // columns)
    side = _PANEL if len(map.views) == 1 else _SMALL_PANEL
    size = (side * columns + 2.0, side * rows * 0.86 + 0.4)
    drawn = figures.Figure(figsize=size, dpi=DPI, layout="constrained")
    agg.FigureCanvasAgg(drawn)  # measures names
    panels = np.ravel(drawn.subplots(rows, columns, squeeze=False))
    for panel, (name, view) in zip(panels, map.views.items(), strict=False):
        _draw_points(panel, map, view)
        _describe(panel, name, view)
    for panel in panels[len(map.views) :]:
        panel.set_axis_off()
    drawn.suptitle(shortened(map.title, TITLE_LETTERS), fontsize=13, parse_math=False)
    _draw_legend(drawn, map)
    drawn.draw_without_rendering()  # places everything, so that there is room for names where it seems
    drawn.set_layout_engine("none")
    for panel, view in zip(panels, map.views.values(), strict=False):
        _name_points(drawn, panel, map, view, labels)
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
    one_place = bool((plane.xy_N2 == plane.xy_N2[0]).all())
    method = {"tsne": "t-SNE", "umap": "UMAP", "pca": "principal components"}[plane.method]
    layer = {"average": "average of the layers", "top": "top layer"}.get(name, called(name))
    panel.set_title(f"{layer}, {'all alike' if one_place else method}", fontsize=10, color="#444444")
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
        lines.Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markeredgecolor="#222222")
        for look in looks(map.colouring)
    ]
    for mark in marks:
        mark.set(markersize=7, markeredgewidth=0.5)
    heading = map.colouring.by.replace(", ", "\n")
    names = [shortened(name, LEGEND_LETTERS) for name in map.colouring.names]
    legend = drawn.legend(
        marks, names, loc="outside right upper", title=heading, frameon=False, fontsize=9, alignment="left"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # two dollars in a text are no formula


# ---------------------------------------------------------------- names of points


def _name_points(drawn: Any, panel: Any, map: Map, view: View, most: int) -> None:
    """Name points that are far from each other, where there is room: over no point, over no other name, inside.

    (A library for it, textalloc, was tried and ran out of the panel.)
    """
    renderer = drawn.canvas.get_renderer()
    area = panel.get_window_extent(renderer)
    dots_N2 = panel.transData.transform(view.plane.xy_N2)
    radius = 0.6 * _marker_size(map, len(map.views)) ** 0.5 * drawn.dpi / 72
    taken = [*zip(dots_N2 - radius, dots_N2 + radius, strict=True)]
    room = _Room(np.array(taken), (np.array(area.min), np.array(area.max)))
    for point in _spread(dots_N2, most):
        name = panel.text(0, 0, _name(map, point), fontsize=_FONT_SIZE, color="#222222", zorder=3, parse_math=False)
        size = np.array(name.get_window_extent(renderer).size) * _SLACK
        corner = room.place(dots_N2[point], size, gap=radius + 1)
        if corner is None:
            name.remove()
        else:
            name.set(position=panel.transData.inverted().transform(corner), va="bottom")


class _Room:
    """What is free of a panel, in pixels: boxes (N, 2, 2) of lower left and upper right corners are taken."""

    def __init__(
        self, taken_N22: NDArray[np.floating], area: tuple[NDArray[np.floating], NDArray[np.floating]]
    ) -> None:
        self.taken_N22, self.area = taken_N22, area

    def place(
        self, dot: NDArray[np.floating], size: NDArray[np.floating], *, gap: float
    ) -> NDArray[np.floating] | None:
        """Take a free box of a size beside a dot and return its lower left corner; None where there is none."""
        for side in _SIDES:
            corner = dot + np.array(side) * (size / 2 + gap) - size / 2
            if self._is_free(corner, corner + size):
                self.taken_N22 = np.concatenate([self.taken_N22, [(corner, corner + size)]])
                return corner
        return None

    def _is_free(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> bool:
        inside = (low >= self.area[0]).all() and (high <= self.area[1]).all()
        crossed_N = ((self.taken_N22[:, 0] < high) & (self.taken_N22[:, 1] > low)).all(1)
        return bool(inside and not crossed_N.any())


def _name(map: Map, point: int) -> str:
    """Return what tells a point from others: its word, or the words around where all points are uses of few words."""
    if not map.points.whole and map.points.n_words > _FEW_WORDS:
        return shortened(map.points.word(point), _LABEL_LETTERS)
    text = shortened(map.points.around(point, _AROUND), 10 * _LABEL_LETTERS)
    return text if len(text) <= _LABEL_LETTERS else text[:_LABEL_LETTERS].rpartition(" ")[0].rstrip(" …") + " …"


def _spread(xy_N2: NDArray[np.floating], most: int) -> list[int]:
    """Return points that are each as far as can be from those before it; equal places are named once."""
    if most < 1:
        return []
    chosen = [int(np.linalg.norm(xy_N2 - xy_N2.mean(0), axis=1).argmin())]
    distance_N = np.linalg.norm(xy_N2 - xy_N2[chosen[0]], axis=1)
    while len(chosen) < most and distance_N.max() > 0:
        chosen.append(int(distance_N.argmax()))
        distance_N = np.minimum(distance_N, np.linalg.norm(xy_N2 - xy_N2[chosen[-1]], axis=1))
    return chosen
