"""The GPU kernels in Triton's interpreter, which runs them on the CPU: same values and gradients as the plain loop."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed: there is none for this system")


# The interpreter must be chosen before triton is imported, so each check is a process of its own.
@pytest.mark.parametrize(("check", "interpreted"), [("embedding", "1"), ("training", "1"), ("compiling", "0")])
def test_the_fused_kernels(check, interpreted, tmp_path):
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(tmp_path)}
    environment = os.environ | path | {"TRITON_INTERPRET": interpreted}
    script = f"import interpreted; interpreted.{check}(); print('checked')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "checked"), done.stderr[-2000:]
