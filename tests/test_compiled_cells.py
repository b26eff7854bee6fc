"""Gates and cells in compiled code, forward and backward, in each variant that this processor runs."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import needs_compiled
from elmokit.errors import MismatchError
from elmokit.kernels import cells, compiled, compiled_cells, lstmp
from elmokit.kernels.batched_gradient import lstmp_batched_gradient
from test_network import layer_inputs, run_kernel

pytestmark = needs_compiled


def steps(way, sums, c_0, dm, clip):
    """Take all steps forth and back; return cells, what goes to the projection, gradients of gates and of c_0."""
    c, m, dgates = c_0.new_empty(len(sums) + 1, *c_0.shape), torch.empty_like(dm), sums.transpose(0, 1).clone()
    c[0] = c_0
    forward, kept = way.forward_steps(c, m, clip)
    for t, sums_ZBG in enumerate(sums):
        forward(t, list(sums_ZBG))
    backward, dc = way.backward_steps(kept, c, dgates, clip), torch.ones_like(c_0)
    for t in reversed(range(len(sums))):
        backward(t, dm[:, t], dc)
    return c[1:], m, dgates, dc


def close(found, right, dtype):
    """Assert that the error is small as a share of the whole."""
    error = (found.double() - right.double()).norm() / right.double().norm().clamp(min=1e-9)
    assert error < {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype], error


@pytest.mark.parametrize("clip", [None, 3.0])
def test_gates_and_cells(dtype, clip):
    """Against float64, in rows enough for several threads; gates far outside of what a sigmoid tells apart as well."""
    chance = torch.Generator().manual_seed(1)
    gates = (torch.randn(300, 4 * 64, generator=chance) * 6).to(dtype)
    gates[0], gates[1], gates[2] = 1e4, -1e4, torch.inf
    c = torch.randn(300, 64, generator=chance) * 2
    i, j, f, o = gates.double().chunk(4, dim=1)
    expected_c = f.sigmoid() * c + i.sigmoid() * j.tanh()
    expected_c = expected_c if clip is None else expected_c.clamp(-clip, clip)
    m = compiled.cells(gates, c, torch.empty(300, 64, dtype=dtype), clip)
    torch.testing.assert_close(c.double(), expected_c, atol=1e-6, rtol=1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(m.double(), o.sigmoid() * expected_c.tanh(), atol=tolerance, rtol=tolerance)


@given(st.tuples(*[st.integers(1, 4)] * 2, st.sampled_from([16, 48])), st.sampled_from([None, 0.3]), st.integers(0, 99))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_steps_forth_and_back(dtype, sizes, clip, seed):
    """As with torch's operations on the same numbers in float64."""
    T, B, D = sizes
    chance = torch.Generator().manual_seed(seed)
    sums = torch.randn(T, 2, B, 4 * D, generator=chance).to(dtype)
    dm, c_0 = torch.randn(2, T, B, D, generator=chance).to(dtype), torch.randn(2, B, D, generator=chance)
    found = steps(compiled_cells, sums, c_0, dm, clip)
    right = steps(cells, sums.double(), c_0.double(), dm.double(), clip)
    for a, b in zip(found, right, strict=True):
        close(a, b, dtype)


def test_rows_enough_for_several_threads(dtype):
    chance = torch.Generator().manual_seed(1)
    sums, dm = torch.randn(2, 2, 300, 4 * 64, generator=chance).to(dtype), torch.ones(2, 2, 300, 64, dtype=dtype)
    asked = compiled_cells, sums, torch.zeros(2, 300, 64), dm, 3.0
    alone, threads = steps(*asked), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = steps(*asked)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_what_is_no_number_stays_so_and_the_clip_itself_does_not_move(dtype):
    sums = torch.zeros(1, 2, 1, 4 * 16, dtype=dtype)
    sums[..., 2] = torch.nan  # the gate i of the third cell
    c_0 = torch.tensor([0.6, 0.5, 0.1]).repeat(6)[:16].expand(2, 1, 16)  # halved by f: the first comes out as the clip
    c, m, dgates, dc = steps(compiled_cells, sums, c_0, torch.ones(2, 1, 1, 16, dtype=dtype), 0.3)
    assert c[..., 2].isnan().all()
    assert m[..., 2].isnan().all()
    assert dgates[..., 2].isnan().all()
    assert not any(a[..., :2].isnan().any() for a in (c, m, dgates, dc))
    assert (dc[..., 0] == 0).all()
    assert (dc[..., 1] > 0).all()


@pytest.mark.parametrize("clips", [(None, None), (0.3, 0.2)])
@pytest.mark.parametrize("projected", [True, False])
def test_a_layer_learns_alike(monkeypatch, projected, clips):
    """Values and gradients of a layer whose rows end at different steps; `lstmp` computes it here."""
    rows = [5, 5, 3, 1]
    values = layer_inputs(T=4, B=5, D=32, P=16, projected=projected, dtype=torch.float32)
    values[1] *= 0.2
    taken, call = [], compiled.cells_backward
    monkeypatch.setattr(compiled, "cells_backward", lambda *given: taken.append(1) or call(*given))
    results = []
    for kernel in (partial(lstmp_batched_gradient, cells=cells), lstmp):
        inputs = [value if value is None else value.clone().requires_grad_() for value in values]
        y, h, c = run_kernel(kernel, inputs, rows, clips)
        (
            sum(step[:, :left].sin().sum() for step, left in zip(y, rows, strict=True)) + h.sum() + c.sin().sum()
        ).backward()
        results.append([h, c, *(x.grad for x in inputs if x is not None)])
    assert len(taken) == 2 * len(rows)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_sizes_that_do_not_go_together(dtype):
    def zeros(n, D, type_=dtype):
        return torch.zeros(n, D, dtype=type_)

    c = zeros(4, 32, torch.float32)
    for gates, m in ((zeros(4, 64), zeros(4, 32)), (zeros(4, 128), zeros(4, 16)), (zeros(2, 128), zeros(4, 32))):
        with pytest.raises(MismatchError, match=r"cells \(4, 32\) do not go with"):
            compiled.cells(gates, c, m, None)


def test_a_second_derivative_is_refused():
    """It would be that of something else."""
    values = layer_inputs(T=1, B=2, D=32, P=16, dtype=torch.float32)
    inputs = [value.requires_grad_() for value in values]
    y, _, _ = run_kernel(lstmp, inputs, [2], (None, None))
    (first,) = torch.autograd.grad(y.sin().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked with @once_differentiable"):
        first.sum().backward()


def test_cells_that_others_compute(dtype):
    """Cells that do not fill a vector, or of another type."""
    assert compiled_cells.can_run(torch.zeros(1, 32), dtype)
    assert not compiled_cells.can_run(torch.zeros(1, 31), dtype)
    assert not compiled_cells.can_run(torch.zeros(1, 32, dtype=torch.float64), dtype)
    assert not compiled_cells.can_run(torch.zeros(1, 32), torch.float16)
    assert not compiled_cells.can_run(torch.zeros(1, 32, device="meta"), dtype)
