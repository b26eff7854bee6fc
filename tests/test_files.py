"""Folders and archives under one view, and the models found in them whatever their files are called."""

import bz2
import errno
import gzip
import lzma
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

import manylangs_folder
from checkpoints import assert_same, make_word_checkpoint, pack, refusal, tarred
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import write_native
from elmokit.errors import FormatError, MismatchError, OutputError
from elmokit.formats import allennlp, native
from elmokit.formats.files import Folder, open_files

WORDS = ("<S>", "</S>", "<UNK>", "the", "cat")


@pytest.fixture
def checkpoint():
    return make_checkpoint(make_config(n_layers=1, dim=6))


@pytest.fixture
def model(checkpoint, tmp_path):
    allennlp.write(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- the view


def test_a_folder_a_zip_and_a_tar_are_one_view(tmp_path):
    members = {"a.txt": b"first", "deep/b.txt": b"second"}
    folder = tmp_path / "folder"
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for path in (folder, pack(tmp_path / "m.zip", members), tarred(tmp_path / "m.tar", members, opener=open)):
        with open_files(path) as files:
            assert files.sizes == {"a.txt": 5, "deep/b.txt": 6}
            assert files.find("b.txt") == files.find("*b.*", "nothing") == ["deep/b.txt"]
            assert files.read("deep/b.txt") == b"second"
            assert files.start("a.txt", 2) == b"fi"
            with files.open("a.txt") as file:
                file.seek(3)
                assert file.read() == b"st"
            with pytest.raises(FormatError, match="has 5 bytes, expected at most 4"):
                files.read("a.txt", limit=4)


def test_a_folder_that_is_no_models_folder(tmp_path):
    for i in range(10_001):
        (tmp_path / f"{i}").touch()
    assert "holds more than 10,000 files" in refusal(tmp_path)


@pytest.mark.parametrize("packed", ["zip", "tar"])
def test_an_archive_that_is_no_models(tmp_path, packed):
    members = {f"{i}": b"" for i in range(10_001)}
    path = tmp_path / f"many.{packed}"
    assert "holds more than 10,000 files" in refusal(pack(path, members) if packed == "zip" else tarred(path, members))


def test_a_folder_inside_that_cannot_be_listed_is_left_out(checkpoint, model, monkeypatch):
    """Permissions cannot show it: whoever runs the tests as root may list any folder."""
    (model / "private").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "private":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert_same(checkpoint, formats.read(model))
    assert "private cannot be listed (Permission denied)" in refusal(model / "private")


# ---------------------------------------------------------------- found by content


def test_a_folder_around_the_models_own(checkpoint, model):
    assert_same(checkpoint, formats.read(model.parent))


def test_what_is_outside_is_meant(checkpoint, model):
    """Not a model of another format in a folder inside, and none of several inside."""
    other = make_checkpoint(seed=3)
    write_native(other, model / "backup")
    assert_same(checkpoint, formats.read(model))
    write_native(other, model.parent / "a")
    shutil.rmtree(model)
    write_native(other, model.parent / "b")
    assert "holds several models: a/, b/; name the one that is meant" in refusal(model.parent)
    shutil.rmtree(model.parent / "b")
    allennlp.write(checkpoint, model.parent / "c")
    assert "holds several models: a/, c/; name the one that is meant" in refusal(model.parent)


def test_a_vocabulary_named_for_a_table_of_words(model, tmp_path):
    words = make_word_checkpoint(make_config().lstm, WORDS)
    allennlp.write(words, tmp_path / "words")
    (tmp_path / "words" / "vocab.txt").rename(tmp_path / "list.txt")
    assert_same(words, formats.read(tmp_path / "words", vocabulary=tmp_path / "list.txt"))
    with pytest.raises(MismatchError, match="has no use: this model spells its words"):
        formats.read(model, vocabulary=tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("<S>\n")
    with pytest.raises(FormatError, match="expected 5 words"):
        formats.read(tmp_path / "words", vocabulary=tmp_path / "list.txt")


def test_a_vocabulary_may_be_packed(tmp_path):
    """Of a table of words and of a head, as NLPL's zips have it."""
    for name, expected in (
        ("table", make_word_checkpoint(make_config().lstm, WORDS)),
        ("head", make_checkpoint(vocabulary=WORDS)),
    ):
        allennlp.write(expected, tmp_path / name)
        listed = tmp_path / name / "vocab.txt"
        (tmp_path / name / "vocab.txt.gz").write_bytes(gzip.compress(listed.read_bytes()))
        listed.unlink()
        assert_same(formats.read(tmp_path / name), expected)


def test_a_float16_model_must_fit(checkpoint, tmp_path):
    checkpoint.arrays["lstm.0.bias"][0, 0] = 1e6
    with pytest.raises(MismatchError, match=r"'lstm.0.bias' holds 1e\+06, and float16 reaches only to 65504"):
        write_native(checkpoint, tmp_path / "half", dtype="float16")
    assert not (tmp_path / "half").exists()


def test_files_under_any_name(checkpoint, model):
    """The published files are called elmo_2x1024_..._options.json and so on."""
    (model / "options.json").rename(model / "elmo_2x6_options.json")
    (model / "weights.hdf5").rename(model / "elmo_2x6.weights")
    (model / "vocab.json").write_text('["lstm"]')
    assert_same(checkpoint, formats.read(model))


def test_a_file_of_a_model_stands_for_it(checkpoint, model):
    other = make_checkpoint(make_config(n_layers=1, dim=6), seed=1)
    allennlp.write(other, model / "more")
    assert_same(checkpoint, formats.read(model))
    shutil.copy(model / "more" / "weights.hdf5", model / "other.hdf5")
    assert "expected one HDF5 file of weights, found 2: other.hdf5, weights.hdf5; name the two files" in refusal(model)
    assert_same(checkpoint, formats.read(model / "weights.hdf5"))
    assert "expected one HDF5 file of weights, found 2" in refusal(model / "options.json")
    assert_same(other, formats.read(model / "other.hdf5"))
    assert_same(other, formats.read(model / "options.json", weights=model / "other.hdf5"))


def files_of(folder):
    return [path for path in folder.iterdir() if path.suffix in (".json", ".pkl", ".hdf5", ".safetensors")]


def test_any_file_of_a_model_stands_for_it(checkpoint, model, tmp_path):
    """Not for another in the same folder."""
    package = formats.read(manylangs_folder.write(manylangs_folder.make(), tmp_path / "package"))
    assert [assert_same(package, formats.read(file)) for file in files_of(tmp_path / "package")] == [None] * 4
    native = make_checkpoint(seed=7)
    write_native(native, model)
    expected = {
        "options.json": checkpoint,
        "weights.hdf5": checkpoint,
        "config.json": native,
        "model.safetensors": native,
    }
    assert {file.name for file in files_of(model)} == expected.keys()
    for name, found in expected.items():
        assert_same(formats.read(model / name), found)


@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("kind", ["allennlp", "native"])
def test_tars_of_models(checkpoint, model, tmp_path, opener, kind):
    if kind == "native":
        shutil.rmtree(model)
        write_native(checkpoint, model)
    path = tarred(tmp_path / "x", {f"./some/{name}": c for name, c in contents(model).items()}, opener=opener)
    before = sorted(tmp_path.rglob("*"))
    assert_same(checkpoint, formats.read(path))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_xz_of_several_streams(checkpoint, model, tmp_path):
    whole = tarred(tmp_path / "x.tar", contents(model), opener=open).read_bytes()
    parts = [lzma.compress(whole[:5000]), bytes(4), lzma.compress(whole[5000:]), bytes(8)]
    (tmp_path / "x.tar.xz").write_bytes(b"".join(parts))
    assert_same(checkpoint, formats.read(tmp_path / "x.tar.xz"))


def test_the_notes_of_a_mac_are_no_files(checkpoint, model, tmp_path):
    members = contents(model)
    notes = {f"__MACOSX/._{name}": b"\0\5\x16\7" for name in members} | {"._weights.hdf5": b"\0"}
    assert_same(checkpoint, formats.read(pack(tmp_path / "mac.zip", {**members, **notes})))


def test_our_own_format_as_one_file(tmp_path):
    checkpoint = make_checkpoint(vocabulary=WORDS)
    native.write_file(checkpoint, tmp_path / "a.zip")
    native.write_file(checkpoint, tmp_path / "b.zip")
    assert_same(checkpoint, formats.read(tmp_path / "a.zip"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    members = {"model.safetensors": b"no", "config.json": b"{}"}
    assert "option 'lstm' is missing" in refusal(pack(tmp_path / "bad.zip", members))


# ---------------------------------------------------------------- a head of its own


@pytest.fixture
def head(tmp_path):
    """A softmax file as it was published for the original model, and its vocabulary."""
    generator = np.random.default_rng(0)
    arrays = {"softmax/W": (len(WORDS), 4), "softmax/b": (len(WORDS),)}
    with h5py.File(tmp_path / "softmax.hdf5", "w") as file:
        for name, shape in arrays.items():
            file[name] = generator.normal(size=shape).astype(np.float32)
    (tmp_path / "vocab-2016-09-10.txt").write_text("\n".join(WORDS) + "\n")
    return {"softmax": tmp_path / "softmax.hdf5", "vocabulary": tmp_path / "vocab-2016-09-10.txt"}


def test_a_head_is_attached(checkpoint, model, head):
    found = formats.read(model, **head)
    with h5py.File(head["softmax"]) as file:
        np.testing.assert_array_equal(found.arrays["softmax.weight"], file["softmax/W"])
        np.testing.assert_array_equal(found.arrays["softmax.bias"], file["softmax/b"])
    assert found.vocabulary == WORDS
    assert {name: found.arrays[name] for name in checkpoint.arrays}.keys() == checkpoint.arrays.keys()


def test_a_head_that_does_not_fit(model, head):
    with pytest.raises(MismatchError, match="needs the list of its words"):
        formats.read(model, softmax=head["softmax"])
    head["vocabulary"].write_text("<S>\n</S>\n")
    with pytest.raises(FormatError, match="expected 5 words"):
        formats.read(model, **head)
    with h5py.File(head["softmax"], "a") as file:
        del file["softmax/W"]
        file["softmax/W"] = np.zeros((5, 7), np.float32)
    with pytest.raises(FormatError, match=r"expected shape \(None, 4\), found \(5, 7\)"):
        formats.read(model, **head)


# ---------------------------------------------------------------- hostile archives


def test_links_and_devices_in_a_tar_are_no_files(model, tmp_path):
    members = contents(model)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        link = tarfile.TarInfo("weights.hdf5")
        link.type, link.linkname = kind, str(model / "weights.hdf5")
        path = tarred(tmp_path / "x.tar", {"options.json": members["options.json"], "weights.hdf5": link})
        assert "holds no model" in refusal(path)


def test_a_tar_that_unpacks_without_end(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(40):
            file.write(bytes(1 << 20))
    assert "unpacks to more than 16,777,216 bytes" in refusal(path)


def test_an_xz_that_asks_for_gigabytes(tmp_path):
    """How much memory unpacking takes is the file's choice: here a dictionary of 4 GiB for 10 kB."""
    path = tarred(tmp_path / "bomb.tar.xz", {"options.json": b"{}"}, opener=lzma.open)
    content = bytearray(path.read_bytes())
    header = slice(12, 12 + 4 * (content[12] + 1))
    content[16] = 40  # the size of the dictionary, as .xz codes it
    content[header.stop - 4 : header.stop] = struct.pack("<I", zlib.crc32(content[header.start : header.stop - 4]))
    path.write_bytes(content)
    assert "is not a whole archive (Memory usage limit exceeded)" in refusal(path)


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_a_zip_at_the_end_of_a_tar_is_one_of_its_files(model, checkpoint, tmp_path, opener):
    """The weights of torch are a zip, which is told by its end; gzip keeps what cannot be made smaller as it is."""
    last = pack(tmp_path / "last.zip", {"noise": np.random.default_rng(0).bytes(30_000)})
    path = tarred(tmp_path / "m.tar", {**contents(model), "weights.th": last.read_bytes()}, opener=opener)
    assert_same(formats.read(path), checkpoint)


def test_an_archive_for_which_there_is_no_room(tmp_path, model, monkeypatch, small_disk):
    """It is whole, and must not be fetched again."""
    path = tarred(tmp_path / "m.tar.gz", {**contents(model), "more": bytes(20_000_000)}, opener=gzip.open)
    monkeypatch.setattr("elmokit.formats.files._expansion_limit", lambda _: 1 << 30)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk[0]))
    assert f"is unpacked in {small_disk[0]}, which has no room for it" in refusal(path, error=OutputError)


def test_an_unreadable_file_beside_a_model_is_none_of_it(model, checkpoint, monkeypatch):
    (model / "a.bin").write_bytes(b"somebody else's")
    start = Folder.start
    monkeypatch.setattr(Folder, "start", lambda self, name, size: start(self, name if name != "a.bin" else "b", size))
    assert_same(formats.read(model), checkpoint)


def test_broken_tars(model, tmp_path):
    whole = tarred(tmp_path / "x.tar", contents(model), opener=open).read_bytes()
    for cut in (600, len(whole) // 2):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        refusal(tmp_path / "cut.tar")
    packed = gzip.compress(whole)
    (tmp_path / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    assert "is not a whole archive" in refusal(tmp_path / "cut.tar.gz")
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"a letter to my aunt\n" * 99))
    assert "is not a whole archive" in refusal(tmp_path / "text.tar.gz")


# ---------------------------------------------------------------- there and back with a head


def test_a_head_goes_to_allennlps_format_and_back(tmp_path):
    checkpoint = make_checkpoint(vocabulary=WORDS)
    allennlp.write(checkpoint, tmp_path / "model")
    assert sorted(contents(tmp_path / "model")) == ["options.json", "softmax.h5", "vocab.txt", "weights.hdf5"]
    assert_same(checkpoint, formats.read(tmp_path / "model"))
    (tmp_path / "model" / "vocab.txt").unlink()
    assert "softmax head without its words; put vocab.txt beside it" in refusal(tmp_path / "model")
