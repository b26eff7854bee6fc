"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, in NumPy: 400 MB take seconds, not minutes.

A message is a polynomial over two elements and its checksum the remainder by P, of degree 32. Squaring k times gives
P(x)^(2^k) = P(x^(2^k)), a multiple of P whose powers are 2^k bits apart: whole blocks of bytes. Dividing by that first
leaves 32 blocks with the same remainder, and takes only the XOR of whole blocks into later ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_P = 0x1EDC6F41  # without x^32
_TAPS = [power for power in range(32) if _P >> power & 1]
# Blocks this near do not reach one another, for the highest of the taps is 28: they are added in one operation.
_TOGETHER = 32 - max(_TAPS)
# Bytes of a block: first what the second-level cache holds 64 of, then less, until a plain loop takes over.
_WIDTHS = (8192, 512, 64)

_Octets = NDArray[np.uint8]


def crc32c(data: bytes | _Octets) -> int:
    """Return the checksum of some bytes."""
    message = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    for width in _WIDTHS:
        if message.size >= 64 * width:
            message = _shortened(message, width)
    state = 0xFFFFFFFF
    for octet in message.tobytes():
        state = _TABLE[(state ^ octet) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def unmasked(value: int) -> int:
    """Return the checksum that TensorFlow and LevelDB store as `value`: turned by 15 bits, and a constant added."""
    turned = (value - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def masked(checksum: int) -> int:
    """Return what TensorFlow and LevelDB store of a checksum."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _shortened(message: _Octets, width: int) -> _Octets:
    """Return a message of 32 * `width` bytes that has the same checksum; `width` is a power of two."""
    half = 32 * width
    window = np.zeros(2 * half, np.uint8)
    blocks = window.view(np.uint64).reshape(64, -1)
    # The first part is what leaves a multiple of the rest; zeros in front of it do not count. A checksum starts by
    # inverting four bytes: done here, and undone for the message that is returned.
    first = 4 + (message.size - 4) % half
    window[-first:] = message[:first]
    window[-first:][:4] ^= 0xFF
    _divide(blocks)
    for start in range(first, message.size, half):
        window[:half] = window[half:]
        window[half:] = message[start : start + half]
        _divide(blocks)
    rest = window[half:]
    rest[:4] ^= 0xFF
    return rest


def _divide(blocks: NDArray[np.uint64]) -> None:
    """Carry the first 32 of 64 blocks over into the last 32."""
    for i in range(0, 32, _TOGETHER):
        for power in _TAPS:
            blocks[i + 32 - power : i + 32 - power + _TOGETHER] ^= blocks[i : i + _TOGETHER]


def _table() -> list[int]:
    """Return the effect of each value of a byte on the state, lowest bit first (hence the mirrored polynomial)."""
    mirrored = int(f"{_P:032b}"[::-1], 2)
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ mirrored * (value & 1) for value in table]
    return table


_TABLE = _table()
