"""Imports go one way. This file holds the tier table of docs/design.md and checks the package against it."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import elmokit

PACKAGE = Path(elmokit.__file__).parent

# Each of these may import those before it (tier 0, then tier 1).
TIER_0 = ["errors", "memory", "vectors", "reading", "text", "config", "stored", "checkpoint", "formats"]
TIER_0 += ["download", "hub", "catalog"]
SPINE = [*TIER_0, "kernels", "mirror", "network", "head", "padded", "word_vectors", "reduction", "model"]
# Leaves: what else of the package each may import. No leaf imports another, but for the jobs and
# what is built on the embedding layer.
LEAVES = {
    "sinks": TIER_0,
    "job": [*SPINE, "sinks"],
    "ray_job": [*SPINE, "sinks", "job"],
    "train": SPINE,
    "lm": SPINE,
    "nn": SPINE,
    "sklearn": SPINE,
    "sentence_transformers": [*SPINE, "nn"],
    "spacy": SPINE,
    "similar": SPINE,
    "search": SPINE,
    "serve": [*SPINE, "lm", "compat", "search", "senses"],  # the signatures of TF-Hub
    "clusters": TIER_0,
    "layers": SPINE,
    "labelled": TIER_0,
    "plot": [*SPINE, "clusters", "layers", "labelled"],
    "senses": [*SPINE, "clusters", "layers"],
    "compat": [*SPINE, "sinks", "job", "lm"],
    "keras": TIER_0,  # no torch
}
EVERYTHING = [*SPINE, *LEAVES, "cli"]
MAY_IMPORT = {
    **{name: SPINE[:place] for place, name in enumerate(SPINE)},
    **LEAVES,
    "cli": [*SPINE, *LEAVES],
    "__init__": EVERYTHING,
    "__main__": EVERYTHING,
}
# A heavy or optional package is imported by these and by nothing else.
OWNERS = {
    "fastapi": {"serve"},
    "filelock": {"catalog"},
    "huggingface_hub": {"hub"},
    "keras": {"keras"},
    "onnx": {"formats"},
    "opentelemetry": {"serve"},
    "orjson": {"serve"},
    "prometheus_client": {"serve"},
    "pydantic": {"config", "serve"},
    "torch": {
        "formats",
        "kernels",
        "mirror",
        "network",
        "head",
        "padded",
        "word_vectors",
        "reduction",
        "model",
        "job",
        "ray_job",
        "train",
        "lm",
        "nn",
        "sentence_transformers",
        "compat",
        "cli",
    },
    "sentence_transformers": {"sentence_transformers"},
    "sklearn": {"sklearn"},
    "spacy": {"spacy"},
    "starlette": {"serve"},
    "triton": {"kernels"},
    "lancedb": {"search"},
    "psycopg": {"search"},
    "pyarrow": {"sinks", "reading"},
    "ray": {"ray_job"},
    "syntok": {"reading"},
    "tensorflow": {"keras"},
    "tqdm": {"cli", "download", "job", "plot", "ray_job", "search", "senses", "train"},
    "typer": {"cli"},
    "uvicorn": {"serve"},
}

PUBLIC_NAMES = [
    "Carry",
    "DownloadError",
    "Elmo",
    "ElmoError",
    "FormatError",
    "MismatchError",
    "MissingExtra",
    "Mix",
    "OutputError",
    "TextError",
    "TrainingError",
    "UnknownModel",
    "__version__",
    "load",
]


def module_names() -> dict[str, Path]:
    """Dotted name below the package -> file: "text", "formats.rules"; a folder's own file is "formats"."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        names[".".join(parts)] = path
    return names


MODULES = module_names()


def imported(name: str) -> set[str]:
    """Absolute names of all that module `name` imports, at its top or inside a function."""
    path = MODULES[name]
    folder = ["elmokit", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {submodule_or_origin(origin, alias.name) for alias in node.names}
    return found


def submodule_or_origin(origin: str, name: str) -> str:
    """What `from origin import name` imports: the module `name` of the package `origin`, or else `origin` itself."""
    whole = f"{origin}.{name}"
    return whole if whole.removeprefix("elmokit.") in MODULES else origin


def inside(names: set[str]) -> set[str]:
    """The names of the package itself, without "elmokit."."""
    return {name.removeprefix("elmokit.") for name in names if name.startswith("elmokit.")}


def test_the_table_names_the_modules_there_are():
    assert {name.split(".")[0] for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    component = name.split(".")[0]
    components = {other.split(".")[0] for other in inside(imported(name))}
    assert components <= {component, *MAY_IMPORT[component]}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_the_package_root(name):
    assert "elmokit" not in imported(name)


@pytest.mark.parametrize("name", MODULES)
def test_heavy_and_optional_packages_stay_in_their_place(name):
    packages = {package.split(".")[0] for package in imported(name)}
    component = name.split(".")[0]
    assert not [package for package in packages & set(OWNERS) if component not in OWNERS[package]]


def test_no_import_cycle():
    TopologicalSorter({name: inside(imported(name)) for name in MODULES}).prepare()


def test_public_names_are_frozen():
    assert elmokit.__all__ == PUBLIC_NAMES
    assert set(PUBLIC_NAMES) <= set(dir(elmokit))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_names_resolve(name):
    assert getattr(elmokit, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = elmokit.lode


@pytest.mark.parametrize(
    "program",
    [
        "import elmokit; elmokit.ElmoError; elmokit.__version__",
        "sys.argv = ['elmo', '--help']; from elmokit.cli import main; main()",
        "sys.argv = ['elmo', 'embed', '--help']; from elmokit.cli import main; main()",
    ],
)
def test_torch_is_not_loaded_before_it_is_needed(program):
    report = "import atexit, sys; atexit.register(lambda: print('torch loaded:', 'torch' in sys.modules)); "
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", report + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("torch loaded: False\n")


@pytest.mark.skipif("PYTHONPATH" in os.environ, reason="PYTHONPATH names the copy of the package that is tested")
def test_the_installed_package_is_what_is_tested():
    assert "site-packages" in PACKAGE.parts


@pytest.mark.parametrize(
    ("leaf", "package", "extra"),
    [
        ("serve", "fastapi", "serve"),
        ("ray_job", "ray", "ray"),
        ("sklearn", "sklearn", "sklearn"),
        ("sentence_transformers", "sentence_transformers", "sentence-transformers"),
        ("spacy", "spacy", "spacy"),
    ],
)
def test_a_missing_framework_is_an_error_that_names_the_command(monkeypatch, leaf, package, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"elmokit.{leaf}", raising=False)
    with pytest.raises(elmokit.MissingExtra, match=rf"pip install 'elmokit\[{extra}\]'"):
        importlib.import_module(f"elmokit.{leaf}")
