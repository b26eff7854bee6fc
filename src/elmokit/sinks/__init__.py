"""Where vectors go: HDF5 in AllenNLP's layout, Parquet, or NPZ, chosen by the ending of the file's name.

A sink takes one array for each sentence, in order, and ends as one file; it also joins files of consecutive sentences.
`partial` is the folder in which an output grows until it is whole.
"""

from __future__ import annotations

from pathlib import Path

from elmokit.errors import OutputError, require
from elmokit.sinks.spec import SentenceKeys as SentenceKeys
from elmokit.sinks.spec import Sink as Sink
from elmokit.sinks.spec import Spec as Spec


def choose(path: str | Path) -> type[Sink]:
    """Return the sink for the ending of `path`: .hdf5 or .h5, .parquet, .npz."""
    ending = Path(path).suffix.lower()
    if ending in (".hdf5", ".h5"):
        from elmokit.sinks.hdf5 import Hdf5Sink

        return Hdf5Sink
    if ending == ".parquet":
        require("pyarrow", extra="arrow")
        from elmokit.sinks.parquet import ParquetSink

        return ParquetSink
    if ending == ".npz":
        from elmokit.sinks.npz import NpzSink

        return NpzSink
    raise OutputError(
        f"{path}: the ending chooses the format, and {ending or 'none'!r} is not one of "
        ".hdf5 (or .h5), .parquet, .npz; give the output one of these"
    )
