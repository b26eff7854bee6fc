"""How good answers are: each takes what is right and what was found, one item an example, and returns a share of 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence


def accuracy(right: Sequence[str], found: Sequence[str]) -> float:
    """Return the share of examples with the right label."""
    return sum(r == f for r, f in zip(right, found, strict=True)) / len(right)


def tag_accuracy(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Return the share of words with the right tag."""
    pairs = [pair for r, f in zip(right, found, strict=True) for pair in zip(r, f, strict=True)]
    return sum(r == f for r, f in pairs) / len(pairs)


def span_f1(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Return F1 of whole spans with the right kind, micro average, as CoNLL counts names and chunks."""
    wanted, said = (
        {(n, *span) for n, tags in enumerate(all_tags) for span in spans(tags)} for all_tags in (right, found)
    )
    return 2 * len(wanted & said) / max(1, len(wanted) + len(said))


def spans(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, kind) of the spans in B-, I-, O tags; an I- that continues nothing begins a span."""
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            yield start, place, kind
            kind = ""
        if tag != "O" and not kind:
            start, kind = place, tag[2:]


def macro_f1(right: Sequence[str], found: Sequence[str]) -> float:
    """Return the mean over the labels of F1, for labels of very different frequency."""
    scores = []
    for label in sorted(set(right)):
        hits = sum(r == f == label for r, f in zip(right, found, strict=True))
        scores.append(2 * hits / max(1, list(right).count(label) + list(found).count(label)))
    return sum(scores) / len(scores)


def answer_f1(right: Sequence[Sequence[str]], found: Sequence[str]) -> float:
    """Return the mean F1 of the words of the answers found, each against the best of its right answers (SQuAD v1.1)."""
    return sum(max(_overlap(r, f) for r in rights) for rights, f in zip(right, found, strict=True)) / len(found)


def _normal(answer: str) -> list[str]:
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _overlap(right: str, found: str) -> float:
    wanted, said = Counter(_normal(right)), Counter(_normal(found))
    return 2 * (wanted & said).total() / max(1, wanted.total() + said.total())
