"""ONNX files: the numbers of the network in onnxruntime, whatever the shape of model and batch."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from checkpoints import SPECIALS, make_lexicon_checkpoint, make_word_checkpoint
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import Config, Lstm, write_native
from elmokit.cli import app
from elmokit.compat.allennlp import batch_to_ids
from elmokit.errors import MismatchError, MissingExtra, OutputError
from elmokit.formats.onnx import build
from elmokit.model import Elmo

SENTENCES = [["The", "cat", "sat", "."], [], ["naïve", "<S>", "x" * 60, "</S>", "日本語", "ß"], ["one"]]
LSTM = Lstm(projection_dim=4, dim=10, n_layers=2, cell_clip=3.0, proj_clip=3.0, use_skip_connections=True)
WORDS = (*SPECIALS, "The", "cat", "one")


MODELS = {
    "usual": make_checkpoint(),
    "three layers, no highway": make_checkpoint(make_config(n_layers=3, n_highway=0, skip=False, cell_clip=None)),
    "clips at work, tanh": make_checkpoint(make_config(cell_clip=0.1, proj_clip=0.05, activation="tanh")),
    "one layer, no projection": make_checkpoint(make_config(n_layers=1, dim=4, n_highway=2)),
    "a table of words": make_word_checkpoint(LSTM, WORDS),
    "a lexicon of characters": make_lexicon_checkpoint(LSTM, WORDS, table=False),
    "words and characters": make_lexicon_checkpoint(LSTM, WORDS),
    "joined layers": make_lexicon_checkpoint(LSTM, WORDS, joined=True),
}


def opened(model):
    """A session for a model in memory or a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model if isinstance(model, str) else model.SerializeToString(), options)


def as_inputs(checkpoint, sentences):
    speller = checkpoint.speller()
    ids = np.zeros((len(sentences), max(map(len, sentences)), speller.spell(["a"]).shape[1]), np.int64)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = speller.spell(sentence).astype(np.int64) + 1
    return {"ids": ids, "mask": np.arange(ids.shape[1]) < np.array([[len(sentence)] for sentence in sentences])}


def assert_as_the_network(session, checkpoint, sentences, *, atol=1e-6):
    inputs = as_inputs(checkpoint, sentences)
    (layers,) = session.run(None, inputs)
    assert layers.dtype == np.float32
    for b, expected in enumerate(Elmo(checkpoint).embed(sentences, layers="all")):
        np.testing.assert_allclose(layers[:, b, : expected.shape[1]], expected, atol=atol)
    assert not layers[:, ~inputs["mask"]].any()


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_are_those_of_the_network(name):
    model = build(MODELS[name])
    onnx.checker.check_model(model, full_check=True)
    session = opened(model)
    for sentences in (SENTENCES, [["one"]], [[], []], SENTENCES * 3):
        assert_as_the_network(session, MODELS[name], sentences)


SESSION = opened(build(MODELS["usual"]))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.text(max_size=12), max_size=9), min_size=1, max_size=5))
def test_any_sentences_in_any_batch(sentences):
    assert_as_the_network(SESSION, MODELS["usual"], sentences, atol=1e-5)


def test_the_command_writes_one_file_for_the_ids_of_allennlp(tmp_path):
    found = make_checkpoint(make_config(max_characters=50), vocabulary=WORDS)
    write_native(found, tmp_path / "model")
    target = tmp_path / "new" / "model.onnx"
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "model"), str(target)])
    assert done.exit_code == 0, done.output
    assert "left out: the softmax head, the vocabulary" in done.stderr
    assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]
    session = opened(str(target))
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("ids", "tensor(int64)", ["batch", "places", 50]),
        ("mask", "tensor(bool)", ["batch", "places"]),
    ]
    ids = batch_to_ids(SENTENCES).numpy()
    (layers,) = session.run(["layers"], {"ids": ids, "mask": (ids > 0).any(-1)})
    assert layers.shape == (3, 4, 6, 8)
    for b, expected in enumerate(Elmo(found).embed(SENTENCES, layers="all")):
        np.testing.assert_allclose(layers[:, b, : expected.shape[1]], expected, atol=1e-6)


def test_the_bundled_model(tmp_path):
    found = formats.read(formats.BUNDLED)
    formats.write(found, tmp_path / "en.onnx", to="onnx")
    assert_as_the_network(opened(str(tmp_path / "en.onnx")), found, SENTENCES, atol=1e-4)


def test_a_file_says_how_to_spell():
    properties = {p.key: p.value for p in build(MODELS["words and characters"]).metadata_props}
    assert Config.model_validate_json(properties["config"]) == MODELS["words and characters"].config
    assert tuple(properties["vocabulary"].split("\n")) == WORDS
    assert tuple(properties["characters"].split("\n")) == MODELS["words and characters"].characters
    assert [p.key for p in build(MODELS["usual"]).metadata_props] == ["config"]


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    found = MODELS["usual"]
    for target, to in (("model.onnx", "elmokit"), ("folder", "onnx")):
        with pytest.raises(MismatchError, match=r"name ends in \.onnx"):
            formats.write(found, tmp_path / target, to=to)
    with pytest.raises(MismatchError, match="other numbers than float32"):
        formats.write(found, tmp_path / "model.onnx", to="onnx", dtype="float16")
    monkeypatch.setattr("elmokit.formats.onnx._MOST_BYTES", 100)
    with pytest.raises(MismatchError, match=r"a file of ONNX holds 2 GiB, and this model has 0\.0 GiB"):
        formats.write(found, tmp_path / "model.onnx", to="onnx")
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        formats.write(found, tmp_path / "model.onnx", to="onnx")


@pytest.mark.parametrize("arguments", [["--to", "allennlp"], ["--dtype", "float16"]])
def test_options_that_do_not_fit_are_wrong_usage(tmp_path, arguments):
    done = CliRunner().invoke(app, ["convert", str(formats.BUNDLED), str(tmp_path / "model.onnx"), *arguments])
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "elmokit.formats.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'elmokit\[onnx\]'"):
        formats.write(MODELS["usual"], tmp_path / "model.onnx", to="onnx")
