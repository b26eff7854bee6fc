"""Put the pages of the documentation site into a folder, each in its place of the repository.

    python tools/pages.py build/pages

These are README.md, docs/ and whatever they link to, so that a link works on the site as it does in the repository.
Raises `FileNotFoundError` for a link to nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def linked(page: Path) -> list[Path]:
    """The files of the repository that a page names in its links."""
    if page.suffix != ".md":
        return []
    targets = LINK.findall(FENCED.sub("", page.read_text("utf-8")))
    return [(page.parent / target).resolve() for target in targets if "://" not in target]


def pages(root: Path) -> list[Path]:
    """README.md, docs/*.md and all files that can be reached from them."""
    found: list[Path] = []
    waiting = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    while waiting:
        page = waiting.pop(0)
        if page not in found:
            found.append(page)
            waiting += linked(page)
    return found


def copy(root: Path, target: Path) -> None:
    """Empty `target` and put the pages there."""
    found = pages(root)
    shutil.rmtree(target, ignore_errors=True)
    for page in found:
        place = target / page.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, place)


if __name__ == "__main__":
    copy(ROOT, Path(sys.argv[1]))
