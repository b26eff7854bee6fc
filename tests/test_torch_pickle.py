"""Files of torch tensors: what torch writes is read, and nothing else, whatever is in the file."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
import torch

from elmokit.errors import FormatError
from elmokit.formats.torch_pickle import read_state_dict

TENSORS = OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor([0.5]), c=torch.arange(4.0).view(2, 2).t())


def saved(tensors, *, older=False):
    file = io.BytesIO()
    torch.save(tensors, file, _use_new_zipfile_serialization=not older)
    return file.getvalue()


def read(content):
    return read_state_dict(io.BytesIO(content), size=len(content), where="here")


def refusal(content):
    with pytest.raises(FormatError) as caught:
        read(content)
    message = str(caught.value)
    assert message.startswith("here is not a")
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("older", [False, True])
def test_what_torch_writes(older):
    found = read(saved(TENSORS, older=older))
    assert list(found) == list(TENSORS)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, TENSORS[name].numpy())


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_numbers_become_float32(older, dtype):
    found = read(saved({"x": torch.tensor([1.5, -2.0], dtype=dtype)}, older=older))["x"]
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("older", [False, True])
def test_tensors_that_share_their_numbers(older):
    whole = torch.arange(6.0)
    found = read(saved({"x": whole, "y": whole, "z": whole[2:4]}, older=older))
    assert [array.tolist() for array in found.values()] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [2, 3]]


@pytest.mark.parametrize("older", [False, True])
def test_counters_and_masks_are_left_out(older):
    """As those of a batch norm in the model of a task."""
    whole = [torch.tensor(5), torch.tensor([True, False]), *(torch.arange(3, dtype=d) for d in WHOLE_NUMBERS)]
    found = read(saved({**TENSORS, **{str(i): tensor for i, tensor in enumerate(whole)}}, older=older))
    assert list(found) == list(TENSORS)


WHOLE_NUMBERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("name", ["emfl-cnn-char/encoder.pkl", "emfl-cnn-word/encoder.pkl"])
def test_published_files_as_torch_reads_them(oracles, name):
    found, expected = read((oracles / name).read_bytes()), torch.load(oracles / name, weights_only=True)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[key], expected[key].numpy()) for key in expected)


# ---------------------------------------------------------------- what is not one


class Evil:
    """Pickled, this runs a command where the pickle is read as a program."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("where", ["value", "whole"])
def test_a_pickle_that_runs_a_command(tmp_path, older, where):
    mark = tmp_path / "was here"
    content = saved(Evil(mark) if where == "whole" else {**TENSORS, "x": Evil(mark)}, older=older)
    assert "it names 'posix system', expected tensors" in refusal(content)
    assert not mark.exists()


@pytest.mark.parametrize("part", range(5))
def test_a_command_in_any_of_the_five_pickles(tmp_path, part):
    pickles = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, OrderedDict(), [])]
    assert read(b"".join(pickles)) == {}
    pickles[part] = pickle.dumps(Evil(tmp_path / "was here"), 2)
    assert "names 'posix system'" in refusal(b"".join(pickles))
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": torch.tensor([1 + 2j])}, "names 'torch ComplexFloatStorage'"),
        ({"x": torch.eye(2).to_sparse()}, "names 'torch._utils _rebuild_sparse_tensor'"),
        ({"x": torch.nn.Parameter(torch.ones(2))}, "names 'torch._utils _rebuild_parameter'"),
        ({"x": np.ones(2)}, "names '"),
        ({"x": 3}, "'x' is int, expected a tensor"),
        ({3: torch.ones(2)}, "'3' is Tensor, expected a tensor"),
        ([torch.ones(2)], "found list, expected a dictionary"),
        ({"x": 1.5}, "instruction BINFLOAT"),
    ],
)
def test_what_is_no_state_dict(older, content, message):
    assert message in refusal(saved(content, older=older))


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}.", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n", b"text\n" * 9]
)
def test_other_files(content):
    refusal(content)


# ---------------------------------------------------------------- claims


def repacked(content, change, compression=zipfile.ZIP_STORED):
    """The zip with its members changed: `change` takes and gives name -> bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = change({name: archive.read(name) for name in archive.namelist()})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return file.getvalue()


def with_pickle(change):
    return lambda members: {n: change(part) if n.endswith("data.pkl") else part for n, part in members.items()}


FOUR = saved({"x": torch.arange(4.0)})
FOUR_OLDER = saved({"x": torch.arange(4.0)}, older=True)
TERA = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")  # LONG1


@pytest.fixture
def without_torch(monkeypatch):
    """These are refused before torch sees them."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            with_pickle(lambda p: p.replace(b"K\x04tq", TERA + b"tq")),
            "storage '0' claims 4,398,046,511,104 bytes, found 16",
        ),
        (with_pickle(lambda p: p.replace(b"K\x04tq", b"K\x05tq")), "storage '0' claims 20 bytes, found 16"),
        (with_pickle(lambda p: p.replace(b"K\x04tq", b"J\xff\xff\xff\xfftq")), "something other than a storage"),
        (with_pickle(lambda p: p.replace(b"K\x04tq", b"Ntq")), "something other than a storage"),
        (with_pickle(lambda p: p.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009")), "KeyError"),
        (with_pickle(lambda p: p.replace(b"storage", b"passage")), "something other than a storage"),
        (with_pickle(lambda p: p + bytes(1 << 22)), "expected a short one"),
        (with_pickle(lambda p: p[:-1]), "is not a whole file of torch tensors"),
        (lambda m: {n: part for n, part in m.items() if not n.endswith("data.pkl")}, "found 0 descriptions"),
        (lambda m: {**m, "more/data.pkl": b"."}, "found 2 descriptions"),
    ],
)
def test_zips_that_claim_what_they_do_not_hold(change, message):
    assert message in refusal(repacked(FOUR, change))


@pytest.mark.usefixtures("without_torch")
def test_a_compressed_zip():
    bomb = repacked(FOUR, lambda members: {**members, "archive/data/1": bytes(10**8)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    assert "it is compressed, which torch does not do" in refusal(bomb)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K\x04N", TERA + b"N", "its storages claim 4,398,046,511,104 bytes, the file holds"),
        (b"K\x04N", b"J\xff\xff\xff\xffN", "something other than a storage"),
        (b"K\x04N", b"K\x04K\x07", "something other than a storage"),
        (b"FloatStorage", b"LongLongAgo!", "names 'torch LongLongAgo!'"),
        (b"FloatStorage", b"LongStorage", "its storages claim 32 bytes"),
        (b"\x8a\n", b"\x8a\x08", "is not a"),
    ],
)
def test_older_files_that_claim_what_they_do_not_hold(old, new, message):
    assert FOUR_OLDER.count(old) == 1
    assert message in refusal(FOUR_OLDER.replace(old, new))


def polyglot():
    """A file that begins with the mark of torch's files and is a tar, whose parts were not looked at."""
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02T"  # then a string, which is the rest of the tar
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("storages", 0), ("tensors", 0), ("pickle", {})):
            info = tarfile.TarInfo(name)
            info.size = len(pickle.dumps(content, 2))
            archive.addfile(info, io.BytesIO(pickle.dumps(content, 2)))
    members = tar.getvalue()
    first = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    first[:100] = (start + struct.pack("<i", 512 + len(members) - len(start) - 4)).ljust(100, b"\0")
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    return bytes(first) + members + b"." + b"\x80\x02}." * 2 + b"\x80\x02]q\x00."


@pytest.mark.usefixtures("without_torch")
def test_a_tar_in_disguise():
    """Torch's oldest format is a tar, which it tries first; nothing but the pickles of the next one was checked."""
    assert "it is a tar as well" in refusal(polyglot())


@pytest.mark.parametrize("older", [False, True])
def test_few_numbers_shown_many_times(older):
    assert "its tensors claim 4,000,000,000,000 bytes" in refusal(
        saved({"x": torch.ones(1).expand(10**12)}, older=older)
    )


def test_a_stack_that_runs_empty():
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    for program in (b"\x80\x02R.", b"\x80\x02tR.", b"\x80\x02u.", b"\x80\x02h\x07.", b"\x80\x02q\x07.", b"\x80\x02Q."):
        refusal(head + program * 4)


# ---------------------------------------------------------------- damage


def damaged(content, generator):
    """The file with a few bytes changed, or an end missing, or a part put elsewhere."""
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        place = generator.randrange(len(content))
        content[place] = generator.choice((0, 1, 0x2E, 0x7F, 0x80, 0xFF, content[place] ^ 1 << generator.randrange(8)))
    if generator.random() < 0.2:
        del content[generator.randrange(len(content)) :]
    if generator.random() < 0.1:
        place = generator.randrange(len(content) + 1)
        content[place:place] = struct.pack("<q", generator.getrandbits(62))
    return bytes(content)


def read_or_refused(content):
    """A file is read, perhaps with other numbers, or refused; what is read is no larger than the file."""
    with suppress(FormatError):
        found = read(content)
        assert all(array.dtype == np.float32 for array in found.values())
        assert sum(array.nbytes for array in found.values()) <= 4 * len(content)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files(older, count):
    generator, content = random.Random(count), saved(TENSORS, older=older)
    for _ in range(count):
        read_or_refused(damaged(content, generator))


@pytest.mark.parametrize("older", [False, True])
def test_files_that_are_cut_off(older):
    content = saved(TENSORS, older=older)
    for length in range(0, len(content) - 1, 7):
        refusal(content[:length])
