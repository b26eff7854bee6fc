"""What is checked of the GPU kernels in a process of its own, in which Triton interprets or compiles them."""

from functools import partial
from itertools import product

import numpy as np
import torch
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from elmokit.kernels import cells, cells_for_training, for_embedding, fused, fused_cells
from elmokit.kernels.batched_gradient import lstmp_batched_gradient
from elmokit.kernels.fused import lstmp_fused
from elmokit.kernels.in_place import lstmp_in_place
from elmokit.kernels.plain import lstmp_plain
from test_compiled_cells import steps
from test_network import layer_inputs, run_kernel

CLIPS = [(None, None), (0.3, 0.2)]
DTYPES = [torch.float32, torch.bfloat16]


def close(found, right, dtype):
    """Assert that the error is small as a share of the whole."""
    error = (found.float() - right.float()).norm() / right.float().norm().clamp(min=1e-9)
    assert error < {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype], (dtype, error)


def interpret_products_of_bfloat16():
    """Let the interpreter multiply what is bfloat16 as such: it keeps it as integers, and multiplies those."""
    multiply = InterpreterBuilder.create_dot

    def widened(a):
        return TensorHandle((a.data.astype(np.uint32) << 16).view(np.float32), tl.float32) if a.dtype.is_bf16() else a

    InterpreterBuilder.create_dot = lambda self, a, b, *others: multiply(self, widened(a), widened(b), *others)


def embedding():
    assert for_embedding("cuda", torch.float32) is lstmp_fused
    assert for_embedding("cuda", torch.float64) is lstmp_plain
    assert for_embedding("cpu", torch.float32) is lstmp_in_place
    interpret_products_of_bfloat16()
    # Less than a block of anything, several blocks of all, rows that end at once or never begin.
    sizes = [(3, 4, 2), (1, 4, 2), (20, 70, 66), (140, 40, 8)]
    lasting = [lambda B: [B, B, B - B // 3, B // 3], lambda B: [B, B], lambda B: [B // 2, B // 3, 0]]
    for (B, D, P), rows in product(sizes, lasting):
        for projected, clips, dtype in product((True, False), CLIPS, DTYPES):
            embedded(rows(B), (B, D, P), projected, clips, dtype)


def embedded(rows, sizes, projected, clips, dtype):
    B, D, P = sizes
    values = layer_inputs(T=len(rows), B=B, D=D, P=P, projected=projected, dtype=torch.float32)
    values[1] *= 0.4 * (8 / values[1].shape[1]) ** 0.5  # so that the gates are about as large as in trained models
    if projected:
        values[3] /= D**0.5
    values = [value if value is None else value.to(dtype) for value in values[:-1]] + values[-1:]
    kept = [value if value is None else value.clone() for value in values]
    found = run_kernel(lstmp_fused, values, rows, clips)
    exact = [value if value is None else value.float() for value in values]
    right = run_kernel(lstmp_plain, exact, rows, clips)
    for t, left in enumerate(rows):
        close(found[0][t, :, :left], right[0][t, :, :left], dtype)
    for last, right_last in zip(found[1:], right[1:], strict=True):
        close(last, right_last, dtype)
    assert all(a is None or torch.equal(a, b) for a, b in zip(kept, values, strict=True))


def training():
    assert cells_for_training("cuda", torch.float32) is fused_cells
    assert cells_for_training("cuda", torch.float64) is cells_for_training("cpu", torch.float32) is cells
    fused_steps_are_those_of_torch()
    fused_gradients_are_those_of_the_plain_loop()
    # A rounding to bfloat16 may move a cell over its clip, and then its gradient is another one altogether, in the
    # plain loop too; with these values none does. The interpreter cuts bits off where a GPU rounds, so errors double.
    for T, B, D in ((4, 3, 5), (3, 20, 70)):
        for projected in (True, False):
            for clips in CLIPS:
                same_gradients([B] * T, D, projected, clips, torch.bfloat16)
    what_is_not_a_number_stays_so_and_the_clip_itself_does_not_move()


sizes = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 60))  # B D: up to three blocks


@given(sizes, st.sampled_from([None, 0.3, 1.0]), st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=25, derandomize=True)
def fused_steps_are_those_of_torch(sizes, clip, dtype):
    T, B, D = sizes
    generator = torch.Generator().manual_seed(T + B + D)
    sums = torch.randn(T, 2, B, 4 * D, generator=generator).to(dtype)
    dm, c_0 = torch.randn(2, T, B, D, generator=generator).to(dtype), torch.randn(2, B, D, generator=generator)
    for found, right in zip(*(steps(way, sums, c_0, dm, clip) for way in (fused_cells, cells)), strict=True):
        close(found, right, dtype)


@given(sizes, st.integers(0, 9), st.booleans(), st.sampled_from(CLIPS))
@settings(deadline=None, max_examples=15, derandomize=True)
def fused_gradients_are_those_of_the_plain_loop(sizes, ending, projected, clips):
    """Whether all rows last to the end or some end at each step."""
    T, B, D = sizes
    same_gradients([max(1, B - t * ending) for t in range(T)], D, projected, clips, torch.float32)


def same_gradients(rows, D, projected, clips, dtype):
    T, B = len(rows), rows[0]
    values = layer_inputs(T=T, B=B, D=D, projected=projected, dtype=torch.float32)
    values[1] /= values[1].shape[1] ** 0.5  # so that sums of many are as large as those of few
    if projected:
        values[3] /= D**0.5
    rounded = [value if value is None else value.to(dtype) for value in values[:-1]]
    exact = [value if value is None else value.float() for value in rounded]
    found = gradients(partial(lstmp_batched_gradient, cells=fused_cells), [*rounded, values[-1]], rows, clips)
    right = gradients(lstmp_plain, [*exact, values[-1]], rows, clips)
    assert len(found) == (9 if projected else 8)
    assert clips[0] is None or B * D < 10 or (right[2].abs() == clips[0]).any(), "the clip should act"
    for a, b in zip(found, right, strict=True):
        close(a, b, dtype)


def gradients(kernel, values, rows, clips):
    """Return outputs of the rows that are still there, last states and the gradients of all that went in."""
    inputs = [value if value is None else value.clone().requires_grad_() for value in values]
    y, h_last, c_last = run_kernel(kernel, inputs, rows, clips)
    there = torch.cat([step[:, :left].flatten() for step, left in zip(y, rows, strict=True)])
    ((there * there.detach().cos()).sum() + h_last.square().sum() + c_last.sum()).backward()
    return [a.detach() for a in (there, h_last, c_last)] + [x.grad for x in inputs if x is not None]


def what_is_not_a_number_stays_so_and_the_clip_itself_does_not_move():
    sums = torch.zeros(1, 2, 1, 4 * 3)
    sums[..., 2] = torch.nan  # the gate i of the third cell
    c_0 = torch.tensor([0.6, 0.5, 0.1]).expand(2, 1, 3)  # halved by f: the first comes out as large as the clip
    found, right = (steps(way, sums, c_0, torch.ones(2, 1, 1, 3), 0.3) for way in (fused_cells, cells))
    torch.testing.assert_close(found, right, equal_nan=True)
    c, _, _, dc = found
    assert c[..., 2].isnan().all()
    assert (dc[..., 0] == 0).all()
    assert (dc[..., 1] > 0).all()


# What a block of threads may share, bytes, by compute capability.
SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}


def compiling():
    """Compile for GPUs, which needs none: not all that can be interpreted compiles.

    As where it runs: what is aligned is known to be, and columns are known to be without gaps.
    """
    for capability, dtype in product(SHARED, ("*fp32", "*bf16")):
        for kernel, signature, constants in (*kernels_of_training(dtype), *kernels_of_embedding(dtype)):
            given = signature | dict.fromkeys(constants, "constexpr")
            free = {name: kind for name, kind in given.items() if name not in ("B", "left") and kind != "fp32"}
            aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in free.keys() - constants}
            source = ASTSource(kernel, given, constants, aligned)
            compiled = compile(source, target=GPUTarget("cuda", capability, 32))
            assert compiled.asm["cubin"]
            assert compiled.metadata.shared <= SHARED[capability], (kernel, capability, constants)


def kernels_of_training(dtype):
    given = {"D": "i32", "n": "i32", "clip": "fp32"}
    constants = {"CLIPS": True, "BLOCK": fused_cells._BLOCK}
    forward = {"sums": dtype, "c": "*fp32", "c_new": "*fp32", "m": dtype, "m_stride": "i32"}
    gradients = {"dm": dtype, "dm_stride": "i32", "dc": "*fp32", "dgates": dtype, "dgates_stride": "i64"}
    backward = {"sums": dtype, "c": "*fp32", "c_new": "*fp32", **gradients}
    yield fused_cells._forward, forward | given, constants
    yield fused_cells._backward, backward | given, constants


def kernels_of_embedding(dtype):
    cells = {"h": dtype, "weight": dtype, "gates": dtype, "c": "*fp32", "m": dtype}
    cells |= dict.fromkeys(("weight_z", "weight_p", "gates_z"), "i32")
    projection = {"m": dtype, "weight": dtype, "h": dtype, **dict.fromkeys(("weight_z", "weight_d"), "i32")}
    numbers = dict.fromkeys(("B", "left", "D", "P"), "i32") | {"clip": "fp32"}
    depth = fused.depth_of(torch.float32 if dtype == "*fp32" else torch.bfloat16)
    for rows, precision in product((16, fused._MOST_ROWS), ("ieee", "tf32") if dtype == "*fp32" else ("ieee",)):
        constants = {"CLIPS": True, "PRECISION": precision, "ROWS": rows, "DEPTH": depth}
        yield fused._update_cells, cells | numbers, constants | {"CELLS": fused._CELLS, "weight_g": 1}
        yield fused._project, projection | numbers, constants | {"VALUES": fused._VALUES, "weight_p": 1}
