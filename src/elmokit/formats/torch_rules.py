"""What AllenNLP's modules and those of ELMoForManyLangs, which were made of them, have in common as tables.

Matrices are (out, in), convolutions (count, width of a character, width); the highway's gate is that of the old value;
gates stand in the order i, f, j, o, with the forget bias of 1 already in the bias (formats.md 3.3, 3.10). These rules
read; they do not write.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elmokit.config import CharCNN
from elmokit.formats.rules import Array, Rule


def convolution_rules(cnn: CharCNN, theirs: str) -> list[Rule]:
    """Return the rules of the filters; `theirs` is the name of one, with {} for its number."""
    rules = []
    for i, (width, count) in enumerate(cnn.filters):
        name, shape = theirs.format(i), (count, cnn.embedding.dim, width)
        rules += [
            Rule(f"cnn.{i}.weight", (f"{name}.weight",), shape, transposed),
            Rule(f"cnn.{i}.bias", (f"{name}.bias",), (count,)),
        ]
    return rules


def highway_rules(cnn: CharCNN, theirs: str) -> list[Rule]:
    """Return the rules of the highways; `theirs` is the name of one, with {} for its number."""
    N, rules = cnn.n_filters, []
    for k in range(cnn.n_highway):
        # Rows: the new value, then the gate of the old one; ours is the gate of the new one.
        for array, shape in (("weight", (2 * N, N)), ("bias", (2 * N,))):
            name = (f"{theirs.format(k)}.{array}",)
            rules.append(Rule(f"highway.{k}.transform.{array}", name, shape, lambda a: a[0][:N].T))
            rules.append(Rule(f"highway.{k}.carry.{array}", name, shape, lambda a: -a[0][N:].T))
    return rules


def cell_names(layer: int, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Return part of a layer -> the names of the forward and of the backward direction."""
    parts = {
        "input": "input_linearity.weight",
        "state": "state_linearity.weight",
        "bias": "state_linearity.bias",
        "projection": "state_projection.weight",
    }
    both = (f"{prefix}forward_layer_{layer}", f"{prefix}backward_layer_{layer}")
    return {ours: tuple(f"{side}.{part}" for side in both) for ours, part in parts.items()}


def transposed(arrays: Sequence[Array]) -> Array:
    """Return one array with its axes turned round."""
    return arrays[0].T


def both_transposed(arrays: Sequence[Array]) -> Array:
    """Return two directions' matrices, each turned round, as (Z, in, out)."""
    return np.stack([array.T for array in arrays])


def kernels(arrays: Sequence[Array]) -> Array:
    """Return two directions' weights of the gates, (4D, in) each, as (Z, in, 4D) in our order."""
    return np.stack([_in_our_gates(array).T for array in arrays])


def biases(arrays: Sequence[Array]) -> Array:
    """Return two directions' biases as (Z, 4D), the forget bias taken out; where each has two, they are added."""
    both = [sum(arrays[z + 2 :: 2], start=arrays[z]) for z in (0, 1)]
    bias_ZG = np.stack([_in_our_gates(array) for array in both])
    forget = np.zeros(4, np.float32)
    forget[2] = 1
    return bias_ZG - np.repeat(forget, bias_ZG.shape[1] // 4)


def _in_our_gates(array: Array) -> Array:
    """Put the gates i, f, j, o on the first axis in our order i, j, f, o."""
    i, f, j, o = np.split(array, 4)
    return np.concatenate([i, j, f, o])


def with_kernels(arrays: dict[str, Array]) -> dict[str, Array]:
    """Put the two parts of each kernel, `lstm.{k}.input` and `lstm.{k}.state`, together."""
    whole = {name: array for name, array in arrays.items() if not name.endswith((".input", ".state"))}
    for name in (name for name in arrays if name.endswith(".input")):
        layer = name.removesuffix(".input")
        whole[f"{layer}.kernel"] = np.concatenate([arrays[name], arrays[f"{layer}.state"]], axis=1)
    return whole
