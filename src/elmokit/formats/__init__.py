"""Checkpoints of every origin, recognised by content."""

from __future__ import annotations

from pathlib import Path

from elmokit.checkpoint import CONFIG, WEIGHTS, Checkpoint
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import allennlp, native
from elmokit.formats import softmax as head
from elmokit.formats.files import Files, open_files

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
        found = allennlp.read(path, weights, vocabulary=vocabulary)
    else:
        with open_files(path) as files:
            found = read_files(files)
    if not softmax:
        return found
    if not vocabulary:
        raise MismatchError(f"the head {softmax} needs the list of its words; name it as the vocabulary")
    return head.attach(found, softmax, vocabulary=vocabulary)


def read_files(files: Files) -> Checkpoint:
    """Read the model that these files are."""
    if native.recognises(files):
        return native.read(files)
    if allennlp.recognises(files):
        return allennlp.read_files(files)
    found = ", ".join(sorted(files.sizes)[:8])[:300] or "nothing"
    raise FormatError(
        f"{files.where} holds no model: expected {CONFIG} with {WEIGHTS}, or {allennlp.OPTIONS} with an HDF5 file of "
        f"weights; found {found}"
    )
