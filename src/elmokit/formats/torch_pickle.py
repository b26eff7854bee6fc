"""Tensors saved by torch (`torch.save` of a state dict), in its zip format and in the one before it.

A pickle is a program. Torch runs it with `weights_only=True`, and only after it was read here without running it: it
may use but the few instructions and names that a state dict needs, and every storage it asks for must be in the file.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pickletools import genops
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import FormatError

_ITEM_SIZES = {
    "torch FloatStorage": 4, "torch DoubleStorage": 8, "torch HalfStorage": 2, "torch BFloat16Storage": 2,
    "torch LongStorage": 8, "torch IntStorage": 4, "torch ShortStorage": 2, "torch CharStorage": 1,
    "torch ByteStorage": 1, "torch BoolStorage": 1,
}  # fmt: skip
_NAMES = {"collections OrderedDict", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", *_ITEM_SIZES}
# A description of tensors, without their numbers; that of ELMo takes 5 kB.
_MAX_PICKLE = 1 << 22
_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the five pickles of a file in the older format
_N_PICKLES = 5


def read_state_dict(file: BinaryIO, *, size: int, where: str) -> dict[str, NDArray[np.float32]]:
    """Return name -> array of a file of `size` bytes that holds a state dict.

    Tensors of whole numbers or truth values, counters and masks of a larger model, are left out. Raises `FormatError`,
    naming `where`, for everything else.
    """
    try:
        with _checked(file, size) as checked:
            return _loaded(checked, size)
    except _Refused as error:
        raise FormatError(f"{where} is not a file of torch tensors alone ({error}); it is not opened") from None
    except Exception as error:  # what is broken may break anything inside torch
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise FormatError(f"{where} is not a whole file of torch tensors ({reason}); copy or fetch it again") from None


def packed_state_dict(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the file that `torch.save` makes of a state dict of these arrays, in their order."""
    import torch

    file = BytesIO()
    tensors = {name: torch.from_numpy(np.array(array, np.float32, order="C")) for name, array in arrays.items()}
    torch.save(OrderedDict(tensors), file)
    return file.getvalue()


class _Refused(Exception):
    """The file is not what it should be; the text says what was found."""


def _loaded(file: BinaryIO, size: int) -> dict[str, NDArray[np.float32]]:
    import torch  # loaded only for files of torch: it takes seconds

    tensors = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict):
        raise _Refused(f"found {type(tensors).__name__}, expected a dictionary")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise _Refused(f"{str(name)[:80]!r} is {type(tensor).__name__}, expected a tensor")
    # A tensor may show few numbers many times over.
    if (claimed := sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())) > 2 * size:
        raise _Refused(f"its tensors claim {claimed:,} bytes, the file holds {size:,}")
    return {name: tensor.float().numpy() for name, tensor in tensors.items() if tensor.is_floating_point()}


@contextmanager
def _checked(file: BinaryIO, size: int) -> Iterator[BinaryIO]:
    """Check the file and give what torch shall read."""
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        with tempfile.TemporaryFile() as copy:
            _copy_zip(file, copy, size)
            copy.seek(0)
            yield copy
        return
    _check_older(BytesIO(file.read(min(size, _MAX_PICKLE))), size)
    file.seek(0)
    if tarfile.is_tarfile(file):  # torch has a third format: it would read other parts of the file than were checked
        raise _Refused("it is a tar as well")
    file.seek(0)
    yield file


def _copy_zip(file: BinaryIO, copy: BinaryIO, size: int) -> None:
    """Copy the members that Python finds, so that torch reads no others; their checksums are compared on the way."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as plain:
        members = {info.filename: info for info in archive.infolist()}
        _check_zip(archive, members, size)
        for name, info in members.items():
            with archive.open(info) as source, plain.open(name, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)


def _check_zip(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], size: int) -> None:
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise _Refused("it is compressed, which torch does not do")
    if (claimed := sum(info.file_size for info in members.values())) > size:
        raise _Refused(f"its parts claim {claimed:,} bytes, the file holds {size:,}")
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1 or members[pickles[0]].file_size > _MAX_PICKLE:
        raise _Refused(f"found {len(pickles)} descriptions of tensors in it, expected a short one")
    for key, claim in _storages(BytesIO(archive.read(pickles[0]))).items():
        held = members[f"{pickles[0].removesuffix('data.pkl')}data/{key}"].file_size
        if claim != held:
            raise _Refused(f"storage {key!r} claims {claim:,} bytes, found {held:,}")


def _check_older(file: BytesIO, size: int) -> None:
    """Check a file of five pickles (a mark, the format's version, the machine, the tensors, their keys) and numbers."""
    mark = [argument for instruction, argument in _instructions(file) if instruction == "LONG1"]
    if mark != [_MAGIC]:
        raise _Refused("it does not begin as torch's files do")
    claims: dict[str, int] = {}
    for _ in range(_N_PICKLES - 1):
        claims |= _storages(file)
    if (claimed := sum(claims.values())) > (left := size - file.tell()):
        raise _Refused(f"its storages claim {claimed:,} bytes, the file holds {left:,}")


# ---------------------------------------------------------------- reading a pickle without running it

_MARK = object()
# Instructions by what they do to the stack: take this many values, put one; None takes all back to the last mark.
_TAKES: dict[str, int | None] = {
    "EMPTY_TUPLE": 0, "EMPTY_DICT": 0, "EMPTY_LIST": 0, "NONE": 0, "NEWTRUE": 0, "NEWFALSE": 0,
    "TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "BUILD": 2, "APPEND": 2, "SETITEM": 3,
    "APPENDS": None, "SETITEMS": None, "BINPERSID": 1,
}  # fmt: skip
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "GLOBAL", "SHORT_BINSTRING", "BINSTRING"}


def _instructions(file: BytesIO) -> Iterator[tuple[str, Any]]:
    """Yield the instructions of one pickle with their arguments; leave `file` behind its end."""
    for instruction, argument, _ in genops(file):
        if instruction.name == "GLOBAL" and argument not in _NAMES:
            raise _Refused(f"it names {str(argument)[:80]!r}, expected tensors of numbers")
        yield instruction.name, argument


def _storages(file: BytesIO) -> dict[str, int]:
    """Return key -> bytes of each storage that a pickle asks for. Nothing is built but tuples, nothing is called."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    claims: dict[str, int] = {}
    for name, argument in _instructions(file):
        if name in _VALUES:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TAKES:
            taken = _take(stack, _TAKES[name])
            if name in ("APPENDS", "SETITEMS"):
                taken = _take(stack, 1)
            if name == "BINPERSID":
                key, claim = _claim(taken[0])
                if claims.setdefault(key, claim) != claim:
                    raise _Refused(f"storage {key!r} claims both {claims[key]:,} and {claim:,} bytes")
            stack.append(tuple(taken) if name == "TUPLE" else None)
        elif name not in ("PROTO", "STOP"):
            raise _Refused(f"it has the instruction {name}, which no state dict needs")
    return claims


def _take(stack: list[Any], n: int | None) -> list[Any]:
    if n is None:
        n = next(i for i, value in enumerate(reversed(stack)) if value is _MARK)
        taken = _take(stack, n)
        stack.pop()
        return taken
    if n > len(stack):
        raise _Refused("its instructions do not fit together")
    taken = stack[len(stack) - n :]
    del stack[len(stack) - n :]
    return taken


def _claim(storage: Any) -> tuple[str, int]:
    """Return key and bytes of ("storage", type, key, place, length), in the older format with None at the end."""
    mark, kind, key, _, length, *view = storage
    is_claim = mark == "storage" and kind in _ITEM_SIZES and isinstance(key, str) and isinstance(length, int)
    if not is_claim or length < 0 or view not in ([], [None]):
        raise _Refused("it asks for something other than a storage of numbers")
    return key, length * _ITEM_SIZES[kind]
