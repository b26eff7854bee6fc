"""Layers by their names, as commands take them: "average", "top", "mix", "0", "1", ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elmokit.errors import MismatchError, expect

if TYPE_CHECKING:
    from elmokit.model import Elmo


def layer_weights(elmo: Elmo, name: str) -> list[float]:
    """Return the weight of each layer: of "average", "top", "mix" (the trained one), or a layer's number.

    Raises `MismatchError` for a layer or a mix that is not there.
    """
    expect(str, name, "layer", 'a name, "average", "top", "mix" or a number as a string')
    n = elmo.n_layers
    if name == "average":
        return [1 / n] * n
    if name == "mix":
        return _trained(elmo)
    numbers = [*map(str, range(n))]
    if name != "top" and name not in numbers:
        raise MismatchError(f"layer {name!r} is not there; this model has average, top, mix, {', '.join(numbers)}")
    chosen = n - 1 if name == "top" else int(name)
    return [float(number == chosen) for number in range(n)]


def called(name: str) -> str:
    """Return the name of a layer as pictures have it."""
    return f"layer {name}" if name.isdecimal() else name


def _trained(elmo: Elmo) -> list[float]:
    if len(elmo.mixes) != 1:
        found = f"this model holds {len(elmo.mixes)} trained mixes of its layers"
        raise MismatchError(f"layer 'mix': {found}, expected one; take 'average', or a layer")
    return [float(share) for share in elmo.mixes[0]]
