"""Judged collections to search in: Cranfield, and the paragraphs of SQuAD with its questions, as asked and misspelt."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import judging

sys.path.append(str(judging.QUALITY.parents[1] / "recipes"))
from data import misspellings

from elmokit.reading import Splitter

# A document or a question: its sentences, tokenised.
Text: TypeAlias = Sequence[Sequence[str]]

# Of the 10,570 of SQuAD.
QUESTIONS = 2000
_SPLIT = Splitter(tokenize=True)


@dataclass(frozen=True)
class Collection:
    """Documents, questions, and for each question the gain of each document that answers it, above 0."""

    name: str
    documents: Sequence[Text]
    questions: Sequence[Text]
    gains: Sequence[Mapping[int, int]]


def collections(told: argparse.Namespace) -> Iterator[Collection]:
    """Yield all collections."""
    yield cranfield(told)
    asked = squad(told)
    yield asked
    yield misspelt(told, asked)


def split(text: str) -> Text:
    """Return the sentences of raw text."""
    return list(_SPLIT([" ".join(text.split())]))


# ---------------------------------------------------------------- Cranfield


def cranfield(told: argparse.Namespace) -> Collection:
    """Return abstracts on aerodynamics. What is judged 1 (a complete answer) to 4 (of little interest) gains 4 to 1.

    The judgements count the questions in the order of their file, whatever numbers stand there. "-1" is of no interest.
    """
    archive = told.data / "tasks" / "cranfield.tar.xz"
    documents, questions, judged = (
        judging.member(archive, f"cranfield/raw/{name}") for name in ("cran.all.1400", "cran.qry", "cranqrel")
    )
    texts = [split(field(record)) for record in records(documents)]
    asked = judging.few((split(field(record)) for record in records(questions)), told, 20)
    gains: list[dict[int, int]] = [{} for _ in asked]
    for line in judged.splitlines():
        question, document, code = map(int, line.split()[:3])
        if question <= len(asked) and 1 <= code <= 4:
            gains[question - 1][document - 1] = 5 - code
    return fewer(Collection("Cranfield", texts, asked, gains), told)


def records(text: str) -> list[str]:
    """Return the records of a file, each of which begins with .I and its number."""
    return re.split(r"^\.I \d+\s*$", text, flags=re.MULTILINE)[1:]


def field(record: str) -> str:
    """Return the text of a record, which comes last; that of a document begins with its title."""
    return re.split(r"^\.W\s*$", record, maxsplit=1, flags=re.MULTILINE)[1]


# ---------------------------------------------------------------- SQuAD


def squad(told: argparse.Namespace) -> Collection:
    """Return the paragraphs of the articles; the one that a question was asked about is its answer."""
    text = judging.member(told.data / "tasks" / "squad-v1.1-dev.tar.xz", "squad-v1.1-dev/dev-v1.1.rebuilt.json")
    paragraphs = [one for article in json.loads(text)["data"] for one in article["paragraphs"]]
    asked = [(qa["question"], number) for number, one in enumerate(paragraphs) for qa in one["qas"]]
    asked = judging.few(random.Random(1).sample(asked, min(len(asked), QUESTIONS)), told, 20)
    questions, gains = [split(question) for question, _ in asked], [{number: 1} for _, number in asked]
    return fewer(Collection("SQuAD", [split(one["context"]) for one in paragraphs], questions, gains), told)


def misspelt(told: argparse.Namespace, asked: Collection) -> Collection:
    """Return a collection whose questions are misspelt: each word that people were seen to misspell."""
    text = judging.member(told.data / "tasks" / "natural-noise.tar.xz", "natural-noise/raw/en.natural")
    known, draw = misspellings(text), random.Random(1)

    def written(word: str) -> str:
        others = known.get(word) or known.get(word.lower())
        return draw.choice(others) if others else word

    questions = [[[written(word) for word in words] for words in question] for question in asked.questions]
    return replace(asked, name=f"{asked.name}, questions misspelt", questions=questions)


def fewer(whole: Collection, told: argparse.Namespace) -> Collection:
    """Return a collection; with `--quick` of the documents that answer and a hundred others only."""
    if not told.quick:
        return whole
    kept = sorted({number for gains in whole.gains for number in gains} | set(range(100)))
    new = {number: place for place, number in enumerate(kept)}
    gains = [{new[number]: gain for number, gain in one.items()} for one in whole.gains]
    return replace(whole, documents=[whole.documents[number] for number in kept], gains=gains)
