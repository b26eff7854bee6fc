"""Search in judged collections: layers and ways of pooling, beside full text (BM25) and the two together.

    python benchmarks/quality/search.py [--model MODEL] [--quick]

Collections: Cranfield, the questions of SQuAD asked of all its paragraphs, and those questions misspelt. nDCG@10 and
recall@100, in per cent. Vectors are those of `elmokit.search`, every one compared with every other; what pooling has to
learn, it learns from the first documents. The last three rows of a collection are searched for with an `Index` at
its defaults: by vector, by the full text of LanceDB (BM25, English endings and frequent words left aside), and by both
(reciprocal ranks).

Uses of words: how often the nearest other use of a word has the same sense (words.tsv), by layer, whitened or not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import judging
import numpy as np
import words
from judged_collections import Collection, Text, collections
from judging import percent
from numpy.typing import NDArray

from elmokit import Elmo, load
from elmokit.search import POOLS, Hit, Index, Settings
from elmokit.search.pooling import Pooling
from elmokit.search.rows import fuse
from elmokit.search.vectors import embedded, fitted

DEPTH = 100


def main() -> None:
    """Judge every way and write the result."""
    told = judging.parser(__doc__).parse_args()
    elmo = load(told.model)
    judged = list(collections(told))
    rows: dict[str, list[dict[str, Any]]] = {one.name: [] for one in judged}
    for name, row in pooled(elmo, judged):
        rows[name].append(row)
    for one in judged:
        rows[one.name] += indexed(elmo, one)
    data = {one.name: sizes(one) for one in judged}
    found = {"data": data, "collections": rows, "uses": uses(elmo, told, judged[1].documents)}
    judging.write(told, "search", found)


def sizes(judged: Collection) -> dict[str, int]:
    """Return what a collection counts."""
    return {
        "documents": len(judged.documents),
        "tokens": sum(len(sentence) for text in judged.documents for sentence in text),
        "questions": len(judged.questions),
        "judgements": sum(map(len, judged.gains)),
    }


# ---------------------------------------------------------------- pooling


def settings(elmo: Elmo) -> list[Settings]:
    """Return the settings of an index of each layer, and of their average."""
    made = Settings("", None, elmo.dim, 0, "fresh", "passage", (), "mean", False, "English", {})
    layers: list[int | str] = [*range(elmo.n_layers), "average"]
    return [replace(made, layers=layer) for layer in layers]


def pooled(elmo: Elmo, judged: Sequence[Collection]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the scores of every layer and pool. Collections that share their documents embed them once."""
    documents: Sequence[Text] = ()
    for one in judged:
        if one.documents is not documents:
            documents = one.documents
            ways = [replace(layer, pool=pool) for layer in settings(elmo) for pool in POOLS]
            poolings = [fitted(elmo, way, documents) for way in ways]
            spaces = all_vectors(elmo, documents, poolings)
        for way, space_ND, asked_QD in zip(ways, spaces, all_vectors(elmo, one.questions, poolings), strict=True):
            ranked = np.argsort(-(asked_QD @ space_ND.T), axis=1, kind="stable")[:, :DEPTH]
            yield one.name, {"layer": way.layers, "pool": way.pool, **scores(ranked.tolist(), one.gains)}


def all_vectors(elmo: Elmo, texts: Sequence[Text], poolings: Sequence[Pooling]) -> list[NDArray[np.float32]]:
    """Return the vectors of texts, (N, D), of each layer and pool, in the order of both."""
    made: list[list[NDArray[np.float32]]] = [[] for _ in poolings]
    stacks = elmo.embed((sentence for text in texts for sentence in text), layers="all")
    for text in texts:
        tokens = [token for sentence in text for token in sentence]
        layers_LTD = np.concatenate([np.zeros((elmo.n_layers, 0, elmo.dim), np.float32), *islice(stacks, len(text))], 1)
        with_average = [layer for layer in (*layers_LTD, layers_LTD.mean(0)) for _ in POOLS]
        for vectors, pooling, layer_TD in zip(made, poolings, with_average, strict=True):
            vectors.append(pooling(tokens, layer_TD))
    return [np.stack(vectors) for vectors in made]


# ---------------------------------------------------------------- an index


def indexed(elmo: Elmo, judged: Collection) -> list[dict[str, Any]]:
    """Return the scores of an index at its defaults, by vector, by full text and by both."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.create(Path(folder) / "index", elmo, sample=judged.documents, unit="passage") as index,
    ):
        index.add("documents", judged.documents)
        index.optimize()
        asked = [[token for sentence in question for token in sentence] for question in judged.questions]
        near, full = (all_hits(index, asked, by) for by in ("vector", "text"))
        both = [fuse(list(pair), DEPTH) for pair in zip(near, full, strict=True)]  # as `Index.search` does
        at = {"layer": index.settings.layers, "pool": index.settings.pool}
        ways = zip(("vector", "text", "both"), (near, full, both), strict=True)
        return [{**at, "by": by, **scores(numbers(found), judged.gains)} for by, found in ways]


def all_hits(index: Index, asked: Sequence[Sequence[str]], by: Any) -> list[list[Hit]]:
    """Return what is found for each question; several are asked at the same time."""
    with ThreadPoolExecutor(8) as several:
        return list(several.map(lambda tokens: index.search(tokens, count=DEPTH, by=by, exact=True), asked))


def numbers(found: Sequence[Sequence[Hit]]) -> list[list[int]]:
    """Return the numbers of the documents that were found."""
    return [[hit.line - 1 for hit in hits] for hits in found]


# ---------------------------------------------------------------- scores


def scores(rankings: Sequence[Sequence[int]], gains: Sequence[Mapping[int, int]]) -> dict[str, float]:
    """Return the means over the questions."""
    pairs = list(zip(rankings, gains, strict=True))
    return {
        "ndcg@10": percent(np.mean([ndcg(*pair) for pair in pairs])),
        "recall@100": percent(np.mean([recall(*pair) for pair in pairs])),
    }


def ndcg(ranking: Sequence[int], gains: Mapping[int, int], *, depth: int = 10) -> float:
    """Return the discounted gain of the first `depth` documents, as a share of the best there could be."""
    best = sorted(gains.values(), reverse=True)
    return discounted([gains.get(number, 0) for number in ranking[:depth]]) / discounted(best[:depth])


def discounted(gains: Sequence[int]) -> float:
    """Return the sum of gains, each divided by the logarithm (base 2) of its rank and one."""
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def recall(ranking: Sequence[int], gains: Mapping[int, int]) -> float:
    """Return the share of what answers that is among the documents found."""
    return len(gains.keys() & set(ranking)) / len(gains)


# ---------------------------------------------------------------- uses of words


def uses(elmo: Elmo, told: Any, sample: Sequence[Text]) -> list[dict[str, Any]]:
    """Return the shares of uses whose nearest other has the same sense; whitening learns from the sample."""
    known = judging.few(words.read(), told, 60)
    sentences = [sentence for text in sample for sentence in text]
    found = []
    for layer in settings(elmo):
        vectors_ND = np.stack(list(vectors_of(elmo, layer, known)))
        for pool in ("mean", "white-mean"):
            way = fitted(elmo, replace(layer, pool=pool, unit="word"), [[sentence] for sentence in sentences])
            found.append({"layer": layer.layers, "pool": pool, "same_sense": same_sense(way.word(vectors_ND), known)})
    return found


def vectors_of(elmo: Elmo, layer: Settings, known: Sequence[words.Use]) -> Iterator[NDArray[np.float32]]:
    """Yield the vector of the word in each use."""
    for use, vectors_TD in zip(known, embedded(elmo, layer, [[use.sentence] for use in known]), strict=True):
        yield vectors_TD[use.sentence.index(use.word)]


def same_sense(vectors_ND: NDArray[np.float32], known: list[words.Use]) -> float:
    """Return the share of uses, in per cent."""
    shares = [words.same_sense(vectors_ND[rows], senses) for rows, senses in words.by_word(known).values()]
    return percent(np.concatenate(shares).mean())


if __name__ == "__main__":
    main()
