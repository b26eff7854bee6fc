"""What more reading brings: perplexity, parts of speech and senses of one training's models, by the tokens they read.

    python benchmarks/learning.py TOKENS=MODEL ...

TOKENS: how many a model has read in each direction, in millions. The perplexity is exact, of the first sentences of the
valid part of the Wikipedia text; the judges are those of benchmarks/quality, by which shapes.py chooses as well: word
senses are without back-off to WordNet. Writes benchmarks/results/learning.json anew, which table.py puts into
docs/training.md.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from shapes import HERE, SHARED, judged

from elmokit import load
from elmokit.lm import LanguageModel
from elmokit.reading import read_sentences

RESULTS = HERE / "results" / "learning.json"
HELDOUT = "wiki2015/valid.txt.xz"
SENTENCES = 5000  # of the held-out text


def main() -> None:
    """Judge every model and write the result."""
    import judging  # its folder is on the path since shapes was imported

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=read, metavar="TOKENS=MODEL")
    asked, models = parser.parse_args().models, []
    for _, model in asked:
        LanguageModel(load(model))  # says at once where one cannot be opened, or predicts no words
    for tokens, model in asked:
        models.append({"million_tokens": tokens, **known(model)})
        found = {"command": "python benchmarks/learning.py", **judging.provenance(), "models": models}
        found["heldout"] = {"text": HELDOUT, "sentences": SENTENCES}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(models[-1], flush=True)


def read(argument: str) -> tuple[float, Path]:
    """Return what an argument says."""
    tokens, _, model = argument.partition("=")
    if not model:
        raise argparse.ArgumentTypeError(f"expected TOKENS=MODEL, found {argument!r}")
    return float(tokens), Path(model)


def known(model: Path) -> dict[str, Any]:
    """Return what a model knows."""
    import perplexity

    elmo = load(model)
    heldout = list(islice(read_sentences(SHARED / "lm" / HELDOUT), SENTENCES))
    figures = perplexity.measure(elmo, heldout)
    return {"sha256": elmo.fingerprint, "perplexity": figures["mean"], **judged(model)}


if __name__ == "__main__":
    main()
