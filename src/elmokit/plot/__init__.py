"""Maps of words in their sentences and of sentences: pictures, an interactive page, a table.

from elmokit import load, plot
map = plot.make_map(load(), sentences, words=["bank"])
plot.write(map, "bank.html")
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from elmokit.checkpoint import replace_file
from elmokit.errors import OutputError, expect, expect_file_place, expect_path, require
from elmokit.plot.colouring import Colouring as Colouring
from elmokit.plot.map import Map as Map
from elmokit.plot.map import View as View
from elmokit.plot.map import make_map as make_map
from elmokit.plot.page import page as page
from elmokit.plot.picture import figure as figure
from elmokit.plot.points import Points as Points
from elmokit.plot.projection import Plane as Plane
from elmokit.plot.table import parquet as parquet

ENDINGS = (".png", ".svg", ".html", ".parquet")


def check_output(out: str | Path) -> None:
    """Raise `OutputError` for a name with an ending that is not known, or a folder that is not there."""
    expect_path(out, "out")
    out = Path(out)
    if out.suffix.lower() not in ENDINGS:
        raise OutputError(f"{out}: expected a name that ends in one of {' '.join(ENDINGS)}, found {out.suffix!r}")
    expect_file_place(out)


def write(map: Map, out: str | Path, *, labels: int = 40, neighbours: int = 10) -> None:
    """Write a map; the ending of the name says how: .png, .svg, .html (a page for a browser) or .parquet.

    `labels`: how many points of a picture are named; `neighbours`: how many nearest uses the page and the table hold
    for each point. A file of that name is replaced whole. Raises `OutputError`, `MissingExtra`.
    """
    expect(Map, map, "map", "a map, which make_map makes")
    check_output(out)
    ending = Path(out).suffix.lower()
    if ending == ".html":
        content = page(map, neighbours=neighbours).encode()
    elif ending == ".parquet":
        content = parquet(map, neighbours=neighbours)
    else:
        content = _picture(map, ending.removeprefix("."), labels)
    try:
        replace_file(Path(out), content)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror or error}); choose another place") from None


def _picture(map: Map, kind: str, labels: int) -> bytes:
    written = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    matplotlib: Any = require("matplotlib", extra="plot")
    with matplotlib.rc_context({"svg.hashsalt": "elmokit"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        # a salt of its own: the same map gives the same bytes
        figure(map, labels=labels).savefig(written, format=kind, metadata=metadata, bbox_inches="tight")
    return written.getvalue()
