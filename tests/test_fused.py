"""The GPU kernel in Triton's interpreter, which runs it on the CPU: same values as the plain loop."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed: there is none for this system")

# The interpreter must be chosen before triton is imported, so each check is a process of its own.
CHECK = """
import sys
import torch
from test_network import layer_inputs, run_kernel
from elmokit.kernels.fused import cells, lstmp_fused
from elmokit.kernels.plain import lstmp_plain

def close(found, right, dtype):  # relative error, as a share of the whole
    error = (found.float() - right).norm() / right.norm()
    assert error < {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype], (dtype, error)

for B, rows in ((3, [3, 3, 2, 1]), (20, [20, 13, 12, 4, 4]), (1, [1, 1])):
    for projected in (True, False):
        for clips in ((None, None), (0.3, 0.2)):
            for dtype in (torch.float32, torch.bfloat16):
                values = layer_inputs(T=len(rows), B=B, projected=projected, dtype=dtype)
                values[1] *= 0.4  # so that the gates are about as large as those of trained models
                values[-1] = values[-1].float()
                kept = [value if value is None else value.clone() for value in values]
                found = run_kernel(lstmp_fused, values, rows, clips)
                exact = [value if value is None else value.float() for value in values]
                right = run_kernel(lstmp_plain, exact, rows, clips)
                for t, left in enumerate(rows):
                    close(found[0][t, :, :left], right[0][t, :, :left], dtype)
                for last, right_last in zip(found[1:], right[1:]):
                    close(last, right_last, dtype)
                assert all(a is None or torch.equal(a, b) for a, b in zip(kept, values))
sums, c = torch.randn(2, 3, 4 * 700), torch.randn(2, 3, 700)  # more than one block, the last one not full
i, j, f, o = sums.chunk(4, -1)
expected = (torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(j)).clamp(-1, 1)
m = cells(sums, c, 1.0)
torch.testing.assert_close(c, expected, atol=1e-6, rtol=0)
torch.testing.assert_close(m, torch.sigmoid(o) * torch.tanh(expected), atol=1e-6, rtol=0)
print("checked")
"""


def test_the_fused_kernel_is_the_plain_loop():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "checked"), done.stderr[-2000:]
