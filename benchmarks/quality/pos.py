"""Parts of speech from a linear probe on each layer: UD English EWT, universal and Penn Treebank tags.

    python benchmarks/quality/pos.py [--model MODEL] [--static static.kv] [--quick]

How much the probe's weights are held back is chosen on the dev part for the universal tags; the tags of the treebank
are read with the same strength. Every sentence is embedded once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import judging
import numpy as np
from judging import System, percent
from numpy.typing import NDArray
from probe import STRENGTHS, chosen, fit

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Tagged:
    """A sentence of a treebank: words, universal and treebank tags, side by side."""

    words: list[str]
    upos: list[str]
    xpos: list[str]


@dataclass(frozen=True)
class Tokens:
    """The tokens of a part: layers (L, N, D) and their tags."""

    layers: NDArray[np.float32]
    upos: list[str]
    xpos: list[str]


def main() -> None:
    """Judge every system and write the result."""
    told = judging.comparing(__doc__).parse_args()
    parts = treebank(told)
    strengths = STRENGTHS[:1] if told.quick else STRENGTHS
    found = {system.name: judge(system, parts, strengths=strengths) for system in judging.systems(told)}
    data = {part: {"sentences": len(s), "tokens": sum(len(one.words) for one in s)} for part, s in parts.items()}
    judging.write(told, "pos", {"data": {"name": "UD English EWT", **data}, "systems": found})


def treebank(told: argparse.Namespace) -> dict[str, list[Tagged]]:
    """Return the sentences of the three parts."""
    archive, name = told.data / "tasks" / "ud-english-ewt.tar.xz", "ud-english-ewt/raw/en_ewt-ud-{}.conllu"
    texts = {part: judging.member(archive, name.format(part)) for part in PARTS}
    return {part: judging.few(conllu(text), told, 100) for part, text in texts.items()}


def conllu(text: str) -> Iterator[Tagged]:
    """Yield the sentences of CoNLL-U; ranges of words written together, and words left out, are no tokens."""
    for block in text.split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line and not line.startswith("#")]
        rows = [row for row in rows if row[0].isdigit()]
        if rows:
            words, upos, xpos = ([row[column] for row in rows] for column in (1, 3, 4))
            yield Tagged(list(map(judging.as_read, words)), upos, xpos)


def judge(system: System, parts: dict[str, list[Tagged]], *, strengths: Sequence[float]) -> list[dict[str, Any]]:
    """Return accuracies on the test part, for each layer."""
    train, dev, test = (tokens(system, parts[part]) for part in PARTS)
    found = []
    for number, layer in enumerate(system.layers):
        x, d, t = (part.layers[number] for part in (train, dev, test))
        upos, strength = chosen((x, train.upos), (d, dev.upos), strengths=strengths)
        xpos = fit(x, train.xpos, strength=strength)
        scores = {"upos": percent(upos.score(t, test.upos)), "xpos": percent(xpos.score(t, test.xpos))}
        found.append({"layer": layer, **scores, "upos_dev": percent(upos.score(d, dev.upos)), "strength": strength})
    return found


def universal(system: System, parts: dict[str, list[Tagged]], *, strength: float) -> list[dict[str, Any]]:
    """Return only the accuracy of universal tags, for each layer, with one strength: much faster."""
    train, test = (tokens(system, parts[part]) for part in ("train", "test"))
    found = []
    for layer, x, t in zip(system.layers, train.layers, test.layers, strict=True):
        found.append({"layer": layer, "upos": percent(fit(x, train.upos, strength=strength).score(t, test.upos))})
    return found


def tokens(system: System, sentences: list[Tagged]) -> Tokens:
    """Embed sentences and lay their tokens end to end."""
    layers = np.concatenate(list(system.embed(one.words for one in sentences)), axis=1)
    upos, xpos = ([tag for one in sentences for tag in getattr(one, kind)] for kind in ("upos", "xpos"))
    return Tokens(layers, upos, xpos)


if __name__ == "__main__":
    main()
