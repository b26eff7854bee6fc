"""The compiled recurrence of a few sentences, to the last bit as it is among many."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from conftest import make_checkpoint, make_config, needs_compiled
from elmokit.errors import MismatchError
from elmokit.kernels import Weights, compiled, few_rows, lstmp
from elmokit.kernels.in_place import lstmp_in_place
from elmokit.kernels.plain import lstmp_plain
from elmokit.model import Carry, Elmo
from elmokit.network import State

pytestmark = [
    needs_compiled,
    pytest.mark.skipif(
        bool(compiled.variant()) and not few_rows.block_of(256, 64, torch.float32),
        reason="the order in which oneDNN adds up on this processor is not known",
    ),
]


@pytest.fixture
def dtype(dtype):
    """A type and variant, of which the order of addition is found anew."""
    few_rows.block_of.cache_clear()
    yield dtype
    few_rows.block_of.cache_clear()


def make_layer(I, P, D, *, projected=True, clips=(3.0, 3.0), dtype=torch.float32, seed=0):  # noqa: E741
    chance = torch.Generator().manual_seed(seed)
    shapes = (2, I + P, 4 * D), (2, 4 * D), (2, D, P)
    # Scaled so that no step enlarges what rounding did in the one before.
    kernel, bias, projection = (torch.randn(*s, generator=chance) * s[1] ** -0.5 for s in shapes)
    return Weights(kernel.to(dtype), bias.to(dtype), projection.to(dtype) if projected else None, *clips)


def make_input(weights, rows, B, *, seed=0):
    chance = torch.Generator().manual_seed(seed)
    D = weights.bias_ZG.shape[1] // 4
    P = D if weights.projection_ZDP is None else weights.projection_ZDP.shape[2]
    I = weights.kernel_ZKG.shape[1] - P  # noqa: E741
    dtype = weights.kernel_ZKG.dtype
    x, h, c = (torch.randn(*shape, generator=chance) for shape in ((len(rows), 2, B, I), (2, B, P), (2, B, D)))
    return x.to(dtype), h.to(dtype), c


def outputs(kernel, weights, inputs, rows):
    """Outputs of the rows that are left, and the last state."""
    y, h, c = kernel(weights, *inputs, rows)
    return [*(step[:, :left] for step, left in zip(y, rows, strict=True)), h, c]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@given(
    st.integers(1, 40), st.tuples(*[st.integers(1, 5)] * 2), st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.booleans(), st.sampled_from([(None, None), (0.5, 0.3), (3.0, 3.0)]), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_as_in_place_whatever_the_sizes(half, sizes, ending, projected, clips, seed):
    """To the last bit: rows that end, odd numbers of panels, steps computed ahead in several pieces."""
    rows = sorted(ending, reverse=True)
    B, (P, D) = max(1, *rows), (16 * n for n in sizes)
    weights = make_layer(2 * half, P if projected else D, D, projected=projected, clips=clips, seed=seed)
    inputs = make_input(weights, rows, B, seed=seed)
    assert few_rows.can_run(weights, *inputs)
    before = [a.clone() for a in inputs]
    found, right, plain = (
        outputs(kernel, weights, inputs, rows) for kernel in (few_rows.lstmp_few_rows, lstmp_in_place, lstmp_plain)
    )
    assert equal(found, right)
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)
    assert equal(inputs, before)


@pytest.mark.parametrize(
    ("I", "P", "D"), [(128, 128, 1024), (512, 512, 4096), (256, 256, 2048), (16, 64, 64), (512, 48, 48)]
)
@pytest.mark.parametrize("B", [1, 3, 32, 127])
def test_published_shapes(monkeypatch, dtype, I, P, D, B):  # noqa: E741
    """Products of several blocks, by each variant that this processor runs; also of more rows than come to it."""
    monkeypatch.setattr(few_rows, "_MOST_CELLS", 1 << 20)
    weights, rows = make_layer(I, P, D, dtype=dtype), [B, B, -(-B // 2), 1]
    inputs = make_input(weights, rows, B)
    assert few_rows.can_run(weights, *inputs)
    assert equal(*(outputs(kernel, weights, inputs, rows) for kernel in (few_rows.lstmp_few_rows, lstmp_in_place)))


@pytest.mark.parametrize("apart", [0, 1 << 30])
def test_any_number_of_threads(monkeypatch, dtype, apart):
    """Whether each direction has a thread of its own, or all share each step; more threads than panels, too."""
    monkeypatch.setattr(few_rows, "_MOST_APART", apart)
    weights, rows = make_layer(64, 192, 512, dtype=dtype), [3] * 50 + [2] * 30 + [1] * 10
    inputs, threads, found = make_input(weights, rows, 3), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            torch.set_num_threads(n)
            found.append(outputs(few_rows.lstmp_few_rows, weights, inputs, rows))
    finally:
        torch.set_num_threads(threads)
    assert all(equal(found[0], other) for other in found[1:])
    assert equal(found[0], outputs(lstmp_in_place, weights, inputs, rows))


@pytest.mark.parametrize("D", [64, 4096])
def test_weights_in_any_layout(D):
    """Copies that are made of them live until they have been read."""
    weights, rows = make_layer(32, 32, D), [2] * 3
    turned = [a.transpose(1, 2).contiguous().transpose(1, 2) for a in (weights.kernel_ZKG, weights.projection_ZDP)]
    inputs = make_input(weights, rows, 2)
    found = outputs(few_rows.lstmp_few_rows, Weights(turned[0], weights.bias_ZG, turned[1], 3.0, 3.0), inputs, rows)
    assert equal(found, outputs(few_rows.lstmp_few_rows, weights, inputs, rows))


def test_it_is_what_runs_where_it_can(monkeypatch):
    """And not with weights that learn, many rows, sizes that fill no vector, or an order that is not known."""
    taken = []
    monkeypatch.setattr(few_rows, "lstmp_few_rows", lambda *_: taken.append(1))

    def runs(weights, B=2, **changes):
        inputs = make_input(weights, [B] * 3, B)
        taken.clear()
        with torch.no_grad():
            lstmp(weights, *inputs, [B] * 3)
        return bool(taken)

    assert runs(make_layer(32, 32, 64))
    monkeypatch.setattr(few_rows, "_MOST_CELLS", 10 * 64)
    assert runs(make_layer(32, 32, 64), B=10)
    assert not runs(make_layer(32, 32, 64), B=11)
    assert not runs(make_layer(32, 32, 24))
    assert not runs(make_layer(32, 24, 32))
    assert not runs(make_layer(33, 32, 64))
    assert not runs(make_layer(32, 32, 64, dtype=torch.float64))
    learning = make_layer(32, 32, 64)
    learning.kernel_ZKG.requires_grad_()
    assert not runs(learning)
    monkeypatch.setattr(few_rows, "block_of", lambda *_: None)
    assert not runs(make_layer(32, 32, 64))
    monkeypatch.setattr(few_rows, "block_of", lambda *_: 48)  # a block that ends within what a step reads of h
    assert not runs(make_layer(32, 32, 64))


@pytest.mark.parametrize("B", [2, 36])
def test_states_as_they_come(monkeypatch, dtype, B):
    """Of another type, as one that a model of another precision left; transposed; expanded. Few rows and many."""
    monkeypatch.setattr(few_rows, "_MOST_CELLS", 32 * 64)
    weights, rows = make_layer(32, 32, 64, dtype=dtype), [B] * 3
    x, h, c = make_input(weights, rows, B)
    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    turned_c = c.transpose(1, 2).contiguous().transpose(1, 2)
    for state in ((h.to(other), c), (h, turned_c), (h[:, :1].expand_as(h), c[:, :1].expand_as(c))):
        with torch.no_grad():
            found = outputs(lstmp, weights, (x, *state), rows)
        plain = outputs(lstmp_plain, weights, (x, state[0].to(dtype), state[1]), rows)
        for a, b in zip(found, plain, strict=True):
            tolerance = 2e-5 if dtype == torch.float32 else 3e-2
            torch.testing.assert_close(a.to(b.dtype), b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_warm_state_and_one_of_another_precision(monkeypatch, precision):
    """Few rows give what many give: a stored state is float32, one that is carried may be of another model."""
    monkeypatch.setattr(few_rows, "_MOST_CELLS", 32 * 64)
    config = make_config(dim=64, projection_dim=32)
    sentences = [["a", "few", "words", "here"], ["more"]]
    warm = Elmo(make_checkpoint(config)).warm([["x", "y"]] * 3).checkpoint()
    elmo, others = Elmo(warm, precision=precision), {"float32": "bfloat16", "bfloat16": "float32"}
    many = list(elmo.embed([*sentences, *([["one", "of", "many"]] * 40)], layers="all", state="warm", batch_size=42))
    for a, b in zip(elmo.embed(sentences, layers="all", state="warm"), many, strict=False):
        np.testing.assert_array_equal(a, b)
    carry = Carry()
    list(Elmo(warm, precision=others[precision]).embed(sentences, state=carry, batch_size=2))
    left = carry.state
    same = State(left.h.to(getattr(torch, precision)), left.c)
    found, right = (list(elmo.embed(sentences, state=Carry(state), batch_size=2)) for state in (left, same))
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_whatever_torch_makes_by_default(default):
    elmo = Elmo(make_checkpoint(make_config(dim=64, projection_dim=32)))
    right = list(elmo.embed([["a", "few", "words"]], layers="all"))
    few_rows.block_of.cache_clear()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = list(elmo.embed([["a", "few", "words"]], layers="all"))
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(found, right)


def test_what_has_no_values_is_left_to_torch():
    """Fake tensors, and graphs that are being traced: C would not see them, nor they it."""
    weights, rows = make_layer(32, 32, 64), [2] * 3
    inputs = make_input(weights, rows, 2)
    with torch.no_grad():
        right = lstmp(weights, *inputs, rows)
        traced = make_fx(lambda *given: lstmp(weights, *given, rows))(*inputs)
        for a, b in zip(traced(*inputs), right, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            shapes = [a.shape for a in lstmp(weights, *(mode.from_tensor(a) for a in inputs), rows)]
    assert shapes == [a.shape for a in right]


def test_what_does_not_go_together_is_refused():
    weights, rows = make_layer(32, 32, 64), [2] * 3
    x, h, c = make_input(weights, rows, 2)
    without = make_layer(32, 32, 64, projected=False)
    one_direction = Weights(*(a[:1] for a in (weights.kernel_ZKG, weights.bias_ZG, weights.projection_ZDP)), 3.0, 3.0)
    narrow = Weights(weights.kernel_ZKG, weights.bias_ZG, weights.projection_ZDP[..., :16], 3.0, 3.0)
    for named, *wrong in (
        ("rows", weights, x, h, c, [2] * 4),
        ("rows", weights, x, h, c, [3, 2, 1]),
        ("rows", weights, x, h, c, [1, 2, 2]),
        ("rows", weights, x, h, c, [2, 1, -1]),
        ("h", weights, x, h[:, :1], c, rows),
        ("kernel, projection", weights, x, h[..., :16], c, rows),
        ("kernel", weights, x[..., :16], h, c, rows),
        ("kernel, bias, projection", weights, x, h, c[..., :16], rows),
        ("projection", without, x, h, c, rows),
        ("projection", narrow, x, h, c, rows),
        ("kernel, bias, projection", one_direction, x, h, c, rows),
    ):
        with pytest.raises(MismatchError, match=f"^{named}: do not go together; "):
            few_rows.lstmp_few_rows(*wrong)
    with pytest.raises(
        MismatchError, match=r"expected contiguous torch\.float32 values in memory, found torch\.float64"
    ):
        compiled.cells(torch.zeros(2, 64), torch.zeros(2, 16, dtype=torch.float64), torch.zeros(2, 16), None)


def test_a_weight_that_changes():
    """What was laid out of it is laid out anew."""
    weights, rows = make_layer(32, 32, 64), [2] * 3
    inputs = make_input(weights, rows, 2)
    first = outputs(few_rows.lstmp_few_rows, weights, inputs, rows)
    weights.kernel_ZKG.mul_(0.5)
    weights.projection_ZDP.add_(0.1)
    second = outputs(few_rows.lstmp_few_rows, weights, inputs, rows)
    assert not equal(first, second)
    assert equal(second, outputs(lstmp_in_place, weights, inputs, rows))


def test_a_weight_that_is_given_other_values():
    """At another address, even where the ones that it had were free to be taken."""
    elmo = Elmo(make_checkpoint(make_config(dim=64, projection_dim=32, filters=((1, 32), (2, 32)))))
    for _ in range(5):
        right = list(elmo.embed([["a", "few", "words"]], layers="all"))
        elmo.network.to(torch.bfloat16).to(torch.float32)
        with torch.no_grad():
            for weight in elmo.network.parameters():
                weight.data = weight.data * 1.5
        found = list(elmo.embed([["a", "few", "words"]], layers="all"))
        assert not np.array_equal(found, right)
        np.testing.assert_array_equal(found, list(copy.deepcopy(elmo).embed([["a", "few", "words"]], layers="all")))


def test_what_is_no_number_stays_in_its_row(dtype):
    weights, rows = make_layer(32, 32, 64, dtype=dtype), [3] * 4
    inputs = make_input(weights, rows, 3)
    inputs[0][1, :, 1] = torch.nan
    y, h, c = few_rows.lstmp_few_rows(weights, *inputs, rows)
    assert y[1:, :, 1].isnan().all()
    assert h[:, 1].isnan().all()
    assert c[:, 1].isnan().all()
    assert not any(a[..., [0, 2], :].isnan().any() for a in (y, h, c))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sentence_alone_and_among_many(monkeypatch, precision):
    """A model whose sizes fill vectors: the same bits alone, among a few, and among more than are computed by rows."""
    monkeypatch.setattr(few_rows, "_MOST_CELLS", 32 * 64)
    elmo = Elmo(make_checkpoint(make_config(dim=64, projection_dim=32)), precision=precision)
    sentences = [[f"word{n}" for n in range(1 + k % 7)] for k in range(50)]
    many = list(elmo.embed(sentences, layers="all", batch_size=50))
    for size in (1, 3):
        for a, b in zip(many, elmo.embed(sentences, layers="all", batch_size=size), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_library_that_cannot_be_loaded(monkeypatch, tmp_path):
    """A torch with another OpenMP, say: all is computed without it, within rounding."""
    elmo = Elmo(make_checkpoint(make_config(dim=64, projection_dim=32)))
    sentences = [["a", "few", "words"], ["more"]]
    found = list(elmo.embed(sentences, layers="all"))
    broken = tmp_path / "libelmokit.so"
    for content in (b"not a library", None):
        broken.unlink(missing_ok=True) if content is None else broken.write_bytes(content)
        monkeypatch.setattr(compiled, "LIBRARY", broken)
        compiled._library.cache_clear()
        few_rows.block_of.cache_clear()
        try:
            assert compiled.variant() is None
            for a, b in zip(found, elmo.embed(sentences, layers="all"), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
        finally:
            compiled._library.cache_clear()
            few_rows.block_of.cache_clear()


def test_it_needs_an_old_c_library_alone():
    """As the tag of the wheel promises (PEP 600)."""
    content = compiled.LIBRARY.read_bytes()
    versions = [tuple(map(int, found)) for found in re.findall(rb"GLIBC_(\d+)\.(\d+)", content)]
    assert versions
    assert max(versions) <= (2, 17)
    assert b"libgomp" not in content
