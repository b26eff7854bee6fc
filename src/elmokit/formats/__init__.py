"""Checkpoints of every origin, recognised by content."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from elmokit.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    check_vocabulary,
    read_vocabulary,
    write_native,
    written_folder,
)
from elmokit.errors import FormatError, MismatchError, OutputError, expect, expect_one_of, expect_path
from elmokit.formats import allennlp, allennlp_archive, bilm_tf, manylangs, native, tf_hub
from elmokit.formats import softmax as head
from elmokit.formats.files import Files, by_folder, one_place, open_files
from elmokit.stored import StoredDtype

# Tried in this order: a TensorFlow checkpoint holds more (the head) than the HDF5 file that was made of it.
_FORMATS = (native, bilm_tf, tf_hub, manylangs, allennlp_archive, allennlp)
Target = Literal["elmokit", "allennlp", "bilm-tf", "elmoformanylangs", "onnx"]
_FOREIGN: dict[Target, ModuleType] = {"allennlp": allennlp, "bilm-tf": bilm_tf, "elmoformanylangs": manylangs}
BUNDLED = Path(__file__).parents[1] / "models" / "en"


def read(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    softmax: str | Path | None = None,
    vocabulary: str | Path | None = None,
) -> Checkpoint:
    """Read the model in a folder or archive, of whatever format, or that of which `path` is one file.

    With `weights` (HDF5) `path` is the model's options.json. `softmax`: a head that is kept apart (HDF5), whose words
    `vocabulary` lists; without `softmax` it lists those of a model whose words come from a table. Raises
    `UnknownModel` where nothing is there, `FormatError` where what is there is not a model.
    """
    if weights:
        found = allennlp.read_pair(path, weights)
    else:
        with open_files(path) as files:
            found = read_files(files)
    if not softmax:
        return _with_words(found, vocabulary) if vocabulary else found
    if not vocabulary:
        raise MismatchError(f"the head {softmax} needs the list of its words; name it as the vocabulary")
    arrays = head.read(softmax, found.config, where=str(softmax))
    return head.attach(found, arrays, read_vocabulary(vocabulary), where=str(softmax))


def _with_words(found: Checkpoint, vocabulary: str | Path) -> Checkpoint:
    """Give a model whose words come from a table the list of its words."""
    if not found.config.word_dim:
        raise MismatchError(f"{vocabulary} has no use: this model spells its words; leave the vocabulary out")
    words = read_vocabulary(vocabulary)
    check_vocabulary(words, found.arrays, where=str(vocabulary))
    return replace(found, vocabulary=words)


def read_files(files: Files) -> Checkpoint:
    """Read the model that these files are: one of the outermost files, or else one in a folder inside."""
    parts = by_folder(files)
    format = _recognised(parts.pop(""))
    if format is None:
        inside = {folder: known for folder, part in parts.items() if (known := _recognised(part))}
        if len(set(inside.values())) > 1:  # of one format it finds out by itself which is meant
            one_place(list(inside), where=files.where)
        format = _recognised(files)
    if format is not None:
        return format.read(files)
    found = ", ".join(sorted(files.sizes)[:8])[:300] or "nothing"
    raise FormatError(
        f"{files.where} holds no model: expected {CONFIG} with {WEIGHTS}, {allennlp.OPTIONS} with an HDF5 file or a "
        f"TensorFlow checkpoint, or another of the formats that docs/checkpoints.md describes; found {found}"
    )


def _recognised(files: Files) -> ModuleType | None:
    return next((format for format in _FORMATS if format.recognises(files)), None)


def lost_in(checkpoint: Checkpoint, to: Target) -> list[str]:
    """Name what the model holds and the target format cannot."""
    return [] if to == "elmokit" else list(_foreign(to).lost_in(checkpoint))


def _foreign(to: Target) -> ModuleType:
    return import_module("elmokit.formats.onnx") if to == "onnx" else _FOREIGN[to]  # the one needs an extra


def write(
    checkpoint: Checkpoint, target: str | Path, *, to: Target = "elmokit", dtype: StoredDtype = "float32"
) -> None:
    """Write a model where nothing is yet: a folder; in our own format also one file, NAME.zip; for ONNX NAME.onnx.

    Raises `OutputError` where something is in the way or cannot be written, `MismatchError` for a model that the target
    cannot hold.
    """
    expect(Checkpoint, checkpoint, "checkpoint", "a checkpoint; Elmo.checkpoint() gives one")
    expect_path(target, "target")
    expect_one_of(get_args(Target), to, "to")
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(path.name != _SCRATCH for path in target.iterdir())):
        raise OutputError(f"{target} exists and is not an empty folder; choose another place")
    if to != "elmokit" and target.suffix == ".zip":
        raise MismatchError(f"{target}: only our own format is written as a zip; name a folder")
    if (to == "onnx") != (target.suffix == ".onnx"):
        raise MismatchError(f"{target}: ONNX, and nothing else, is written to a file whose name ends in .onnx")
    if to != "elmokit" and dtype != "float32":
        raise MismatchError(
            "only our own format is written in other numbers than float32; leave the dtype out, or write that one"
        )
    if to == "onnx":
        _foreign(to).write_file(checkpoint, target)
        return
    if target.suffix == ".zip":
        native.write_file(checkpoint, target, dtype=dtype)
        return
    with _whole_folder(target) as folder:
        if to == "elmokit":
            write_native(checkpoint, folder, dtype=dtype)
        else:
            _FOREIGN[to].write(checkpoint, folder)


_SCRATCH = ".elmokit.part"


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write to, whose files come to `target` when all are whole.

    It is inside `target` where that exists, which may be a mount or in a folder that is not ours, or else beside it.
    """
    beside = target.resolve().with_name(f".{target.resolve().name}.part")
    folder = target / _SCRATCH if target.is_dir() else beside
    try:
        shutil.rmtree(folder, ignore_errors=True)  # what a process left that was killed
        yield folder
        with written_folder(target):
            for file in folder.iterdir():
                file.rename(target / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
