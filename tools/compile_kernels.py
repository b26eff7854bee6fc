"""Compile the C of `src/elmokit/kernels`: part of building a wheel where GCC and an x86-64 Linux are, else left out.

    python tools/compile_kernels.py          into the source tree, to try what was changed there

elmokit needs nothing that is compiled; it is faster with it. Threads are those of the OpenMP that torch loads, so the
library is not linked with one.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parents[1] / "src" / "elmokit" / "kernels"
LIBRARY = "libelmokit.so"
FOR_EACH_VARIANT = ("cells.c", "few_rows.c", "filter_tables.c")
VARIANTS = (
    ["-DVARIANT=avx2", "-mavx2", "-mfma"],
    ["-DVARIANT=avx512", "-mavx512f", "-mavx512bw", "-mfma"],
    ["-DVARIANT=avx512bf16", "-mavx512f", "-mavx512bw", "-mavx512bf16", "-mfma"],
)
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fopenmp", "-fPIC"]
# Of the C library it needs memcpy and memset alone, as old as this.
TAG = "py3-none-manylinux_2_17_x86_64"


class CompiledKernels(BuildHookInterface):
    """What hatchling calls while it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make a wheel of this platform of what would be one of any."""
        if not compiles_here():
            self.app.display_info("nothing is compiled: that needs gcc, x86-64 and Linux with glibc")
            return
        editable = version == "editable"
        library = Path(FOLDER if editable else self.directory, LIBRARY)
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            compile_to(library)
        except (subprocess.CalledProcessError, OSError) as error:
            self.app.display_warning(f"nothing is compiled: {getattr(error, 'stderr', None) or error}")
            return
        if not editable:
            build_data["force_include"][str(library)] = f"elmokit/kernels/{LIBRARY}"
        build_data["pure_python"] = False
        build_data["tag"] = TAG

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take away what is in the wheel now."""
        Path(self.directory, LIBRARY).unlink(missing_ok=True)


def compiles_here() -> bool:
    """Say whether there is a GCC, and a processor and a system that it is written for."""
    linux = sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
    return linux and shutil.which("gcc") is not None


def compile_to(library: Path) -> None:
    """Compile every variant and put them into one library. Raises `subprocess.CalledProcessError` for a GCC that
    cannot, if only one of them."""
    with tempfile.TemporaryDirectory() as name:
        asked = [(source, flags) for source in FOR_EACH_VARIANT for flags in VARIANTS]
        objects = [Path(name, f"{number}.o") for number in range(len(asked) + 1)]
        for path, (source, flags) in zip(objects, [*asked, ("processor.c", [])], strict=True):
            gcc(*FLAGS, *flags, "-c", FOLDER / source, "-o", path)
        gcc("-shared", "-s", "-Wl,--build-id=none", *objects, "-o", library)


def gcc(*arguments: str | Path) -> None:
    subprocess.run(["gcc", *map(str, arguments)], check=True, capture_output=True, text=True, errors="replace")


if __name__ == "__main__":
    compile_to(FOLDER / LIBRARY)
    print(FOLDER / LIBRARY)
