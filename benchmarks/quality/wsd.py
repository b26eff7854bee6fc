"""Word senses: SemCor's sense centroids, nearest centroid among the senses of a word (ELMo paper, section 5.3).

    python benchmarks/quality/wsd.py [--model MODEL] [--static static.kv] [--quick]

The vector of a use is the mean over its words; a sense's centroid is the mean over its uses in SemCor 3.0. A test word
gets the sense, among those that SemCor has for its lemma and part of speech, whose centroid has the greatest cosine.
The first sense is the one most frequent in SemCor, which is how WordNet orders senses too. With `--wordnet` a lemma
that SemCor lacks gets WordNet's first sense, as in the paper, in the baseline as everywhere. Without it such a lemma
stays without an answer. So precision is over the words answered, recall over all.

That rule forgets how often a sense is meant, which is all that the baseline knows. So each layer is scored a second
time, "with frequency": the cosine plus a weight times the logarithm of the sense's count in SemCor. SemEval-2007
chooses the weight, as it chooses the settings of others who use these sets.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import judging
import numpy as np
from judging import System, percent, unit
from numpy.typing import NDArray

# A lemma and its part of speech: "1" noun, "2" verb, "3" adjective, "4" adverb, as sense keys count them.
Word: TypeAlias = tuple[str, str]
POS = {"NOUN": "1", "VERB": "2", "ADJ": "3", "ADV": "4"}
SATELLITE = "5"  # an adjective as well
SETS = ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015", "ALL")
CHOOSING = "semeval2007"
WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


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


@dataclass(frozen=True)
class Senses:
    """What SemCor teaches. candidates: of each word, most frequent first; rows: of each sense in centroids (L, S, D),
    which have length 1, and in the logarithms of their counts (S,)."""

    candidates: dict[Word, list[str]]
    rows: dict[str, int]
    centroids: NDArray[np.float32]
    log_counts: NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A use whose sense is asked for, its candidates, and how well each fits: cosines (L, S), log counts (S,)."""

    use: Use
    keys: list[str]
    cosines_LS: NDArray[np.float32]
    log_counts_S: NDArray[np.float32]

    def answer(self, layer: int, weight: float) -> str | None:
        """Return the sense that fits best, None where there is none to choose."""
        if not self.keys:
            return None
        return self.keys[int((self.cosines_LS[layer] + weight * self.log_counts_S).argmax())]


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
    found = {"first sense": [{"layer": "", **first, "with frequency": first[SETS[-1]]}]}
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
    return spelled(zip(record["tokens"], words, senses, strict=True))


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
        parts = written.replace("_", " ").split() or [written]
        if word:
            uses.append(Use(word, len(words), len(words) + len(parts), senses))
        words += map(judging.quotes, parts)
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


def learn(system: System, train: list[Sentence], candidates: dict[Word, list[str]]) -> Senses:
    """Return the centroids of all senses."""
    rows = {key: row for row, key in enumerate(key for keys in candidates.values() for key in keys)}
    sums, counts = None, np.zeros(len(rows), np.float32)
    for use, vector_LD in uses_of(system, train):
        if sums is None:
            sums = np.zeros((len(vector_LD), len(rows), vector_LD.shape[1]), np.float32)
        meant = [rows[key] for key in use.senses]
        sums[:, meant] += vector_LD[:, None]
        counts[meant] += 1
    log_counts = np.log(np.maximum(counts, 1))  # 1: what WordNet adds where SemCor has nothing
    return Senses(candidates, rows, unit(sums), log_counts)  # a sum has the direction of its mean


def uses_of(system: System, sentences: list[Sentence]) -> Iterator[tuple[Use, NDArray[np.float32]]]:
    """Yield every use with its vector in each layer (L, D), the mean over its words."""
    for one, stack in zip(sentences, system.embed(one.words for one in sentences), strict=True):
        for use in one.uses:
            yield use, stack[:, use.start : use.end].mean(1)


# ---------------------------------------------------------------- scoring


def judge(
    system: System, train: list[Sentence], tests: dict[str, list[Sentence]], candidates: dict[Word, list[str]]
) -> list[dict[str, Any]]:
    """Return F1 of each test set for each layer, in per cent; precision and recall of all; F1 of all with frequency."""
    senses = learn(system, train, candidates)
    asked = {name: [question(use, v, senses) for use, v in uses_of(system, test)] for name, test in tests.items()}
    return [{"layer": name, **judge_layer(asked, layer)} for layer, name in enumerate(system.layers)]


def judge_layer(asked: Questions, layer: int) -> dict[str, float]:
    """Return the scores of one layer."""
    weight = max(WEIGHTS, key=lambda weight: f1(answered(asked[CHOOSING], layer, weight)))
    plain = {name: answered(questions, layer, 0.0) for name, questions in asked.items()}
    frequent = f1(answered(asked[SETS[-1]], layer, weight))
    return {**scores(plain), "with frequency": frequent, "weight": weight}


def answered(questions: list[Question], layer: int, weight: float) -> list[tuple[Use, str | None]]:
    """Return each use with a layer's answer."""
    return [(one.use, one.answer(layer, weight)) for one in questions]


def question(use: Use, vector_LD: NDArray[np.float32], senses: Senses) -> Question:
    """Return what is known about the candidates of a use.

    Cosines have five digits: without context all senses of a word may have one centroid, and rounding would choose.
    Of equals the most frequent one is the answer.
    """
    keys = senses.candidates.get(use.word, [])
    rows = [senses.rows[key] for key in keys]
    cosines_LS = np.einsum("lsd,ld->ls", senses.centroids[:, rows], unit(vector_LD))
    return Question(use, keys, cosines_LS.round(5), senses.log_counts[rows])


def first_senses(tests: dict[str, list[Sentence]], candidates: dict[Word, list[str]]) -> Answers:
    """Return the baseline's answers: the most frequent sense."""
    return {
        name: [(use, candidates.get(use.word, [None])[0]) for one in test for use in one.uses]
        for name, test in tests.items()
    }


def scores(answers: Answers) -> dict[str, float]:
    """Return F1 of each set and precision and recall of the last, in per cent."""
    precision, recall = precision_recall(answers[SETS[-1]])
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
