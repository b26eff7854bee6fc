"""Draw the pictures of docs/how-elmo-works.md.

    python tools/figures.py

writes docs/images/elmo-network.svg and docs/images/elmo-step.svg.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "images"
TEAL, ORANGE, GREY, WHITE = "#00897b", "#e07a1f", "#546e7a", "#ffffff"
STYLE = "font-family='Helvetica, Arial, sans-serif' font-size='13'"

Point = tuple[float, float]


# ---------------------------------------------------------------- pieces of a picture


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A whole SVG on white, so that it can be read on a dark page too."""
    heads = "".join(
        f"<marker id='{color[1:]}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0L8 4L0 8z' fill='{color}'/></marker>"
        for color in (TEAL, ORANGE, GREY)
    )
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {STYLE}>",
            f"<title>{escape(title)}</title><defs>{heads}</defs>",
            f"<rect width='{width}' height='{height}' fill='{WHITE}'/>",
            *parts,
            "</svg>\n",
        ]
    )


def label(at: Point, words: str, *, color: str = "#263238", anchor: str = "middle", bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{at[0]}' y='{at[1]}' text-anchor='{anchor}' fill='{color}'{weight}>{escape(words)}</text>"


def box(at: Point, words: str, *, width: float = 84, color: str = GREY, filled: bool = True) -> str:
    """A box of two rows' height around its middle `at`."""
    x, y = at[0] - width / 2, at[1] - 15
    fill, ink = (color, WHITE) if filled else (WHITE, color)
    frame = f"<rect x='{x}' y='{y}' width='{width}' height='30' rx='5' fill='{fill}' stroke='{color}'/>"
    return frame + label((at[0], at[1] + 5), words, color=ink)


def arrow(start: Point, end: Point, *, color: str = GREY) -> str:
    (x1, y1), (x2, y2) = start, end
    return f"<path d='M{x1} {y1}L{x2} {y2}' stroke='{color}' stroke-width='1.6' marker-end='url(#{color[1:]})'/>"


# ---------------------------------------------------------------- the network


WORDS = ["<S>", "The", "cat", "sat", "</S>"]


def network() -> str:
    """Letters to word vectors, two readers a layer, and what the layers of an embedding are."""
    columns = [170 + 120 * i for i in range(len(WORDS))]
    parts = [part for x, word in zip(columns, WORDS, strict=True) for part in column(x, word)]
    for y_forward, y_backward in ((250, 290), (110, 150)):
        for left, right in pairwise(columns):
            parts.append(arrow((left + 42, y_forward), (right - 44, y_forward), color=TEAL))
            parts.append(arrow((right - 42, y_backward), (left + 44, y_backward), color=ORANGE))
    for y, name in ((395, "layer 0"), (270, "layer 1"), (130, "layer 2")):
        parts.append(label((20, y + 5), name, anchor="start", bold=True))
    parts.append(label((20, 465), "letters", anchor="start"))
    parts.append(label((20, 45), "guesses", anchor="start"))
    parts.append(label((410, 510), "one direction reads from left to right, the other from right to left", color=GREY))
    return picture(730, 525, "ELMo: from letters to three layers", parts)


def column(x: float, word: str) -> list[str]:
    """One place of the sentence, from its letters up."""
    i = WORDS.index(word)
    following = WORDS[i + 1] if i + 1 < len(WORDS) else ""
    before = WORDS[i - 1] if i else ""
    parts = [
        label((x, 470), word if word.startswith("<") else " ".join(word), bold=True),
        arrow((x, 455), (x, 412)),
        box((x, 395), "letter CNN", color=GREY),
        arrow((x, 378), (x, 307)),
        box((x, 290), "LSTM", color=ORANGE),
        box((x, 250), "LSTM", color=TEAL),
        arrow((x, 234), (x, 167)),
        box((x, 150), "LSTM", color=ORANGE),
        box((x, 110), "LSTM", color=TEAL),
    ]
    if following:
        parts += [arrow((x - 18, 94), (x - 18, 62), color=TEAL), label((x - 18, 50), following, color=TEAL)]
    if before:
        parts += [arrow((x + 22, 94), (x + 22, 62), color=ORANGE), label((x + 22, 50), before, color=ORANGE)]
    return parts


# ---------------------------------------------------------------- one step of an LSTM


def step() -> str:
    """What happens to the cells and the output at one word."""
    gates = [
        ("sigmoid(f + 1)", 190, (198, 150), "keep?"),
        ("sigmoid(i)", 290, (248, 150), "write?"),
        ("tanh(j)", 390, (390, 150), "what?"),
        ("sigmoid(o)", 540, (548, 150), "show?"),
    ]
    parts = [
        label((45, 58), "cells c", bold=True),
        arrow((80, 54), (168, 54), color=TEAL),
        box((190, 54), "x", width=36, color=TEAL, filled=False),
        arrow((210, 54), (320, 54), color=TEAL),
        box((340, 54), "+", width=36, color=TEAL, filled=False),
        arrow((360, 54), (412, 54), color=TEAL),
        box((440, 54), "clip", width=52, color=TEAL),
        arrow((468, 54), (690, 54), color=TEAL),
        label((735, 58), "cells c", bold=True),
        arrow((540, 58), (540, 92), color=TEAL),
        box((540, 110), "x tanh(c)", width=88, color=TEAL, filled=False),
        arrow((586, 110), (606, 110), color=TEAL),
        box((632, 110), "P", width=46, color=TEAL),
        arrow((657, 110), (676, 110), color=TEAL),
        box((704, 110), "clip", width=52, color=TEAL),
        arrow((704, 127), (704, 262), color=TEAL),
        label((704, 284), "output h", bold=True),
        box((340, 110), "x", width=36, color=TEAL, filled=False),
        arrow((340, 93), (340, 72), color=TEAL),
        arrow((190, 163), (190, 72), color=GREY),
        arrow((290, 163), (328, 128), color=GREY),
        arrow((390, 163), (352, 128), color=GREY),
        arrow((540, 163), (540, 128), color=GREY),
        box((365, 235), "[x, h] W + b, in four quarters", width=420, color=ORANGE),
        label((250, 284), "the word x", bold=True),
        label((480, 284), "the last output h", bold=True),
        arrow((250, 270), (250, 253), color=ORANGE),
        arrow((480, 270), (480, 253), color=ORANGE),
    ]
    for name, x, place, question in gates:
        parts.append(box((x, 180), name, width=94, color=GREY))
        parts.append(arrow((x, 219), (x, 197), color=ORANGE))
        parts.append(label(place, question, color=GREY, anchor="start"))
    return picture(790, 300, "One step of an LSTM with projection and clips", parts)


PICTURES = {"elmo-network.svg": network, "elmo-step.svg": step}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), "utf-8")
