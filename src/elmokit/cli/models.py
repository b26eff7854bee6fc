"""`elmo info`, `convert`, `models`, `fetch`: find, open and translate checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from elmokit.cli.options import MODEL, Head, HeadWords, Weights, notice, read_model, to_json
from elmokit.errors import ElmoError

if TYPE_CHECKING:
    from elmokit.checkpoint import Checkpoint


def info(
    model: Annotated[
        str | None, Argument(metavar="MODEL", help=f"{MODEL}; without it the bundled English model")
    ] = None,
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    as_json: Annotated[bool, Option("--json", help="print JSON")] = False,
) -> None:
    """Print what a model is: format, shape, size, and what can be done with it."""
    facts = _facts(read_model(model, weights=weights, softmax=softmax, vocabulary=vocabulary))
    if as_json:
        print(to_json(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name + ':':14}{', '.join(value) if isinstance(value, list) else value}")


def convert(
    source: Annotated[str, Argument(metavar="SRC", help=MODEL)],
    target: Annotated[
        Path, Argument(metavar="DST", help="folder to write, or a file: NAME.zip, our own format; NAME.onnx")
    ],
    to: Annotated[
        Literal["elmokit", "allennlp", "bilm-tf", "elmoformanylangs"],
        Option(
            help="of a folder: elmokit: config.json + model.safetensors; allennlp: options.json + weights.hdf5, for "
            "AllenNLP and bilm-tf; bilm-tf: its TensorFlow checkpoint; elmoformanylangs: for that package"
        ),
    ] = "elmokit",
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        Option(help="numbers in the file (elmokit only); int8: of the head, float16 for the rest"),
    ] = "float32",
    weights: Weights = None,
    softmax: Head = None,
    vocabulary: HeadWords = None,
    cache_words: Annotated[
        Path | None,
        Option(metavar="VOCAB", help="put these words' vectors (one word a line) in place of the character network"),
    ] = None,
) -> None:
    """Translate a model into another format, saying first what the target cannot hold."""
    if to != "elmokit" and target.suffix in (".zip", ".onnx"):
        raise typer.BadParameter("--to is for folders; leave it out to write a file", param_hint="DST")
    form: Literal["elmokit", "allennlp", "bilm-tf", "elmoformanylangs", "onnx"]
    form = "onnx" if target.suffix == ".onnx" else to
    if form != "elmokit" and dtype != "float32":
        raise typer.BadParameter("only our own format is written in other numbers than float32", param_hint="--dtype")
    from elmokit import formats

    found = read_model(source, weights=weights, softmax=softmax, vocabulary=vocabulary)
    before = found
    if cache_words:
        found = _with_cached_words(found, cache_words)
    lost = list(dict.fromkeys([*formats.lost_in(found, form), *_dropped(before, found)]))
    if lost:
        notice(f"not part of the target, left out: {', '.join(lost)}")
    formats.write(found, target, to=form, dtype=dtype)


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
        print(to_json([asdict(model) for model in found], indent=2))
        return
    rows = [(m.name, m.language, m.format, _megabytes(m.size), m.licence or "unknown", m.title) for m in found]
    _print_table(("name", "language", "format", "size", "licence", "title"), rows)


def fetch(
    name: Annotated[str, Argument(metavar="NAME", help="a published model, as in  elmo models")],
    folder: Annotated[Path | None, Option(help="where to put its files; default: the cache ($ELMOKIT_CACHE)")] = None,
) -> None:
    """Fetch a published model and print where it is; a broken-off transfer goes on where it ended."""
    from elmokit import catalog

    try:
        print(catalog.fetch(name, folder=folder))
    except KeyboardInterrupt:
        notice("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:,.1f} MB"


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns that line up; the last is as long as it is."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)][:-1]
    for row in (head, *rows):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _dropped(before: Checkpoint, after: Checkpoint) -> list[str]:
    """Name what the model held before its words were cached and has not now."""
    from elmokit.checkpoint import head_words

    head = bool(head_words(before.arrays)) and not head_words(after.arrays)
    return ["the softmax head"] * head + ["the model card"] * (bool(before.card) and not after.card)


def _with_cached_words(found: Checkpoint, vocabulary: Path) -> Checkpoint:
    from elmokit.checkpoint import read_vocabulary
    from elmokit.model import Elmo

    return Elmo(found).cached(word for word in read_vocabulary(vocabulary) if word).checkpoint()


def _can_spell(source: Checkpoint) -> bool:
    try:
        source.speller()
    except ElmoError:
        return False
    return True


def _facts(source: Checkpoint) -> dict[str, Any]:
    from elmokit.checkpoint import head_words

    lstm, cnn = source.config.lstm, source.config.char_cnn
    words = [f"{cnn.spelling}, {cnn.max_characters_per_token} symbols a word"] if cnn else []
    encoder = [f"{cnn.n_filters} filters ({cnn.activation}), {cnn.n_highway} highway layers"] if cnn else []
    clips = f"cell clip {lstm.cell_clip or 'none'}, projection clip {lstm.proj_clip or 'none'}"
    can = ["embed"] * _can_spell(source) + ["convert"]
    if "warm.h" in source.arrays:
        can.append("embed --state warm")
    n_head, adaptive = head_words(source.arrays), "softmax.head.bias" in source.arrays
    if n_head and source.vocabulary and not lstm.joined:
        can += ["perplexity", "score", "substitutes"]
    return {
        "format": source.source,
        "words": " and ".join([*words, "a vocabulary"] if source.config.word_dim else words),
        "encoder": " and ".join([*encoder, "a table"] if source.config.word_dim else encoder),
        "lstm": f"{lstm.n_layers} layers of {lstm.dim} cells, projection {lstm.projection_dim}, {clips}, "
        f"{'with' if lstm.use_skip_connections else 'no'} skip connections",
        "vectors": f"{source.config.n_layers} layers of width {source.config.dim}",
        "parameters": f"{source.n_parameters:,} ({source.n_parameters * 4 / 1e6:.1f} MB as float32)",
        "head": f"{'adaptive softmax' if adaptive else 'softmax'} over {n_head:,} words" if n_head else "none",
        "can": can,
    }
