"""How our own format keeps arrays in its safetensors file: in float32, in float16, or with the head in 8 bits.

A matrix of the head in 8 bits is an I8 array under its name and, under that name with ".scale", one F32 number for each
row: the row is their product. The largest value of a row is 127 of its scales, so no weight is off by more than half a
scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import FormatError, MismatchError, expect_one_of

# "int8": the matrices of the softmax head in 8 bits, all else in float16.
StoredDtype: TypeAlias = Literal["float32", "float16", "int8"]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_SCALE = ".scale"


def stored_arrays(arrays: Mapping[str, NDArray[np.floating]], dtype: StoredDtype) -> dict[str, NDArray[Any]]:
    """Return the arrays as the file has them, or raise `MismatchError` where one does not fit into float16."""
    expect_one_of(get_args(StoredDtype), dtype, "dtype")
    found: dict[str, NDArray[Any]] = {}
    for name, array in sorted(arrays.items()):
        if dtype == "int8" and name.startswith("softmax.") and array.ndim == 2:
            found[name], found[name + _SCALE] = _in_8_bits(array)
        else:
            found[name] = _rounded(name, array, "float32" if dtype == "float32" else "float16")
    return found


def _in_8_bits(array: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scale_V = (np.abs(array).max(1, initial=0.0) / 127).astype(np.float32)
    steps = array / np.where(scale_V == 0, 1, scale_V)[:, None]
    return np.rint(steps).clip(-127, 127).astype(np.int8), scale_V


def _rounded(name: str, array: NDArray[np.floating], dtype: str) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):
        stored: NDArray[np.floating] = np.ascontiguousarray(array, dtype)
    if (np.isinf(stored) & np.isfinite(array)).any():
        raise MismatchError(
            f"array {name!r} holds {np.abs(array).max():g}, and float16 reaches only to 65504; write float32"
        )
    return stored


def read_arrays(path: Path, *, check: Callable[[Shapes], None]) -> dict[str, NDArray[np.float32]]:
    """Read all arrays of a safetensors file as float32; `check` sees their shapes before anything is allocated."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            scaled = {name for name, part in parts.items() if part.get_dtype() == "I8"}
            stored = {name: tuple(part.get_shape()) for name, part in parts.items()}
            for name, part in parts.items():
                if part.get_dtype() not in ("F16", "F32", "F64") and name not in scaled:
                    raise FormatError(f"{path}: array {name!r}: expected F16, F32 or F64, found {part.get_dtype()}")
            scales = {name + _SCALE for name in scaled}
            for name in sorted(scaled):
                found, expected = stored.get(name + _SCALE), stored[name][:1]
                if len(stored[name]) != 2 or found != expected or name + _SCALE in scaled:
                    raise FormatError(
                        f"{path}: array {name!r} is of 8 bits: expected a matrix with {name + _SCALE!r}, one number "
                        f"for each of its rows; found {stored[name]} and {found or 'none'}"
                    )
            shapes = {name: shape for name, shape in stored.items() if name not in scales}
            check(shapes)
            return {name: _read(file, name, scaled=name in scaled) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a whole safetensors file ({error}); copy or fetch it again") from None


def _read(file: Any, name: str, *, scaled: bool) -> NDArray[np.float32]:
    array: NDArray[np.float32] = file.get_tensor(name).astype(np.float32, copy=False)
    return array * file.get_tensor(name + _SCALE).astype(np.float32)[:, None] if scaled else array
