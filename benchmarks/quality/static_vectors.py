"""Train word vectors without context on text that the model has read, to compare with: fastText by gensim.

    python benchmarks/quality/static_vectors.py train-00.txt.xz... --out static.kv [--tokens 10000000 --size 384]

They are as wide as the bundled model's vectors, and like it know unseen words by their letters.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import accumulate, chain, takewhile
from pathlib import Path

from gensim.models import FastText

from elmokit.reading import read_sentences


def main() -> None:
    """Train on one thread, so that the same seed gives the same vectors, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    sentences = list(beginning(told.texts, told.tokens))
    vectors = train(sentences, size=told.size, epochs=told.epochs, seed=told.seed)
    vectors.save(str(told.out))
    print(f"{sum(map(len, sentences)):,} tokens, {len(vectors):,} words")


def beginning(texts: list[Path], tokens: int) -> Iterator[list[str]]:
    """Yield the sentences of texts up to about so many tokens."""
    sentences = chain.from_iterable(read_sentences(text) for text in texts)
    counted = accumulate(sentences, lambda so_far, words: (so_far[0] + len(words), words), initial=(0, []))
    return (words for _, words in takewhile(lambda pair: pair[0] <= tokens, counted) if words)


def train(sentences: list[list[str]], *, size: int, epochs: int, seed: int, min_count: int = 5):
    """Return gensim's FastTextKeyedVectors of skip-grams."""
    model = FastText(
        sentences,
        vector_size=size,
        epochs=epochs,
        seed=seed,
        min_count=min_count,
        sg=1,
        bucket=200_000,
        workers=1,
    )
    return model.wv


if __name__ == "__main__":
    main()
