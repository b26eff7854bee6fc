"""Word vectors to compare ELMo with: word2vec, trained by gensim on the text that an ELMo was trained on.

    python recipes/word_vectors.py TEXT... --out vectors.bin

Skip-gram, 100 values, words in lower case that come at least three times. The file is word2vec's binary format, which
holds no pickle; the recipes take it, and any other file of that format or of GloVe's text, with --vectors.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from command import told_plainly
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray

from elmokit.errors import MismatchError
from elmokit.reading import expand, read_sentences


class Lowered:
    """The sentences of texts in lower case, as often as they are asked for."""

    def __init__(self, texts: Sequence[str], limit: int | None = None) -> None:
        self.texts, self.limit = expand(texts), limit

    def __iter__(self) -> Iterator[list[str]]:
        sentences = (sentence for text in self.texts for sentence in read_sentences(text))
        return ([word.lower() for word in sentence] for sentence in islice(sentences, self.limit))


def read_words(path: Path, words: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of those of the words that have one; `MismatchError` where none has."""
    binary = path.suffix == ".bin"
    header = binary or len(path.open(encoding="utf-8").readline().split()) == 2
    vectors = KeyedVectors.load_word2vec_format(str(path), binary=binary, no_header=not header)
    found = {word: vectors[word] for word in sorted(words) if word in vectors}
    if not found:
        raise MismatchError(f"{path} has a vector for none of the {len(words):,} words of the data; are they of it?")
    return found


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="with more than one, each time other vectors")
    parser.add_argument("--sentences", type=int, help="only the first ones")
    told = parser.parse_args()
    model = Word2Vec(
        Lowered(told.texts, told.sentences),
        vector_size=told.size,
        sg=1,
        negative=5,
        window=5,
        min_count=3,
        sample=1e-4,
        seed=1,
        epochs=told.epochs,
        workers=told.threads,
    )
    part = told.out.with_name(told.out.name + ".partial")
    model.wv.save_word2vec_format(str(part), binary=True)
    part.rename(told.out)
    print(f"{len(model.wv):,} words of {model.corpus_total_words:,} tokens: {told.out}")


if __name__ == "__main__":
    with told_plainly():
        main()
