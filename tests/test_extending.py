"""docs/extending.md, followed literally in a copy of the package: the sink writes, the format is read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import elmokit
from elmokit.checkpoint import write_native

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "extending.md").read_text("utf-8")
SENTENCES = [["The", "cat"], [], ["sat"], ["on", "the", "mat"], ["."]]


def block(name):
    """The code that stands below <!-- name -->."""
    return re.search(rf"<!-- {name} -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def apply(diff, path):
    """Do to a file what a diff block says."""
    before = "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in " -")
    after = "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in " +")
    text = path.read_text("utf-8")
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after), "utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder with the package as the page makes it."""
    folder = tmp_path_factory.mktemp("extended")
    package = folder / "elmokit"
    shutil.copytree(Path(elmokit.__file__).parent, package, ignore=shutil.ignore_patterns("models", "__pycache__"))
    (package / "sinks" / "jsonl.py").write_text(block("sink"), "utf-8")
    (package / "formats" / "npz.py").write_text(block("format"), "utf-8")
    choose, *formats = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    apply(choose, package / "sinks" / "__init__.py")
    for diff in formats:
        apply(diff, package / "formats" / "__init__.py")
    return folder


def run(extended, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(extended), str(TESTS)])}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=extended, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sink_writes_what_embed_gives(extended, tiny, tiny_elmo):
    write_native(tiny, extended / "model")
    (extended / "text.txt").write_text("\n".join(map(" ".join, SENTENCES)) + "\n", "utf-8")
    run(extended, "-m", "elmokit", "embed", "text.txt", "out.jsonl", "--model", "model", "--save-every", "2")
    rows = [json.loads(line) for line in (extended / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["tokens"] for row in rows] == SENTENCES
    for row, vectors in zip(rows, tiny_elmo.embed(SENTENCES), strict=True):
        np.testing.assert_allclose(np.reshape(row["vectors"], vectors.shape), vectors, atol=1e-6)


def test_the_format_passes_its_tests(extended):
    (extended / "test_npz.py").write_text(block("format test"), "utf-8")
    assert "4 passed" in run(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_npz.py")
