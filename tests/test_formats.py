"""Checkpoints: what is read is written back equal, and whatever is wrong with one is told in one plain sentence."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from conftest import make_checkpoint, make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from elmokit import formats
from elmokit.checkpoint import (
    Checkpoint,
    Config,
    network_shapes,
    parse_config,
    read_native,
    read_vocabulary,
    write_native,
)
from elmokit.errors import ElmoError, FormatError, OutputError, UnknownModel
from elmokit.formats import allennlp
from elmokit.model import Elmo

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
SPECIALS = ("<S>", "</S>", "<UNK>")


def equal(a, b):
    """The same model, bit for bit."""
    assert a.config == b.config
    assert a.vocabulary == b.vocabulary
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in a.arrays.items():
        assert b.arrays[name].dtype == array.dtype == np.float32, name
        np.testing.assert_array_equal(b.arrays[name], array, err_msg=name)
    return True


def refusal(path, *, error=FormatError):
    """The message with which a model is refused: one line that names the place."""
    with pytest.raises(error) as caught:
        formats.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


def read_datasets(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return arrays


@pytest.fixture
def model(tmp_path):
    """A folder of the AllenNLP format, as bilm-tf would have written it."""
    allennlp.write(make_checkpoint(make_config(n_layers=1, dim=6)), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def change_options(model):
    """A function that changes options.json: dotted names to values, `...` for none."""

    def change(changes):
        options = json.loads((model / "options.json").read_text())
        for name, value in changes.items():
            *parts, last = name.split(".")
            place = options
            for part in parts:
                place = place[part]
            place[last] = value
            if value is ...:
                del place[last]
        (model / "options.json").write_text(json.dumps(options))
        return model

    return change


# ---------------------------------------------------------------- AllenNLP: there and back


@pytest.mark.parametrize("shape", SHAPES)
def test_written_and_read_it_is_equal(shape, tmp_path):
    checkpoint = make_checkpoint(make_config(**SHAPES[shape]))
    allennlp.write(checkpoint, tmp_path / "one")
    again = formats.read(tmp_path / "one")
    assert equal(checkpoint, again)
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
    assert equal(checkpoint, formats.read(folder))
    write_native(checkpoint, folder)
    assert equal(checkpoint, read_native(folder))
    shutil.rmtree(folder)


def test_the_file_is_as_the_old_tools_wrote_it(tmp_path):
    """Contiguous float32, superblock 0, no attributes, the names of formats.md 3.2; a missing clip is null."""
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
    assert equal(expected, formats.read(model))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"char_cnn.n_highway": ...}, lambda config: config.char_cnn.n_highway == 0),
        ({"char_cnn.n_characters": 261}, lambda config: config.char_cnn.n_characters == 261),
        ({"char_cnn.n_characters": ...}, lambda config: config.char_cnn.n_characters == 262),
        ({"lstm.n_layers": ...}, lambda config: config.lstm.n_layers == 1),
        ({"lstm.cell_clip": ..., "lstm.proj_clip": None}, lambda config: config.lstm.cell_clip is None),
        ({"lstm.cell_clip": 3}, lambda config: config.lstm.cell_clip == 3.0),
        ({"lstm.proj_clip": 0}, lambda config: config.lstm.proj_clip == 0),
        ({"lstm.use_skip_connections": False}, lambda config: not config.lstm.use_skip_connections),
        ({name: {"any": "thing"} for name in allennlp.TRAINING_OPTIONS - {"bidirectional"}}, lambda config: True),
        ({"bidirectional": True, "dropout": 0.1}, lambda config: True),
    ],
)
def test_options_that_may_be_absent_or_be_for_training(tmp_path, changes, expected):
    checkpoint = make_checkpoint(make_config(n_layers=1, n_highway=0))
    allennlp.write(checkpoint, tmp_path)
    options = json.loads((tmp_path / "options.json").read_text())
    for name, value in changes.items():
        place = options[name.split(".")[0]] if "." in name else options
        place[name.split(".")[-1]] = value
        if value is ...:
            del place[name.split(".")[-1]]
    (tmp_path / "options.json").write_text(json.dumps(options))
    again = formats.read(tmp_path)
    assert expected(again.config)
    assert again.arrays.keys() == checkpoint.arrays.keys()
    assert equal(again, written(again, tmp_path / "again"))


def written(checkpoint, folder):
    allennlp.write(checkpoint, folder)
    return formats.read(folder)


def test_every_published_file_there_and_back(oracles, tmp_path):
    folders = sorted({path.parent for path in oracles.rglob("options.json")})
    names = set()
    for folder in folders:
        try:
            checkpoint = formats.read(folder)
        except FormatError as error:
            names.add(folder.name)
            assert "option 'bidirectional' is False" in str(error)
            continue
        target = tmp_path / folder.name
        assert equal(checkpoint, written(checkpoint, target))
        weights = formats._weights_among(sorted(folder.glob("*.hdf5")), str(folder))
        theirs, ours = read_datasets(weights), read_datasets(target / "weights.hdf5")
        assert len(theirs) == len(ours)
        if checkpoint.config.lstm.n_layers > 1:
            assert theirs.keys() == ours.keys()
            for name, array in theirs.items():
                np.testing.assert_array_equal(array, ours[name])
    assert len(folders) > 20
    assert names == {"tfckpt-char2-forward-only"}


def test_the_published_zip(oracles, tmp_path):
    checkpoint = formats.read(oracles / "simple-elmo-nlpl-zip" / "999.zip")
    assert equal(checkpoint, written(checkpoint, tmp_path))


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
def test_an_option_that_is_not_understood_is_named(change_options, changes, message):
    assert message in refusal(change_options(changes))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff\xfe\x00", b"[" * 200_000, b'{"lstm": {"dim": ' + b"9" * 9000 + b"}}"]
)
def test_options_that_are_not_an_object(model, content):
    (model / "options.json").write_bytes(content)
    assert "options.json: expected" in refusal(model)


def test_a_byte_order_mark_before_options(model):
    expected = formats.read(model)
    (model / "options.json").write_bytes(b"\xef\xbb\xbf" + (model / "options.json").read_bytes())
    assert equal(expected, formats.read(model))


# ---------------------------------------------------------------- AllenNLP: datasets


def replace(file, name, **what):
    del file[name]
    file.create_dataset(name, **what)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__delitem__("char_embed"), "dataset 'char_embed' is missing; expected shape (261, 4)"),
        (lambda f: f.__delitem__("RNN_1"), "dataset 'RNN_1/RNN/MultiRNNCell/Cell0/LSTMCell/W_0' is missing"),
        (lambda f: f.create_dataset("extra", data=[1.0]), "dataset 'extra' (1,) is not part of the network"),
        (lambda f: f.create_dataset("CNN/evil\nname", data=[1.0]), r"dataset 'CNN/evil\nname' (1,) is not part"),
        (
            lambda f: replace(f, "CNN_proj/W_proj", data=np.zeros((12, 5), np.float32)),
            "dataset 'CNN_proj/W_proj': expected shape (12, 4), found (12, 5)",
        ),
        (
            lambda f: replace(f, "CNN/b_cnn_0", data=np.float32(0)),
            "dataset 'CNN/b_cnn_0': expected shape (3,), found ()",
        ),
        (
            lambda f: replace(f, "CNN/b_cnn_0", data=np.zeros(3, np.int32)),
            "'CNN/b_cnn_0': expected floating-point numbers, found int32",
        ),
        (lambda f: replace(f, "CNN/b_cnn_0", data=b"text"), "'CNN/b_cnn_0': expected floating-point numbers"),
        (
            lambda f: replace(f, "CNN/b_cnn_0", data=h5py.Empty("f4")),
            "'CNN/b_cnn_0': expected floating-point numbers",
        ),
        (lambda f: f.__setitem__("a type", np.dtype("f4")), "'a type' is a named type"),
        (lambda f: f.create_dataset("CNN_high_0/b_carry/x", data=1.0), None),
    ],
)
def test_a_dataset_that_does_not_fit_is_named(model, change, message):
    with h5py.File(model / "weights.hdf5", "a") as file:
        if message is None:
            with pytest.raises(ValueError, match="not a group"):
                change(file)
            return
        change(file)
    assert message in refusal(model)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4"])
def test_other_floating_point_numbers_are_read_as_float32(model, dtype):
    expected = formats.read(model).arrays["char_embed"].astype(dtype)
    with h5py.File(model / "weights.hdf5", "a") as file:
        replace(file, "char_embed", data=expected)
    found = formats.read(model).arrays["char_embed"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_compressed_and_chunked_datasets(model):
    expected = formats.read(model)
    with h5py.File(model / "weights.hdf5", "a") as file:
        replace(file, "char_embed", data=file["char_embed"][()], chunks=(7, 2), compression="gzip", shuffle=True)
    assert equal(expected, formats.read(model))


# ---------------------------------------------------------------- HDF5 files of strangers


@pytest.mark.parametrize(
    "content",
    [b"", b"not HDF5 at all\n" * 100, b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(2000)],
    ids=["empty", "text", "signature", "zeros"],
)
def test_what_is_no_hdf5_file(model, content):
    (model / "weights.hdf5").write_bytes(content)
    assert "weights.hdf5 is not a whole HDF5 file (" in refusal(model)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_file(model, part):
    content = (model / "weights.hdf5").read_bytes()
    (model / "weights.hdf5").write_bytes(content[: int(len(content) * part)])
    assert "weights.hdf5 is not a whole HDF5 file (truncated file" in refusal(model)


def secret(folder):
    with h5py.File(folder / "secret", "w") as file:
        file["char_embed"] = np.ones((261, 4), np.float32)
    return folder / "secret"


def virtual(f, folder):
    layout = h5py.VirtualLayout((261, 4), np.float32)
    layout[:] = h5py.VirtualSource(secret(folder), "char_embed", (261, 4))
    f.create_virtual_dataset("char_embed", layout)


def external(f, folder):
    f.create_dataset("char_embed", (261, 4), np.float32, external=[(str(secret(folder)), 0, 261 * 16)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, d: f.__setitem__("char_embed", h5py.ExternalLink(secret(d), "char_embed")), "is a link elsewhere"),
        (lambda f, d: f.__setitem__("char_embed", h5py.SoftLink("/CNN/b_cnn_0")), "is a link elsewhere"),
        (lambda f, d: f.__setitem__("char_embed", h5py.SoftLink("/nowhere")), "is a link elsewhere"),
        (external, "keeps its data in another file"),
        (virtual, "keeps its data in another file"),
        (lambda f, d: f.__setitem__("char_embed", f["CNN"]), "'char_embed/W_cnn_0' (1, 1, 4, 3) is not part of"),
        (
            lambda f, d: f.create_dataset("char_embed", (2**40,), np.float32, chunks=(1024,), fillvalue=1.0),
            "its datasets claim 4,398,04",
        ),
        (lambda f, d: f.create_dataset("char_embed", (2**62, 2**62), "f4", chunks=(4, 4)), "its datasets claim"),
    ],
)
def test_links_other_files_and_terabytes_are_refused(model, change, message):
    with h5py.File(model / "weights.hdf5", "a") as file:
        del file["char_embed"]
        change(file, model.parent)
    assert message in refusal(model)


def test_a_knot_of_groups_ends(model):
    """Groups that hold each other, and a ladder with more ways down than anyone can walk."""
    with h5py.File(model / "weights.hdf5", "a") as file:
        file["CNN/again"] = file["CNN"]
    assert "'CNN/again' is a link elsewhere" in refusal(model)
    with h5py.File(model / "weights.hdf5", "w") as file:
        group = file.create_group("rung")
        for i in range(40):
            lower = file.create_group(f"rung{i}")
            for side in range(10):
                group[f"{side}"] = lower
            group = lower
    assert "is a link elsewhere" in refusal(model)


def test_a_chain_of_groups_deeper_than_the_stack(model):
    with h5py.File(model / "weights.hdf5", "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
    refusal(model)


# ---------------------------------------------------------------- folders


def test_the_file_of_weights_among_several_is_known_by_its_content(model):
    expected = formats.read(model)
    (model / "weights.hdf5").rename(model / "zzz.h5")
    with h5py.File(model / "embeddings.hdf5", "w") as file:
        file["embedding"] = np.zeros((5, 4), np.float32)
    (model / "broken.hdf5").write_bytes(b"no")
    assert equal(expected, formats.read(model))
    shutil.copy(model / "zzz.h5", model / "twice.h5")
    assert "expected one HDF5 file of weights beside options.json, found 2" in refusal(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.mkdir(), "holds no model: expected config.json with model.safetensors, or options.json"),
        (lambda p: p.write_bytes(b""), "is neither a model folder nor a zip file; name the folder"),
        (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "expected one options.json and one HDF5 file"),
        (lambda p: (p.mkdir(), (p / "options.json").write_text("{}")), "found 0"),
        (lambda p: (p / "config.json").mkdir(parents=True), "holds no model"),
    ],
)
def test_what_is_no_model(tmp_path, make, message):
    make(tmp_path / "it")
    assert message in refusal(tmp_path / "it")


def test_nothing_there(tmp_path):
    assert "there is no model at" in refusal(tmp_path / "absent", error=UnknownModel)


def test_files_named_one_by_one(model):
    assert equal(formats.read(model), allennlp.read(model / "options.json", model / "weights.hdf5"))
    for options, weights in [("absent", "weights.hdf5"), ("options.json", "absent"), (".", "weights.hdf5")]:
        with pytest.raises(FormatError, match=r"absent|cannot be read \(Is a directory\)"):
            allennlp.read(model / options, model / weights)


def test_a_model_without_characters(tmp_path):
    config = Config(lstm=make_config().lstm)
    arrays = {"embedding": np.arange(20, dtype=np.float32).reshape(5, 4)}
    arrays |= {name: np.zeros(shape, np.float32) for name, shape in network_shapes(config).items()}
    checkpoint = Checkpoint(config, arrays, (*SPECIALS, "the", "cat"))
    assert equal(checkpoint, written(checkpoint, tmp_path / "one"))
    write_native(checkpoint, tmp_path / "two")
    assert equal(checkpoint, read_native(tmp_path / "two"))
    for folder in (tmp_path / "one", tmp_path / "two"):
        (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")
        assert "expected 5 words, as 'embedding' has rows, found 3" in refusal(folder)
        (folder / "vocab.txt").unlink()
        with pytest.raises(FormatError, match="needs its vocabulary"):
            formats.read(folder).speller()
    (tmp_path / "two" / "config.json").write_bytes((tmp_path / "one" / "options.json").read_bytes())
    assert formats.read(tmp_path / "two").config == config


def test_a_vocabulary_that_a_model_with_characters_does_not_need(model):
    expected = formats.read(model)
    (model / "vocab.txt").write_bytes(b"latin \xe9\n")
    assert equal(expected, formats.read(model))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ()),
        (b"a\nb\n", ("a", "b")),
        (b"a\nb", ("a", "b")),
        (b"a\r\nb\r\n", ("a", "b")),
        (b"\n a \n\n", ("", "a", "")),
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


# ---------------------------------------------------------------- zip


def pack(path, members, *, compression=zipfile.ZIP_DEFLATED):
    """Write a zip of name -> bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def members(model):
    return {path.name: path.read_bytes() for path in model.iterdir()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "model/", "deep/er/", "../", "/", "../../etc/", "C:\\x/"])
def test_zips_are_read_where_they_are(model, members, tmp_path, compression, prefix):
    before = sorted(tmp_path.rglob("*"))
    path = pack(tmp_path / "model.zip", {prefix + name: c for name, c in members.items()}, compression=compression)
    assert equal(formats.read(model), formats.read(path))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_a_zip_of_a_model_without_characters(tmp_path):
    config = Config(lstm=make_config(n_layers=1).lstm)
    arrays = {"embedding": np.ones((4, 4), np.float32)}
    arrays |= {name: np.ones(shape, np.float32) for name, shape in network_shapes(config).items()}
    expected = written(Checkpoint(config, arrays, (*SPECIALS, "a\u2028b")), tmp_path / "model")
    members = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert equal(expected, formats.read(pack(tmp_path / "m.zip", members)))
    bad = pack(tmp_path / "bad.zip", {**members, "vocab.txt": b"\xff\n"})
    assert "'vocab.txt': expected a vocabulary in UTF-8" in refusal(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options.json": None}, "expected one options.json and one HDF5 file of weights, found ['weights.hdf5']"),
        ({"weights.hdf5": None}, "expected one options.json and one HDF5 file of weights, found ['options.json']"),
        ({"b/options.json": b"{}"}, "expected one options.json and one HDF5 file of weights, found ['b/options.json'"),
        ({"b.hdf5": b""}, "expected one options.json and one HDF5 file of weights, found ['b.hdf5'"),
        ({"options.json": b"["}, "'options.json': expected JSON"),
        ({"weights.hdf5": b"text"}, "'weights.hdf5' is not a whole HDF5 file"),
        ({"weights.hdf5": bytes(2**25)}, "'weights.hdf5' claims 33,554,432 bytes, expected at most 16,777,216"),
        ({"options.json": b" " * 2**25}, "'options.json' claims 33,554,432 bytes"),
    ],
)
def test_zips_with_something_wrong(members, tmp_path, change, message):
    members = {name: content for name, content in {**members, **change}.items() if content is not None}
    assert message in refusal(pack(tmp_path / "bad.zip", members))


def test_truncated_encrypted_and_oddly_compressed_zips(members, tmp_path):
    content = pack(tmp_path / "whole.zip", members).read_bytes()
    path = tmp_path / "bad.zip"
    path.write_bytes(content[: len(content) // 2])
    assert "is neither a model folder nor a zip file" in refusal(path)
    path.write_bytes(content[2000:])
    assert "is not a whole zip archive" in refusal(path)
    encrypted = bytearray(content)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            encrypted[place + flags] |= 1
            place = content.find(mark, place + 1)
    path.write_bytes(encrypted)
    assert "encrypted" in refusal(path)
    pack(path, members, compression=zipfile.ZIP_BZIP2)
    assert "is compressed by method 12, expected deflate" in refusal(path)


def test_a_zip_that_lies_about_its_sizes(members, tmp_path):
    """The directory promises little; what comes out is cut there, and its checksum is wrong."""
    path = pack(tmp_path / "bomb.zip", {**members, "weights.hdf5": bytes(2**25)})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.find(b"weights.hdf5", content.find(mark)) - (30 if offset == 22 else 46)
        place = content.rfind(mark, 0, content.find(b"weights.hdf5", place) + 1) if offset == 24 else place
        content[place + offset : place + offset + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    refusal(path)


# ---------------------------------------------------------------- our own folder


def test_the_native_folder_there_and_back(tmp_path):
    made = make_checkpoint(vocabulary=(*SPECIALS, "naïve", "北京"))
    checkpoint = Checkpoint(made.config, made.arrays, made.vocabulary, card="# A model\nDonnées: ⓒ\n")
    write_native(checkpoint, tmp_path / "one")
    again = formats.read(tmp_path / "one")
    assert equal(checkpoint, again)
    assert again.card == checkpoint.card
    assert again.source == "elmokit"
    write_native(again, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "README.md",
    }


def test_float16_rounds_and_nothing_else(tmp_path):
    checkpoint = make_checkpoint()
    write_native(checkpoint, tmp_path, dtype="float16")
    half = {name: array.astype(np.float16).astype(np.float32) for name, array in checkpoint.arrays.items()}
    assert equal(Checkpoint(checkpoint.config, half), formats.read(tmp_path))
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * sum(a.nbytes for a in half.values()) + 4000


def test_a_warmed_state_there_and_back(tmp_path):
    warmed = Elmo(make_checkpoint()).warm([["a", "b"]])
    warmed.save(tmp_path)
    again = Elmo(formats.read(tmp_path))
    for one, two in zip(warmed.embed([["c"]], state="warm"), again.embed([["c"]], state="warm"), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture
def native(tmp_path):
    write_native(make_checkpoint(make_config(n_layers=1), vocabulary=(*SPECIALS, "a")), tmp_path / "native")
    return tmp_path / "native"


def with_arrays(change):
    def make(folder):
        arrays = formats.read(folder).arrays
        change(arrays)
        save_file(arrays, folder / "model.safetensors")

    return make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_arrays(lambda a: a.pop("char_embed")), "array 'char_embed' is missing; expected shape (261, 4)"),
        (with_arrays(lambda a: a.update(x=np.zeros(2, "f4"))), "array 'x' (2,) is not part of the network"),
        (with_arrays(lambda a: a.update({"x\ny": np.zeros(2, "f4")})), r"array 'x\ny' (2,) is not part of"),
        (
            with_arrays(lambda a: a.update({"cnn.0.bias": np.zeros((3, 1), "f4")})),
            "array 'cnn.0.bias': expected shape (3,), found (3, 1)",
        ),
        (
            with_arrays(lambda a: a.update({"cnn.0.bias": np.zeros(3, "i4")})),
            "'cnn.0.bias': expected floating-point numbers, found int32",
        ),
        (with_arrays(lambda a: a.pop("softmax.weight")), "array 'softmax.weight' is missing; expected shape (4, 4)"),
        (with_arrays(lambda a: a.pop("softmax.bias")), "array 'softmax.bias' is missing"),
        (
            with_arrays(lambda a: a.update({"softmax.bias": np.float32(1).reshape(())})),
            "array 'softmax.weight': expected shape",
        ),
        (with_arrays(lambda a: a.update({"warm.h": np.zeros((1, 2, 4), "f4")})), "array 'warm.c' is missing"),
        (with_arrays(lambda a: a.update({"embedding": np.float32(1).reshape(())})), "array 'embedding' () is not part"),
        (lambda p: (p / "vocab.txt").write_text("a\n"), "expected 4 words, as 'softmax.bias' has rows, found 1"),
        (lambda p: (p / "vocab.txt").write_bytes(b"\xff\n"), "vocab.txt: expected a vocabulary in UTF-8"),
        (lambda p: (p / "config.json").write_text("{"), "config.json: expected JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "config.json: expected a JSON object, found list"),
        (lambda p: (p / "model.safetensors").write_bytes(b""), "is not a whole safetensors file"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 100), "is not a whole safetensors file"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\x80\x02}q\x00."), "is not a whole safetensors file"),
    ],
)
def test_native_folders_with_something_wrong(native, change, message):
    change(native)
    assert message in refusal(native)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_truncated_safetensors(native, part):
    content = (native / "model.safetensors").read_bytes()
    (native / "model.safetensors").write_bytes(content[: int(part * len(content))])
    assert "model.safetensors is not a whole safetensors file" in refusal(native)


def test_safetensors_that_claim_terabytes(native):
    header = {"char_embed": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    content = json.dumps(header).encode()
    (native / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert "is not a whole safetensors file" in refusal(native)


def test_numbers_of_half_precision_that_numpy_lacks(native):
    import torch
    from safetensors.torch import save_file as save_torch

    arrays = {name: torch.from_numpy(array).bfloat16() for name, array in formats.read(native).arrays.items()}
    save_torch(arrays, native / "model.safetensors")
    assert "model.safetensors" in refusal(native)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_size", 4, "option 'hidden_size' is not understood (value 4)"),
        ("model_type", "bert", "option 'model_type' is 'bert', expected 'elmo'"),
        ("elmokit_version", 2, "option 'elmokit_version' is 2, expected 1"),
    ],
)
def test_options_of_the_native_folder(native, name, value, message):
    options = json.loads((native / "config.json").read_text())
    (native / "config.json").write_text(json.dumps({**options, name: value}))
    assert message in refusal(native)


def test_a_card_that_is_not_utf_8(native):
    (native / "README.md").write_bytes(b"caf\xe9")
    assert formats.read(native).card == "caf\ufffd"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (write_native, allennlp.write):
        for target in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(OutputError, match="cannot be written"):
                write(make_checkpoint(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_allennlp_format_cannot_hold():
    made = make_checkpoint(vocabulary=(*SPECIALS, "a"))
    assert allennlp.lost_in(make_checkpoint()) == []
    assert allennlp.lost_in(Checkpoint(made.config, made.arrays, made.vocabulary, card="# card")) == [
        "the softmax head",
        "the vocabulary",
        "the model card",
    ]
    assert allennlp.lost_in(Elmo(make_checkpoint()).warm([["a"]]).checkpoint()) == ["the warmed state"]


def test_a_config_of_parsed_json():
    config = make_config()
    assert parse_config(json.loads(config.model_dump_json()), where="here") == config
    with pytest.raises(FormatError, match="here: expected a JSON object, found str"):
        parse_config("text", where="here")


# ---------------------------------------------------------------- damage at random


def damaged(content, seed):
    """Flip, insert or cut off bytes; half of the changes are near the beginning, where the structure is."""
    choose, content = random.Random(seed), bytearray(content)
    if choose.random() < 0.2:
        return content[: choose.randrange(len(content))]
    for _ in range(choose.choice([1, 1, 2, 4, 16])):
        place = choose.randrange(choose.choice([len(content), min(len(content), 4096)]))
        if choose.random() < 0.1:
            content[place:place] = choose.randbytes(choose.randrange(1, 9))
        else:
            content[place] = choose.choice([0, 255, content[place] ^ 1 << choose.randrange(8), choose.randrange(256)])
    return content


def tiny_files(kind):
    """Name -> content of the files of a tiny model."""
    shape = make_config(n_layers=1, dim=5, projection_dim=3, filters=((1, 2), (2, 2)), max_characters=6)
    checkpoint = make_checkpoint(shape, vocabulary=(*SPECIALS, "a") if kind == "native" else None)
    return checkpoint, (write_native if kind == "native" else allennlp.write)


@pytest.mark.parametrize("kind", ["native", "hdf5", "zip"])
def test_damage_is_noticed_or_harmless(kind, tmp_path):
    """Never another exception than ours, never much memory."""
    resource = pytest.importorskip("resource")
    checkpoint, write = tiny_files(kind)
    folder = tmp_path / "model"
    write(checkpoint, folder)
    names = {"native": ["config.json", "model.safetensors", "vocab.txt"], "hdf5": ["weights.hdf5"] * 5 + ["options.json"]}
    if kind == "zip":
        path = pack(tmp_path / "model.zip", {path.name: path.read_bytes() for path in folder.iterdir()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(300):
        damage = path if kind == "zip" else folder / names[kind][seed % len(names[kind])]
        whole = damage.read_bytes()
        damage.write_bytes(damaged(whole, seed))
        try:
            formats.read(path if kind == "zip" else folder)
        except ElmoError as error:
            assert "\n" not in str(error)
        damage.write_bytes(whole)
    assert equal(checkpoint, formats.read(path if kind == "zip" else folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 * 1024
    assert not io.BytesIO().read()
