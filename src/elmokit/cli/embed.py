"""`elmo embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from elmokit.model import Elmo, Layers


def embed(
    texts: Annotated[
        list[str],
        Argument(
            metavar="TEXT", help="one tokenised sentence a line, '-' for standard input; with --ray several texts"
        ),
    ],
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
    ray: Annotated[
        str | None,
        Option(
            metavar="ADDRESS",
            help="compute on a Ray cluster: auto (the one of this machine), host:port, or local (start one here); "
            "texts may be folders and patterns, OUT is a folder of Parquet files",
        ),
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, help="--ray: models at work; default: one for each GPU, or --threads processors")
    ] = None,
) -> None:
    """Write the vectors of a text to a file, or of many texts to a folder (--ray)."""
    if all_layers + top + average + mix > 1:
        raise typer.BadParameter("choose one", param_hint="--all, --top, --average, --mix")
    if warm_up and state != "warm":
        raise typer.BadParameter("only --state warm starts from it", param_hint="--warm-up")
    if warm_up == "-" and "-" in texts:
        raise typer.BadParameter("standard input can be read only once", param_hint="--warm-up")
    _check_ray(ray, texts, out, workers=workers, for_hdf5=use_sentence_keys or forget_sentences)
    options: dict[str, Any] = {
        "pool": pool,
        "state": state,
        "batch_size": batch_size,
        "dtype": dtype,
        "tokenize": tokenize,
        "symbols": symbols,
        "column": column,
        "resume": resume,
        "force": force,
        "save_every": save_every,
    }
    try:
        if ray:
            from elmokit.ray_job import embed_texts
        else:
            from elmokit.job import embed_file

        # With --ray the device is that of the workers.
        elmo = load_model(model, weights, vocabulary, threads, device="cpu" if ray else device, precision=precision)
        elmo = _warmed(elmo, warm_up, tokenize=tokenize, symbols=symbols, column=column)
        options |= {"elmo": elmo, "layers": _layers(elmo, all_layers=all_layers, top=top, mix=mix)}
        if ray:
            on: dict[str, Any] = {"address": ray, "workers": workers, "threads": threads or 1, "device": device}
            done = embed_texts(texts, out, **on, **options)
        else:
            keys: dict[str, Any] = {"use_sentence_keys": use_sentence_keys, "forget_sentences": forget_sentences}
            done = embed_file(texts[0], out, **keys, **options)
    except KeyboardInterrupt:
        safe = f"what is done is safe in {out}.partial, run the same command with --resume to continue"
        notice(f"interrupted; {safe if Path(f'{out}.partial').exists() else 'nothing is saved'}")
        raise typer.Exit(130) from None
    notice(f"{out}: {done.sentences:,} sentences, {done.tokens:,} tokens in {done.seconds:.1f} s")


def _check_ray(ray: str | None, texts: list[str], out: Path, *, workers: int | None, for_hdf5: bool) -> None:
    """Refuse what needs --ray, and what does not go with it."""
    if ray is None:
        if len(texts) > 1:
            raise typer.BadParameter("several texts are for --ray; name one", param_hint="TEXT")
        if workers:
            raise typer.BadParameter("workers are for --ray", param_hint="--workers")
        return
    if for_hdf5:
        hint = "--use-sentence-keys, --forget-sentences"
        raise typer.BadParameter("they are for HDF5, and --ray writes Parquet", param_hint=hint)
    if out.suffix.lower() in (".hdf5", ".h5", ".npz"):
        raise typer.BadParameter(f"--ray writes a folder of Parquet files, not {out.suffix}", param_hint="OUT")


def _layers(elmo: Elmo, *, all_layers: bool, top: bool, mix: bool) -> Layers:
    from elmokit.layers import layer_weights

    return layer_weights(elmo, "mix") if mix else "all" if all_layers else "top" if top else "average"


def _warmed(model: Elmo, warm_up: str | None, *, tokenize: bool, symbols: bool, column: str | None) -> Elmo:
    from elmokit.reading import is_parquet, read_sentences

    if not warm_up:
        return model
    column = column if is_parquet(warm_up) else None  # it may be of TEXT alone
    return model.warm(read_sentences(warm_up, tokenize=tokenize, symbols=symbols, column=column))
