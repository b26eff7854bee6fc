"""Build wheel and sdist twice, from two copies of the source, and compare them byte by byte.

    python tools/reproducible.py

The copies lie in folders of different names, their files have different times and permissions, and the second is built
in another time zone, under another umask and hash seed. Prints the SHA-256 of what is built; exit code 1 if two differ.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".nox", "build", "dist", "runs", "training", "__pycache__", ".*cache", ".hypothesis", "*.so"
)


def copy(folder: Path, *, time: int, mode: int) -> Path:
    """A copy of the source whose files have this time and these permissions."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
            os.utime(path, (time, time))
    return source


def build(source: Path, *, umask: int, **surroundings: str) -> dict[str, str]:
    """Build both and return the SHA-256 of each file by its name."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", "dist"],
        cwd=source,
        env={**os.environ, **surroundings},
        umask=umask,
        capture_output=True,
        check=True,
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((source / "dist").iterdir())}


def both() -> tuple[dict[str, str], dict[str, str]]:
    """What the two copies give."""
    with tempfile.TemporaryDirectory() as name:
        one, other = Path(name, "one"), Path(name, "a folder with another name")
        first = build(copy(one, time=1_500_000_000, mode=0o644), umask=0o022, TZ="UTC", PYTHONHASHSEED="1")
        second = build(copy(other, time=1_700_000_001, mode=0o600), umask=0o077, TZ="Asia/Tokyo", PYTHONHASHSEED="2")
    return first, second


def main() -> None:
    first, second = both()
    for name, digest in first.items():
        print(digest, name)
    if first != second:
        sys.exit(f"not reproducible: the second build gave {second}")


if __name__ == "__main__":
    main()
