"""`elmo train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from elmokit.cli.options import Threads, notice, set_threads

if TYPE_CHECKING:
    from elmokit.checkpoint import Config


def train(
    context: typer.Context,
    out: Annotated[Path, Option("--out", help="folder of the new model; the run's own files are in OUT/training")],
    texts: Annotated[
        list[str] | None, Argument(metavar="TEXT...", help="tokenised text, one sentence a line; .gz and .xz too")
    ] = None,
    preset: Annotated[Literal["tiny", "small", "medium", "original"], Option(help="shape of the network")] = "small",
    options: Annotated[Path | None, Option(help="an options.json that gives the shape, instead of --preset")] = None,
    heldout: Annotated[str | None, Option(help="held-out text; default: one sentence in a hundred of TEXT")] = None,
    vocabulary: Annotated[
        str | None, Option(help="file of the words to predict: <S> </S> <UNK>, then most frequent first")
    ] = None,
    min_count: Annotated[int, Option(min=1, help="words seen less often count as <UNK> where they are predicted")] = 3,
    max_vocab: Annotated[int, Option(min=4, help="at most so many words are predicted")] = 100_000,
    tokenize: Annotated[bool, Option("--tokenize", help="the texts are raw: split sentences and tokens")] = False,
    epochs: Annotated[float, Option(min=0.0, help="passes over the text; fractions are allowed")] = 10.0,
    optimizer: Annotated[
        Literal["adamw", "adagrad"], Option(help="adagrad: as the published models were trained")
    ] = "adamw",
    learning_rate: Annotated[float | None, Option(help="default: 0.002 for adamw, 0.2 for adagrad")] = None,
    batch_size: Annotated[int, Option(min=1, help="rows of text read side by side")] = 64,
    unroll: Annotated[int, Option(min=1, help="places of a row in one update")] = 20,
    samples: Annotated[int, Option(min=0, help="negatives of the sampled softmax; 0: full softmax")] = 8192,
    dropout: Annotated[float, Option(min=0.0, max=0.9, help="on every layer's input and on the output")] = 0.1,
    seed: Annotated[int, Option(min=0, help="of weights, order of sentences, dropout and negatives")] = 1,
    evaluate_every: Annotated[int, Option(min=1, help="updates between two held-out evaluations")] = 1000,
    evaluate_places: Annotated[int, Option(min=0, help="held-out places of an evaluation; 0: all of them")] = 0,
    save_every: Annotated[int, Option(min=1, help="updates between two saved states")] = 500,
    threads: Threads = None,
    resume: Annotated[bool, Option("--resume", help="continue the run in OUT; it knows its settings")] = False,
) -> None:
    """Train an ELMo from text, or continue an interrupted run."""
    from elmokit.train import run
    from elmokit.train.recipe import DEFAULT_RATES, PRESETS, Recipe

    set_threads(threads)
    if resume:
        _refuse_settings(context)
        summary = run.resume(out)
    elif not texts:
        raise typer.BadParameter("name at least one text file", param_hint="TEXT...")
    else:
        recipe = Recipe(
            optimizer=optimizer,
            learning_rate=DEFAULT_RATES[optimizer] if learning_rate is None else learning_rate,
            batch_size=batch_size,
            unroll=unroll,
            samples=samples,
            dropout=dropout,
            epochs=epochs,
            seed=seed,
        )
        settings = run.Settings(
            texts=texts,
            config=_options_file(options) if options else PRESETS[preset],
            recipe=recipe,
            heldout=heldout,
            vocabulary=vocabulary,
            min_count=min_count,
            max_vocab=max_vocab,
            tokenize=tokenize,
            evaluate_every=evaluate_every,
            evaluate_places=evaluate_places,
            save_every=save_every,
        )
        summary = run.train(settings, out)
    if not summary.finished:
        notice(f"stopped after {summary.steps:,} updates; continue with  elmo train --out {out} --resume")
        raise typer.Exit(130)
    print(f"{out}: held-out perplexity {summary.perplexity:.2f} after {summary.steps:,} updates")


def _refuse_settings(context: typer.Context) -> None:
    """A continued run takes its settings from its folder: say so rather than ignore what was typed."""
    given = [
        name
        for name in context.params
        if name not in ("out", "resume", "threads") and str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if given:
        names = ", ".join("TEXT..." if name == "texts" else f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter("the run takes its settings from OUT; leave this out", param_hint=names)


def _options_file(path: Path) -> Config:
    from elmokit.checkpoint import read_bytes
    from elmokit.formats.allennlp import parse_options

    return parse_options(read_bytes(path), where=str(path))
