"""Word senses: SemCor's sense centroids, nearest centroid among the senses of a word (ELMo paper, section 5.3).

    python benchmarks/quality/wsd.py [--model MODEL] [--static static.kv] [--wordnet index.sense] [--quick]

The vector of a use is the mean over its words; a sense's centroid is the mean over its uses in SemCor 3.0. A test word
gets the sense, among those that SemCor has for its lemma and part of speech, whose centroid has the greatest cosine.
The first sense is the one most frequent in SemCor, which is how WordNet orders senses too. With `--wordnet` a lemma
that SemCor lacks gets WordNet's first sense, as in the paper, in the baseline as everywhere. Without it such a lemma
stays without an answer. So precision is over the words answered, recall over all.

That rule forgets how often a sense is meant, which is all that the baseline knows. So each layer is scored twice more:
"by distance", because the paper does not say by what a centroid is near: the least Euclidean distance, which tends to
favour the shorter mean of many uses; and by the "nearest use": the sense of the one use in SemCor with the greatest
cosine. A frequent sense has many.
"""

from __future__ import annotations

import argparse
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import judging
import numpy as np
from judging import System, cosine, percent, unit
from numpy.typing import NDArray

# A lemma and its part of speech: "1" noun, "2" verb, "3" adjective, "4" adverb, as sense keys count them.
Word: TypeAlias = tuple[str, str]
POS = {"NOUN": "1", "VERB": "2", "ADJ": "3", "ADV": "4"}
SATELLITE = "5"  # an adjective as well
ALL = "ALL"  # the others together
SETS = ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015", ALL)
RULES = CENTROID, DISTANCE, NEAREST = "centroid", "by distance", "nearest use"
# SemCor parts the letters of U.S. with "_", as it does words.
_INITIALS = re.compile(r"(\b[A-Z]\.)_(?=[A-Z]\.)")


@dataclass(frozen=True)
class Use:
    """Where a word is used: from `start` to `end` in its sentence. senses: the keys that are right."""

    word: Word
    start: int
    end: int
    senses: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """Words as the network reads them, and the uses that carry senses."""

    words: list[str]
    uses: list[Use]


class Sense:
    """What SemCor teaches of a sense: its uses, all of length 1 (N, L, D), and their centroid (L, D)."""

    def __init__(self, vectors: list[NDArray[np.float32]]) -> None:
        self.uses = unit(np.stack(vectors))
        self.centroid = np.mean(vectors, axis=0, dtype=np.float64)  # the mean of equals is the same to the last bit

    def fits(self, vector_LD: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return how near a use is, by each rule, the nearer the greater: (L,).

        They have five digits: without context all uses of a word may have one vector, and rounding would choose.
        """
        cosines_NL = np.einsum("nld,ld->nl", self.uses, unit(vector_LD))
        near = {
            CENTROID: cosine(self.centroid, vector_LD),
            DISTANCE: -np.linalg.norm(self.centroid - vector_LD, axis=-1),
            NEAREST: cosines_NL.max(0),
        }
        return {rule: near_L.round(5) for rule, near_L in near.items()}


@dataclass(frozen=True)
class Question:
    """A use whose sense is asked for; its candidates, most frequent first; how near each is, by each rule: (S, L)."""

    use: Use
    keys: list[str]
    fits: dict[str, NDArray[np.float32]]

    def answer(self, rule: str, layer: int) -> str | None:
        """Return the sense that is nearest, of equals the most frequent; None where there is none to choose."""
        return self.keys[int(self.fits[rule][:, layer].argmax())] if self.keys else None


# What is asked of each test set, and what was answered.
Questions: TypeAlias = dict[str, list[Question]]
Answers: TypeAlias = dict[str, list[tuple[Use, str | None]]]


def main() -> None:
    """Judge every system and write the result."""
    parser = judging.comparing(__doc__)
    parser.add_argument("--wordnet", type=Path, help="index.sense of WordNet 3.0: first senses of what SemCor lacks")
    told = parser.parse_args()
    train, tests = semcor(told), {name: raganato(told, name) for name in SETS}
    candidates = by_frequency(train)
    if told.wordnet:
        candidates = back_off(told.wordnet, tests) | candidates
    first = scores(first_senses(tests, candidates))
    found = {"first sense": [{"layer": "", **first, **dict.fromkeys((DISTANCE, NEAREST), first[ALL])}]}
    for system in judging.systems(told):
        found[system.name] = judge(system, train, tests, candidates)
    data = {"sentences": len(train), "senses": sum(len(use.senses) for one in train for use in one.uses)}
    data["back-off"] = "WordNet's first sense" if told.wordnet else "none"
    judging.write(told, "wsd", {"data": {"name": "SemCor 3.0, Raganato et al. 2017", **data}, "systems": found})


# ---------------------------------------------------------------- data


def semcor(told: argparse.Namespace) -> list[Sentence]:
    """Return SemCor's sentences, those with verbs marked only among them."""
    archive = told.data / "tasks" / "wsd-semcor.tar.xz"
    texts = (judging.member(archive, f"wsd-semcor/semcor-{part}.jsonl") for part in ("brown12", "brownv"))
    return [from_semcor(json.loads(line)) for text in texts for line in judging.few(text.splitlines(), told, 300)]


def from_semcor(record: dict[str, Any]) -> Sentence:
    """Return one record as a sentence."""
    senses = [tuple(keys or ()) for keys in record["sense"]]
    words = (word_of(keys[0]) if keys else None for keys in senses)
    return spelled(zip(dashed(record["tokens"]), words, senses, strict=True))


def dashed(tokens: list[str]) -> list[str]:
    """Return tokens with the dashes of the other texts: SemCor has "-" for them, as between numbers."""
    around = zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)
    return ["--" if token == "-" and not (a[-1:].isdigit() and b[:1].isdigit()) else token for a, token, b in around]


def raganato(told: argparse.Namespace, name: str) -> list[Sentence]:
    """Return the sentences of a test set."""
    archive, stem = told.data / "tasks" / "wsd-eval.tar.xz", f"wsd-eval/raw/{name}/{name}"
    lines = (line.split() for line in judging.member(archive, stem + ".gold.key.txt").splitlines())
    gold = {number: tuple(keys) for number, *keys in lines}
    sentences = ET.fromstring(judging.member(archive, stem + ".data.xml")).iter("sentence")
    return [spelled(from_xml(token, gold) for token in one) for one in judging.few(sentences, told, 30)]


def from_xml(token: ET.Element, gold: dict[str, tuple[str, ...]]) -> tuple[str, Word | None, tuple[str, ...]]:
    """Return what is written, and of an instance its word and senses."""
    written = token.text or ""
    if token.tag != "instance":
        return written, None, ()
    return written, (token.attrib["lemma"].lower(), POS[token.attrib["pos"]]), gold[token.attrib["id"]]


def word_of(key: str) -> Word:
    """Return lemma and part of speech of a sense key."""
    lemma, rest = key.rsplit("%", 1)
    return lemma.lower(), POS["ADJ"] if rest[0] == SATELLITE else rest[0]


def spelled(tokens: Iterable[tuple[str, Word | None, tuple[str, ...]]]) -> Sentence:
    """Cut tokens of several words into words."""
    words: list[str] = []
    uses = []
    for written, word, senses in tokens:
        parts = _INITIALS.sub(r"\1", written).replace("_", " ").split() or [written]
        if word:
            uses.append(Use(word, len(words), len(words) + len(parts), senses))
        words += map(judging.as_read, parts)
    return Sentence(words, uses)


# ---------------------------------------------------------------- learning


def by_frequency(train: list[Sentence]) -> dict[Word, list[str]]:
    """Return the senses of each word, most frequent first; of equals the one whose key comes first."""
    counts: dict[Word, Counter[str]] = defaultdict(Counter)
    for key in (key for one in train for use in one.uses for key in use.senses):
        counts[word_of(key)][key] += 1
    return {word: sorted(found, key=lambda key: (-found[key], key)) for word, found in counts.items()}


def back_off(index: Path, tests: dict[str, list[Sentence]]) -> dict[Word, list[str]]:
    """Return WordNet's first sense of each word of the tests; a line of its index is "key, offset, rank, count"."""
    asked = {use.word for test in tests.values() for one in test for use in one.uses}
    rows = (line.split() for line in index.read_text(encoding="utf-8").splitlines())
    first = (key for key, _, rank, *_ in rows if rank == "1")
    return {word_of(key): [key] for key in first if word_of(key) in asked}


def learn(system: System, train: list[Sentence], asked: set[Word]) -> dict[str, Sense]:
    """Return what SemCor has of the senses of some words."""
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for use, vector_LD in uses_of(system, train):
        for key in use.senses:
            if word_of(key) in asked:
                found[key].append(vector_LD)
    return {key: Sense(found.pop(key)) for key in list(found)}  # so that each vector is in memory once


def uses_of(system: System, sentences: list[Sentence]) -> Iterator[tuple[Use, NDArray[np.float32]]]:
    """Yield every use with its vector in each layer (L, D), the mean over its words."""
    for one, stack in zip(sentences, system.embed(one.words for one in sentences), strict=True):
        for use in one.uses:
            yield use, stack[:, use.start : use.end].mean(1)


# ---------------------------------------------------------------- scoring


def judge(
    system: System, train: list[Sentence], tests: dict[str, list[Sentence]], candidates: dict[Word, list[str]]
) -> list[dict[str, Any]]:
    """Return F1 of each test set for each layer, precision and recall of all, F1 of all by the other rules, in %."""
    senses = learn(system, train, {use.word for test in tests.values() for one in test for use in one.uses})
    asked: Questions = {
        name: [question(use, vector_LD, senses, candidates) for use, vector_LD in uses_of(system, test)]
        for name, test in tests.items()
    }
    return [{"layer": name, **judge_layer(asked, layer)} for layer, name in enumerate(system.layers)]


def judge_layer(asked: Questions, layer: int) -> dict[str, float]:
    """Return the scores of one layer."""
    by_centroid = {name: answered(questions, CENTROID, layer) for name, questions in asked.items()}
    return {**scores(by_centroid), **{rule: f1(answered(asked[ALL], rule, layer)) for rule in (DISTANCE, NEAREST)}}


def answered(questions: list[Question], rule: str, layer: int) -> list[tuple[Use, str | None]]:
    """Return each use with a layer's answer."""
    return [(one.use, one.answer(rule, layer)) for one in questions]


def question(
    use: Use, vector_LD: NDArray[np.float32], senses: dict[str, Sense], candidates: dict[Word, list[str]]
) -> Question:
    """Return what is known about the candidates of a use; WordNet's, which SemCor lacks, are alone."""
    keys = candidates.get(use.word, [])
    nowhere = {rule: np.full(len(vector_LD), -np.inf) for rule in RULES}
    fits = [senses[key].fits(vector_LD) if key in senses else nowhere for key in keys]
    return Question(use, keys, {rule: np.array([one[rule] for one in fits]) for rule in RULES})


def first_senses(tests: dict[str, list[Sentence]], candidates: dict[Word, list[str]]) -> Answers:
    """Return the baseline's answers: the most frequent sense."""
    return {
        name: [(use, candidates.get(use.word, [None])[0]) for one in test for use in one.uses]
        for name, test in tests.items()
    }


def scores(answers: Answers) -> dict[str, float]:
    """Return F1 of each set and precision and recall of ALL, in per cent."""
    precision, recall = precision_recall(answers[ALL])
    f1s = {name: f1(said) for name, said in answers.items()}
    return {**f1s, "precision": percent(precision), "recall": percent(recall)}


def f1(said: list[tuple[Use, str | None]]) -> float:
    """Return the harmonic mean of precision and recall, in per cent."""
    p, r = precision_recall(said)
    return percent(2 * p * r / (p + r) if p + r else 0.0)


def precision_recall(said: list[tuple[Use, str | None]]) -> tuple[float, float]:
    """Return the share of right answers among those given, and among all that were asked for."""
    right = sum(answer in use.senses for use, answer in said)
    answered = sum(answer is not None for _, answer in said)
    return right / max(1, answered), right / max(1, len(said))


if __name__ == "__main__":
    main()
