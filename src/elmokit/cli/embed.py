"""`elmo embed`."""

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
)

if TYPE_CHECKING:
    from elmokit.model import Elmo


def embed(
    text: Annotated[str, Argument(metavar="TEXT", help="one tokenised sentence a line, '-' for standard input")],
    out: Annotated[Path, Argument(metavar="OUT", help="file to write; its ending says how: .hdf5, .parquet or .npz")],
    model: Model = None,
    weights: Weights = None,
    vocabulary: HeadWords = None,
    all_layers: Annotated[bool, Option("--all", help="every layer of each token (layers, tokens, width)")] = False,
    top: Annotated[bool, Option("--top", help="the top layer (tokens, width)")] = False,
    average: Annotated[bool, Option("--average", help="the mean of the layers (tokens, width); the default")] = False,
    mix: Annotated[bool, Option("--mix", help="the trained mix of layers that came with the model")] = False,
    pool: Annotated[
        Literal["none", "mean", "max"], Option(help="one vector a sentence instead of one a token")
    ] = "none",
    state: Annotated[
        Literal["fresh", "warm", "carry"],
        Option(help="sentences start: fresh (from zeros), warm (a stored state), carry (where the batch before ended)"),
    ] = "fresh",
    warm_up: Annotated[
        str | None, Option(help="text to read first, for --state warm with a model that stores none")
    ] = None,
    batch_size: Annotated[
        int | None, Option(min=1, help="sentences computed together, at most; default: 256, with --state carry 64")
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], Option(help="numbers in the file")] = "float32",
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    use_sentence_keys: Annotated[bool, Option("--use-sentence-keys", help="HDF5: the sentence is the key")] = False,
    forget_sentences: Annotated[bool, Option("--forget-sentences", help="HDF5: leave sentence_to_index out")] = False,
    save_every: Annotated[int, Option(min=1, help="sentences between two safe points for --resume")] = 10_000,
    resume: Annotated[bool, Option("--resume", help="continue an interrupted run")] = False,
    force: Annotated[bool, Option("--force", help="replace OUT, and what an interrupted run left")] = False,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Write the vectors of a text to a file."""
    if all_layers + top + average + mix > 1:
        raise typer.BadParameter("choose one", param_hint="--all, --top, --average, --mix")
    if warm_up and state != "warm":
        raise typer.BadParameter("only --state warm starts from it", param_hint="--warm-up")
    if text == warm_up == "-":
        raise typer.BadParameter("standard input can be read only once", param_hint="--warm-up")
    from elmokit.job import embed_file

    try:
        elmo = load_model(model, weights, vocabulary, threads, device=device, precision=precision)
        elmo = _warmed(elmo, warm_up, tokenize=tokenize, symbols=symbols)
        done = embed_file(
            text,
            out,
            elmo=elmo,
            layers=_mix(elmo) if mix else "all" if all_layers else "top" if top else "average",
            pool=pool,
            state=state,
            batch_size=batch_size,
            dtype=dtype,
            tokenize=tokenize,
            symbols=symbols,
            column=column,
            use_sentence_keys=use_sentence_keys,
            forget_sentences=forget_sentences,
            resume=resume,
            force=force,
            save_every=save_every,
        )
    except KeyboardInterrupt:
        safe = f"what is done is safe in {out}.partial, run the same command with --resume to continue"
        notice(f"interrupted; {safe if Path(f'{out}.partial').exists() else 'nothing is saved'}")
        raise typer.Exit(130) from None
    notice(f"{out}: {done.sentences:,} sentences, {done.tokens:,} tokens in {done.seconds:.1f} s")


def _mix(elmo: Elmo) -> list[float]:
    from elmokit.errors import MismatchError

    if len(elmo.mixes) != 1:
        found = f"this model holds {len(elmo.mixes)} trained mixes of its layers"
        raise MismatchError(f"{found}, expected one for --mix; take --average, or Elmo.mixes in Python")
    return [float(share) for share in elmo.mixes[0]]


def _warmed(model: Elmo, warm_up: str | None, *, tokenize: bool, symbols: bool) -> Elmo:
    from elmokit.reading import read_sentences

    return model.warm(read_sentences(warm_up, tokenize=tokenize, symbols=symbols)) if warm_up else model
