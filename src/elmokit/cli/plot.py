"""`elmo plot` and `elmo senses`: uses of words to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from elmokit.cli.options import (
    Column,
    Device,
    HeadWords,
    Model,
    Precision,
    Symbols,
    Threads,
    Tokenize,
    Weights,
    load_model,
    notice,
    to_json,
)

if TYPE_CHECKING:
    from elmokit.labelled import LabelledText
    from elmokit.senses import Senses

_TEXTS = "one tokenised sentence a line, a table with a column of sentences (.tsv, .csv) or CoNLL-U (.conllu)"
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="the same seed gives the same result")]


def plot(
    text: Annotated[str, Argument(metavar="TEXT", help=f"{_TEXTS}; a folder, a pattern, '-' for standard input")],
    out: Annotated[Path, Argument(metavar="OUT", help="file to write: .png, .svg, .html (a page) or .parquet")],
    words: Annotated[
        list[str] | None, Option("--word", help="all uses of this word, upper or lower case; may be given again")
    ] = None,
    sentences: Annotated[bool, Option("--sentences", help="a point for each sentence, not for each word")] = False,
    by: Annotated[
        Literal["pos", "label", "cluster", "layer", "sentence", "word"] | None,
        Option(help="what to colour by; default: label where there is one, pos (CoNLL-U), several words, else cluster"),
    ] = None,
    label: Annotated[
        str | None,
        Option(help="the column of labels: by name, or by number from 1 without a header; CoNLL-U: or a key of FEATS"),
    ] = None,
    layers: Annotated[
        list[str] | None,
        Option(
            "--layer",
            help="average, top, mix (trained), a layer's number, or all; may be given again: a panel each. Default: "
            "average, on a page all",
        ),
    ] = None,
    projection: Annotated[Literal["tsne", "umap", "pca"], Option(help="how vectors come to lie on a plane")] = "tsne",
    clusters: Annotated[int | None, Option(min=1, help="--by cluster: how many; default: by silhouette")] = None,
    spacy: Annotated[str, Option(help="--by pos without CoNLL-U: the spaCy pipeline that tags")] = "en_core_web_sm",
    points: Annotated[int, Option(min=1, help="of more, so many are drawn at random")] = 50_000,
    labels: Annotated[int, Option(min=0, help="pictures: at most so many points of a panel are named")] = 40,
    neighbours: Annotated[int, Option(min=1, help="page and Parquet: nearest uses of each point")] = 10,
    seed: Seed = 0,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Annotated[str | None, Option(help="tables and Parquet: the column that holds the text")] = None,
    model: Model = None,
    weights: Weights = None,
    vocabulary: HeadWords = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Draw a map of words in their sentences, of all uses of a word, or of sentences."""
    if sentences and words:
        raise typer.BadParameter("points are sentences or words; choose one", param_hint="--sentences, --word")
    if clusters and by not in (None, "cluster"):
        raise typer.BadParameter(f"it is for --by cluster, not {by}", param_hint="--clusters")
    from elmokit import plot as maps

    maps.check_output(out)
    read = _read([text], label=label, column=column, tokenize=tokenize, symbols=symbols)
    elmo = load_model(model, weights, vocabulary, threads, device=device, precision=precision)
    default = ("all",) if out.suffix.lower() == ".html" else ("average",)
    drawn = maps.make_map(
        elmo,
        read,
        words=words or (),
        whole=sentences,
        by="cluster" if clusters else by,
        layers=_layers(layers or default, elmo.n_layers),
        method=projection,
        clusters=clusters,
        pipeline=spacy,
        most=points,
        seed=seed,
    )
    maps.write(drawn, out, labels=labels, neighbours=neighbours)
    notice(f"{out}: {drawn.title}, coloured by {drawn.colouring.by}")


def _layers(names: list[str] | tuple[str, ...], n_layers: int) -> list[str]:
    """Return the layers that names stand for; "all" is the average and each layer."""
    every = ["average", *map(str, range(n_layers))]
    return [layer for name in names for layer in (every if name == "all" else [name])]


def senses(
    word: Annotated[str, Argument(metavar="WORD", help="the word, as a token; upper and lower case are the same")],
    texts: Annotated[list[str], Argument(metavar="TEXT...", help=f"{_TEXTS}; folders, patterns, '-'")],
    n: Annotated[
        int | None, Option("-n", "--senses", min=1, help="how many; default: the number of greatest silhouette")
    ] = None,
    layer: Annotated[str, Option(help="average, top, mix (trained), or a layer's number")] = "average",
    examples: Annotated[int, Option(min=1, help="sentences of each sense, the most typical first")] = 5,
    nearest: Annotated[int, Option(min=0, help="nearest words of each sense")] = 10,
    seed: Seed = 0,
    as_json: Annotated[bool, Option("--json", help="print JSON, with the sense of every use")] = False,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    model: Model = None,
    weights: Weights = None,
    vocabulary: HeadWords = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Group the uses of a word, and print for each group its most typical sentences and its nearest words."""
    read = _read(texts, label=None, column=column, tokenize=tokenize, symbols=symbols)
    elmo = load_model(model, weights, vocabulary, threads, device=device, precision=precision)
    from elmokit.senses import find_senses

    found = find_senses(elmo, read.sentences, word, n=n, layer=layer, nearest=nearest, seed=seed)
    if as_json:
        print(to_json(found.as_dict()))
    else:
        _print(found, examples)


def _print(found: Senses, examples: int) -> None:
    score = "" if found.silhouette is None else f", silhouette {found.silhouette:.3f}"
    tried = ", ".join(f"{n}: {value:.3f}" for n, value in sorted(found.silhouettes.items()))
    print(f"{found.word}: {len(found.uses):,} uses in {len(found.senses)} groups{score}")
    if len(found.silhouettes) > 1:
        print(f"silhouettes by number of groups: {tried}")
    for number, sense in enumerate(found.senses, start=1):
        print(f"\n{number}  {len(sense.uses):,} uses, {len(sense.uses) / len(found.uses):.0%}")
        if sense.nearest:
            print(f"   nearest words: {', '.join(near.word for near in sense.nearest)}")
        for use in sense.uses[:examples]:
            before, at, after = found.parts(use)
            print(f"   {use.similarity:.2f}  {before}[{at}]{after}")


def _read(texts: list[str], *, label: str | None, column: str | None, tokenize: bool, symbols: bool) -> LabelledText:
    from elmokit.labelled import joined, read_labelled
    from elmokit.reading import expand

    options = {"label": label, "column": column}
    return joined([read_labelled(one, **options, tokenize=tokenize, symbols=symbols) for one in expand(texts)])
