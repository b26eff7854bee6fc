"""A foreign format as a table: our name, their names and shape, how to read, how to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import Arrays, Checkpoint, Shape
from elmokit.errors import FormatError

Array = NDArray[np.floating]


def _only(arrays: Sequence[Array]) -> Array:
    return arrays[0]


def _alone(array: Array) -> list[Array]:
    return [array]


@dataclass(frozen=True)
class Rule:
    """One of our arrays and the foreign arrays it is made of, which all have one `shape` (None = any length)."""

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int | None, ...]
    read: Callable[[Sequence[Array]], Array] = _only
    write: Callable[[Array], Sequence[Array]] = _alone

    def fits(self, shape: Shape) -> bool:
        """Tell whether a foreign array of this shape is what the rule expects."""
        return len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )


def stacked(ours: str, theirs: tuple[str, ...], shape: Shape) -> Rule:
    """Our array stacks theirs along a new first axis (the two directions)."""
    return Rule(ours, theirs, shape, lambda arrays: np.stack(list(arrays)), list)


def reshaped(ours: str, theirs: str, shape: Shape, our_shape: Shape) -> Rule:
    """Our array is theirs without their axes of length one."""
    return Rule(ours, (theirs,), shape, lambda a: a[0].reshape(our_shape), lambda a: [a.reshape(shape)])


def check(rules: Sequence[Rule], shapes: Mapping[str, Shape], *, where: str) -> None:
    """Raise `FormatError` unless the foreign names are exactly those of the rules, each in its shape."""
    used = set()
    for rule in rules:
        for name in rule.theirs:
            used.add(name)
            if name not in shapes:
                raise FormatError(f"{where}: dataset {name!r} is missing; expected shape {rule.shape}")
            if not rule.fits(shapes[name]):
                raise FormatError(f"{where}: dataset {name!r}: expected shape {rule.shape}, found {shapes[name]}")
    for name, shape in shapes.items():
        if name not in used:
            raise FormatError(f"{where}: dataset {name!r} {shape} is not part of the network that the options describe")


def to_ours(rules: Sequence[Rule], fetch: Callable[[str], Array]) -> Arrays:
    """Read every rule; `fetch` gives a foreign array by name."""
    return {rule.ours: rule.read([fetch(name) for name in rule.theirs]) for rule in rules}


def to_theirs(rules: Sequence[Rule], arrays: Arrays) -> Arrays:
    """Write every rule: foreign name -> array."""
    pairs = ((rule.theirs, rule.write(arrays[rule.ours])) for rule in rules)
    return {name: array for names, parts in pairs for name, array in zip(names, parts, strict=True)}


def left_out(checkpoint: Checkpoint, *, head: bool, vocabulary: bool) -> list[str]:
    """Name what a checkpoint holds beside its network that no foreign format has room for.

    `head`: the softmax head is kept, unless it is adaptive; `vocabulary`: the list of words is kept.
    """
    heads = ["softmax.head.bias"] if head else ["softmax.head.bias", "softmax.bias"]
    parts = {"warm.h": "the warmed state", "mix.gamma": "the trained mixes of layers"}
    parts |= dict.fromkeys(heads, "the softmax head")
    lost = [what for name, what in parts.items() if name in checkpoint.arrays]
    lost += ["the vocabulary"] if checkpoint.vocabulary is not None and not vocabulary else []
    return lost + (["the model card"] if checkpoint.card else [])
