"""The benchmark of nearest neighbours, from end to end with few vectors: what is right is found, and shown."""

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import pytest

from elmokit.checkpoint import write_native
from postgres_server import PARTS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
for package in ("lancedb", "altair", "vl_convert", *PARTS):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}", allow_module_level=True)


def script(name, monkeypatch):
    """A script of the folder as a module; `quality/search.py` has the same name as `search.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recall_and_latency_are_measured_and_shown(tiny, tmp_path, monkeypatch):
    write_native(tiny, tmp_path / "tiny")
    (tmp_path / "text.txt").write_text("\n".join(f"word{n} of line{n} and more" for n in range(120)))
    monkeypatch.chdir(tmp_path)
    arguments = ["--text", "text.txt", "--model", "tiny", "--sizes", "300,400", "--width", "6", "--out", "search.json"]
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
    benchmark = script("search", monkeypatch)
    benchmark.QUESTIONS, benchmark.EFFORTS = 20, (10, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the server's parts warn of a folder that this system lacks
        benchmark.main()
    found = json.loads(Path("search.json").read_text())
    assert set(found["sizes"]) == {"300", "400"}
    for measured in found["sizes"].values():
        for store in ("LanceDB", "PostgreSQL"):
            shares = {run["effort"]: run["recall@10"] for run in measured[store]["runs"]}
            assert shares[None] == 1
            assert len(shares) == 3
    table = script("table", monkeypatch).search_lines(found)
    assert sum(line.startswith("| 400 | LanceDB") for line in table) == len(shares)
    script("pictures", monkeypatch).recall(found).save("recall.svg")
    assert "400 vectors" in Path("recall.svg").read_text()
