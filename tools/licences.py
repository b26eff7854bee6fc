"""Write the list of the licences of all that elmokit installs, with each of its extras.

    python tools/licences.py > docs/licences.md

reads what is installed where it runs, so all extras must be.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
NOT_FOR_USERS = {"dev", "docs", "recipes", "test"}
HEAD = """\
# Licences

elmokit's code is under the [Apache License 2.0](../LICENSE); the weights and their terms are in [their
card](../src/elmokit/models/en/README.md). What pip installs with it is below, with the licence that each package states
of itself; `python tools/licences.py > docs/licences.md` writes this page, and `make sbom` an SBOM (CycloneDX) of the
base install, with versions. Packages for one system only, such as NVIDIA's with CUDA builds of torch, are not listed.
"""


def needed(requirements: Iterable[str], found: dict[str, Distribution]) -> None:
    """Add to `found` the packages of these requirements and of theirs, those that apply to this Python and system."""
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        extras = sorted(requirement.extras) or [""]
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if name == "elmokit":
            needed([line for extra in extras for line in PROJECT["optional-dependencies"][extra]], found)
        elif name not in found:
            found[name] = distribution(name)
            needed(without_other_extras(found[name], extras), found)


def without_other_extras(package: Distribution, extras: list[str]) -> list[str]:
    """The requirements of a package when these of its extras are asked for."""
    lines = package.requires or []
    return [
        str(line).partition(";")[0]
        for line in map(Requirement, lines)
        if not line.marker or any(line.marker.evaluate({"extra": extra}) for extra in [*extras, ""])
    ]


def licence(package: Distribution) -> str:
    """What a package says of itself: an SPDX expression, classifiers, or a short text."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [line for line in said.get_all("Classifier", []) if line.startswith("License ::")]
    if names := [line.rpartition(" :: ")[2] for line in classifiers if line != "License :: OSI Approved"]:
        return ", ".join(sorted(set(names)))
    text = (said.get("License") or "").strip()
    return re.split(r"[\n|]", text)[0][:60] or "not stated; see the project"


def page() -> str:
    parts = {"nothing: the base install": PROJECT["dependencies"]}
    parts |= {extra: lines for extra, lines in PROJECT["optional-dependencies"].items() if extra not in NOT_FOR_USERS}
    needers: dict[str, list[str]] = {}
    packages: dict[str, Distribution] = {}
    for extra, lines in parts.items():
        found: dict[str, Distribution] = {}
        needed(lines, found)
        packages |= found
        for name in found:
            needers.setdefault(name, []).append(extra)
    rows = [row(packages[name], needers[name]) for name in sorted(packages)]
    return "\n".join([HEAD, "| package | licence | comes with |", "|---|---|---|", *rows, ""])


def row(package: Distribution, extras: list[str]) -> str:
    base = [extra for extra in extras if extra.startswith("nothing")]
    with_ = "elmokit" if base else ", ".join(f"`{extra}`" for extra in extras)
    return f"| {package.metadata['Name']} | {licence(package)} | {with_} |"


if __name__ == "__main__":
    try:
        print(page(), end="")
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed; install 'elmokit[dev]' first")
