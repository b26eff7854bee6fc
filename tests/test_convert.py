"""Writing every target format: an exact round trip, nothing half-written, and the older tools' bytes."""

import errno
import json

import numpy as np
import pytest

import manylangs_folder
from checkpoints import SPECIALS, assert_same, make_word_checkpoint
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.errors import MismatchError, OutputError
from elmokit.formats.bundle_writer import write_bundle
from elmokit.formats.files import open_files
from elmokit.formats.sstable import read_table, write_table
from elmokit.formats.tensor_bundle import open_bundle

BILM = ["alnlp-l1-h1-tanh", "alnlp-noskip", "alnlp-nocnnproj", "tfckpt-char1", "tfckpt-char2", "tfckpt-word2",
        "tfckpt-word2-shared-softmax", "tfhub"]  # fmt: skip
MANYLANGS = ["emfl-cnn-char", "emfl-cnn-char-word", "emfl-cnn-word", "emfl-lstm-encoder", "emfl-lstm-word"]
TARGETS = ["elmokit", "allennlp", "bilm-tf", "elmoformanylangs"]


@pytest.mark.parametrize("name", BILM)
def test_a_real_model_to_a_tensorflow_checkpoint_and_back(oracles, tmp_path, name):
    found = formats.read(oracles / name)
    formats.write(found, tmp_path / "new", to="bilm-tf")
    back = formats.read(tmp_path / "new")
    kept = {key: array for key, array in found.arrays.items() if not key.startswith("mix.")}
    assert (back.config, back.vocabulary, back.source) == (
        found.config, found.vocabulary, "bilm-tf, TensorFlow checkpoint",
    )  # fmt: skip
    assert kept.keys() == back.arrays.keys()
    assert all(np.array_equal(kept[key], back.arrays[key]) for key in kept)
    assert formats.lost_in(found, "bilm-tf") == ["the trained mixes of layers"] * (name == "tfhub")


def test_the_variables_are_those_that_bilm_tf_wrote(oracles, tmp_path):
    formats.write(formats.read(oracles / "tfckpt-char2"), tmp_path / "new", to="bilm-tf")
    recorded = np.load(oracles / "tfckpt-char2" / "raw_variables.npz")
    with open_files(tmp_path / "new") as files, open_bundle(files, "model.ckpt-0.index") as bundle:
        wanted = {n.replace("|", "/"): n for n in recorded if n.startswith("lm|") and "Adagrad" not in n}
        assert wanted.keys() == bundle.index.shapes.keys()
        for name, stored in wanted.items():
            np.testing.assert_array_equal(bundle.read(name), recorded[stored])


@pytest.mark.parametrize("name", MANYLANGS)
def test_a_real_model_to_elmoformanylangs_and_back(oracles, tmp_path, name):
    found = formats.read(oracles / name)
    formats.write(found, tmp_path / "new", to="elmoformanylangs")
    assert_same(found, formats.read(tmp_path / "new"))
    assert formats.lost_in(found, "elmoformanylangs") == []


def test_the_forget_bias_is_rounded_once(tmp_path):
    manylangs_folder.write(manylangs_folder.make(seed=3), tmp_path / "old")
    found = formats.read(tmp_path / "old")
    bias = found.arrays["lstm.0.bias"]
    bias[:] = np.linspace(-1e-3, 1e-3, bias.size, dtype=np.float32).reshape(bias.shape)
    formats.write(found, tmp_path / "new", to="elmoformanylangs")
    back = formats.read(tmp_path / "new").arrays
    assert np.abs(back.pop("lstm.0.bias") - bias).max() <= 6e-8
    assert all(np.array_equal(found.arrays[name], back[name]) for name in back)


def test_an_adaptive_head_is_lost_and_said_to_be(tmp_path):
    found = make_checkpoint(make_config())
    found.arrays["softmax.head.bias"] = np.zeros(3, np.float32)
    assert formats.lost_in(found, "bilm-tf") == ["the softmax head"]
    formats.write(found, tmp_path / "new", to="bilm-tf")
    assert not any(name.startswith("softmax") for name in formats.read(tmp_path / "new").arrays)


def test_a_table_of_words_keeps_its_words(tmp_path):
    found = make_word_checkpoint(make_config().lstm, (*SPECIALS, "cat", "naïve"))
    formats.write(found, tmp_path / "new", to="bilm-tf")
    assert_same(found, formats.read(tmp_path / "new"))
    options = json.loads((tmp_path / "new" / "options.json").read_text())
    assert options["n_tokens_vocab"] == 5
    assert "share_embedding_softmax" not in options


@pytest.mark.parametrize("to", ["elmoformanylangs"])
def test_networks_that_the_target_does_not_have(tmp_path, to):
    with pytest.raises(MismatchError, match="no network like this one"):
        formats.write(make_checkpoint(make_config()), tmp_path / "new", to=to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("symbol", ["a\tb", " a", "a\nb", "a\u2028b", ""])
def test_lexicons_that_elmoformanylangs_cannot_read(tmp_path, symbol):
    model = manylangs_folder.make()
    manylangs_folder.write(model, tmp_path / "old")
    found = formats.read(tmp_path / "old")
    words = tuple(symbol if word == "cat" else word for word in found.vocabulary)
    object.__setattr__(found, "vocabulary", words)
    with pytest.raises(MismatchError, match="cannot hold"):
        formats.write(found, tmp_path / "new", to="elmoformanylangs")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, to):
    if to == "elmoformanylangs":
        found = formats.read(manylangs_folder.write(manylangs_folder.make(), tmp_path / "old"))
    else:
        found = make_checkpoint(make_config())
    written = []

    def replace_file(path, content):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path.write_bytes(content))

    for module in ("checkpoint", "formats.allennlp", "formats.bilm_tf", "formats.manylangs"):
        monkeypatch.setattr(f"elmokit.{module}.replace_file", replace_file)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="No space left"):
        formats.write(found, tmp_path / "new", to=to)
    assert written
    assert sorted(tmp_path.iterdir()) == before


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path):
    found = make_checkpoint(make_config())
    (tmp_path / "new").mkdir()
    formats.write(found, tmp_path / "new", to="bilm-tf")
    assert (tmp_path / "new" / "checkpoint").read_text() == 'model_checkpoint_path: "model.ckpt-0"\n'
    with pytest.raises(OutputError, match="not an empty folder"):
        formats.write(found, tmp_path / "new", to="allennlp")


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 300])
def test_tables_of_any_length(n):
    entries = sorted((f"lm/RNN_{i}/{'x' * (i % 7)}".encode(), bytes([i % 256]) * (i % 90)) for i in range(n))
    assert list(read_table(write_table(entries))) == entries


def test_arrays_of_any_shape(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "a": np.zeros((0, 4), np.float32),
              "c": np.array(2.5, np.float32), "long/name": np.full((70, 70), -1, np.float32)}  # fmt: skip
    for name, content in write_bundle(arrays, "x").items():
        (tmp_path / name).write_bytes(content)
    with open_files(tmp_path) as files, open_bundle(files, "x.index") as bundle:
        for name, array in arrays.items():
            read = bundle.read(name)
            assert read.shape == array.shape
            np.testing.assert_array_equal(read, array)
