"""`elmo perplexity`, `score`, `substitutes`: a model with its softmax head as a language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from tqdm import tqdm
from typer import Argument, Option

from elmokit.cli.options import (
    MODEL,
    Column,
    Head,
    HeadWords,
    Symbols,
    Threads,
    Tokenize,
    Weights,
    in_json,
    read_model,
    set_threads,
    to_json,
)

if TYPE_CHECKING:
    from elmokit.lm import LanguageModel, Perplexity

ModelArgument = Annotated[str, Argument(metavar="MODEL", help=f"a model with a softmax head: {MODEL}, or 'bundled'")]
Text = Annotated[str, Argument(metavar="TEXT", help="one tokenised sentence a line, '-' for standard input")]
BatchSize = Annotated[int, Option(min=1, help="sentences computed together, at most")]
State = Annotated[
    Literal["fresh", "warm", "carry"],
    Option(help="sentences start: fresh (from zeros), warm (a stored state), carry (where the batch before ended)"),
]
AsJson = Annotated[bool, Option("--json", help="print JSON, one object a line")]

_COLUMNS = ("forward", "backward", "mean", "predictions", "unknown")


def perplexity(
    model: ModelArgument,
    texts: Annotated[list[str], Argument(metavar="TEXT...", help="one tokenised sentence a line; '-'")],
    lines: Annotated[bool, Option("--lines", help="one row for each line instead of one for each text")] = False,
    state: State = "fresh",
    batch_size: BatchSize = 32,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    as_json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Print the exact perplexities of texts: forward, backward and their mean, as TSV."""
    from elmokit.lm import perplexity_of
    from elmokit.reading import expand

    reader = _open(model, weights, softmax, vocabulary, threads)
    files = expand(texts)
    if not as_json:
        print("\t".join(("text", *("line",) * lines, *_COLUMNS)))
    for file in files:
        scores = reader.score(_sentences(file, tokenize, symbols, column), state=state, batch_size=batch_size)
        if not lines:
            _print_row(as_json, {"text": file}, perplexity_of(scores))
            continue
        for number, score in enumerate(scores, start=1):
            _print_row(as_json, {"text": file, "line": number}, perplexity_of([score]))


def score(
    model: ModelArgument,
    text: Text,
    state: State = "fresh",
    batch_size: BatchSize = 32,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    threads: Threads = None,
) -> None:
    """Print how unexpected each token is, in bits, given what stands before it and what follows: JSON lines."""
    reader = _open(model, weights, softmax, vocabulary, threads)
    for scores in reader.score(_sentences(text, tokenize, symbols, column), state=state, batch_size=batch_size):
        forward, backward = (list(map(in_json, bits.round(4).tolist())) for bits in scores.surprisal())
        row = {"tokens": list(scores.tokens), "forward": forward, "backward": backward, "unknown": scores.unknown}
        print(to_json(row))


def substitutes(
    model: ModelArgument,
    text: Text,
    word: Annotated[str | None, Option(help="for every place where this word stands")] = None,
    position: Annotated[int | None, Option(min=1, help="for the token of this number in every line, from 1")] = None,
    k: Annotated[int, Option("-k", "--count", min=1, help="how many words")] = 10,
    state: Annotated[Literal["fresh", "warm"], Option(help="as for  elmo score")] = "fresh",
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    as_json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Print the words that fit a place best, by both directions together, as TSV; without an option for every place."""
    if word is not None and position is not None:
        raise typer.BadParameter("choose one", param_hint="--word, --position")
    reader = _open(model, weights, softmax, vocabulary, threads)
    if not as_json:
        print("\t".join(("line", "position", "token", "rank", "substitute", "probability", "forward", "backward")))
    for line, sentence in enumerate(_sentences(text, tokenize, symbols, column), start=1):
        places = [
            place for place, token in enumerate(sentence) if word in (None, token) and position in (None, place + 1)
        ]
        for place, found in zip(places, reader.substitutes_at(sentence, places, k, state=state), strict=True):
            here = {"line": line, "position": place + 1, "token": sentence[place]}
            for rank, one in enumerate(found, start=1):
                probabilities = (one.probability, one.forward, one.backward)
                values = {"rank": rank, "substitute": one.word}
                named = dict(zip(("probability", "forward", "backward"), probabilities, strict=True))
                if as_json:
                    print(to_json({**here, **values, **named}))
                else:
                    print(
                        "\t".join([*map(str, (*here.values(), *values.values())), *(f"{p:.6g}" for p in probabilities)])
                    )


# ---------------------------------------------------------------- helpers


def _open(
    model: str, weights: Path | None, softmax: Path | None, vocabulary: Path | None, threads: int | None
) -> LanguageModel:
    set_threads(threads)
    from elmokit.lm import LanguageModel
    from elmokit.model import Elmo

    return LanguageModel(Elmo(read_model(model, weights=weights, softmax=softmax, vocabulary=vocabulary)))


def _sentences(text: str, tokenize: bool, symbols: bool, column: str | None) -> Iterator[list[str]]:
    from elmokit.reading import read_sentences

    sentences = read_sentences(text, tokenize=tokenize, symbols=symbols, column=column)
    return iter(tqdm(sentences, text, unit=" sentences", leave=False, delay=2))


def _print_row(as_json: bool, where: dict[str, str | int], found: Perplexity) -> None:
    values = (found.forward, found.backward, found.mean, found.places, found.unknown)
    if as_json:
        print(to_json({**where, **dict(zip(_COLUMNS, map(in_json, values), strict=True))}))
    else:
        print("\t".join([*map(str, where.values()), *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values)]))
