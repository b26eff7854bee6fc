"""Headers that lie about what follows: one plain sentence, no memory taken for what is not there, nothing written.

Damage at random, lying HDF5 files and lying zips are in tests/test_damaged_files.py.
"""

import gzip
import json
import shutil
import tarfile

import jobs
import pytest
from jobs import sentence

from bundle_writer import within


def header(path):
    """The header of a .safetensors file, as JSON, and the bytes behind it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_header(path, said, data, *, length=None):
    text = json.dumps(said).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def change_entry(change):
    """A lie about one array."""

    def lie(model):
        path = model / "model.safetensors"
        said, data = header(path)
        change(said[next(name for name in said if name.startswith("lstm.0"))])
        put_header(path, said, data)

    return lie


def wrong_length(length):
    def lie(model):
        path = model / "model.safetensors"
        put_header(path, *header(path), length=length)

    return lie


def overlap(model):
    """Two arrays on the same bytes."""
    path = model / "model.safetensors"
    said, data = header(path)
    one, other, *_ = [entry for name, entry in said.items() if name.startswith("highway.0")]
    other["data_offsets"] = one["data_offsets"]
    put_header(path, said, data)


def wider_config(model):
    options = json.loads((model / "config.json").read_text())
    options["lstm"]["dim"] = 2**31
    (model / "config.json").write_text(json.dumps(options))


LIES = {
    "a header of 2^63 bytes": wrong_length(2**63),
    "a header longer than the file": wrong_length(2**24),
    "a header that ends early": wrong_length(40),
    "terabytes": change_entry(lambda entry: entry.update(shape=[2**20, 2**20])),
    "a negative size": change_entry(lambda entry: entry.update(shape=[-1, 4])),
    "an end before the beginning": change_entry(lambda entry: entry["data_offsets"].reverse()),
    "an end behind the file's": change_entry(lambda entry: entry.update(data_offsets=[0, 2**40])),
    "half the numbers": change_entry(lambda entry: entry.update(dtype="F16")),
    "a type that is none": change_entry(lambda entry: entry.update(dtype="F12")),
    "one place for two arrays": overlap,
    "a network of 2^31 cells": wider_config,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies(lie, here, tmp_path, elmo):
    model, out = shutil.copytree(here / "model", tmp_path / "model"), tmp_path / "out.npz"
    LIES[lie](model)
    sentence(*within(100_000_000, lambda: elmo(["embed", here / "text.txt", out, "--model", model])))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_tar_that_lies_about_a_size(here, tmp_path, elmo):
    path = tmp_path / "model.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(here / "model", "model")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        member = archive.getmember("model/model.safetensors")
    block = content[member.offset : member.offset + 512]
    block[124:136] = b"%011o\0" % 2**32
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    content[member.offset : member.offset + 512] = block
    path.write_bytes(content)
    sentence(*elmo(["embed", here / "text.txt", tmp_path / "out.npz", "--model", path]))
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar"]


def cut_gzip(path):
    path.write_bytes(gzip.compress(b"The cat sat .\n" * 10_000)[:-200])


def long_gzip(path):
    """What follows the packed text says that it had another length."""
    packed = gzip.compress(b"The cat sat .\n" * 100)
    path.write_bytes(packed[:-4] + (5).to_bytes(4, "little"))


def parquet_of_terabytes(path):
    """The footer is where the file says, and the file says that it is longer than the file."""
    path.write_bytes(b"PAR1" + bytes(100) + (2**31 - 1).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    ("name", "write"),
    [("text.txt.gz", cut_gzip), ("text.txt.gz", long_gzip), ("text.parquet", parquet_of_terabytes)],
    ids=["cut gzip", "gzip of another length", "parquet longer than the file"],
)
def test_a_text_that_lies(name, write, here, tmp_path, elmo):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    write(tmp_path / name)
    sentence(*elmo(["embed", tmp_path / name, tmp_path / "out.npz", "--model", here / "model"]))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_whose_own_files_lie(here, tmp_path, elmo):
    """progress.json of an interrupted run names more sentences than there are."""
    job = jobs.JOBS["embed"]
    out = tmp_path / job.out
    jobs.interrupt(job, here, out)
    path = tmp_path / f"{job.out}.partial" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sentences": 10**9}))
    sentence(*elmo(job.again(here, out)))
    assert not out.exists()
