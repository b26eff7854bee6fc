"""What `make test` does not try: other Pythons, other versions of torch, each extra alone.

    make test-all                 builds the wheel and runs every session, where its Python is here
    nox --list                    the sessions
    nox -s base-3.12              one of them, on the newest wheel in dist/

torch is several gigabytes with CUDA; without a GPU say PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
CONSTRAINTS = Path("constraints.txt")
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
NOT_FOR_USERS = {"dev", "docs", "recipes", "test"}
EXTRAS = [extra for extra in PROJECT["optional-dependencies"] if extra not in NOT_FOR_USERS]
OLDEST_TORCH = next(name.partition(">=")[2] for name in PROJECT["dependencies"] if name.startswith("torch>="))

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.needs_version = ">=2024.4"


def install(session: nox.Session, *, extras: str = "", torch: str = "") -> None:
    """Install the wheel; every version is pinned, or torch alone is another one. Its environment must be consistent."""
    wheels = sorted(Path("dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        session.error("dist/ holds no wheel: run  make wheel")
    pins = CONSTRAINTS
    if torch:
        pins = Path(session.create_tmp()) / "constraints.txt"
        freed = ("torch==", "triton==", "sympy==")  # each torch asks for its own
        kept = [line for line in CONSTRAINTS.read_text("utf-8").splitlines() if not line.startswith(freed)]
        pins.write_text("\n".join(kept), "utf-8")
    session.install("-c", str(pins), f"{wheels[-1]}{extras}", *([torch] if torch else []))
    session.run("python", "-m", "pip", "check")
    listed = session.run("python", "-m", "pip", "list", "--format=freeze", silent=True) or ""
    if cuda := [line for line in listed.splitlines() if line.startswith(("nvidia-", "cuda-"))]:
        session.warn(f"{len(cuda)} packages of CUDA came along, see the first lines of noxfile.py")


@nox.session(python=PYTHONS)
def base(session: nox.Session) -> None:
    """Without extras: import, embed, convert; what is missing is named."""
    install(session)
    session.run("python", "tools/installed.py")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Lint-free, the tests of `make test`."""
    install(session, extras="[test]")
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto", "--maxprocesses", "8"]))


@nox.session
@nox.parametrize("torch", [f"torch=={OLDEST_TORCH}.*", "torch"], ids=["oldest", "newest"])
def torch(session: nox.Session, torch: str) -> None:
    """The oldest torch that is allowed, and the newest there is: embed, and the tests of the network."""
    install(session, torch=torch)
    session.run("python", "tools/installed.py")
    session.install("-c", str(CONSTRAINTS), "pytest", "hypothesis")
    modules = ["network", "model", "lm", "train"]
    session.run("python", "-m", "pytest", *(f"tests/test_{name}.py" for name in modules), *session.posargs)


@nox.session
@nox.parametrize("extra", EXTRAS, ids=EXTRAS)
def extra(session: nox.Session, extra: str) -> None:
    """One extra alone: it installs, and does what it is for."""
    install(session, extras=f"[{extra}]")
    session.run("python", "tools/installed.py", extra)


@nox.session
def sbom(session: nox.Session) -> None:
    """What the base install consists of, as CycloneDX, in build/sbom.json."""
    install(session)
    Path("build").mkdir(exist_ok=True)
    python = str(Path(session.bin) / "python")
    beside_nox = str(Path(sys.executable).parent / "cyclonedx-py")  # whose folder need not be on PATH
    session.run(
        *(beside_nox, "environment", python, "--pyproject", "pyproject.toml", "--output-reproducible"),
        *("--output-file", "build/sbom.json"),
        external=True,
    )
