"""The command `elmo`: one function a command, each loading what it needs when it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from elmokit.errors import ElmoError

if TYPE_CHECKING:
    from elmokit.checkpoint import Checkpoint, Config
    from elmokit.model import Elmo

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)  # fmt: skip

_MODEL = "path, hub repository user/name, or published name"
Model = Annotated[str | None, Option("--model", help=f"{_MODEL}; without it the bundled English model")]
Weights = Annotated[Path | None, Option(help="HDF5 file of weights; MODEL is then its options.json")]
Head = Annotated[Path | None, Option("--softmax", help="HDF5 file of a softmax head that is kept apart")]
HeadWords = Annotated[Path | None, Option("--vocabulary", help="words of that head, or of a model without characters")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="processor threads")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        print(installed("elmokit"))
        raise typer.Exit


@app.callback()
def elmo(
    debug: Annotated[bool, Option("--debug", help="show the whole trace of an error")] = False,  # read in main()
    version: Annotated[
        bool, Option("--version", help="print the version and stop", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """ELMo: vectors of words in context.

    Data goes to standard output, notices and progress to standard error. Exit codes: 0 done, 1 an error told in one
    sentence, 2 wrong usage, 130 interrupted.
    """


@app.command()
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
    batch_size: Annotated[int, Option(min=1, help="sentences computed together, at most")] = 64,
    dtype: Annotated[Literal["float32", "float16"], Option(help="numbers in the file")] = "float32",
    tokenize: Annotated[
        bool, Option("--tokenize", help="the text is raw, one paragraph a line: split sentences and tokens")
    ] = False,
    use_sentence_keys: Annotated[bool, Option("--use-sentence-keys", help="HDF5: the sentence is the key")] = False,
    forget_sentences: Annotated[bool, Option("--forget-sentences", help="HDF5: leave sentence_to_index out")] = False,
    save_every: Annotated[int, Option(min=1, help="sentences between two safe points for --resume")] = 10_000,
    resume: Annotated[bool, Option("--resume", help="continue an interrupted run")] = False,
    force: Annotated[bool, Option("--force", help="replace OUT, and what an interrupted run left")] = False,
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
        elmo = _warmed(_load(model, weights, vocabulary, threads), warm_up, tokenize=tokenize)
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
            use_sentence_keys=use_sentence_keys,
            forget_sentences=forget_sentences,
            resume=resume,
            force=force,
            save_every=save_every,
        )
    except KeyboardInterrupt:
        safe = f"what is done is safe in {out}.partial, run the same command with --resume to continue"
        _notice(f"interrupted; {safe if Path(f'{out}.partial').exists() else 'nothing is saved'}")
        raise typer.Exit(130) from None
    _notice(f"{out}: {done.sentences:,} sentences, {done.tokens:,} tokens in {done.seconds:.1f} s")


@app.command()
def info(
    model: Annotated[
        str | None, Argument(metavar="MODEL", help=f"{_MODEL}; without it the bundled English model")
    ] = None,
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    as_json: Annotated[bool, Option("--json", help="print JSON")] = False,
) -> None:
    """Print what a model is: format, shape, size, and what can be done with it."""
    facts = _facts(_read(model, weights=weights, softmax=softmax, vocabulary=vocabulary))
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name + ':':14}{', '.join(value) if isinstance(value, list) else value}")


@app.command()
def convert(
    source: Annotated[str, Argument(metavar="SRC", help=_MODEL)],
    target: Annotated[Path, Argument(metavar="DST", help="folder to write; our own format: also a file, NAME.zip")],
    to: Annotated[
        Literal["elmokit", "allennlp"],
        Option(
            help="elmokit: config.json + model.safetensors; "
            "allennlp: options.json + weights.hdf5, for AllenNLP and bilm-tf"
        ),
    ] = "elmokit",
    dtype: Annotated[Literal["float32", "float16"], Option(help="numbers in the file (elmokit only)")] = "float32",
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    cache_words: Annotated[
        Path | None,
        Option(metavar="VOCAB", help="put these words' vectors (one word a line) in place of the character network"),
    ] = None,
) -> None:
    """Translate a model into another format, saying first what the target cannot hold."""
    if to == "allennlp" and dtype != "float32":
        raise typer.BadParameter("AllenNLP and bilm-tf read float32 only", param_hint="--dtype")
    from elmokit import formats

    found = _read(source, weights=weights, softmax=softmax, vocabulary=vocabulary)
    if to == "allennlp" and target.suffix == ".zip":
        raise typer.BadParameter("only our own format is written as one file; name a folder", param_hint="DST")
    before = found
    if cache_words:
        found = _with_cached_words(found, cache_words)
    lost = list(dict.fromkeys([*formats.lost_in(found, to), *_dropped(before, found)]))
    if lost:
        _notice(f"not part of the target, left out: {', '.join(lost)}")
    formats.write(found, target, to=to, dtype=dtype)


@app.command()
def models(
    language: Annotated[str | None, Option(help="only those of a language, by its ISO 639 code: de, grc, zxx")] = None,
    as_json: Annotated[bool, Option("--json", help="print all that is known, as JSON")] = False,
) -> None:
    """List the published models."""
    from elmokit.catalog import models as published
    from elmokit.errors import UnknownModel

    found = published(language)
    if not found:
        raise UnknownModel(f"no published model is of the language {language!r}; expected an ISO 639 code such as de")
    if as_json:
        print(json.dumps([asdict(model) for model in found], indent=2, ensure_ascii=False))
        return
    rows = [(m.name, m.language, m.format, _megabytes(m.size), m.licence or "unknown", m.title) for m in found]
    _print_table(("name", "language", "format", "size", "licence", "title"), rows)


@app.command()
def fetch(
    name: Annotated[str, Argument(metavar="NAME", help="a published model, as in  elmo models")],
    folder: Annotated[Path | None, Option(help="where to put its files; default: the cache ($ELMOKIT_CACHE)")] = None,
) -> None:
    """Fetch a published model and print where it is; a broken-off transfer goes on where it ended."""
    from elmokit import catalog

    try:
        print(catalog.fetch(name, folder=folder))
    except KeyboardInterrupt:
        _notice("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None


@app.command()
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

    _set_threads(threads)
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
        _notice(f"stopped after {summary.steps:,} updates; continue with  elmo train --out {out} --resume")
        raise typer.Exit(130)
    print(f"{out}: held-out perplexity {summary.perplexity:.2f} after {summary.steps:,} updates")


# ---------------------------------------------------------------- helpers


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:,.1f} MB"


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns that line up; the last is as long as it is."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)][:-1]
    for row in (head, *rows):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


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


def _read(name: str | None, *, weights: Path | None, softmax: Path | None, vocabulary: Path | None) -> Checkpoint:
    from elmokit import formats
    from elmokit.catalog import locate

    path = formats.BUNDLED if name is None else locate(name)
    return formats.read(path, weights=weights, softmax=softmax, vocabulary=vocabulary)


def _dropped(before: Checkpoint, after: Checkpoint) -> list[str]:
    """Name what the model held before its words were cached and has not now."""
    head = "softmax.bias" in before.arrays and "softmax.bias" not in after.arrays
    return ["the softmax head"] * head + ["the model card"] * (bool(before.card) and not after.card)


def _with_cached_words(found: Checkpoint, vocabulary: Path) -> Checkpoint:
    from elmokit.checkpoint import read_vocabulary
    from elmokit.model import Elmo

    return Elmo(found).cached(word for word in read_vocabulary(vocabulary) if word).checkpoint()


def _load(name: str | None, weights: Path | None, vocabulary: Path | None, threads: int | None) -> Elmo:
    _set_threads(threads)
    from elmokit.model import load

    return load(name, weights=weights, vocabulary=vocabulary)


def _mix(elmo: Elmo) -> list[float]:
    from elmokit.errors import MismatchError

    if len(elmo.mixes) != 1:
        found = f"this model holds {len(elmo.mixes)} trained mixes of its layers"
        raise MismatchError(f"{found}, expected one for --mix; take --average, or Elmo.mixes in Python")
    return [float(share) for share in elmo.mixes[0]]


def _warmed(model: Elmo, warm_up: str | None, *, tokenize: bool) -> Elmo:
    from elmokit.text import read_sentences

    return model.warm(read_sentences(warm_up, tokenize=tokenize)) if warm_up else model


def _set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _can_spell(source: Checkpoint) -> bool:
    try:
        source.speller()
    except ElmoError:
        return False
    return True


def _facts(source: Checkpoint) -> dict[str, Any]:
    lstm, cnn = source.config.lstm, source.config.char_cnn
    words = [f"{cnn.spelling}, {cnn.max_characters_per_token} symbols a word"] if cnn else []
    encoder = [f"{cnn.n_filters} filters ({cnn.activation}), {cnn.n_highway} highway layers"] if cnn else []
    clips = f"cell clip {lstm.cell_clip or 'none'}, projection clip {lstm.proj_clip or 'none'}"
    can = ["embed"] * _can_spell(source) + ["convert"]
    if "warm.h" in source.arrays:
        can.append("embed --state warm")
    head = source.arrays.get("softmax.bias")
    return {
        "format": source.source,
        "words": " and ".join([*words, "a vocabulary"] if source.config.word_dim else words),
        "encoder": " and ".join([*encoder, "a table"] if source.config.word_dim else encoder),
        "lstm": f"{lstm.n_layers} layers of {lstm.dim} cells, projection {lstm.projection_dim}, {clips}, "
        f"{'with' if lstm.use_skip_connections else 'no'} skip connections",
        "vectors": f"{source.config.n_layers} layers of width {source.config.dim}",
        "parameters": f"{source.n_parameters:,} ({source.n_parameters * 4 / 1e6:.1f} MB as float32)",
        "head": f"softmax over {len(head):,} words" if head is not None else "none",
        "can": can,
    }


def _notice(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Run the command line; what goes wrong here or in the file system is one line on stderr and exit code 1."""
    try:
        app()
    except (ElmoError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        _notice("elmo: " + str(error).replace("\n", " "))
        sys.exit(1)


if __name__ == "__main__":
    main()
