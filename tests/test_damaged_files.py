"""Checkpoint files of strangers: whatever is in them, one plain sentence, no other file touched, no memory taken."""

from __future__ import annotations

import json
import random
import zipfile
from contextlib import suppress

import h5py
import numpy as np
import pytest

import manylangs_folder
from bundle_writer import within
from checkpoints import SPECIALS, assert_same, make_word_checkpoint, pack, refusal, tarred
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import write_native
from elmokit.errors import ElmoError
from elmokit.formats import allennlp
from elmokit.model import Elmo


@pytest.fixture
def model(tmp_path):
    """A folder of the AllenNLP format, as bilm-tf would have written it."""
    allennlp.write(make_checkpoint(make_config(n_layers=1, dim=6)), tmp_path / "model")
    return tmp_path / "model"


# ---------------------------------------------------------------- datasets


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
    ],
)
def test_a_dataset_that_does_not_fit_is_named(model, change, message):
    with h5py.File(model / "weights.hdf5", "a") as file:
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
    assert_same(expected, formats.read(model))


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
        (lambda f, d: f.__setitem__("char_embed", f["CNN"]), "'char_embed' is a link elsewhere"),
        (lambda f, d: f.__setitem__("char_embed", f["/"]), "is a link elsewhere"),
        (lambda f, d: f.create_dataset("char_embed/x", data=[1.0]), "dataset 'char_embed' is missing"),
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
        for _ in range(1200):
            group = group.create_group("g")
    refusal(model)


# ---------------------------------------------------------------- zip


@pytest.fixture
def members(model):
    return {path.name: path.read_bytes() for path in model.iterdir()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "model/", "deep/er/", "../", "/", "../../etc/", "C:\\x/"])
def test_zips_are_read_where_they_are(model, members, tmp_path, compression, prefix):
    before = sorted(tmp_path.rglob("*"))
    path = pack(tmp_path / "model.zip", {prefix + name: c for name, c in members.items()}, compression=compression)
    assert_same(formats.read(model), formats.read(path))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_a_zip_of_a_model_without_characters(tmp_path):
    expected = make_word_checkpoint(make_config(n_layers=1).lstm, (*SPECIALS, "a\u2028b"))
    allennlp.write(expected, tmp_path / "model")
    members = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert_same(expected, formats.read(pack(tmp_path / "m.zip", members)))
    bad = pack(tmp_path / "bad.zip", {**members, "vocab.txt": b"\xff\n"})
    assert "expected one vocabulary of 4 words, a row each; found ['vocab.txt']" in refusal(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options.json": None}, "holds no model: expected config.json with model.safetensors, options.json"),
        ({"weights.hdf5": None}, "docs/checkpoints.md describes; found options.json"),
        ({"options.json": None, "a/options.json": b"", "b/options.json": b""}, "expected one options.json, found 2"),
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
    assert "is neither a model folder nor an archive" in refusal(path)
    path.write_bytes(content[2000:])
    assert "is not a whole archive" in refusal(path)
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


def test_a_zip_that_lies_about_a_size(members, tmp_path):
    """What comes out is cut at the size that was claimed; then the checksum is wrong."""
    size = 2**20 + 77
    path = pack(tmp_path / "bomb.zip", {**members, "weights.hdf5": bytes(size)})
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert "Bad CRC-32 for file 'weights.hdf5'" in refusal(path)


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


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("native", ["config.json", "model.safetensors", "vocab.txt"]),
        ("allennlp", ["options.json", "weights.hdf5", "weights.hdf5", "weights.hdf5"]),
        ("zip", ["model.zip"]),
        ("tar", ["model.tar.gz"]),
    ],
)
@pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damage_is_noticed_or_harmless(kind, names, cases, tmp_path):
    """Never another exception than ours, never much memory."""
    config = make_config(n_layers=1, dim=5, projection_dim=3, filters=((1, 2), (2, 2)), max_characters=6)
    checkpoint = make_checkpoint(config, vocabulary=(*SPECIALS, "a") if kind == "native" else None)
    (write_native if kind == "native" else allennlp.write)(checkpoint, tmp_path)
    model = tmp_path
    if kind in ("zip", "tar"):
        model = tmp_path / names[0]
        (pack if kind == "zip" else tarred)(model, {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    within(100_000_000, lambda: read_damaged(model, [tmp_path / name for name in names], cases))
    assert_same(formats.read(model), checkpoint)


def read_damaged(model, paths, cases):
    for seed in range(cases):
        path = paths[seed % len(paths)]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, seed))
        with suppress(ElmoError):
            formats.read(model)
        path.write_bytes(whole)


# ---------------------------------------------------------------- options at random

VALUES = [None, True, -1, 0, 1, 1.5, 1e39, 1e308, float("nan"), float("inf"), 10**30, 2**63, 65_536, "", "relu",
          "\ud800", [], {}, [[]], [1], [[1, 2, 3]], [[7, 2**40]]]  # fmt: skip
NAMES = ["foo", "cell_clip", "spelling", "marks", "joined", "word_embed", "always_project", "longest"]


def places(value, path=()):
    """The path of every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def misstated(content, seed):
    """JSON with one of its values replaced, removed or another one added."""
    choose, whole = random.Random(seed), json.loads(content)
    *path, last = choose.choice(list(places(whole)))
    part = whole
    for key in path:
        part = part[key]
    if isinstance(part, dict) and choose.random() < 0.2:
        del part[last]
    elif isinstance(part, dict) and choose.random() < 0.2:
        part[choose.choice(NAMES)] = choose.choice(VALUES)
    else:
        part[last] = choose.choice(VALUES)
    return json.dumps(whole).encode()


@pytest.mark.parametrize("kind", ["native", "allennlp", "elmoformanylangs"])
@pytest.mark.parametrize("cases", [200, pytest.param(5_000, marks=pytest.mark.slow)])
def test_options_that_say_anything_are_refused_or_can_be_used(kind, cases, tmp_path):
    names = {"native": ["config.json"], "allennlp": ["options.json"]}.get(kind, ["config.json", "network.json"])
    checkpoint = make_checkpoint(make_config(n_layers=1, dim=5, projection_dim=3, filters=((1, 2), (2, 2))))
    if kind == "elmoformanylangs":
        manylangs_folder.write(manylangs_folder.make(), tmp_path)
    else:
        (write_native if kind == "native" else allennlp.write)(checkpoint, tmp_path)
    for seed in range(cases):
        path = tmp_path / names[seed % len(names)]
        whole = path.read_bytes()
        path.write_bytes(misstated(whole, seed))
        with suppress(ElmoError):
            assert all(len(array) == 2 for array in Elmo(formats.read(tmp_path)).embed([["a", "ü"]]))
        path.write_bytes(whole)
