"""Models with random weights in the published shapes: options.json and weights.hdf5 as AllenNLP reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FILTERS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
# Name: cells, projection, highways.
SHAPES = {"small": (1024, 128, 1), "medium": (2048, 256, 1), "original": (4096, 512, 2)}
CHARACTERS = 261
# The recurrence must not be chaotic, or two exact implementations drift apart within a sentence.
INPUT_GAIN, RECURRENT_GAIN, OUTPUT_GAIN = 1.0, 0.5, 2.0


def options(shape: str, *, layers: int = 2, cells: int | None = None) -> dict[str, Any]:
    """The options.json of one of `SHAPES`, or of a deeper or wider one."""
    published, projection, highways = SHAPES[shape]
    return {
        "lstm": {
            "use_skip_connections": True,
            "projection_dim": projection,
            "cell_clip": 3,
            "proj_clip": 3,
            "dim": cells or published,
            "n_layers": layers,
        },
        "char_cnn": {
            "activation": "relu",
            "filters": FILTERS,
            "n_highway": highways,
            "embedding": {"dim": 16},
            "n_characters": 262,
            "max_characters_per_token": 50,
        },
    }


def write(folder: Path, shape: str, *, seed: int, layers: int = 2, cells: int | None = None) -> None:
    """Write the two files; the same seed gives the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = options(shape, layers=layers, cells=cells)
    (folder / "options.json").write_text(json.dumps(config), encoding="utf-8")
    rng = np.random.default_rng(seed)
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, size, std in [*word_arrays(config["char_cnn"], config["lstm"]), *lstm_arrays(config["lstm"])]:
            values = rng.standard_normal(size, np.float32)
            values *= std
            file[name] = values


def word_arrays(cnn: dict[str, Any], lstm: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Name, size and standard deviation of each array of the word encoder."""
    width_of_character = cnn["embedding"]["dim"]
    total = sum(count for _, count in cnn["filters"])
    yield "char_embed", (CHARACTERS, width_of_character), 0.6
    for i, (width, count) in enumerate(cnn["filters"]):
        yield f"CNN/W_cnn_{i}", (1, width, width_of_character, count), (width * width_of_character) ** -0.5
        yield f"CNN/b_cnn_{i}", (count,), 0.1
    for k in range(cnn["n_highway"]):
        for gate in ("carry", "transform"):
            yield f"CNN_high_{k}/W_{gate}", (total, total), (2 * total) ** -0.5
            yield f"CNN_high_{k}/b_{gate}", (total,), 0.3
    yield "CNN_proj/W_proj", (total, lstm["projection_dim"]), total**-0.5
    yield "CNN_proj/b_proj", (lstm["projection_dim"],), 0.1


def lstm_arrays(lstm: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Name, size and standard deviation of each array of the two directions."""
    cells, projection = lstm["dim"], lstm["projection_dim"]
    gains = np.repeat([[INPUT_GAIN], [RECURRENT_GAIN]], projection, axis=0).astype(np.float32)
    for direction in range(2):
        for layer in range(lstm["n_layers"]):
            group = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell/"
            yield group + "W_0", (2 * projection, 4 * cells), gains * projection**-0.5
            yield group + "B", (4 * cells,), 0.2
            yield group + "W_P_0", (cells, projection), OUTPUT_GAIN * cells**-0.5
