"""Killed with SIGKILL at random moments: what has its name is whole, and a rerun ends as if nothing had happened."""

import random
import shutil
import sys
import time

import jobs
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")


@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", jobs.JOBS)
def test_killed_at_random_moments(name, moments, here, tmp_path):
    """Each run is killed somewhere in its work and the next one goes on; when one has ended, all begins anew."""
    job = jobs.JOBS[name]
    whole, out = tmp_path / "whole" / job.out, tmp_path / "killed" / job.out
    whole.parent.mkdir()
    out.parent.mkdir()
    seconds = time_to_work(job, here, whole)
    expected = job.result(whole)
    choose, killed = random.Random(moments), 0
    while killed < moments:
        code = run_and_kill(job, here, out, after=choose.uniform(0, seconds))
        killed += code != 0
        jobs.check_what_stands(job, out, expected)
        if code == 0 or (out.exists() and not job.sound):
            assert job.result(out) == expected
            shutil.rmtree(out.parent)
            out.parent.mkdir()
    code, errors = jobs.run(jobs.go_on(job, here, out))
    assert code == 0, errors
    assert job.result(out) == expected
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]


def time_to_work(job, here, out):
    """Run a job whole; the seconds from when its work begins to its end."""
    running = jobs.start(job.begin(here, out))
    jobs.wait_for(job.working(out), running)
    begun = time.monotonic()
    code, errors = running.finish()
    assert code == 0, errors
    return time.monotonic() - begun


def run_and_kill(job, here, out, *, after):
    """Begin or go on, and kill it so many seconds into its work; its exit code, 0 if it was faster."""
    running = jobs.start(jobs.go_on(job, here, out))
    jobs.wait_for(job.working(out), running)
    time.sleep(after)
    running.kill()
    code, errors = running.finish()
    assert code in (0, -9), errors
    return code
