"""Exact held-out perplexity of a model with a softmax head, text by text, and its bits per character.

    python benchmarks/quality/perplexity.py [--model MODEL] [NAME=TEXT ...] [--sentences N] [--quick]

TEXT is tokenised, one sentence a line (default: valid and test of the Wikipedia and OpenStax texts); state is carried
along the text. Every word and one sentence mark a sentence is predicted, over the whole vocabulary; a word outside of
it is predicted as <UNK>, which is easier than the word itself, so that perplexities compare only between models of one
vocabulary. Bits per character compare all: a character is a letter of a word, the space behind it, or the end of a
line, and the mean of both directions' losses is divided by them. There, `open` also counts what it takes to spell each
unknown word after its <UNK>: its bytes and an end, by the frequencies that bytes have in the words of the vocabulary.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import judging

from elmokit import Elmo, load
from elmokit.head import read_head
from elmokit.reading import read_sentences
from elmokit.train.corpus import Rows, corpus_of
from elmokit.train.evaluate import Perplexity, perplexity

TEXTS = {f"{name}-{part}": f"{name}/{part}.txt.xz" for name in ("wiki2015", "openstax") for part in ("valid", "test")}


def main() -> None:
    """Measure every text and write the result."""
    parser = judging.parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="NAME=TEXT")
    parser.add_argument("--sentences", type=int, help="of each text, the first so many (default: all)")
    told = parser.parse_args()
    elmo, most = load(told.model), 100 if told.quick else told.sentences
    found = {name: measure(elmo, list(islice(read_sentences(path), most))) for name, path in paths(told).items()}
    judging.write(told, "perplexity", {"vocabulary": len(elmo.vocabulary or ()), "texts": found})


def paths(told: argparse.Namespace) -> dict[str, Path]:
    """Return the texts by name."""
    if told.texts:
        return {name: Path(path) for name, path in (text.split("=", 1) for text in told.texts)}
    return {name: told.data / "lm" / path for name, path in TEXTS.items()}


def measure(elmo: Elmo, sentences: list[list[str]]) -> dict[str, Any]:
    """Return the figures of one text."""
    rows = Rows.of(elmo.vocabulary or (), elmo.config.sentence_marks)
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(sentences, Path(folder))
        found = perplexity(elmo.network, read_head(elmo.extras), corpus, rows, elmo.speller)
    unknown = [word for words in sentences for word in words if rows.index.get(word, rows.unknown) == rows.unknown]
    return {
        **{side: round(getattr(found, side), 2) for side in ("forward", "backward", "mean")},
        "places": found.places,
        "unknown_percent": judging.percent(len(unknown) / sum(map(len, sentences))),
        **bits_per_character(found, sentences, spelling=sum(map(speller_bits(elmo.vocabulary or ()), unknown))),
    }


def bits_per_character(found: Perplexity, sentences: Iterable[list[str]], *, spelling: float) -> dict[str, float]:
    """Return bits per character, without and with the bits that the spelling of unknown words takes."""
    characters = sum(len(" ".join(words)) + 1 for words in sentences)
    bits = math.log2(found.mean) * found.places
    counted = {"bits_per_character": bits, "bits_per_character_open": bits + spelling}
    return {name: round(total / characters, 3) for name, total in counted.items()}


def speller_bits(words: Iterable[str]) -> Callable[[str], float]:
    """Return how many bits a word takes if its bytes, and its end, come as often as in `words`, and any byte at all."""
    counts = Counter(byte for word in words for byte in (*word.encode(), -1))
    bits = {byte: -math.log2((counts[byte] + 1) / (counts.total() + 257)) for byte in range(-1, 256)}
    return lambda word: sum(bits[byte] for byte in (*word.encode(), -1))


if __name__ == "__main__":
    main()
