"""AllenNLP's format: what is read is written back equal, and what is not understood is named."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elmokit
from checkpoints import SPECIALS, assert_same, make_word_checkpoint, read_datasets, refusal, rewritten
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import parse_config, read_native, read_vocabulary, write_native
from elmokit.errors import FormatError, MismatchError, UnknownModel
from elmokit.formats import allennlp

SHAPES = {
    **{f"{n} layers": {"n_layers": n, "dim": 6} for n in range(1, 9)},
    **{f"{n} highways": {"n_highway": n} for n in range(3)},
    "tanh": {"activation": "tanh"},
    "no cnn projection": {"filters": ((1, 1), (2, 3)), "projection_dim": 4},
    "no lstm projection": {"dim": 4, "projection_dim": 4},
    "neither": {"filters": ((1, 1), (2, 3)), "dim": 4, "projection_dim": 4},
    "short words": {"max_characters": 3},
    "long words": {"max_characters": 200},
    "no clips": {"cell_clip": None, "proj_clip": None},
    "one clip": {"cell_clip": None, "proj_clip": 0.5},
    "no skip connections": {"skip": False},
}


@pytest.fixture
def model(tmp_path):
    """A folder of the AllenNLP format, as bilm-tf would have written it."""
    allennlp.write(make_checkpoint(make_config(n_layers=1, dim=6)), tmp_path / "model")
    return tmp_path / "model"


def change_options(folder, changes):
    """Change options.json: dotted names to values, `...` to take one out."""
    options = json.loads((folder / "options.json").read_text())
    for name, value in changes.items():
        *parts, last = name.split(".")
        place = options
        for part in parts:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    (folder / "options.json").write_text(json.dumps(options))


# ---------------------------------------------------------------- AllenNLP: there and back


@pytest.mark.parametrize("shape", SHAPES)
def test_written_and_read_it_is_equal(shape, tmp_path):
    checkpoint = make_checkpoint(make_config(**SHAPES[shape]))
    allennlp.write(checkpoint, tmp_path / "one")
    again = formats.read(tmp_path / "one")
    assert_same(checkpoint, again)
    assert again.source == "AllenNLP / bilm-tf"
    allennlp.write(again, tmp_path / "two")
    for name in ("options.json", "weights.hdf5"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    n_layers=st.integers(1, 3),
    n_highway=st.integers(0, 2),
    dim=st.integers(1, 5),
    projection_dim=st.integers(1, 5),
    filters=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    max_characters=st.integers(4, 60),
    skip=st.booleans(),
)
def test_any_shape_is_equal_there_and_back(tmp_path_factory, **shape):
    checkpoint, folder = make_checkpoint(make_config(**shape)), tmp_path_factory.mktemp("shape")
    allennlp.write(checkpoint, folder)
    assert_same(checkpoint, formats.read(folder))
    write_native(checkpoint, folder)
    assert_same(checkpoint, read_native(folder))
    shutil.rmtree(folder)


def test_the_file_is_as_the_old_tools_wrote_it(tmp_path):
    """Contiguous float32, superblock 0, no attributes, AllenNLP's names; a missing clip is null."""
    checkpoint = make_checkpoint(make_config(cell_clip=None))
    allennlp.write(checkpoint, tmp_path)
    assert (tmp_path / "weights.hdf5").read_bytes()[8] == 0
    with h5py.File(tmp_path / "weights.hdf5") as file:
        assert not file.attrs
        assert file["CNN/W_cnn_1"].shape == (1, 2, 4, 4)
        assert file["CNN_proj/W_proj"].shape == (12, 4)
        for z, name in enumerate(("RNN_0", "RNN_1")):
            cell = file[f"{name}/RNN/MultiRNNCell/Cell1/LSTMCell"]
            assert {key: cell[key].shape for key in cell} == {"B": (40,), "W_0": (8, 40), "W_P_0": (10, 4)}
            assert cell["W_0"].chunks is None
            np.testing.assert_array_equal(cell["W_0"], checkpoint.arrays["lstm.1.kernel"][z])
    lstm = json.loads((tmp_path / "options.json").read_text())["lstm"]
    assert lstm["cell_clip"] is None
    assert lstm["proj_clip"] == 3


def test_one_layer_models_of_bilm_tf(model):
    """They lack `MultiRNNCell/Cell0` in their names."""
    expected = formats.read(model)
    with h5py.File(model / "weights.hdf5", "a") as file:
        for z in (0, 1):
            file.move(f"RNN_{z}/RNN/MultiRNNCell/Cell0/LSTMCell", f"RNN_{z}/RNN/LSTMCell")
            del file[f"RNN_{z}/RNN/MultiRNNCell"]
    assert_same(expected, formats.read(model))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"char_cnn.n_highway": ...}, lambda config: config.char_cnn.n_highway == 0),
        ({"char_cnn.n_characters": 262}, lambda config: config.char_cnn.n_characters == 262),
        ({"char_cnn.n_characters": 261}, lambda config: config.char_cnn.n_characters == 262),
        ({"char_cnn.n_characters": ...}, lambda config: config.char_cnn.n_characters == 262),
        ({"lstm.n_layers": ...}, lambda config: config.lstm.n_layers == 1),
        ({"lstm.cell_clip": ..., "lstm.proj_clip": None}, lambda config: config.lstm.cell_clip is None),
        ({"lstm.cell_clip": 3}, lambda config: config.lstm.cell_clip == 3.0),
        ({"lstm.proj_clip": 0}, lambda config: config.lstm.proj_clip is None),
        ({"lstm.use_skip_connections": False}, lambda config: not config.lstm.use_skip_connections),
        ({name: {"any": "thing"} for name in allennlp.TRAINING_OPTIONS - {"bidirectional"}}, lambda config: True),
        ({"bidirectional": True, "dropout": 0.1}, lambda config: True),
    ],
)
def test_options_that_may_be_absent_or_be_for_training(tmp_path, changes, expected):
    checkpoint = make_checkpoint(make_config(n_layers=1, n_highway=0))
    allennlp.write(checkpoint, tmp_path)
    change_options(tmp_path, changes)
    again = formats.read(tmp_path)
    assert expected(again.config)
    assert again.arrays.keys() == checkpoint.arrays.keys()
    assert_same(again, rewritten(again, tmp_path / "again"))


def test_every_published_file_there_and_back(oracles, tmp_path):
    folders = [path.parent for path in oracles.rglob("options.json") if "forward-only" not in str(path)]
    pairs = [(folder / "options.json", weights) for folder in folders for weights in folder.glob("*weights*.hdf5")]
    assert len(pairs) > 20
    for number, (options, weights) in enumerate(sorted(pairs)):
        checkpoint, folder = allennlp.read_pair(options, weights), tmp_path / str(number)
        assert_same(rewritten(checkpoint, folder), checkpoint)
        theirs, ours = read_datasets(weights), read_datasets(folder / "weights.hdf5")
        ours = {name if name in theirs else name.replace("MultiRNNCell/Cell0/", ""): a for name, a in ours.items()}
        assert theirs.keys() == ours.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(array, ours[name])


def test_a_model_of_one_direction_is_refused(oracles):
    folder = oracles / "tfckpt-char2-forward-only"
    assert "is a model of one direction; only bidirectional models can be embedded" in refusal(folder)
    with pytest.raises(FormatError, match="option 'bidirectional' is False, expected true"):
        allennlp.parse_options((folder / "options.json").read_bytes(), where="options.json")


def test_the_published_zip(oracles, tmp_path):
    checkpoint = formats.read(oracles / "simple-elmo-nlpl-zip" / "999.zip")
    assert_same(checkpoint, rewritten(checkpoint, tmp_path))


# ---------------------------------------------------------------- AllenNLP: options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lstm.layer_norm": True}, "option 'lstm.layer_norm' is not understood (value True); remove it"),
        ({"transformer": {"n": 1}}, "option 'transformer' is not understood"),
        ({"char_cnn.embedding.max": 1}, "option 'char_cnn.embedding.max' is not understood"),
        ({"evil\nname\x1b[31m": "x" * 10_000}, r"option 'evil\nname\x1b[31m' is not understood (value 'xxxx"),
        ({"bidirectional": False}, "option 'bidirectional' is False, expected true"),
        ({"lstm": ...}, "option 'lstm' is missing"),
        ({"lstm.dim": ...}, "option 'lstm.dim' is missing"),
        ({"lstm.use_skip_connections": ...}, "option 'lstm.use_skip_connections' is missing"),
        ({"lstm": [1, 2]}, "option 'lstm': input should be a valid dictionary"),
        ({"lstm.dim": "6"}, "option 'lstm.dim': input should be a valid integer; found '6'"),
        ({"lstm.dim": 6.5}, "option 'lstm.dim': input should be a valid integer; found 6.5"),
        ({"lstm.dim": True}, "option 'lstm.dim': input should be a valid integer; found True"),
        ({"lstm.dim": None}, "option 'lstm.dim': input should be a valid integer; found None"),
        ({"lstm.dim": -1}, "option 'lstm.dim': input should be greater than or equal to 1; found -1"),
        ({"lstm.dim": 10**300}, "option 'lstm.dim': input should be less than or equal to 65536; found 1000"),
        ({"lstm.projection_dim": 0}, "option 'lstm.projection_dim': input should be greater than or equal to 1"),
        ({"lstm.n_layers": 9}, "option 'lstm.n_layers': input should be less than or equal to 8; found 9"),
        ({"lstm.n_layers": 0}, "option 'lstm.n_layers': input should be greater than or equal to 1"),
        ({"lstm.cell_clip": -3}, "option 'lstm.cell_clip': input should be greater than or equal to 0"),
        ({"lstm.cell_clip": float("nan")}, "option 'lstm.cell_clip': input should be a finite number"),
        ({"lstm.cell_clip": float("inf")}, "option 'lstm.cell_clip': input should be a finite number"),
        (
            {"lstm.cell_clip": 1e39},
            "'lstm.cell_clip': input should be at most 3.403e+38, the largest float32; found 1e+39",
        ),
        ({"lstm.cell_clip": 10**400}, "option 'lstm.cell_clip': input should be a valid number; found 1000"),
        ({"lstm.use_skip_connections": "yes"}, "option 'lstm.use_skip_connections': input should be a valid boolean"),
        ({"char_cnn.activation": "gelu"}, "option 'char_cnn.activation': input should be 'relu' or 'tanh'; found"),
        ({"char_cnn.n_characters": 300}, "option 'char_cnn.n_characters': input should be 261 or 262; found 300"),
        ({"char_cnn.max_characters_per_token": 2}, "option 'char_cnn.max_characters_per_token'"),
        ({"char_cnn.max_characters_per_token": 10**9}, "option 'char_cnn.max_characters_per_token'"),
        ({"char_cnn.n_highway": -1}, "option 'char_cnn.n_highway'"),
        ({"char_cnn.filters": []}, "option 'char_cnn.filters': list should have at least 1 item"),
        ({"char_cnn.filters": [[1, 2, 3]]}, "option 'char_cnn.filters.0'"),
        ({"char_cnn.filters": [[1, "2"]]}, "option 'char_cnn.filters.0.1'"),
        ({"char_cnn.filters": {"1": 2}}, "option 'char_cnn.filters'"),
        ({"char_cnn.filters": [[1, 1]] * 65}, "option 'char_cnn.filters': list should have at most 64 items"),
        ({"char_cnn.filters": [[21, 4]]}, "option 'char_cnn': filter [21, 4]: expected a width of 1 to 20"),
        ({"char_cnn.filters": [[0, 4]]}, "option 'char_cnn': filter [0, 4]: expected a width of 1 to 20"),
        ({"char_cnn.filters": [[1, 10**12]]}, "option 'char_cnn': filter [1, 1000000000000]"),
    ],
)
def test_an_option_that_is_not_understood_is_named(model, changes, message):
    change_options(model, changes)
    assert message in refusal(model)


def test_a_config_of_parsed_json():
    config = make_config()
    assert parse_config(json.loads(config.model_dump_json()), where="here") == config
    with pytest.raises(FormatError, match="here: expected a JSON object, found str"):
        parse_config("text", where="here")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff\xfe\x00", b"[" * 200_000, b'{"lstm": {"dim": ' + b"9" * 9000 + b"}}"]
)
def test_options_that_are_not_an_object(model, content):
    (model / "options.json").write_bytes(content)
    assert "options.json: expected" in refusal(model)


def test_a_byte_order_mark_before_options(model):
    expected = formats.read(model)
    (model / "options.json").write_bytes(b"\xef\xbb\xbf" + (model / "options.json").read_bytes())
    assert_same(expected, formats.read(model))


# ---------------------------------------------------------------- folders


def test_the_file_of_weights_among_several_is_known_by_its_content(model):
    expected = formats.read(model)
    (model / "weights.hdf5").rename(model / "zzz.h5")
    with h5py.File(model / "embeddings.hdf5", "w") as file:
        file["embedding"] = np.zeros((5, 4), np.float32)
    (model / "broken.hdf5").write_bytes(b"no")
    assert_same(expected, formats.read(model))
    shutil.copy(model / "zzz.h5", model / "twice.h5")
    assert "expected one HDF5 file of weights, found 2" in refusal(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.mkdir(), "holds no model: expected config.json with model.safetensors, options.json"),
        (lambda p: p.write_bytes(b""), "is neither a model folder nor an archive (.zip, .tar.gz); name the model"),
        (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "holds no model"),
        (lambda p: (p.mkdir(), (p / "options.json").write_text("{}")), "holds no model"),
        (lambda p: (p / "config.json").mkdir(parents=True), "holds no model"),
    ],
)
def test_what_is_no_model(tmp_path, make, message):
    make(tmp_path / "it")
    assert message in refusal(tmp_path / "it")


def test_nothing_there(tmp_path):
    assert "there is no model at" in refusal(tmp_path / "absent", error=UnknownModel)


def test_files_named_one_by_one(model):
    assert_same(formats.read(model), allennlp.read_pair(model / "options.json", model / "weights.hdf5"))
    for options, weights in [("absent", "weights.hdf5"), ("options.json", "absent"), (".", "weights.hdf5")]:
        with pytest.raises(FormatError, match=r"absent|cannot be read \(Is a directory\)"):
            allennlp.read_pair(model / options, model / weights)


def test_a_vocabulary_for_two_files(model, tmp_path):
    files = {"path": model / "options.json", "weights": model / "weights.hdf5", "vocabulary": tmp_path / "vocab.txt"}
    with pytest.raises(MismatchError, match="has no use: this model spells its words"):
        formats.read(**files)
    words = make_word_checkpoint(make_config().lstm, (*SPECIALS, "the", "cat"))
    allennlp.write(words, tmp_path / "words")
    (tmp_path / "words" / "vocab.txt").rename(tmp_path / "vocab.txt")
    two = {**files, "path": tmp_path / "words" / "options.json", "weights": tmp_path / "words" / "weights.hdf5"}
    assert_same(formats.read(**two), words)


def test_a_model_without_characters(tmp_path):
    checkpoint = make_word_checkpoint(make_config().lstm, (*SPECIALS, "the", "cat"))
    assert_same(checkpoint, rewritten(checkpoint, tmp_path / "one"))
    write_native(checkpoint, tmp_path / "two")
    assert_same(checkpoint, read_native(tmp_path / "two"))
    messages = (
        "expected one vocabulary of 5 words, a row each",
        "expected 5 words, as the word table has rows, found 3",
    )
    for folder, message in zip((tmp_path / "one", tmp_path / "two"), messages, strict=True):
        (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")
        assert message in refusal(folder)
        (folder / "vocab.txt").unlink()
        with pytest.raises(FormatError, match="needs its vocabulary"):
            formats.read(folder).speller()
    (tmp_path / "two" / "config.json").write_bytes((tmp_path / "one" / "options.json").read_bytes())
    assert formats.read(tmp_path / "two").config == checkpoint.config


def test_a_vocabulary_that_a_model_with_characters_does_not_need(model):
    expected = formats.read(model)
    (model / "vocab.txt").write_bytes(b"latin \xe9\n")
    assert_same(expected, formats.read(model))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ()),
        (b"a\nb\n", ("a", "b")),
        (b"a\nb", ("a", "b")),
        (b"a\r\nb\r\n", ("a", "b")),
        (b"\n a \n\n", ("", "a", "")),
        (b"a\n!!!MAXTERMID\nb\n", ("a", "b")),
        ("a\u2028b\nc\x0bd\n".encode(), ("a\u2028b", "c\x0bd")),
    ],
)
def test_vocabulary_files(tmp_path, content, words):
    (tmp_path / "vocab.txt").write_bytes(content)
    assert read_vocabulary(tmp_path / "vocab.txt") == words


def test_vocabulary_files_that_cannot_be_read(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(FormatError, match="expected a vocabulary in UTF-8"):
        read_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(FormatError, match="cannot be read"):
        read_vocabulary(tmp_path / "absent.txt")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b"])
def test_names_that_no_file_can_have(name):
    for opened in (formats.read, elmokit.load):
        with pytest.raises(UnknownModel, match="there is no model at"):
            opened(name)
