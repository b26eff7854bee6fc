"""Is a review of a film favourable? The well-known Keras model: a string, ELMo, a layer of 256, one of 1.

    KERAS_BACKEND=tensorflow python examples/keras_imdb.py REVIEWS.jsonl.xz --reviews 2000

REVIEWS holds a review a line: {"text": ..., "label": "pos" or "neg"}, perhaps packed with xz. Nine tenths of
`--reviews` of them, taken evenly from the file, are learnt from, and accuracy is counted on the others. On the backends
that know no strings the reviews are packed before the model; the rest is the same.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from elmokit.keras import ElmoEmbedding

WORDS = 150


def read_reviews(path: Path, count: int) -> tuple[list[str], np.ndarray]:
    """`count` reviews, evenly from the file and then shuffled, and whether each is favourable, (N,) float32."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        reviews = [json.loads(line) for line in file]
    chosen = np.random.default_rng(0).permutation(np.linspace(0, len(reviews) - 1, count).astype(int))
    texts = [" ".join(reviews[i]["text"].split()[:WORDS]) for i in chosen]
    return texts, np.array([reviews[i]["label"] == "pos" for i in chosen], np.float32)


def build(elmo: ElmoEmbedding) -> keras.Model:
    """The model of the tutorial."""
    if keras.backend.backend() == "tensorflow":
        given = keras.layers.Input(shape=(1,), dtype="string")
    else:
        given = keras.layers.Input(shape=(None, elmo.words.width), dtype=elmo.words.dtype)
    embedding = elmo(given)
    dense = keras.layers.Dense(256, activation="relu")(embedding)
    predicted = keras.layers.Dense(1, activation="sigmoid")(dense)
    model = keras.Model(inputs=[given], outputs=predicted)
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


def as_input(elmo: ElmoEmbedding, texts: Sequence[str]) -> Any:
    """What the model takes for the texts: strings on TensorFlow, packed words elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return elmo.prepare(texts)
    import tensorflow as tf

    return tf.constant(texts)[:, tf.newaxis]  # Keras 3 itself refuses a NumPy array of strings with two axes


def main() -> None:
    """Train and print the accuracy."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("reviews_file", type=Path, metavar="REVIEWS")
    options.add_argument("--reviews", type=int, default=2000)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--model", help="what elmokit.load opens; by default the bundled model")
    given = options.parse_args()
    keras.utils.set_random_seed(0)
    texts, labels = read_reviews(given.reviews_file, given.reviews)
    elmo = ElmoEmbedding(given.model)
    model, n = build(elmo), given.reviews // 10
    learnt, held = as_input(elmo, texts[n:]), as_input(elmo, texts[:n])
    model.fit(learnt, labels[n:], validation_data=(held, labels[:n]), epochs=given.epochs, batch_size=32, verbose=2)
    print(f"accuracy on {n} other reviews: {model.evaluate(held, labels[:n], verbose=0)[1]:.3f}")


if __name__ == "__main__":
    main()
