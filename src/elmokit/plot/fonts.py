"""Fonts for names in any script: matplotlib's own has Latin, Greek, Cyrillic, Hebrew, Arabic letters, and few more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from elmokit.errors import require

_FIRST = "DejaVu Sans"
# Fonts of dots or of pictures, taken only where no other has a letter; and one that draws a sign for every letter.
_LAST, _NEVER = ("Unifont", "Noto Color Emoji"), "Last Resort"


def families(texts: Iterable[str]) -> list[str]:
    """Return the fonts of this machine that are needed for texts, the usual one first.

    Letters that none of them has are drawn as boxes.
    """
    manager: Any = require("matplotlib.font_manager", extra="plot")
    letters = {letter for text in texts for letter in text if not letter.isspace()}
    missing = _lacking(manager, manager.findfont(_FIRST), letters)
    chosen = [_FIRST]
    for font in _candidates(manager) if missing else ():
        left = _lacking(manager, font.fname, missing)
        if len(left) < len(missing):
            chosen.append(font.name)
            missing = left
        if not missing:
            break
    return chosen


def _candidates(manager: Any) -> list[Any]:
    upright = [
        font
        for font in manager.fontManager.ttflist
        if font.style == "normal" and font.weight == 400 and not font.name.startswith((_FIRST, _NEVER))
    ]
    return sorted(upright, key=lambda font: (font.name.startswith(_LAST), font.name))


def _lacking(manager: Any, path: str, letters: set[str]) -> set[str]:
    font = manager.get_font(path)
    return {letter for letter in letters if not font.get_char_index(ord(letter))}
