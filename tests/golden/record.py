"""Record the vectors of the bundled model that tests/test_golden.py compares with; once for each new model.

    python tests/golden/record.py

writes vectors.npz beside this file: every layer of every sentence of sentences.txt, and the fingerprint of the model.
"""

from pathlib import Path

import numpy as np

import elmokit

HERE = Path(__file__).parent
VECTORS = HERE / "vectors.npz"
SENTENCES = [line.split() for line in (HERE / "sentences.txt").read_text("utf-8").splitlines()]


def main() -> None:
    elmo = elmokit.load()
    arrays = {str(i): layers for i, layers in enumerate(elmo.embed(SENTENCES, layers="all"))}
    np.savez_compressed(VECTORS, fingerprint=np.array(elmo.fingerprint), **arrays)


if __name__ == "__main__":
    main()
