"""`elmo train`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from elmokit.cli.options import MODEL, Column, Symbols, Threads, Tokenize, Weights, notice, read_model, set_threads

if TYPE_CHECKING:
    from elmokit.checkpoint import Checkpoint, Config


def train(
    context: typer.Context,
    out: Annotated[Path, Option("--out", help="folder of the new model; the run's own files are in OUT/training")],
    texts: Annotated[
        list[str] | None,
        Argument(metavar="TEXT...", help="one tokenised sentence a line; files, folders, patterns, '-'; or compressed"),
    ] = None,
    unit: Annotated[
        Literal["bytes", "characters", "words"],
        Option(help="words are spelled in UTF-8 bytes, in the characters of the text, or come from a table"),
    ] = "bytes",
    preset: Annotated[Literal["tiny", "small", "medium", "original"], Option(help="shape of the network")] = "small",
    options: Annotated[Path | None, Option(help="an options.json that gives the shape, instead of --preset")] = None,
    start: Annotated[str | None, Option("--from", help=f"fine-tune this model: {MODEL}")] = None,
    weights: Weights = None,
    softmax_file: Annotated[
        Path | None, Option("--softmax-file", help="HDF5 file of the head of the model --from, kept apart")
    ] = None,
    head_share: Annotated[
        float, Option(min=0.0, max=1.0, help="--from a model without a head: share of the run that fits a new one")
    ] = 0.1,
    heldout: Annotated[str | None, Option(help="held-out text; default: one sentence in a hundred of TEXT")] = None,
    vocabulary: Annotated[
        str | None, Option(help="file of the words to predict: <S> </S> <UNK>, then most frequent first")
    ] = None,
    min_count: Annotated[int, Option(min=1, help="words seen less often count as <UNK> where they are predicted")] = 3,
    max_vocab: Annotated[int, Option(min=4, help="at most so many words are predicted")] = 100_000,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    document_order: Annotated[bool, Option("--document-order", help="do not shuffle the sentences")] = False,
    epochs: Annotated[float, Option(min=0.0, help="passes over the text; fractions are allowed")] = 10.0,
    patience: Annotated[int, Option(min=0, help="end after so many evaluations without a better model; 0: never")] = 5,
    optimizer: Annotated[
        Literal["adamw", "adagrad"], Option(help="adagrad: as the published models were trained")
    ] = "adamw",
    learning_rate: Annotated[
        float | None,
        Option(help="default for adamw: 0.004, 0.002 beyond 1,024 cells, 0.0005 with --from; for adagrad: 0.2"),
    ] = None,
    batch_size: Annotated[int, Option(min=1, help="rows of text read side by side, by all processes together")] = 64,
    unroll: Annotated[int, Option(min=1, help="places of a row in one update")] = 20,
    accumulate: Annotated[int, Option(min=1, help="read a batch in so many parts: less memory, the same update")] = 1,
    softmax: Annotated[
        Literal["auto", "full", "sampled", "adaptive"], Option(help="auto: sampled where that saves work")
    ] = "auto",
    samples: Annotated[int, Option(min=1, help="negatives of the sampled softmax")] = 8192,
    tie: Annotated[
        bool, Option("--tie", help="--unit words: predict with the vectors that words are read with")
    ] = False,
    dropout: Annotated[float, Option(min=0.0, max=0.9, help="on every layer's input and on the output")] = 0.1,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option(help="auto: bfloat16 where it is faster (GPUs; layers of 1,024 cells)"),
    ] = "auto",
    seed: Annotated[int, Option(min=0, help="of weights, order of sentences, dropout and negatives")] = 1,
    evaluate_every: Annotated[int, Option(min=1, help="updates between two held-out evaluations")] = 1000,
    evaluate_places: Annotated[int, Option(min=0, help="held-out places of an evaluation; 0: all of them")] = 100_000,
    save_every: Annotated[int, Option(min=1, help="updates between two saved states")] = 500,
    tensorboard: Annotated[bool, Option("--tensorboard", help="write event files to OUT/training/tensorboard")] = False,
    device: Annotated[
        str, Option(help="auto, cpu, cuda, cuda:1; under torchrun each process takes its own GPU")
    ] = "auto",
    processes: Annotated[int, Option(min=0, help="that read the text; 0: one for each processor")] = 0,
    threads: Threads = None,
    resume: Annotated[bool, Option("--resume", help="continue the run in OUT; it knows its settings")] = False,
) -> None:
    """Train an ELMo from text, or continue an interrupted run; under torchrun, on many devices."""
    from elmokit.train import run
    from elmokit.train.recipe import PRESETS, Recipe, default_rate
    from elmokit.train.settings import Settings
    from elmokit.train.workers import gains_by_bfloat16

    set_threads(threads)
    if resume:
        _refuse_settings(context)
        summary = run.resume(out)
    elif not texts:
        raise typer.BadParameter("name at least one text, or '-'", param_hint="TEXT...")
    else:
        found = _start(start, weights=weights, softmax=softmax_file, vocabulary=vocabulary if softmax_file else None)
        config = found.config if found else _options_file(options) if options else PRESETS[preset]
        _refuse_ignored(context, config, found)
        rate = default_rate(optimizer, cells=config.lstm.dim, fine_tuning=found is not None)
        if precision == "auto":
            precision = "bfloat16" if gains_by_bfloat16(device, config.lstm.dim) else "float32"
        recipe = Recipe(
            optimizer=optimizer,
            learning_rate=rate if learning_rate is None else learning_rate,
            batch_size=batch_size,
            unroll=unroll,
            accumulate=accumulate,
            softmax=softmax,
            samples=samples,
            tie=tie,
            dropout=dropout,
            head_share=head_share,
            precision=precision,
            epochs=epochs,
            seed=seed,
        )
        settings = Settings(
            texts=texts,
            config=config,
            recipe=recipe,
            unit=unit,
            heldout=heldout,
            vocabulary=None if softmax_file else vocabulary,
            start=start,
            min_count=min_count,
            max_vocab=max_vocab,
            tokenize=tokenize,
            symbols=symbols,
            column=column,
            document_order=document_order,
            evaluate_every=evaluate_every,
            evaluate_places=evaluate_places,
            save_every=save_every,
            patience=patience,
            device=device,
            processes=processes,
            tensorboard=tensorboard,
        )
        summary = run.train(settings, out, start=found)
    if not summary.finished:
        notice(f"stopped after {summary.steps:,} updates; continue with  elmo train --out {out} --resume")
        raise typer.Exit(130)
    if summary.is_first:
        before = f" ({summary.before:.2f} before)" if summary.before < math.inf else ""
        print(f"{out}: held-out perplexity {summary.perplexity:.2f}{before} after {summary.steps:,} updates")


def _refuse_settings(context: typer.Context) -> None:
    """A continued run takes its settings from its folder: say so rather than ignore what was typed."""
    _refuse(_typed(context) - {"out", "resume", "threads"}, "the run takes its settings from OUT; leave this out")


def _refuse_ignored(context: typer.Context, config: Config, found: Checkpoint | None) -> None:
    """Say of what was typed that the run has no use for it, rather than ignore it. `found`: the model to go on from."""
    from elmokit.checkpoint import head_words

    typed = _typed(context)
    if found is not None:
        _refuse(typed & {"preset", "options", "unit"}, "shape and spelling are those of the model --from")
        if found.vocabulary is not None:
            words = {"min_count", "max_vocab"} | (set() if "softmax_file" in typed else {"vocabulary"})
            _refuse(typed & words, "the words are those of the model --from")
    if found is None or head_words(found.arrays):
        _refuse(typed & {"head_share"}, "only a model --from that has no head is given a new one")
    if "options" in typed:
        _refuse(typed & {"preset"}, "--options gives the shape")
    if config.char_cnn is None and context.params["unit"] != "words":
        _refuse(typed & {"unit"}, "the shape that --options gives has no characters")
    if "vocabulary" in typed:
        _refuse(typed & {"min_count", "max_vocab"}, "--vocabulary lists the words")


def _typed(context: typer.Context) -> set[str]:
    """Return the names of what stands on the command line."""
    return {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}


def _refuse(names: set[str], reason: str) -> None:
    if names:
        options = ("--from" if name == "start" else f"--{name.replace('_', '-')}" for name in sorted(names - {"texts"}))
        hint = ", ".join([*options, *(["TEXT..."] if "texts" in names else [])])
        raise typer.BadParameter(reason, param_hint=hint)


def _options_file(path: Path) -> Config:
    from elmokit.checkpoint import read_bytes
    from elmokit.formats.allennlp import parse_options

    return parse_options(read_bytes(path), where=str(path))


def _start(
    name: str | None, *, weights: Path | None, softmax: Path | None, vocabulary: str | None
) -> Checkpoint | None:
    """Open the model to go on from."""
    if name is None:
        if weights or softmax:
            raise typer.BadParameter(
                "they belong to the model that --from names", param_hint="--weights, --softmax-file"
            )
        return None
    return read_model(name, weights=weights, softmax=softmax, vocabulary=Path(vocabulary) if vocabulary else None)
