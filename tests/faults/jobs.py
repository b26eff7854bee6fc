"""Long commands as the tests of faults run them: in processes of their own, over and over, on one small model.

A command that can be interrupted is one entry of JOBS.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from conftest import make_checkpoint
from elmokit import catalog, cli
from elmokit.checkpoint import write_native
from elmokit.formats import allennlp
from elmokit.model import load

WORDS = ["the", "cat", "dog", "sees", "a", "Bäume", "fish", ".", "grrrr", "42"]


@dataclass(frozen=True)
class Job:
    """A command: its arguments, what it writes to while it works, and all that its output holds.

    begin: from a folder with text.txt and model/ to the arguments of a first run that writes `out`; again: those of
    one that goes on; working: a file or folder that is there from when the work begins, where there is something to go
    on with; halfway: a file that is there from when some of the work is safe; result: what an output holds, equal for
    equal outputs, or an error where it is not whole; sound: for an output that is there before the end and gets better,
    fails where it cannot be used as it stands.
    """

    out: str
    begin: Callable[[Path, Path], list[str]]
    again: Callable[[Path, Path], list[str]]
    working: Callable[[Path], Path]
    halfway: Callable[[Path], Path]
    result: Callable[[Path], object]
    sound: Callable[[Path], object] | None = None


def _embed(*options: str) -> Callable[[Path, Path], list[str]]:
    def arguments(here: Path, out: Path) -> list[str]:
        text, model = str(here / "text.txt"), str(here / "model")
        return ["embed", text, str(out), "--model", model, "--save-every", "30", "--threads", "1", *options]

    return arguments


def _train(here: Path, out: Path) -> list[str]:
    told = "--epochs 0.5 --batch-size 4 --unroll 10 --min-count 1 --softmax full --save-every 7".split()
    told += "--evaluate-every 15 --evaluate-places 100 --processes 1 --threads 1 --precision float32".split()
    return ["train", str(here / "text.txt"), "--out", str(out), "--options", str(here / "shape/options.json"), *told]


def _vectors(out: Path) -> object:
    """Names and arrays of an .npz, in the order in which they are written."""
    with np.load(out) as arrays:
        return [(name, arrays[name].shape, arrays[name].tobytes()) for name in arrays]


def _weights(out: Path) -> object:
    """The bytes of a model that opens."""
    load(out)
    return (out / "model.safetensors").read_bytes()


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _index(here: Path, out: Path) -> list[str]:
    return ["index", str(here / "text.txt"), str(out), "--model", str(here / "model"), "--threads", "1"]


def _version(out: Path, number: int) -> Path:
    """The file that LanceDB writes with this version of a table: one for each commit."""
    return out / "elmo.lance" / "_versions" / f"{2**64 - 1 - number}.manifest"


def _rows(out: Path) -> object:
    """The rows of an index, each there once, with their vectors."""
    import lancedb

    if not (out / "elmo.lance" / "_versions").exists():
        return []
    table = lancedb.connect(out).open_table("elmo").to_arrow()
    rows = zip(table["line"].to_pylist(), table["text"].to_pylist(), table["vector"].to_pylist(), strict=True)
    found = sorted(rows)
    assert len({line for line, *_ in found}) == len(found)
    return found


def _third_segment(out: Path) -> Path:
    return _partial(out) / f"segment-000002{out.suffix}"


JOBS = {
    "embed": Job("vectors.npz", _embed(), _embed("--resume"), _partial, _third_segment, _vectors),
    "embed --state carry": Job(
        "vectors.npz",
        _embed("--state", "carry"),
        _embed("--state", "carry", "--resume"),
        _partial,
        _third_segment,
        _vectors,
    ),
    "train": Job(
        "model-of-text",
        _train,
        lambda here, out: ["train", "--out", str(out), "--resume", "--threads", "1"],
        lambda out: out / "training" / "settings.json",
        lambda out: out / "model.safetensors",
        _weights,
        sound=lambda out: load(out) if (out / "model.safetensors").exists() else None,
    ),
}
if find_spec("lancedb"):
    JOBS["index"] = Job(
        "index", _index, _index, lambda out: out / "elmo.lance", lambda out: _version(out, 12), _rows, sound=_rows
    )
# Those whose files are ours: what a database makes of a file that was cut is its own matter.
OF_FILES = [name for name in JOBS if name != "index"]


def furnish(here: Path) -> None:
    """Put text.txt, of 600 sentences, model/ and shape/, the options of such a model, into a folder."""
    generator = np.random.default_rng(0)
    lines = (" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(600))
    (here / "text.txt").write_text("\n".join(lines) + "\n", "utf-8")
    write_native(make_checkpoint(), here / "model")
    (here / "shape").mkdir()
    allennlp.write(make_checkpoint(), here / "shape")


# One process that has loaded torch, and copies itself for each command: loading it takes longer than the work.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["elmokit.model", "elmokit.train.run", "jobs"])


@dataclass
class Running:
    """A command at work in a process of its own."""

    process: Any
    errors: Path

    def kill(self) -> None:
        self.process.kill()

    def finish(self) -> tuple[int, str]:
        """Wait for the end; exit code and standard error."""
        self.process.join(300)
        return self.process.exitcode, self.errors.read_text("utf-8")


def start(arguments: list[str], **surroundings: Path) -> Running:
    """Start `elmo` with these arguments; `catalog` and `cache` name another catalogue of models, another cache."""
    handle, errors = tempfile.mkstemp(dir=_scratch().name)
    os.close(handle)
    process = _FORKS.Process(target=_command, args=(arguments, errors, surroundings))
    process.start()
    return Running(process, Path(errors))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for as long as the tests run."""
    return tempfile.TemporaryDirectory(prefix="elmokit-jobs-")


def _command(arguments: list[str], errors: str, surroundings: dict[str, Path]) -> None:
    """What the process does: the command itself."""
    if surroundings:
        catalog.CATALOG = surroundings["catalog"]
        os.environ |= {"ELMOKIT_CACHE": str(surroundings["cache"]), "no_proxy": "127.0.0.1"}
    if arguments[0] == "index":
        from elmokit.search import texts

        texts._COMMIT = 40  # so that there is a middle
    sys.argv = ["elmo", *arguments]
    with open(os.devnull, "w") as sys.stdout, open(errors, "w", encoding="utf-8", buffering=1) as sys.stderr:
        cli.main()


def run(arguments: list[str]) -> tuple[int, str]:
    """Run `elmo` to its end; exit code and standard error."""
    return start(arguments).finish()


def sentence(code: int, errors: str) -> str:
    """The one plain sentence of a command that failed."""
    assert code == 1, errors
    assert "Traceback" not in errors, errors
    [said] = [line for line in errors.splitlines() if line.startswith("elmo: ")]
    assert errors.endswith(said + "\n")
    assert len(said) > 20
    return said


def wait_for(path: Path, running: Running) -> None:
    """Return when a file is there or the command has ended."""
    while running.process.is_alive() and not path.exists():
        time.sleep(0.002)


def go_on(job: Job, here: Path, out: Path) -> list[str]:
    """The arguments with which a user continues what is there, or begins where nothing is."""
    return job.again(here, out) if job.working(out).exists() else job.begin(here, out)


def check_what_stands(job: Job, out: Path, expected: object) -> None:
    """Whatever has the output's name is whole."""
    if job.sound:
        job.sound(out)
    elif out.exists():
        assert job.result(out) == expected


def interrupt(job: Job, here: Path, out: Path) -> None:
    """Begin, and kill it when some of the work is safe."""
    running = start(job.begin(here, out))
    wait_for(job.halfway(out), running)
    running.kill()
    code, errors = running.finish()
    assert code == -9, errors or "it was over before it could be killed"
