"""Colours and shapes of groups: told apart by people who see colours otherwise, and printed grey.

The colours are those of Okabe and Ito, black and yellow last; shapes change at another pace than colours, so that no
two groups have both. Groups that are steps of one thing are shades of cividis, from dark to light.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from elmokit.plot.colouring import OTHER, Colouring

# Those beside each other differ in grey: a shape that comes again has the colour after.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#d55e00", "#cc79a7", "#555555", "#f0e442")
# The names of shapes in Bokeh and in matplotlib.
_SHAPES = {
    "circle": "o",
    "triangle": "^",
    "square": "s",
    "plus": "P",
    "diamond": "D",
    "inverted_triangle": "v",
    "hex": "h",
    "star": "*",
    "square_pin": "X",
}
# Eleven shades of cividis.
_STEPS = "#00224e #083370 #35456c #4f576c #666970 #7d7c78 #948e77 #aea371 #c8b866 #e5cf52 #fee838".split()
_REST = "#bbbbbb"
# Letters of a name in a legend, and of a title; one that is longer would leave the map no room.
LEGEND_LETTERS, TITLE_LETTERS = 32, 90


class Look(NamedTuple):
    """The colour of a group and its shape, by the names of Bokeh and of matplotlib."""

    colour: str
    shape: str
    marker: str


def looks(colouring: Colouring) -> list[Look]:
    """Return how each group looks; no two are alike."""
    names = colouring.names
    colours = _steps(len(names)) if colouring.in_order else [_COLOURS[n % len(_COLOURS)] for n in range(len(names))]
    shapes = list(_SHAPES.items())
    found = [Look(colour, *shapes[n % len(shapes)]) for n, colour in enumerate(colours)]
    return [_rest(look) if name == OTHER else look for name, look in zip(names, found, strict=True)]


def shortened(text: str, letters: int) -> str:
    """Return a text on one line and of at most so many letters; what no font can draw becomes a sign for it."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    return line if len(line) <= letters else line[: letters - 1].rstrip() + "…"


def _steps(n: int) -> Sequence[str]:
    return [_STEPS[round(step * (len(_STEPS) - 1) / max(1, n - 1))] for step in range(n)]


def _rest(look: Look) -> Look:
    return look._replace(colour=_REST)
