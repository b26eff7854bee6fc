"""The tables of docs/bundled-model.md, made from the results of the judges. benchmarks/table.py puts them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WSD_COLUMNS = {
    "senseval2": "SE-2",
    "senseval3": "SE-3",
    "semeval2007": "SE-07",
    "semeval2013": "SE-13",
    "semeval2015": "SE-15",
    "ALL": "ALL",
    "by distance": "ALL, by distance",
    "nearest use": "ALL, nearest use",
}
CONTEXTUALITY_COLUMNS = {
    "anisotropy": "anisotropy",
    "self_similarity": "self-similarity",
    "self_similarity_adjusted": "adjusted",
    "intra_sentence": "intra-sentence",
    "intra_sentence_adjusted": "adjusted",
    "explained": "explained",
    "explained_adjusted": "adjusted",
}
# Means over the files of github.com/kawine/contextual, the code of Ethayarajh (2019), of the original ELMo: those of
# anisotropy, self-similarity (of layer 0 it is 1, as of any that reads no context) and intra-sentence similarity.
PUBLISHED = {"0": (0.008, 1.0, 0.318), "1": (0.157, 0.744, 0.582), "2": (0.136, 0.642, 0.621)}


def pos_lines(result: dict[str, Any]) -> list[str]:
    """Accuracies of the probe."""
    sizes = {part: result["data"][part]["tokens"] for part in ("train", "dev", "test")}
    data = ", ".join(f"{part} {size:,}" for part, size in sizes.items())
    table = layer_table(result["systems"], {"upos": "universal tags", "xpos": "treebank tags"})
    return [*table, "", note(result, f"tokens: {data}")]


def wsd_lines(result: dict[str, Any]) -> list[str]:
    """F1 by test set."""
    data = f"SemCor: {result['data']['sentences']:,} sentences, {result['data']['senses']:,} senses marked"
    data += f"; back-off: {result['data']['back-off']}"
    return [*layer_table(result["systems"], WSD_COLUMNS), "", note(result, data)]


def words_lines(result: dict[str, Any]) -> list[str]:
    """Shares of uses, and those of each word for the layers of the model."""
    data, model = result["data"], next(iter(result["systems"].values()))
    table = layer_table(result["systems"], {"same_sense": "nearest use has the same sense"})
    table += [row(["chance", "", f"{data['chance']:.1f}"]), ""]
    table += [row(["word", *(f"layer {one['layer']}" for one in model)]), aligned(1, len(model))]
    table += [row([word, *(f"{one['words'][word]:.0f}" for one in model)]) for word in model[0]["words"]]
    described = f"{data['uses']} uses of {data['words']} words in {data['senses']} senses"
    return [*table, "", note(result, described)]


def relatedness_lines(result: dict[str, Any]) -> list[str]:
    """Correlations with SICK's relatedness."""
    table = layer_table(result["systems"], {"spearman": "Spearman x 100", "pearson": "Pearson x 100"})
    return [*table, "", note(result, f"{result['data']['pairs']:,} pairs")]


def wic_lines(result: dict[str, Any]) -> list[str]:
    """Accuracies on WiC."""
    table = layer_table(result["systems"], {"accuracy": "accuracy"})
    return [*table, "", note(result, f"{result['data']['dev']:,} pairs of dev, {result['data']['test']:,} of test")]


def contextuality_lines(result: dict[str, Any]) -> list[str]:
    """Ethayarajh's statistics, the published ones of the original model below."""
    table = layer_table(result["systems"], CONTEXTUALITY_COLUMNS, digits=3)
    for layer, (random, own, within) in PUBLISHED.items():
        figures = (random, own, own - random, within, within - random)
        table.append(row(["original ELMo, published", layer, *(f"{value:.3f}" for value in figures), "", ""]))
    data = result["data"]
    text = f"{data['name']}: {data['sentences']:,} sentences, {data['tokens']:,} tokens, {data['words']:,} words"
    return [*table, "", note(result, text)]


def senses_lines(result: dict[str, Any]) -> list[str]:
    """Agreement of the groups with the marked senses, a row for each layer, the baseline first."""
    titles = ["ARI", "right, %", "ARI, number found", "right, %", "groups found"]
    lines = [row(["senses", "vectors", "layer", *titles]), aligned(3, len(titles))]
    for name, one in result["sets"].items():
        data = one["data"]
        first = [f"{figure:.1f}" for figure in (0, data["first_sense"], 0, data["first_sense"], 1)]
        lines.append(row([name, "most frequent sense", "", *first]))
        for system, layers in one["systems"].items():
            figures = ("ari", "right", "ari_found", "right_found", "groups_found")
            lines += [row([name, system, at["layer"], *(f"{at[key]:.1f}" for key in figures)]) for at in layers]
    sizes = "; ".join(
        f"{name}: {one['data']['words']} words, {one['data']['uses']:,} uses, {one['data']['senses']} senses"
        for name, one in result["sets"].items()
    )
    return [*lines, "", note(result, sizes)]


def state_lines(result: dict[str, Any]) -> list[str]:
    """The policies side by side."""
    table = layer_table(result["systems"], {"upos": "universal tags", "ALL": "senses, F1"}, digits=2)
    return [table[0].replace("vectors", "state", 1), *table[1:], "", note(result, "")]


def perplexity_lines(result: dict[str, Any]) -> list[str]:
    """Perplexities and bits per character by text."""
    columns = ["text", "forward", "backward", "mean", "places", "unknown, %", "bits per character", "open"]
    table = [row(columns), aligned(1, len(columns) - 1)]
    for name, one in result["texts"].items():
        cells = [f"{one[side]:.1f}" for side in ("forward", "backward", "mean")]
        cells += [f"{one['places']:,}", f"{one['unknown_percent']:.2f}"]
        cells += [f"{one[kind]:.3f}" for kind in ("bits_per_character", "bits_per_character_open")]
        table.append(row([name, *cells]))
    return [*table, "", note(result, f"vocabulary: {result['vocabulary']:,} words")]


def bias_lines(result: dict[str, Any]) -> list[str]:
    """The share of `she` after each occupation."""
    table = [row(["occupation", "share of *she*, %"]), aligned(1, 1)]
    table += [row([name, f"{share:.1f}"]) for name, share in result["she_percent"].items()]
    return [*table, "", note(result, "")]


def search_lines(result: dict[str, Any]) -> list[str]:
    """Scores of search by collection, those of an index below, and the senses of uses."""
    names = list(result["collections"])
    figures = [f"{name}: {score}" for name in names for score in ("nDCG@10", "recall@100")]
    table = [row(["layer", "pool", "ranked by", *figures]), aligned(3, len(figures))]
    for ways in zip(*result["collections"].values(), strict=True):
        scores = [f"{way[key]:.1f}" for way in ways for key in ("ndcg@10", "recall@100")]
        by = {"vector": "index: vector", "text": "index: full text (BM25)", "both": "index: both"}.get(
            ways[0].get("by")
        )
        way = ["", ""] if ways[0].get("by") == "text" else [str(ways[0]["layer"]), ways[0]["pool"]]
        table.append(row([*way, by or "vector", *scores]))
    sizes = "; ".join(
        f"{name}: {one['documents']:,} documents, {one['questions']:,} questions, {one['judgements']:,} answers"
        for name, one in result["data"].items()
    )
    senses = [row(["uses of words: layer", "pool", "nearest has the same sense, %"]), aligned(2, 1)]
    senses += [row([str(one["layer"]), one["pool"], f"{one['same_sense']:.1f}"]) for one in result["uses"]]
    return [*table, "", *(senses if result["uses"] else []), "", note(result, sizes)]


# ---------------------------------------------------------------- parts


def layer_table(systems: dict[str, list[dict[str, Any]]], columns: dict[str, str], *, digits: int = 1) -> list[str]:
    """Return a table with one row for each layer of each system."""
    rows = [
        row([name, one["layer"], *(f"{one[key]:.{digits}f}" for key in columns)])
        for name, layers in systems.items()
        for one in layers
    ]
    return [row(["vectors", "layer", *columns.values()]), aligned(2, len(columns)), *rows]


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def aligned(left: int, right: int) -> str:
    return "|" + "---|" * left + "--:|" * right


def note(result: dict[str, Any], data: str) -> str:
    """Return what was measured, with what and when."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    model = f"{result['model']['name']}, SHA-256 {result['model']['sha256'][:12]}"
    return f"`{result['command']}`; {data + '; ' if data else ''}model {model}; {versions}; {result['date']}."


TABLES = [
    ("seeing.md", "quality/senses", senses_lines),
    ("bundled-model.md", "quality/pos", pos_lines),
    ("bundled-model.md", "quality/wsd", wsd_lines),
    ("bundled-model.md", "quality/words", words_lines),
    ("bundled-model.md", "quality/relatedness", relatedness_lines),
    ("bundled-model.md", "quality/wic", wic_lines),
    ("bundled-model.md", "quality/contextuality", contextuality_lines),
    ("bundled-model.md", "quality/state", state_lines),
    ("bundled-model.md", "quality/perplexity", perplexity_lines),
    ("bundled-model.md", "quality/bias", bias_lines),
    ("search.md", "quality/search", search_lines),
]
