"""What is built and published: reproducible, described, and every extra tried alone."""

import platform
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import elmokit
import installed
import reproducible
from elmokit.kernels import compiled

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_FOR_USERS = {"dev", "docs", "recipes", "test"}
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in NOT_FOR_USERS}


def read(name):
    return (ROOT / name).read_text("utf-8")


@pytest.mark.skipif(not find_spec("hatchling"), reason="the wheel is built with hatchling: pip install 'elmokit[dev]'")
def test_two_builds_are_the_same_bytes():
    first, second = reproducible.both()
    assert sorted(Path(name).suffix for name in first) == [".gz", ".whl"]
    assert first == second


@pytest.mark.skipif(
    not (sys.platform == "linux" and platform.machine() == "x86_64" and shutil.which("gcc")),
    reason="what is compiled needs gcc, x86-64 and Linux",
)
def test_what_can_be_compiled_is():
    """In a source tree: python tools/compile_kernels.py."""
    assert compiled.LIBRARY.exists()


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert elmokit.__version__ == version
    assert re.search(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE)[1] == version
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[1] == version


def test_every_extra_is_tried_alone():
    """tools/installed.py says for each what it is for, so that `make test-all` can do it, or see that it is missing."""
    assert set(installed.USES) == set(EXTRAS)


def test_pythons_are_those_of_the_classifiers():
    stated = {line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert set(re.search(r"PYTHONS = \[(.*)\]", read("noxfile.py"))[1].replace('"', "").split(", ")) == stated


def named(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_licences_are_listed(extra):
    """`python tools/licences.py > docs/licences.md` writes the list anew."""
    rows = re.findall(r"^\| ([\w.-]+) \|", read("docs/licences.md"), re.MULTILINE)
    listed = {name.lower().replace("_", "-") for name in rows}
    needed = EXTRAS[extra] if extra else PROJECT["dependencies"]
    assert {named(line) for line in needed} - {"elmokit"} <= listed


def test_versions_that_were_tried_together_are_pinned():
    pinned = {named(line) for line in read("constraints.txt").splitlines() if "==" in line}
    wanted = [line for lines in [PROJECT["dependencies"], *EXTRAS.values()] for line in lines]
    assert {named(line) for line in wanted} - {"elmokit"} <= pinned
