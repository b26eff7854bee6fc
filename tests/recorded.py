"""What the tests against recorded outputs share: reading them, how exact they are, batches as they were recorded."""

import re

import numpy as np

# Sizes of the batches of each recorded run over nine sentences, state carried.
BATCHES = {"fresh": [9], "carried": [3, 3, 3], "ragged": [3, 1, 3, 2]}


def read_lines(path):
    """Tokenised sentences, one a line."""
    return [line.split() for line in path.read_text("utf-8").removesuffix("\n").split("\n")]


def stated_tolerance(folder):
    """Three times the largest measured distance of the recorded float32 values from an exact computation."""
    measured = re.search(r"Measured: .*", (folder / "README.md").read_text("utf-8")).group()
    return 3 * max(float(x) for x in re.findall(r"\d\.\d+e-\d+", measured))


def in_batches(items, sizes):
    """The items, as many at a time as recorded."""
    ends = np.cumsum(sizes).tolist()
    return [items[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def two_files(folder, weights="weights.hdf5"):
    """What the old constructors take first: options and weights."""
    return str(folder / "options.json"), str(folder / weights)
