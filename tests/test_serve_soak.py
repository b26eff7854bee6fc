"""The soak test of benchmarks/, shortened: mixed requests, some given up; right answers only, memory flat."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving import make_hosted

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.parametrize(
    "seconds", [8, pytest.param(120, marks=pytest.mark.slow)]
)  # an hour is for hand:  python benchmarks/soak.py --hours 1
def test_under_load_for_a_while(tmp_path, seconds):
    make_hosted(max_characters=50).elmo.save(tmp_path / "model")
    command = [sys.executable, str(SOAK), "--model", str(tmp_path / "model"), "--hours", str(seconds / 3600)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["answered"] > 20
    assert report["gone_away"] > 0
    assert (report["failed"], report["wrong"], report["grew"], report["exit_code"]) == (0, 0, False, 0)
