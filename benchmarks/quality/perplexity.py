"""Exact held-out perplexity of a model with a softmax head, per text: forward, backward, mean, and out-of-vocabulary.

    python benchmarks/quality/perplexity.py MODEL OUT.json NAME=TEXT ... [--places N]

TEXT is tokenised, one sentence a line (.xz and .gz as they are); state is carried along the text. `--places` stops
after about so many predictions a text (0: all).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from elmokit import formats
from elmokit.checkpoint import Checkpoint
from elmokit.head import read_head
from elmokit.network import BiLM
from elmokit.reading import read_sentences
from elmokit.train.corpus import Rows, corpus_of
from elmokit.train.evaluate import perplexity


def main() -> None:
    """Measure every text and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("texts", nargs="+", metavar="NAME=TEXT")
    parser.add_argument("--places", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    model = formats.read(arguments.model)
    texts = dict(text.split("=", 1) for text in arguments.texts)
    result = {
        "model": arguments.model.name,
        "vocabulary": len(model.vocabulary or ()),
        "versions": {name: version(name) for name in ("elmokit", "torch")},
        "date": time.strftime("%Y-%m-%d"),
        "texts": {name: measure(model, Path(path), arguments.places) for name, path in texts.items()},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["texts"], indent=1))


def measure(model: Checkpoint, text: Path, places: int) -> dict[str, float]:
    """Return the figures of one text."""
    vocabulary = model.vocabulary or ()
    with tempfile.TemporaryDirectory() as folder:
        corpus, rows = corpus_of(read_sentences(text), Path(folder)), Rows.of(vocabulary, model.config.sentence_marks)
        network, head = BiLM.from_arrays(model.config, model.arrays), read_head(model.arrays)
        found = perplexity(network, head, corpus, rows, model.speller(), max_places=places or None)
    words = [word for sentence in read_sentences(text) for word in sentence]
    unknown = sum(rows.index.get(word, rows.unknown) == rows.unknown for word in words) / len(words)
    return {
        "forward": round(found.forward, 2),
        "backward": round(found.backward, 2),
        "mean": round(found.mean, 2),
        "places": found.places,
        "unknown_percent": round(100 * unknown, 2),
    }


if __name__ == "__main__":
    main()
