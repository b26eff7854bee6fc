"""The layers of Keras, in a process for each backend: Keras takes one when it is imported and keeps it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NEEDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow"}


def environment(backend):
    return {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}


def run(command, backend):
    """Run a command to its end; return what it printed."""
    if not find_spec(NEEDS[backend]):
        pytest.skip(f"{NEEDS[backend]} is not installed")
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(backend),
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.mark.parametrize("backend", NEEDS)
def test_on_each_backend(backend):
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "keras_checks.py"], backend)
