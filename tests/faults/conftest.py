"""What the tests of faults share: a folder with a text and a model, and the command run in this process."""

import jobs
import pytest


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    jobs.furnish(folder)
    return folder


@pytest.fixture(scope="module")
def expected(here, tmp_path_factory):
    """A function from the name of a job to what its output should hold."""
    results = {}

    def find(name):
        if name not in results:
            job = jobs.JOBS[name]
            out = tmp_path_factory.mktemp("whole") / job.out
            code, errors = jobs.run(job.begin(here, out))
            assert code == 0, errors
            results[name] = job.result(out)
        return results[name]

    return find


@pytest.fixture
def elmo(run):
    """A function that runs the command in this process and returns exit code and standard error."""

    def elmo(arguments):
        code, _, errors = run(*arguments)
        return code, errors

    return elmo
