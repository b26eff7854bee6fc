"""Writing every target format: an exact round trip, nothing half-written, and the older tools' bytes."""

import errno
import json
import os
from dataclasses import replace

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

BILM = ["tfckpt-char1", "tfckpt-char2", "tfckpt-char3-noskip-noclip", "tfckpt-word2", "tfckpt-word2-shared-softmax"]
WORDS = (*SPECIALS, "cat", "naïve")
MANYLANGS = ["emfl-cnn-char", "emfl-cnn-char-word", "emfl-cnn-word", "emfl-lstm-encoder", "emfl-lstm-word"]
TARGETS = ["elmokit", "allennlp", "bilm-tf", "elmoformanylangs"]


@pytest.mark.parametrize("name", BILM)
def test_a_real_model_to_a_tensorflow_checkpoint_and_back(oracles, tmp_path, name):
    found = formats.read(oracles / name)
    formats.write(found, tmp_path / "new", to="bilm-tf")
    back = formats.read(tmp_path / "new")
    assert_same(back, found)
    assert back.source == "bilm-tf, TensorFlow checkpoint"
    assert formats.lost_in(found, "bilm-tf") == []


SHAPES = [
    {"n_layers": 1, "n_highway": 1, "activation": "tanh"},
    {"skip": False, "n_layers": 3},
    {"filters": ((1, 1), (2, 3))},
    {"cell_clip": None, "proj_clip": 0.5},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_other_shapes_to_a_tensorflow_checkpoint_and_back(tmp_path, shape):
    found = make_checkpoint(make_config(**shape), vocabulary=WORDS)
    formats.write(found, tmp_path / "new", to="bilm-tf")
    assert_same(formats.read(tmp_path / "new"), found)


def test_what_bilm_tf_cannot_restore_is_refused(tmp_path):
    """It restores a softmax head with the network, and no adaptive one."""
    found = make_checkpoint()
    with pytest.raises(MismatchError, match=r"expected a softmax head, which bilm-tf restores with .*, found none"):
        formats.write(found, tmp_path / "new", to="bilm-tf")
    found.arrays["softmax.head.bias"] = np.zeros(3, np.float32)
    with pytest.raises(MismatchError, match="found an adaptive one; write the allennlp format"):
        formats.write(found, tmp_path / "new", to="bilm-tf")
    assert formats.lost_in(found, "bilm-tf") == ["the softmax head"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clip", [0, None])
def test_no_clip_is_not_a_clip_at_zero(tmp_path, clip):
    """TensorFlow takes 0 for a clip; AllenNLP asks for the key."""
    found = make_checkpoint(make_config(cell_clip=clip, proj_clip=clip), vocabulary=WORDS)
    for to, expected in (("bilm-tf", {}), ("allennlp", {"cell_clip": None, "proj_clip": None})):
        formats.write(found, tmp_path / to, to=to)
        options = json.loads((tmp_path / to / "options.json").read_text())
        assert {name: value for name, value in options["lstm"].items() if "clip" in name} == expected


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


def test_a_table_of_words_keeps_its_words(tmp_path):
    found = make_word_checkpoint(make_config().lstm, WORDS)
    P = found.config.lstm.projection_dim
    found.arrays.update({"softmax.weight": np.ones((5, P), np.float32), "softmax.bias": np.ones(5, np.float32)})
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


def test_symbols_that_stand_twice_are_no_lexicon(tmp_path):
    """ELMoForManyLangs takes the last of them, and then has fewer symbols than rows."""
    found = formats.read(manylangs_folder.write(manylangs_folder.make(), tmp_path / "old"))
    words = tuple("the" if word == "cat" else word for word in found.vocabulary)
    with pytest.raises(MismatchError, match=r"word.dic of ELMoForManyLangs holds a symbol once, found 'the' 2 times"):
        formats.write(replace(found, vocabulary=words), tmp_path / "new", to="elmoformanylangs")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, to, exists):
    if to == "elmoformanylangs":
        found = formats.read(manylangs_folder.write(manylangs_folder.make(), tmp_path / "old"))
    else:
        found = make_checkpoint(make_config(), vocabulary=WORDS)
    written = []

    def replace_file(path, content):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path.write_bytes(content))

    for module in ("checkpoint", "formats.allennlp", "formats.bilm_tf", "formats.manylangs"):
        monkeypatch.setattr(f"elmokit.{module}.replace_file", replace_file)
    if exists:
        (tmp_path / "new").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="No space left"):
        formats.write(found, tmp_path / "new", to=to)
    assert written
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path):
    found = make_checkpoint(make_config(), vocabulary=WORDS)
    (tmp_path / "new").mkdir()
    os.utime(tmp_path, ns=(1, 1))
    formats.write(found, tmp_path / "new", to="bilm-tf")
    # Nothing was written beside it: it may be a mount, or in a folder that is not ours.
    assert tmp_path.stat().st_mtime_ns == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "checkpoint", "model.ckpt-0.data-00000-of-00001", "model.ckpt-0.index", "options.json", "vocab.txt",
    ]  # fmt: skip
    assert (tmp_path / "new" / "checkpoint").read_text() == 'model_checkpoint_path: "model.ckpt-0"\n'
    with pytest.raises(OutputError, match="not an empty folder"):
        formats.write(found, tmp_path / "new", to="allennlp")


def test_what_a_killed_process_left_in_an_empty_folder_is_not_in_the_way(tmp_path):
    (tmp_path / "new" / ".elmokit.part").mkdir(parents=True)
    (tmp_path / "new" / ".elmokit.part" / "weights.hdf5").write_bytes(b"half")
    formats.write(make_checkpoint(), tmp_path / "new", to="allennlp")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["options.json", "weights.hdf5"]


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
