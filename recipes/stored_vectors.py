"""Dump once, train many times: vectors written by `elmo embed`, then read from the file by whatever learns from them.

    python recipes/stored_vectors.py --work work/

Parts of speech again, but with the two halves apart. First the command writes all layers of every sentence as float16,
here to HDF5 and to Parquet (`pip install 'elmokit[arrow]'`); neither holds a pickle, and both are read without elmokit.
Then a linear softmax learns from the file alone, once for each layer and seed, in seconds each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import torch
from command import about, arguments, read, told_plainly
from numpy.typing import NDArray
from parts_of_speech import POS
from results import Results
from torch import nn
from trainer import Example

from elmokit import load

PARTS = ("train", "test")
# All layers of all words, (L, M, D).
Layers = NDArray[np.float16]


def main() -> None:
    """Write the files, train from each, write the scores."""
    told = arguments(__doc__).parse_args()
    torch.set_num_threads(told.threads)
    parts = read(POS, told)
    made_with = about(POS, told, parts, load(told.model))
    named = "recipe", "metric", "data", "quick", "model"
    results = Results(
        (told.results or told.work / "results") / "stored-vectors.json",
        {name: made_with[name] for name in named} | {"recipe": "stored-vectors"},
    )
    folder = told.work / f"dumped-{made_with['model']['fingerprint']}-{made_with['data']['digest']}"
    for ending, reader in (("hdf5", read_hdf5), ("parquet", read_parquet)):
        stacks = {p: reader(dump(getattr(parts, p), folder / f"{p}.{ending}", told.model)) for p in PARTS}
        for layer in range(len(stacks["train"])):
            for seed in range(1, (1 if told.quick else told.seeds) + 1):
                name = {"system": f"layer {layer}, {ending}", "seed": seed}
                if not results.has(**name):
                    train, test = (side(stacks[p], getattr(parts, p), layer) for p in PARTS)
                    results.add({**name, "score": linear(*train, *test, seed=seed)})
    results.print_means()


def dump(examples: Sequence[Example], out: Path, model: str | None) -> Path:
    """Write all layers of the sentences with the command, unless the file is there."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        text = out.with_suffix(".txt")
        text.write_text("".join(" ".join(one.sentences[0]) + "\n" for one in examples), encoding="utf-8")
        command = [sys.executable, "-m", "elmokit", "embed", str(text), str(out), "--all", "--dtype", "float16"]
        subprocess.run([*command, *(["--model", model] if model else []), "--resume"], check=True)
    return out


def read_hdf5(file: Path) -> Layers:
    """Return the vectors of HDF5, where each sentence is an array (L, T, D) under its number."""
    with h5py.File(file) as source:
        keys = sorted(source.keys() - {"sentence_to_index"}, key=int)
        return np.concatenate([source[key][()] for key in keys], axis=1)


def read_parquet(file: Path) -> Layers:
    """Return the vectors of Parquet, where each sentence is a row and each layer a column of lists of vectors."""
    table = pq.read_table(file)
    layers = [table[name].combine_chunks() for name in table.column_names if name.startswith("layer_")]
    width = layers[0].type.value_type.list_size
    return np.stack([layer.flatten().flatten().to_numpy().reshape(-1, width) for layer in layers])


def side(stacks: Layers, examples: Sequence[Example], layer: int) -> tuple[torch.Tensor, list[str]]:
    """Return one layer's vectors of all words (M, D) and their tags."""
    return torch.from_numpy(stacks[layer]).float(), [tag for one in examples for tag in one.right]


def linear(
    train_MD: torch.Tensor, train: list[str], test_MD: torch.Tensor, test: list[str], *, seed: int, epochs: int = 5
) -> float:
    """Return the accuracy of a linear softmax after a few passes."""
    torch.manual_seed(seed)
    tags = sorted(set(train))
    right = torch.tensor([tags.index(tag) for tag in train])
    network = nn.Sequential(nn.BatchNorm1d(train_MD.shape[1]), nn.Linear(train_MD.shape[1], len(tags)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(right)).split(512):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(train_MD[rows]), right[rows]).backward()
            optimizer.step()
    found = network.eval()(test_MD).argmax(1).tolist()
    return sum(tags[n] == tag for n, tag in zip(found, test, strict=True)) / len(test)


if __name__ == "__main__":
    with told_plainly():
        main()
