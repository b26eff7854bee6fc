"""What AllenNLP's modules and those of ELMoForManyLangs, which were made of them, have in common as tables.

Matrices are (out, in), convolutions (count, width of a character, width); the highway's gate is that of the old value;
gates stand in the order i, f, j, o, with the forget bias of 1 already in the bias. Of a highway
and of a kernel the rules know other parts than we do: `in_our_parts` and `in_their_parts` go between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from elmokit.config import CharCNN
from elmokit.formats.rules import Array, Rule


def convolution_rules(cnn: CharCNN, theirs: str) -> list[Rule]:
    """Return the rules of the filters; `theirs` is the name of one, with {} for its number."""
    rules = []
    for i, (width, count) in enumerate(cnn.filters):
        name, shape = theirs.format(i), (count, cnn.embedding.dim, width)
        rules += [
            transposed(f"cnn.{i}.weight", f"{name}.weight", shape),
            Rule(f"cnn.{i}.bias", (f"{name}.bias",), (count,)),
        ]
    return rules


def highway_rules(cnn: CharCNN, theirs: str) -> list[Rule]:
    """Return the rules of the highways; `theirs` is the name of one, with {} for its number."""
    N, rules = cnn.n_filters, []
    for k in range(cnn.n_highway):
        name = theirs.format(k)
        rules.append(transposed(f"highway.{k}.both.weight", f"{name}.weight", (2 * N, N)))
        rules.append(Rule(f"highway.{k}.both.bias", (f"{name}.bias",), (2 * N,)))
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


def transposed(ours: str, theirs: str, shape: tuple[int | None, ...]) -> Rule:
    """Our array is theirs with its axes turned round."""
    return Rule(ours, (theirs,), shape, lambda arrays: arrays[0].T, lambda array: [array.T])


def both_transposed(ours: str, theirs: tuple[str, ...], shape: tuple[int | None, ...]) -> Rule:
    """Our array (Z, in, out) is two directions' matrices, each turned round."""
    return Rule(ours, theirs, shape, lambda arrays: np.stack([a.T for a in arrays]), lambda ours: [a.T for a in ours])


def gates(ours: str, theirs: tuple[str, ...], shape: tuple[int | None, ...]) -> Rule:
    """Our array (Z, in, 4D) is two directions' weights of the gates, (4D, in) each."""
    return Rule(
        ours,
        theirs,
        shape,
        lambda arrays: np.stack([_swapped_gates(array).T for array in arrays]),
        lambda array: [_swapped_gates(part.T) for part in array],
    )


def gate_biases(ours: str, theirs: tuple[str, ...], shape: tuple[int | None, ...]) -> Rule:
    """Our array (Z, 4D) is two directions' biases; where each has two, they are added, and written as one and zeros.

    The forget bias of 1 is taken out and put in again, which rounds the least of the numbers by up to 6e-8.
    """

    def read(arrays: Sequence[Array]) -> Array:
        both = [sum(arrays[z + 2 :: 2], start=arrays[z]) for z in (0, 1)]
        bias_ZG = np.stack([_swapped_gates(array) for array in both])
        return bias_ZG - _forget_bias(bias_ZG.shape[1])

    def write(bias_ZG: Array) -> list[Array]:
        both = [_swapped_gates(bias) for bias in bias_ZG + _forget_bias(bias_ZG.shape[1])]
        return [*both, *(np.zeros_like(both[0]) for _ in theirs[2:])]

    return Rule(ours, theirs, shape, read, write)


def _forget_bias(n_gates: int) -> Array:
    forget = np.zeros(4, np.float32)
    forget[2] = 1
    return np.repeat(forget, n_gates // 4)


def _swapped_gates(array: Array) -> Array:
    """Change the gates on the first axis from the order i, f, j, o to i, j, f, o, or back."""
    first, second, third, last = np.split(array, 4)
    return np.concatenate([first, third, second, last])


def in_our_parts(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Join `lstm.{k}.input` and `.state`, a kernel; part `highway.{k}.both`, the new value and the gate of the old one,
    into `transform` and `carry`, ours being the gate of the new one."""
    ours: dict[str, Array] = {}
    for name, array in arrays.items():
        if name.endswith(".input"):
            state = arrays[f"{name.removesuffix('.input')}.state"]
            ours[name.replace(".input", ".kernel")] = np.concatenate([array, state], axis=1)
        elif ".both." in name:
            new, old = np.split(array, 2, axis=-1)
            ours |= {name.replace("both", "transform"): new, name.replace("both", "carry"): -old}
        elif not name.endswith(".state"):
            ours[name] = array
    return ours


def in_their_parts(arrays: Mapping[str, Array], *, state_dim: int) -> dict[str, Array]:
    """Undo `in_our_parts`; the last `state_dim` rows of a kernel are those of the state."""
    theirs: dict[str, Array] = {}
    for name, array in arrays.items():
        if name.endswith(".kernel"):
            parts = np.split(array, [array.shape[1] - state_dim], axis=1)
            theirs |= {name.replace("kernel", part): a for part, a in zip(("input", "state"), parts, strict=True)}
        elif ".transform." in name:
            both = [array, -arrays[name.replace("transform", "carry")]]
            theirs[name.replace("transform", "both")] = np.concatenate(both, axis=-1)
        elif ".carry." not in name:
            theirs[name] = array
    return theirs
