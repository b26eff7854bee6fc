"""The format of ELMoForManyLangs: JSON, lexicons and torch state dicts.

`config.json` names a second JSON file that describes the network; beside them are `char.dic`, `word.dic`,
`token_embedder.pkl` and `encoder.pkl`. Other files are left alone, among them `classifier.pkl`, a softmax head.

Models whose token embedder reads characters with an LSTM are refused: the package's own forward pass fails for them,
in training too, so that there can be no trained one and there is no number to agree with.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from elmokit.checkpoint import Arrays, Checkpoint, read_json, replace_file, written_folder
from elmokit.config import Config, parse_config
from elmokit.errors import FormatError, MismatchError
from elmokit.formats.files import Files, one_place, outermost
from elmokit.formats.rules import Rule, check, left_out, to_ours, to_theirs
from elmokit.formats.torch_pickle import packed_state_dict, read_state_dict
from elmokit.formats.torch_rules import (
    both_transposed,
    cell_names,
    convolution_rules,
    gate_biases,
    gates,
    highway_rules,
    in_our_parts,
    in_their_parts,
    transposed,
)
from elmokit.text import BEGIN_WORD, END_WORD, PAD

_OPTIONS, _EMBEDDER, _ENCODER = "config.json", "token_embedder.pkl", "encoder.pkl"
_NETWORK = "network.json"  # as we name it
_WORDS, _CHARACTERS = "word.dic", "char.dic"
_MAX_OPTIONS, _MAX_LEXICON = 1 << 20, 1 << 28
_MARKS = ["<bos>", "<eos>", "<oov>"]
# A line of a lexicon whose symbol is white space reads as this one.
_WHITE_SPACE = "\u3000"

# What the package brings along under both names, for models that come without the description of their network.
_SAMPLE_NAMES = {"cnn_50_100_512_4096_sample.json", "cnn_0_100_512_4096_sample.json"}
_SAMPLE = {
    "encoder": {"name": "elmo", "projection_dim": 512, "cell_clip": 3, "proj_clip": 3, "dim": 4096, "n_layers": 2},
    "token_embedder": {
        "name": "cnn", "activation": "relu", "n_highway": 2, "word_dim": 100, "char_dim": 50,
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "max_characters_per_token": 50,
    },
}  # fmt: skip

Lexicon = dict[str, int]


def recognises(files: Files) -> bool:
    """Tell by content whether a model of this format is here."""
    return bool(_tops(files))


def read(files: Files) -> Checkpoint:
    """Read the model; `recognises` must have said yes."""
    top = one_place(_tops(files), where=files.where)
    description, where = _description(files, top)
    encoder, embedder = (_part(description, name, where=where) for name in ("encoder", "token_embedder"))
    words = _lexicon(files, top + _WORDS, [*_MARKS, PAD]) if embedder.get("word_dim") else {}
    specials = [*_MARKS, BEGIN_WORD, END_WORD, PAD]
    characters = _unswapped(_lexicon(files, top + _CHARACTERS, specials)) if embedder.get("char_dim") else {}
    config = _config(encoder, embedder, n_characters=len(characters), where=where)
    arrays = in_our_parts(_read(files, top + _EMBEDDER, _embedder_rules(config, len(words))))
    for name, lexicon in (("embedding", words), ("char_embed", characters)):
        if lexicon:  # one row for each symbol, in our order
            arrays[name] = arrays[name][list(lexicon.values())]
    arrays |= in_our_parts(_read(files, top + _ENCODER, _encoder_rules(config)))
    vocabulary, symbols = tuple(words) or None, tuple(characters) or None
    return Checkpoint(config, arrays, vocabulary, source="ELMoForManyLangs", characters=symbols)


def write(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write config.json, network.json, the lexicons and the two state dicts, which the package reads.

    Raises `MismatchError` for a network that ELMoForManyLangs does not have.
    """
    config, arrays = checkpoint.config, checkpoint.arrays
    description = _described(checkpoint)
    parts = in_their_parts(arrays, state_dim=config.lstm.state_dim)
    embedder = to_theirs(_embedder_rules(config, len(checkpoint.vocabulary or ())), parts)
    encoder = to_theirs(_encoder_rules(config), parts)
    files = {_EMBEDDER: packed_state_dict(embedder), _ENCODER: packed_state_dict(encoder)}
    files[_NETWORK] = json.dumps(description, indent=2).encode()
    for name, symbols in ((_WORDS, checkpoint.vocabulary), (_CHARACTERS, _swapped(checkpoint.characters or ()))):
        if symbols:
            files[name] = _lines(symbols, where=name)
    files[_OPTIONS] = json.dumps({"config_path": _NETWORK, "seed": 1}).encode()
    with written_folder(folder) as folder:
        for name, content in files.items():
            replace_file(folder / name, content)


def lost_in(checkpoint: Checkpoint) -> list[str]:
    """Name what a checkpoint holds that this format cannot."""
    return left_out(checkpoint, head=False, vocabulary=checkpoint.config.word_dim > 0)


def _read(files: Files, name: str, rules: Sequence[Rule]) -> Arrays:
    with files.open(name) as file:
        state = read_state_dict(file, size=files.sizes[name], where=files.named(name))
    check(rules, {name: array.shape for name, array in state.items()}, where=files.named(name))
    return to_ours(rules, state.__getitem__)


# ---------------------------------------------------------------- which files, and what they say


def _tops(files: Files) -> list[str]:
    """Return the outermost folders, "" or ending in "/", that hold a model of this format."""
    tops = [name.removesuffix(_OPTIONS) for name in files.find(_OPTIONS) if _config_path(files, name)]
    return outermost([top for top in tops if {top + _EMBEDDER, top + _ENCODER} <= files.sizes.keys()])


def _config_path(files: Files, name: str) -> str | None:
    if files.sizes[name] > _MAX_OPTIONS:
        return None
    with suppress(FormatError):
        options = read_json(files.read(name), where=name)
        if isinstance(options, dict) and isinstance(options.get("config_path"), str):
            return str(options["config_path"])
    return None


def _description(files: Files, top: str) -> tuple[Any, str]:
    """Return what describes the network, and where it is.

    `config_path` is often a path of the machine that trained the model: its last part is what counts.
    """
    path = _config_path(files, top + _OPTIONS) or ""
    last = re.split(r"[\\/]", path)[-1]
    for name in (top + path, top + last):
        if name in files.sizes:
            return read_json(files.read(name, limit=_MAX_OPTIONS), where=files.named(name)), files.named(name)
    if last not in _SAMPLE_NAMES:
        missing = f"names {last[:80]!r}, expected a file of the model"
        raise FormatError(f"{files.named(top + _OPTIONS)}: option 'config_path' {missing}; put it there")
    return _SAMPLE, f"{files.where}: {last}"


_NETWORKS = {"encoder": ("elmo", "lstm"), "token_embedder": ("cnn", "lstm")}
_SIZES, _CLIPS = ("projection_dim", "dim", "n_layers"), ("cell_clip", "proj_clip")
_CNN = ("activation", "filters", "n_highway", "max_characters_per_token")
_KNOWN = {
    "encoder": {"name", *_SIZES, *_CLIPS},
    "token_embedder": {"name", *_CNN, "word_dim", "char_dim"},
    "description": {"encoder", "token_embedder", "classifier", "dropout"},  # the last two matter in training only
}


def _part(description: Any, name: str, *, where: str) -> dict[str, Any]:
    """Return one part of the description, with its `name` in small letters; refuse what is not understood."""
    part = description.get(name) if isinstance(description, dict) else None
    kind = str(part.get("name")).lower() if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in _NETWORKS[name]:
        expected = " or ".join(_NETWORKS[name])
        raise FormatError(f"{where}: option '{name}.name': expected {expected}, found {repr(kind)[:80]}")
    unknown = [*(description.keys() - _KNOWN["description"]), *(part.keys() - _KNOWN[name])]
    if unknown:
        raise FormatError(f"{where}: option {unknown[0]!r} is not understood; remove it if it changes nothing")
    return {**part, "name": kind}


def _config(encoder: dict[str, Any], embedder: dict[str, Any], *, n_characters: int, where: str) -> Config:
    """Make a `Config` of the two parts, or raise `FormatError`."""
    joined = encoder["name"] == "lstm"
    lstm = _picked(encoder, _SIZES if joined else _SIZES + _CLIPS)
    options = {
        "lstm": {**lstm, "use_skip_connections": not joined, "joined": joined},
        "marks": _MARKS,
        "always_project": True,
    }
    if embedder.get("word_dim"):
        options["word_embed"] = {"dim": embedder["word_dim"], "longest": _longest(embedder, where=where)}
    if embedder.get("char_dim"):
        if embedder["name"] == "lstm":
            expected = "expected a CNN: ELMoForManyLangs itself cannot run this network"
            raise FormatError(f"{where}: the token embedder reads characters with an LSTM, {expected}")
        size = {"embedding": {"dim": embedder["char_dim"]}, "n_characters": n_characters}
        options["char_cnn"] = {**_picked(embedder, _CNN), **size, "spelling": "code points"}
    if options.keys().isdisjoint({"word_embed", "char_cnn"}):
        raise FormatError(f"{where}: options 'word_dim' and 'char_dim' are both 0, expected words, characters or both")
    return parse_config(options, where=where)


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the description of a network, from which it is read again, or raise `MismatchError`."""
    config, cnn, words = checkpoint.config, checkpoint.config.char_cnn, checkpoint.config.word_embed
    lstm = config.lstm.model_dump(include={*_SIZES, *_CLIPS})
    encoder = {"name": "lstm" if config.lstm.joined else "elmo", **lstm}
    # The package reads every one of these, and cuts no words where the embedder is an LSTM over words alone.
    cuts_nothing = cnn is None and words is not None and words.longest is None
    embedder: dict[str, Any] = {"name": "lstm" if cuts_nothing else "cnn", "char_dim": 0, "word_dim": 0}
    embedder |= {"max_characters_per_token": 2 + ((words and words.longest) or 48)}
    if cnn:
        embedder |= {**cnn.model_dump(include={*_CNN}), "char_dim": cnn.embedding.dim}
    if words:
        embedder["word_dim"] = words.dim
    with suppress(FormatError):
        n = len(checkpoint.characters or ())
        if config == _config(encoder, embedder, n_characters=n, where=_NETWORK):
            return {"encoder": encoder, "token_embedder": embedder, "dropout": 0.1}
    raise MismatchError(
        "ELMoForManyLangs has no network like this one: its words are tables and code points, its sentence marks <bos> "
        "and <eos>; write our own format"
    )


def _picked(part: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: part[name] for name in names if name in part}


def _longest(embedder: dict[str, Any], *, where: str) -> int | None:
    """Return how many characters of a word count; an embedder of the kind `lstm` cuts nothing."""
    if embedder["name"] == "lstm":
        return None
    n = embedder.get("max_characters_per_token")
    if not isinstance(n, int):
        raise FormatError(f"{where}: option 'max_characters_per_token': expected a number, found {repr(n)[:80]}")
    return n - 2


# ---------------------------------------------------------------- lexicons


def _lexicon(files: Files, name: str, needed: Collection[str]) -> Lexicon:
    """Return symbol -> row in the order of rows; the last line of a symbol counts, as in the package."""
    where = files.named(name)
    if name not in files.sizes:
        raise FormatError(f"{where} is missing; expected one symbol and its number a line")
    try:
        lines = files.read(name, limit=_MAX_LEXICON).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise FormatError(f"{where}: expected UTF-8, one symbol and its number a line") from None
    lexicon = dict(_entry(line, where=f"{where}, line {number}") for number, line in enumerate(lines, start=1))
    for symbol in needed:
        if symbol not in lexicon:
            raise FormatError(f"{where} ({len(lexicon):,} symbols) lacks {symbol}")
    if (highest := max(lexicon.values())) >= len(lexicon):
        raise FormatError(f"{where}: expected numbers below {len(lexicon):,}, one a symbol, found {highest:,}")
    return dict(sorted(lexicon.items(), key=lambda entry: entry[1]))


def _entry(line: str, *, where: str) -> tuple[str, int]:
    *symbol, number = line.strip().split("\t")
    if len(symbol) > 1 or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise FormatError(f"{where}: expected a symbol, a tab and its number, found {line[:40]!r}")
    return (symbol[0] if symbol else _WHITE_SPACE), int(number)


def _lines(symbols: Sequence[str], *, where: str) -> bytes:
    """Return a lexicon as it is written: a symbol, a tab, its row."""
    symbol, count = next(iter(Counter(symbols).most_common(1)), ("", 0))
    if count > 1:
        raise MismatchError(
            f"{where} of ELMoForManyLangs holds a symbol once, found {symbol!r} {count} times; rename them"
        )
    for symbol in symbols:
        if symbol != _WHITE_SPACE and ("\t" in symbol or [symbol.strip()] != symbol.splitlines(keepends=True)):
            raise MismatchError(f"{where} of ELMoForManyLangs cannot hold {symbol!r}: white space ends what it holds")
    return "".join(f"{symbol}\t{row}\n" for row, symbol in enumerate(symbols)).encode()


def _swapped(characters: Sequence[str]) -> list[str]:
    """Return the lexicon of characters with the names that the package gives them, see `_unswapped`."""
    return [_SWAPPED.get(symbol, symbol) for symbol in characters]


_SWAPPED = {BEGIN_WORD: END_WORD, END_WORD: BEGIN_WORD}


def _unswapped(lexicon: Lexicon) -> Lexicon:
    """Return the lexicon of characters in our order, <pad> last.

    The package begins a word with the row it calls <eow> and ends it with <bow>; here each has the name of its use.
    """
    renamed = {_SWAPPED.get(symbol, symbol): row for symbol, row in lexicon.items()}
    return {**{symbol: row for symbol, row in renamed.items() if symbol != PAD}, PAD: renamed[PAD]}


# ---------------------------------------------------------------- the tables


def _embedder_rules(config: Config, n_words: int) -> list[Rule]:
    return [*_table_rules(config, n_words), *_character_rules(config)]


def _table_rules(config: Config, n_words: int) -> list[Rule]:
    """Return the rules of the word table and of the projection of words and characters."""
    P, W, cnn = config.lstm.projection_dim, config.word_dim, config.char_cnn
    table = [Rule("embedding", ("word_emb_layer.embedding.weight",), (n_words, W))] if W else []
    width = W + (cnn.n_filters if cnn else 0)
    return [
        *table,
        transposed("projection.weight", "projection.weight", (P, width)),
        Rule("projection.bias", ("projection.bias",), (P,)),
    ]


def _character_rules(config: Config) -> list[Rule]:
    cnn = config.char_cnn
    if cnn is None:
        return []
    return [
        Rule("char_embed", ("char_emb_layer.embedding.weight",), (cnn.n_symbols, cnn.embedding.dim)),
        *convolution_rules(cnn, "convolutions.{}"),
        *highway_rules(cnn, "highways._layers.{}"),
    ]


def _encoder_rules(config: Config) -> list[Rule]:
    """Return the rules of the LSTM, in parts that `in_our_parts` puts together."""
    lstm, P, D = config.lstm, config.lstm.projection_dim, config.lstm.dim
    rules = []
    for k in range(lstm.n_layers):
        names = _joined_names(k) if lstm.joined else cell_names(k)
        rules.append(gates(f"lstm.{k}.input", names["input"], (4 * D, lstm.input_dim(k))))
        rules.append(gates(f"lstm.{k}.state", names["state"], (4 * D, lstm.state_dim)))
        rules.append(gate_biases(f"lstm.{k}.bias", names["bias"], (4 * D,)))
        if config.projects_cells:
            rules.append(both_transposed(f"lstm.{k}.projection", names["projection"], (P, D)))
    if lstm.joined:
        rules.append(transposed("output.weight", "projection.weight", (P, D)))
        rules.append(Rule("output.bias", ("projection.bias",), (P,)))
    return rules


def _joined_names(layer: int) -> dict[str, tuple[str, ...]]:
    theirs = {"input": ["weight_ih"], "state": ["weight_hh"], "bias": ["bias_ih", "bias_hh"]}
    both = (f"l{layer}", f"l{layer}_reverse")
    return {ours: tuple(f"encoder.{part}_{side}" for part in parts for side in both) for ours, parts in theirs.items()}
