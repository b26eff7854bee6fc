"""Files of an interrupted run that were cut: the run says so, or ends as if they had not been; never a wrong output."""

import shutil

import jobs
import pytest
from jobs import sentence


@pytest.fixture(scope="module")
def interrupted(here, tmp_path_factory):
    """A function from the name of a job to a folder in which it was killed halfway."""
    folders = {}

    def find(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("interrupted")
            jobs.interrupt(jobs.JOBS[name], here, folders[name] / jobs.JOBS[name].out)
        return folders[name]

    return find


@pytest.mark.parametrize("kept", [0, 0.5, pytest.param(0.99, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", jobs.OF_FILES)
def test_any_file_of_a_run_is_cut(name, kept, here, interrupted, tmp_path, expected, elmo):
    job, folder = jobs.JOBS[name], interrupted(name)
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 3
    refused = []
    for number, file in enumerate(files):
        out = shutil.copytree(folder, tmp_path / str(number)) / job.out
        path = tmp_path / str(number) / file
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        code, errors = elmo(jobs.go_on(job, here, out))
        if code == 0:
            assert job.result(out) == expected(name), file
        else:
            sentence(code, errors)
            refused.append(file.name)
            assert job.sound or not out.exists(), file
    print("refused:", refused)
    assert refused  # some of it is needed
