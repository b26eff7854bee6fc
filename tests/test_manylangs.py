"""Models of ELMoForManyLangs: the numbers of the package, its lexicons and marks, and what is no such model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import manylangs_folder as package
from checkpoints import assert_same, pack, refusal
from elmokit import formats
from elmokit.checkpoint import check_arrays, write_native
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import allennlp
from elmokit.model import Carry, Elmo

CNN = ["emfl-cnn-char", "emfl-cnn-char-word", "emfl-cnn-word", "emfl-lstm-word"]
LAYERS = {"m2": "all", "m1": "average", "0": 0, "1": 1, "2": 2}
TEXT = [
    "the cat sat".split(),
    [],
    [
        "",
        "x" * 8,
        "x" * 60,
        "<bos>",
        "<eos>",
        "<oov>",
        "<pad>",
        "<S>",
        "</S>",
        "<UNK>",
        "a b",
        "\u3000",
        "\ud800",
        "🦊",
    ],
    ["北京", "北", "京", "naïve", "the"],
]


def sentences_of(folder):
    return [line.split(" ") for line in (folder / "sentences.txt").read_text("utf-8").splitlines()]


def distance(found, expected):
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(found, expected, strict=True))


# ---------------------------------------------------------------- the numbers of the package


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", CNN)
def test_every_output_layer_as_recorded(oracles, name, layer):
    folder = oracles / name
    sentences, recorded = sentences_of(folder), np.load(folder / "expected.npz")
    expected = [recorded[f"layer{layer}_{i}"] for i in range(len(sentences))]
    found = Elmo(formats.read(folder)).embed(sentences, layers=LAYERS[layer])
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("name", CNN)
def test_the_state_after_one_call_as_recorded(oracles, name):
    folder = oracles / name
    recorded, carry, elmo = np.load(folder / "expected.npz"), Carry(), Elmo(formats.read(folder))
    order = sorted(enumerate(sentences_of(folder)), key=lambda numbered: -len(numbered[1]))  # as the package batches
    for _ in range(2):
        found = list(elmo.embed([sentence for _, sentence in order], layers="all", state=carry))
    assert distance(found, [recorded[f"second_call_layerm2_{i}"] for i, _ in order]) < 1e-5


def test_the_encoder_lstm_as_recorded(oracles):
    """The package lets it read the padding behind shorter sentences, so only the longest is its own; see `compat`."""
    folder = oracles / "emfl-lstm-encoder"
    elmo, sentences = Elmo(formats.read(folder)), sentences_of(folder)
    i = max(range(len(sentences)), key=lambda i: len(sentences[i]))
    assert elmo.n_layers == 2
    found = list(elmo.embed(sentences, layers="top"))
    assert distance([found[i]], [np.load(folder / "expected.npz")[f"layerm2_{i}"]]) < 1e-5


@pytest.mark.parametrize("name", ["emfl-lstm-char", "emfl-lstm-char-word"])
def test_what_the_package_itself_cannot_run_is_refused(oracles, name):
    assert "reads characters with an LSTM, expected a CNN" in refusal(oracles / name)


SHAPES = {
    "characters and words": {},
    "characters": {"word_dim": 0, "n_highway": 2, "activation": "tanh"},
    "words": {"char_dim": 0},
    "words, an embedder lstm": {"char_dim": 0, "embedder": "lstm"},
    "words as wide as the projection": {"char_dim": 0, "word_dim": 4},
    "filters as wide as the projection": {"word_dim": 0, "filters": [[1, 1], [3, 3]], "n_highway": 0},
    "as many cells as the projection": {"D": 4, "proj_clip": 0.3},
    "no clips, one layer": {"cell_clip": 0, "proj_clip": None, "n_layers": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("older", [False, True])
def test_agrees_with_the_package_in_numpy(tmp_path, shape, older):
    model = package.make(**SHAPES[shape])
    source = formats.read(package.write(model, tmp_path, older=older))
    check_arrays({name: array.shape for name, array in source.arrays.items()}, source.config, where="here")
    found = list(Elmo(source).embed(TEXT, layers="all"))
    assert distance(found, [package.embed(tokens, model) for tokens in TEXT]) < 2e-6


@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_encoder_lstm_is_that_of_torch(tmp_path, n_layers):
    model = package.make(encoder="lstm", n_layers=n_layers)
    elmo = Elmo(formats.read(package.write(model, tmp_path)))
    found = list(elmo.embed(TEXT, layers="all"))
    assert distance(found, [package.embed_joined(tokens, model) for tokens in TEXT]) < 2e-6
    alone = [next(elmo.embed([tokens], layers="all")) for tokens in TEXT]
    assert distance(found, alone) < 2e-6


def test_layers_that_are_joined_carry_their_state(tmp_path):
    elmo, carry = Elmo(formats.read(package.write(package.make(encoder="lstm"), tmp_path))), Carry()
    one_by_one = [next(elmo.embed([tokens], layers="top", state=carry)) for tokens in TEXT]
    assert distance(elmo.embed(TEXT, layers="top", state="carry", batch_size=1), one_by_one) == 0
    assert distance(elmo.embed(TEXT, layers="top"), one_by_one) > 0.01


# ---------------------------------------------------------------- our own folder, and others


@pytest.mark.parametrize("shape", [*SHAPES, "lstm"])
def test_our_own_folder_there_and_back(tmp_path, shape):
    model = package.make(**SHAPES.get(shape, {"encoder": "lstm"}))
    source = formats.read(package.write(model, tmp_path / "theirs"))
    formats.write(source, tmp_path / "ours")
    formats.write(source, tmp_path / "ours.zip")
    for path in ("ours", "ours.zip"):
        again = formats.read(tmp_path / path)
        assert_same(again, source)
        assert again.characters == source.characters
        assert distance(Elmo(again).embed(TEXT), Elmo(source).embed(TEXT)) == 0
    saved = Elmo(source).warm(TEXT).checkpoint()
    write_native(saved, tmp_path / "warmed")
    assert_same(formats.read(tmp_path / "warmed"), saved)


def test_a_lexicon_that_is_not_the_models(tmp_path):
    source = formats.read(package.write(package.make(), tmp_path / "theirs"))
    formats.write(source, tmp_path / "ours")
    (tmp_path / "ours" / "chars.txt").write_text("a\nb\n")
    assert "chars.txt: expected 21 symbols, one a line, found 2" in refusal(tmp_path / "ours")
    (tmp_path / "ours" / "chars.txt").unlink()
    without = formats.read(tmp_path / "ours")
    with pytest.raises(FormatError, match="needs its lexicon"):
        Elmo(without)


def test_models_that_differ_in_a_lexicon_have_different_fingerprints(tmp_path):
    source = formats.read(package.write(package.make(), tmp_path))
    elmo = Elmo(source)
    characters = tuple("b" if symbol == "t" else symbol for symbol in source.characters)
    words = tuple("dog" if word == "cat" else word for word in source.vocabulary)
    others = [replace(source, characters=characters), replace(source, vocabulary=words)]
    assert len({elmo.fingerprint, *(Elmo(other).fingerprint for other in others)}) == 3
    assert Elmo(source).fingerprint == elmo.fingerprint


def test_cached_words_have_the_vectors_they_had(tmp_path):
    elmo = Elmo(formats.read(package.write(package.make(), tmp_path)))
    text = [["the", "cat", "<bos>", "naïve"], ["北京"]]
    cached = elmo.cached(word for sentence in text for word in sentence)
    assert distance(cached.embed(text, layers="all"), elmo.embed(text, layers="all")) < 1e-6
    cached.save(tmp_path / "cached")
    assert distance(Elmo(formats.read(tmp_path / "cached")).embed(text), cached.embed(text)) == 0


@pytest.mark.parametrize("shape", [{}, {"char_dim": 0}, {"encoder": "lstm"}])
def test_the_format_of_allennlp_cannot_hold_one(tmp_path, shape):
    source = formats.read(package.write(package.make(**shape), tmp_path / "theirs"))
    with pytest.raises(MismatchError, match=r"no network like this one \(options always_project"):
        allennlp.write(source, tmp_path / "options")
    assert not (tmp_path / "options").exists()
    formats.write(source, tmp_path / "ours")
    (tmp_path / "ours" / "config.json").rename(tmp_path / "options.json")
    options = json.loads((tmp_path / "options.json").read_text())
    content = json.dumps({name: options[name] for name in options if name not in ("model_type", "elmokit_version")})
    with pytest.raises(FormatError, match="'always_project' is not one of AllenNLP"):
        allennlp.parse_options(content.encode(), where="options.json")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    "path", ["network.json", "/users4/a/network.json", r"C:\models\network.json", "deep/network.json"]
)
def test_the_description_is_found_by_its_name(tmp_path, path):
    package.write(package.make(), tmp_path, config_path=path)
    assert formats.read(tmp_path).config.lstm.dim == 6


def test_the_description_is_first_sought_where_it_is_said_to_be(tmp_path):
    package.write(package.make(), tmp_path, config_path="deep/network.json")
    (tmp_path / "deep").mkdir()
    (tmp_path / "network.json").rename(tmp_path / "deep" / "network.json")
    (tmp_path / "network.json").write_text("not this one")
    assert formats.read(tmp_path).config.lstm.dim == 6


def test_the_description_that_the_package_brings_along(tmp_path):
    package.write(package.make(), tmp_path, config_path="../configs/cnn_50_100_512_4096_sample.json")
    message = refusal(tmp_path)
    assert "'word_emb_layer.embedding.weight': expected shape (13, 100), found (13, 5)" in message


def test_a_zip_with_other_files_in_it(tmp_path):
    model = package.make()
    folder = package.write(model, tmp_path / "144")
    members = {f"144.model/{path.name}": path.read_bytes() for path in folder.iterdir()}
    others = {"144.model/classifier.pkl": b"\x80\x02}.", "144.model/meta.json": b"{}", "README": b"read me"}
    found = formats.read(pack(tmp_path / "144.zip", members | others))
    assert_same(found, formats.read(folder))
    assert found.source == "ELMoForManyLangs"


def test_models_side_by_side_are_named_and_the_outermost_is_meant(tmp_path):
    for name in ("de", "fr"):
        package.write(package.make(), tmp_path / name)
    assert "holds several models: de/, fr/; name the one that is meant" in refusal(tmp_path)
    model = package.make(seed=5)
    package.write(model, tmp_path)
    assert_same(formats.read(tmp_path), formats.read(package.write(model, tmp_path / "alone" / "new")))


def test_lexicons(tmp_path):
    model = package.make(seed=3)
    source = formats.read(package.write(model, tmp_path))
    assert source.vocabulary == package.WORDS
    np.testing.assert_array_equal(source.arrays["embedding"], model.embedder["word_emb_layer.embedding.weight"])
    rows = model.embedder["char_emb_layer.embedding.weight"]
    theirs = {"<bow>": "<eow>", "<eow>": "<bow>"}
    assert source.characters[-1] == "<pad>"
    for symbol, row in zip(source.characters, source.arrays["char_embed"], strict=True):
        np.testing.assert_array_equal(row, rows[package.CHARACTERS.index(theirs.get(symbol, symbol))])


def test_rows_in_any_order_and_white_space(tmp_path):
    """The package strips lines, so that a symbol of white space is missing there; it reads as U+3000."""
    folder = package.write(package.make(char_dim=0), tmp_path)
    expected = formats.read(folder).vocabulary
    lines = (folder / "word.dic").read_text("utf-8").split("\n")[:-1]
    (folder / "word.dic").write_text("\r\n".join(reversed(lines)).replace("\u3000", "\u00a0"), "utf-8")
    assert formats.read(folder).vocabulary == expected


def changed(name, change):
    def make(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return make


def described(part, **options):
    def change(content):
        whole = json.loads(content)
        (whole[part] if part else whole).update(options)
        return json.dumps(whole).encode()

    return changed("network.json", change)


def with_tensors(name, change):
    def make(folder):
        tensors = torch.load(folder / name, weights_only=True)
        change(tensors)
        torch.save(tensors, folder / name)

    return make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed("config.json", lambda c: c.replace(b"network", b"elsewhere")),
            "names 'elsewhere.json', expected a file",
        ),
        (lambda p: (p / "network.json").write_text("{"), "network.json: expected JSON"),
        (lambda p: (p / "network.json").write_text("[]"), "option 'encoder.name': expected elmo or lstm, found None"),
        (described(None, encoder="elmo"), "option 'encoder.name': expected elmo or lstm, found None"),
        (described("encoder", name="gru"), "option 'encoder.name': expected elmo or lstm, found 'gru'"),
        (described("token_embedder", name="bpe"), "option 'token_embedder.name': expected cnn or lstm, found 'bpe'"),
        (described(None, speed=2), "option 'speed' is not understood"),
        (described("encoder", highways=2), "option 'highways' is not understood"),
        (described("encoder", dim=2**40), "option 'lstm.dim': input should be less than or equal to 65536"),
        (described("encoder", n_layers="two"), "option 'lstm.n_layers': input should be a valid integer"),
        (described("token_embedder", max_characters_per_token="50"), "'max_characters_per_token': expected a number"),
        (
            described("token_embedder", activation="gelu"),
            "option 'char_cnn.activation': input should be 'relu' or 'tanh'",
        ),
        (described("token_embedder", word_dim=0, char_dim=0), "'word_dim' and 'char_dim' are both 0"),
        (
            described("token_embedder", word_dim=-1),
            "option 'word_embed.dim': input should be greater than or equal to 1",
        ),
        (described("token_embedder", name="lstm"), "reads characters with an LSTM"),
        (lambda p: (p / "char.dic").unlink(), "char.dic is missing"),
        (lambda p: (p / "word.dic").write_bytes(b"\xff\t0\n"), "word.dic: expected UTF-8"),
        (lambda p: (p / "word.dic").write_bytes(b""), "word.dic (0 symbols) lacks <bos>"),
        (changed("word.dic", lambda c: c.replace(b"<oov>", b"oov")), "word.dic (13 symbols) lacks <oov>"),
        (changed("char.dic", lambda c: c.replace(b"<eow>", b"eow")), "char.dic (21 symbols) lacks <eow>"),
        (
            changed("char.dic", lambda c: c.replace(b"q\t2", b"q\t21")),
            "expected numbers below 21, one a symbol, found 21",
        ),
        (changed("char.dic", lambda c: c.replace(b"q\t2", b"q\tx")), "char.dic, line 3: expected a symbol, a tab and"),
        (changed("char.dic", lambda c: c.replace(b"q\t2", b"q\t-2")), "char.dic, line 3: expected a symbol"),
        (changed("char.dic", lambda c: c.replace(b"q\t2", b"q\t2\t2")), "char.dic, line 3: expected a symbol"),
        (changed("char.dic", lambda c: c.replace(b"q\t2\n", b"")), "expected numbers below 20"),
        (changed("char.dic", lambda c: c + b"Z\t5\n"), "embedding.weight': expected shape (22, 3), found (21, 3)"),
        (changed("char.dic", lambda c: c + b"q\t5\n"), None),
        (with_tensors("encoder.pkl", lambda t: t.clear()), "'forward_layer_0.input_linearity.weight' is missing"),
        (with_tensors("encoder.pkl", lambda t: t.update(x=torch.zeros(2))), "'x' (2,) is not part of the network"),
        (
            with_tensors("token_embedder.pkl", lambda t: t.update({"projection.bias": torch.zeros(3)})),
            "'projection.bias': expected shape (4,), found (3,)",
        ),
        (
            with_tensors("encoder.pkl", lambda t: t.update({"x": torch.zeros(2, dtype=torch.complex64)})),
            "encoder.pkl is not a file of torch tensors alone (it names 'torch ComplexFloatStorage'",
        ),
        (lambda p: (p / "encoder.pkl").write_bytes(b""), "encoder.pkl is not a"),
    ],
)
def test_folders_with_something_wrong(tmp_path, change, message):
    change(package.write(package.make(), tmp_path))
    if message is None:  # a symbol that stands twice counts as in its last line
        assert formats.read(tmp_path).characters.count("q") == 1
    else:
        assert message in refusal(tmp_path)


def test_a_lexicon_without_a_model_is_no_such_folder(tmp_path):
    package.write(package.make(), tmp_path)
    (tmp_path / "encoder.pkl").unlink()
    assert "holds no model" in refusal(tmp_path)
