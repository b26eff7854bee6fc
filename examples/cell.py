"""Which uses of a word are alike? Compare the vectors that `elmo embed` gave to every use of *cell*.

First   elmo embed --all examples/sentences.txt sentences.hdf5
then    python examples/cell.py examples/sentences.txt sentences.hdf5
"""

from __future__ import annotations

import sys

import h5py
import numpy as np

WORDS = {"cell", "cells"}
AROUND = 5  # words shown to the left and to the right
NEAREST = 3
EXPLANATION = f"""
Under each of the {{count}} uses of 'cell' stand the {NEAREST} uses whose vectors are nearest to it, with their cosine.
In layer 0, which sees only the letters of a word, a word is the same everywhere: the lowest cosine is {{spelling:.2f}}.
In the top layer, compared above, the network has read the sentence from both ends: cosines from {{lowest:.2f}} to
{{highest:.2f}}. Uses in like surroundings lie together, and so, often, do uses of one meaning: nobody told it any.
"""


def uses(sentences: list[list[str]]) -> list[tuple[int, int]]:
    """Line and place of every use of the word."""
    return [(line, place) for line, words in enumerate(sentences) for place, word in enumerate(words) if word in WORDS]


def shown(words: list[str], place: int) -> str:
    """The words around one place, that place in brackets."""
    left = words[max(0, place - AROUND) : place]
    right = words[place + 1 : place + 1 + AROUND]
    return " ".join([*left, f"[{words[place]}]", *right])


def cosines(vectors_ND: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows: (N, N)."""
    unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return unit_ND @ unit_ND.T


def main(text: str, vectors: str) -> None:
    with open(text, encoding="utf-8") as file:
        sentences = [line.split() for line in file]
    places = uses(sentences)
    with h5py.File(vectors) as file:  # one array of (layers, words, width) for each line, named by its number
        uses_NLD = np.stack([file[str(line)][:, place] for line, place in places]).astype(np.float32)
    contexts = [shown(sentences[line], place) for line, place in places]
    similar_NN = cosines(uses_NLD[:, -1])

    for context, row in zip(contexts, similar_NN, strict=True):
        print(f"\n{context}")
        for other in np.argsort(-row)[1 : NEAREST + 1]:
            print(f"   {row[other]:.2f}  {contexts[other]}")

    pairs = np.triu_indices(len(places), k=1)
    print(
        EXPLANATION.format(
            count=len(places),
            spelling=cosines(uses_NLD[:, 0])[pairs].min(),
            lowest=similar_NN[pairs].min(),
            highest=similar_NN[pairs].max(),
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
