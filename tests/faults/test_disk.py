"""A disk that is full or read-only: one plain sentence, nothing half-written, and a rerun that ends well."""

import shutil

import jobs
import pytest
from jobs import sentence

from elmokit import formats


def fill(folder, *, leave):
    """Fill a disk but for some bytes."""
    (folder / "filler").write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))


@pytest.mark.parametrize("leave", [0, 12_000])
@pytest.mark.parametrize("name", jobs.OF_FILES)
def test_a_full_disk(name, leave, here, small_disk, expected, elmo):
    job, (folder, _) = jobs.JOBS[name], small_disk
    out = folder / job.out
    fill(folder, leave=leave)
    said = sentence(*elmo(job.begin(here, out)))
    assert "disk is full" in said or "No space left on device" in said
    jobs.check_what_stands(job, out, None)
    assert job.sound or not out.exists()
    (folder / "filler").unlink()
    code, errors = elmo(jobs.go_on(job, here, out))
    assert code == 0, errors
    assert job.result(out) == expected(name)


@pytest.mark.parametrize("target", ["converted", "converted.zip"])
def test_a_full_disk_for_a_model(target, here, small_disk, elmo):
    folder, _ = small_disk
    fill(folder, leave=2_000)
    said = sentence(*elmo(["convert", here / "model", folder / target]))
    assert "No space left on device" in said
    assert [path.name for path in folder.iterdir()] == ["filler"]
    (folder / "filler").unlink()
    assert elmo(["convert", here / "model", folder / target])[0] == 0
    assert formats.read(folder / target).config == formats.read(here / "model").config


@pytest.mark.parametrize("name", jobs.OF_FILES)
def test_a_place_that_is_read_only(name, here, small_disk, expected, elmo):
    job, (folder, change) = jobs.JOBS[name], small_disk
    out = folder / job.out
    assert change("8m,ro")
    assert "Read-only file system" in sentence(*elmo(job.begin(here, out)))
    assert list(folder.iterdir()) == []
    assert change("8m,rw")
    assert elmo(job.begin(here, out))[0] == 0
    assert job.result(out) == expected(name)


@pytest.mark.parametrize("name", jobs.OF_FILES)
def test_a_place_that_becomes_read_only(name, here, small_disk, expected, elmo):
    """As a disk does that has met an error: what was safe stays so."""
    job, (folder, change) = jobs.JOBS[name], small_disk
    out = folder / job.out
    jobs.interrupt(job, here, out)
    assert change("8m,ro")
    assert "Read-only file system" in sentence(*elmo(job.again(here, out)))
    assert change("8m,rw")
    assert elmo(job.again(here, out))[0] == 0
    assert job.result(out) == expected(name)


@pytest.mark.parametrize("name", jobs.OF_FILES)
def test_text_and_model_may_be_read_only(name, here, small_disk, tmp_path, expected, elmo):
    job, (folder, change) = jobs.JOBS[name], small_disk
    shutil.copytree(here, folder / "here")
    assert change("8m,ro")
    code, errors = elmo(job.begin(folder / "here", tmp_path / job.out))
    assert code == 0, errors
    assert job.result(tmp_path / job.out) == expected(name)
