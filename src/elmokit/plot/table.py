"""Maps as Parquet: a row for each point.

Columns: `word`, `text` (the sentence), `sentence` and `place` (from 0; -1 for a whole sentence), `group`, and of the
first view `x`, `y` and `neighbors`, a struct of `ids` (rows) and `distances` (1 - cosine), as Embedding Atlas reads
them; of each further view the same, followed by its name: `x_top`.
"""

from __future__ import annotations

import io
from typing import Any

from elmokit.errors import require
from elmokit.plot.map import Map, View
from elmokit.plot.nearest import nearest


def parquet(map: Map, *, neighbours: int = 10) -> bytes:
    """Return the map as a Parquet file. Raises `MissingExtra` without pyarrow."""
    pa: Any = require("pyarrow", extra="plot")
    pq: Any = require("pyarrow.parquet", extra="plot")
    points, groups = map.points, map.colouring
    columns = {
        "word": points.words(),
        "text": [" ".join(points.sentences[s]) for s in points.sentence_N],
        "sentence": points.sentence_N,
        "place": points.place_N,
        "group": [groups.names[g] for g in groups.group_N],
    }
    for number, (name, view) in enumerate(map.views.items()):
        ending = f"_{name}" if number else ""
        columns |= {key + ending: value for key, value in _placed(pa, view, neighbours).items()}
    notes = {"title": map.title, "group": groups.by, "views": " ".join(map.views)}
    table = pa.table(columns).replace_schema_metadata({f"elmokit.{key}": value for key, value in notes.items()})
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def _placed(pa: Any, view: View, neighbours: int) -> dict[str, Any]:
    found = nearest(view.vectors_ND, neighbours)
    lists = {"ids": list(found.points_NK), "distances": list(1 - found.cosines_NK)}
    of = {"ids": pa.list_(pa.int32()), "distances": pa.list_(pa.float32())}
    arrays = [pa.array(lists[key], of[key]) for key in lists]
    return {
        "x": view.plane.xy_N2[:, 0],
        "y": view.plane.xy_N2[:, 1],
        "neighbors": pa.StructArray.from_arrays(arrays, names=list(lists)),
    }
