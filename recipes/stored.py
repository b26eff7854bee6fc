"""ELMo's layers of a data set, computed once and read many times: `elmo embed --all` into one HDF5 file, no pickle.

A frozen ELMo gives a sentence the same vectors whenever it is asked, so a file of them serves every seed, every way to
mix the layers and every network that is trained on the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from elmokit import Elmo
from elmokit.errors import MismatchError
from elmokit.job import embed_file

Words = tuple[str, ...]


class Stored:
    """Layers (L, T, D) float16 of sentences, in memory; `pooled` ones (L, 1, D) are the mean over the words."""

    def __init__(self, file: Path, sentences: Sequence[Words], *, pooled: bool = False) -> None:
        with h5py.File(file) as source:
            arrays = (source[str(number)][()] for number in range(len(sentences)))
            self.layers = {s: a[:, None] if pooled else a for s, a in zip(sentences, arrays, strict=True)}
        self.pooled = pooled
        for sentence, array in self.layers.items():
            if not pooled and array.shape[1] != len(sentence):
                raise MismatchError(f"{file} has {array.shape[1]} vectors for {' '.join(sentence)!r}; delete the file")
        self.n_layers, _, self.dim = next(iter(self.layers.values())).shape

    def __getitem__(self, sentence: Words) -> NDArray[np.float16]:
        return self.layers[sentence]


def store(sentences: Iterable[Words], elmo: Elmo, folder: Path, *, pooled: bool = False) -> Stored:
    """Compute the layers of the distinct sentences, or open the file of an earlier call with the same ones.

    The file's name follows from the model and the text. An interrupted call goes on where it stopped.
    """
    distinct = list(dict.fromkeys(sentences))
    text = "".join(" ".join(words) + "\n" for words in distinct)
    digest = hashlib.sha256(f"{elmo.fingerprint}{pooled}{text}".encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    lines, out = folder / f"{digest}.txt", folder / f"{digest}.hdf5"
    with FileLock(f"{out}.lock"):  # recipes that run at the same time may want the same
        if not out.exists():
            lines.write_text(text, encoding="utf-8")
            options = {"layers": "all", "pool": "mean" if pooled else "none", "dtype": "float16"}
            embed_file(lines, out, elmo=elmo, **options, forget_sentences=True, resume=True)
    return Stored(out, distinct, pooled=pooled)


def clean(words: Iterable[str]) -> Words:
    """Return words as running text has them: plain quotes, no escaped slash; no white space inside, none empty.

    So a line of text holds as many words as there are.
    """
    joined = ("".join(word.split()).replace("\\/", "/") or "_" for word in words)
    return tuple('"' if word in ("``", "''") else word for word in joined)
