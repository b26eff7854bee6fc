"""What bfloat16 costs: how far its vectors are from those of float32, and a tagger's accuracy with each.

    python benchmarks/quality/precision.py --text TEXT [--treebank ud-english-ewt/ --seeds 3]

The model is the bundled one. Cosines are over TEXT. The tagger, if a treebank is given, is that of
recipes/parts_of_speech.py (a learned mix beside word vectors that begin random), trained and tested with the layers in
the one precision and in the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "precision.json"
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "recipes")]

import judging  # noqa: E402 (the folders above are on the path only now)
import table  # noqa: E402
from command import sentences_of  # noqa: E402
from data import opened  # noqa: E402
from embed import describe_text, machine  # noqa: E402
from parts_of_speech import POS  # noqa: E402
from stored import store  # noqa: E402
from trainer import predict, train_network  # noqa: E402

from elmokit import load  # noqa: E402
from elmokit.reading import read_sentences  # noqa: E402

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--treebank", type=Path, help="folder or archive of UD English EWT")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    found = {
        "machine": machine(1),
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy")},
        "model": judging.described(None),
        "text": describe_text(arguments.text, None),
        "cosines": cosines(list(read_sentences(arguments.text))),
        "accuracy": {
            precision: accuracies(arguments.treebank, precision, arguments.seeds)
            for precision in (PRECISIONS if arguments.treebank else ())
        },
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


def cosines(sentences: list[list[str]]) -> list[dict[str, float]]:
    """Return for each layer the lowest and the mean cosine of a token's vectors in both precisions."""
    exact, coarse = (
        np.concatenate([x for x in load(precision=precision).embed(sentences, layers="all") if x.shape[1]], axis=1)
        for precision in PRECISIONS
    )
    norms = np.linalg.norm(exact, axis=-1) * np.linalg.norm(coarse, axis=-1)
    cosines_LM = (exact * coarse).sum(-1) / norms
    return [{"lowest": float(layer.min()), "mean": float(layer.mean())} for layer in cosines_LM]


def accuracies(treebank: Path, precision: Any, seeds: int) -> list[float]:
    """Return the tagger's accuracy on the test part, for each seed."""
    found = []
    with TemporaryDirectory() as work:
        parts = POS.read(opened(treebank, Path(work)))
        stored = store(sentences_of(parts), load(precision=precision), Path(work))
        for seed in range(1, seeds + 1):
            tagger, _ = train_network(POS, parts, POS.systems["mix"], stored, seed=seed)
            found.append(POS.measure([one.right for one in parts.test], predict(tagger, parts.test)))
            print(precision, seed, found[-1], file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
