"""What is asked for of all layers: some of them or a mix, and a vector for each token or one for the sentence.

Axes: L layers, M places of a batch without padding, T tokens, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elmokit.errors import MismatchError, expect, expect_one_of, shown

Layers: TypeAlias = Literal["all", "top", "average"] | int | Sequence[float]
Pool: TypeAlias = Literal["none", "mean", "max"]
Vectors: TypeAlias = NDArray[np.float32]
# From layers (M, D) and the lengths of the sentences in M, marks included, to what is asked for of each.
Reduction: TypeAlias = Callable[[Sequence[Tensor], Sequence[int]], list[Vectors]]
_EXPECTED = "a name, a number or one weight a layer"


def reduction(layers: Layers, pool: Pool, *, n_layers: int) -> Reduction:
    """Return the function that makes of a batch what `layers` and `pool` of `Elmo.embed` ask for, without the marks.

    Raises `MismatchError` for layers that a model of `n_layers` does not have.
    """
    select = _selector(layers, n_layers)
    expect_one_of(_POOLS, pool, "pool")
    pooled = _POOLS[pool]

    def reduce(layers_LMD: Sequence[Tensor], lengths: Sequence[int]) -> list[Vectors]:
        parts = select(torch.stack(list(layers_LMD)).float()).cpu().split(lengths, dim=-2)
        # A copy of its own, so that one array that is kept does not hold the memory of its whole batch.
        return [np.array(pooled(part[..., 1:-1, :]).numpy(), order="C") for part in parts]

    return reduce


# ---------------------------------------------------------------- which layers


def plain_layers(layers: Layers) -> str | int | list[float]:
    """Return `layers` as JSON holds it, and as it can be compared: an array of weights has no one answer to ==.

    Raises `MismatchError` for what can be no layers.
    """
    if isinstance(layers, str):
        return layers
    if isinstance(layers, bool):  # which Python counts among the numbers
        expect((), layers, "layers", _EXPECTED)
    if isinstance(layers, int | np.integer):
        return int(layers)
    try:
        return [float(weight) for weight in layers]
    except (TypeError, ValueError):
        raise MismatchError(f"layers: expected {_EXPECTED}, found {shown(layers)}") from None


def _selector(layers: Layers, n_layers: int) -> Callable[[Tensor], Tensor]:
    """Return the function from (L, M, D) to what `layers` asks for."""
    asked = plain_layers(layers)
    if isinstance(asked, str):
        expect_one_of(_NAMED, asked, "layers")
        return _NAMED[asked]
    if isinstance(asked, int):
        if not -n_layers <= asked < n_layers:
            raise MismatchError(f"layer {asked} does not exist; this model has layers 0 to {n_layers - 1}")
        return lambda stack: stack[asked]
    weights = torch.tensor(asked)
    if not weights.isfinite().all():
        raise MismatchError(f"layers: expected finite weights, found {weights.tolist()}")
    if len(weights) != n_layers:
        raise MismatchError(f"expected {n_layers} layer weights, one a layer, found {len(weights)}")
    return lambda stack: torch.tensordot(weights.to(stack.device), stack, dims=1)


_NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda stack: stack,
    "top": lambda stack: stack[-1],
    "average": lambda stack: stack.mean(0),
}


# ---------------------------------------------------------------- pooling


def _mean(x: Tensor) -> Tensor:
    return x.sum(-2) / max(1, x.shape[-2])


def _max(x: Tensor) -> Tensor:
    return x.amax(-2) if x.shape[-2] else x.sum(-2)


_POOLS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "mean": _mean, "max": _max}
