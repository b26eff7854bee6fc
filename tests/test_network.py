"""The network against its specification, and what must hold for any input."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from conftest import make_checkpoint, make_config
from elmokit.errors import MismatchError
from elmokit.kernels import Weights, lstmp, product
from elmokit.kernels.in_place import lstmp_in_place
from elmokit.kernels.plain import lstmp_plain
from elmokit.model import Carry, Elmo
from elmokit.network import Mix

SHAPES = {
    "plain": {},
    "one layer, no highway": {"n_layers": 1, "n_highway": 0},
    "eight layers": {"n_layers": 8, "dim": 6},
    "tanh, two highways": {"activation": "tanh", "n_highway": 2},
    "no skip connections": {"skip": False, "n_layers": 3},
    "no clips": {"cell_clip": None, "proj_clip": None},
    "both clips act": {"cell_clip": 0.2, "proj_clip": 0.1},
    "no lstm projection": {"dim": 4},
    "no cnn projection": {"filters": ((1, 1), (2, 3)), "projection_dim": 4},
    "filters as wide as words": {"filters": ((20, 3), (19, 2)), "max_characters": 20},
}
SENTENCES = [
    "The cat sat on the mat .".split(),
    [],
    ["naïve", "北京", "x" * 500, "", "</S>", "<S>", "<UNK>", "a\x00b", "\ud800", "🦊🦊🦊🦊🦊🦊"],
    ["one"],
]
words = st.text(max_size=30)
sentences = st.lists(st.lists(words, max_size=12), min_size=1, max_size=8)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_reference(shape):
    checkpoint = make_checkpoint(make_config(**SHAPES[shape]))
    elmo = Elmo(checkpoint)
    for tokens, found in zip(SENTENCES, elmo.embed(SENTENCES, layers="all"), strict=True):
        expected, _ = reference.embed(tokens, checkpoint.config, checkpoint.arrays)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.reshape(found.shape), atol=2e-5)


def test_both_clips_act_in_the_shape_that_tests_them():
    config = make_config(**SHAPES["both clips act"])
    carry = Carry()
    list(Elmo(make_checkpoint(config)).embed(SENTENCES, state=carry))
    assert (carry.state.c.abs() == config.lstm.cell_clip).any()
    assert (carry.state.h.abs() == np.float32(config.lstm.proj_clip)).any()


@settings(max_examples=60, deadline=None)
@given(sentences=sentences, data=st.data())
def test_fresh_vectors_depend_on_the_sentence_only(tiny_elmo, sentences, data):
    """Alone, in any batch, in any order, after any history: the same."""
    alone = [next(tiny_elmo.embed([s], layers="all")) for s in sentences]
    order = data.draw(st.permutations(range(len(sentences))))
    size = data.draw(st.integers(1, 9))
    together = list(tiny_elmo.embed([sentences[i] for i in order], layers="all", batch_size=size))
    for i, found in zip(order, together, strict=True):
        np.testing.assert_allclose(found, alone[i], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(first=st.lists(words, max_size=8), second=st.lists(words, max_size=8))
def test_carried_state_is_the_state_after_the_text_before(tiny, tiny_elmo, first, second):
    """Two calls with one `Carry` agree with the reference run over both sentences."""
    carry = Carry()
    found = [next(tiny_elmo.embed([s], layers="all", state=carry)) for s in (first, second)]
    state = None
    for tokens, vectors in zip((first, second), found, strict=True):
        expected, state = reference.embed(tokens, tiny.config, tiny.arrays, state)
        np.testing.assert_allclose(vectors, expected.reshape(vectors.shape), atol=1e-5)


def test_carry_keeps_rows_beyond_a_smaller_batch(tiny_elmo):
    """Rows 1 and 2 of the third batch continue from the first batch: the second had one row only."""
    a, b, c, d, e, f = (f"word{i} again".split() for i in range(6))
    carry = Carry()
    ragged = [list(tiny_elmo.embed(batch, state=carry, batch_size=3)) for batch in ([a, b, c], [d], [e, f])]
    column = Carry()
    expected = [next(tiny_elmo.embed([s], state=column)) for s in (b, f)]
    np.testing.assert_allclose(ragged[2][1], expected[1], atol=1e-6)


def test_carry_is_one_text_however_it_is_cut(tiny_elmo):
    text = [f"w{i} v{i % 3} .".split() for i in range(12)]
    whole = list(tiny_elmo.embed(text, state="carry", batch_size=4))
    carry = Carry()
    parts = [v for i in (0, 4, 8) for v in tiny_elmo.embed(text[i : i + 4], state=carry, batch_size=4)]
    for x, y in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(x, y)


def test_warm_starts_every_sentence_from_the_stored_state(tiny_elmo, tiny):
    warmed = tiny_elmo.warm(["a b c .".split(), "d e .".split()])
    found = list(warmed.embed(SENTENCES, layers="all", state="warm"))
    state = None
    for tokens in ("a b c .".split(), "d e .".split()):
        _, state = reference.embed(tokens, tiny.config, tiny.arrays, state)
    for tokens, vectors in zip(SENTENCES, found, strict=True):
        expected, _ = reference.embed(tokens, tiny.config, tiny.arrays, state)
        np.testing.assert_allclose(vectors, expected.reshape(vectors.shape), atol=1e-5)
    assert tiny_elmo.warm_state is None
    with pytest.raises(MismatchError, match="stores no warmed state"):
        next(tiny_elmo.embed(SENTENCES, state="warm"))


def test_layers_and_pooling_are_functions_of_all_layers(tiny_elmo):
    stacks = list(tiny_elmo.embed(SENTENCES, layers="all"))
    weights = [0.2, 0.5, 0.3]
    choices = {
        "top": lambda x: x[-1],
        "average": lambda x: x.mean(0),
        1: lambda x: x[1],
        -3: lambda x: x[0],
        tuple(weights): lambda x: np.tensordot(weights, x, 1),
    }
    pools = {
        "none": lambda x: x,
        "mean": lambda x: x.mean(-2) if x.shape[-2] else np.zeros((*x.shape[:-2], x.shape[-1])),
        "max": lambda x: x.max(-2) if x.shape[-2] else np.zeros((*x.shape[:-2], x.shape[-1])),
    }
    for layers, select in [*choices.items(), ("all", lambda x: x)]:
        for pool, reduce in pools.items():
            found = list(tiny_elmo.embed(SENTENCES, layers=layers, pool=pool))
            for x, stack in zip(found, stacks, strict=True):
                assert x.dtype == np.float32
                np.testing.assert_allclose(x, reduce(select(stack)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "bottom"}, "layers: expected"),
        ({"layers": 3}, "layer 3 does not exist"),
        ({"layers": [1.0]}, "expected 3 layer weights"),
        ({"pool": "sum"}, "pool: expected"),
        ({"state": "cold"}, "state: expected"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_options_that_do_not_exist_are_refused(tiny_elmo, options, message):
    with pytest.raises(MismatchError, match=message):
        tiny_elmo.embed(SENTENCES, **options)


def test_a_string_is_not_a_list_of_tokens(tiny_elmo):
    with pytest.raises(MismatchError, match="expected a list of tokens"):
        list(tiny_elmo.embed(["not split"]))


def test_embedding_is_lazy(tiny_elmo):
    def endless():
        while True:
            yield ["again"]

    assert next(tiny_elmo.embed(endless())).shape == (1, 8)


def test_a_very_long_sentence_is_computed_in_blocks(tiny_elmo):
    """Blocks of time change nothing: the beginning and the end agree with shorter texts."""
    tokens = [f"w{i % 7}" for i in range(9000)]
    vectors = next(tiny_elmo.embed([tokens], layers="all"))
    assert vectors.shape == (3, 9000, 8)
    again = next(tiny_elmo.embed([tokens[:-1000]], layers="all"))
    np.testing.assert_allclose(vectors[:, :7000, :4], again[:, :7000, :4], atol=1e-5)


# ---------------------------------------------------------------- kernels


def layer_inputs(*, T=5, B=3, I=6, D=4, P=2, projected=True, dtype=torch.float64):  # noqa: E741
    """Input, weights and state of a layer with random values."""
    generator = torch.Generator().manual_seed(3)
    Z, P = 2, P if projected else D
    shapes = [(T, Z, B, I), (Z, I + P, 4 * D), (Z, 4 * D), (Z, D, P), (Z, B, P), (Z, B, D)]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [value if projected or number != 3 else None for number, value in enumerate(values)]


def run_kernel(kernel, values, rows, clips):
    """Run one of the kernels on `layer_inputs`; without a projection there is no clip of it."""
    x, weight, bias, projection, h, c = values
    weights = Weights(weight, bias, projection, clips[0], clips[1] if projection is not None else None)
    return kernel(weights, x, h, c, rows)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("clips", [(None, None), (0.3, 0.2)])
@pytest.mark.parametrize("rows", [[3] * 5, [3, 3, 2, 2, 1], [2, 2, 1, 1, 1]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_batched_gradients_are_those_of_the_plain_loop(projected, clips, rows, dtype, tolerance):
    """Whether all rows last to the end or not, or never begin."""
    values = layer_inputs(projected=projected, dtype=dtype)
    results = []
    for kernel in (lstmp_plain, lstmp):
        inputs = [value if value is None else value.clone().requires_grad_() for value in values]
        y, h_last, c_last = run_kernel(kernel, inputs, rows, clips)
        there = torch.cat([step[:, :left].flatten() for step, left in zip(y, rows, strict=True)])
        (
            (there * there.detach().cos()).sum() + h_last.square().sum() + (c_last * c_last.detach().sin()).sum()
        ).backward()
        results.append([there, h_last, c_last, *(x.grad for x in inputs if x is not None)])
    assert len(results[0]) == (9 if projected else 8)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("clips", [(None, None), (0.3, 0.2)])
@pytest.mark.parametrize(("B", "rows"), [(3, [3, 3, 2, 1]), (20, [20, 13, 12, 4, 4]), (1, [1, 1])])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_embedding_in_place_is_the_plain_loop(projected, clips, B, rows, dtype, tolerance):
    """Where a row is still there the outputs are the same, as are the last states, and what came in is unchanged."""
    values = layer_inputs(T=len(rows), B=B, projected=projected, dtype=dtype)
    kept = [value if value is None else value.clone() for value in values]
    (y, h, c), (y_plain, h_plain, c_plain) = (
        run_kernel(kernel, values, rows, clips) for kernel in (lstmp_in_place, lstmp_plain)
    )
    torch.testing.assert_close((h, c), (h_plain, c_plain), atol=tolerance, rtol=0)
    for t, left in enumerate(rows):
        torch.testing.assert_close(y[t, :, :left], y_plain[t, :, :left], atol=tolerance, rtol=0)
    assert all(a is None or torch.equal(a, b) for a, b in zip(kept, values, strict=True))


@given(
    st.tuples(*[st.integers(1, 70)] * 3), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0, 1, 2]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_products_and_their_gradients_are_those_of_torch(sizes, a_turned, b_turned, with_bias, gap, seed):
    """Whatever the shape, and however the matrices lie in memory."""
    N, I, O = sizes  # noqa: E741
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows, columns, turned):
        whole = torch.randn(columns + gap, rows) if turned else torch.randn(rows, columns + gap)
        return (whole.T if turned else whole)[:, :columns].detach().requires_grad_()

    a, b = matrix(N, I, a_turned), matrix(I, O, b_turned)
    bias = torch.randn(O, generator=generator, requires_grad=True) if with_bias else None
    outside = torch.randn(N, O, generator=generator)
    inputs = [x for x in (a, b, bias) if x is not None]
    found, right = product(a, b, bias), a @ b + (0 if bias is None else bias)
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    pairs = (torch.autograd.grad(y, inputs, outside) for y in (found, right))
    torch.testing.assert_close(*pairs, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight_through_ragged_sentences(tiny_elmo):
    """Fine-tuning: sentences end at different steps."""
    from elmokit.text import make_batch

    network = copy.deepcopy(tiny_elmo.network).requires_grad_(True)
    layers, _ = network(make_batch([["a", "b"], ["c"]], tiny_elmo.speller))
    sum(layer.square().sum() for layer in layers).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_mix_refuses_another_number_of_layers():
    with pytest.raises(MismatchError, match="expected 3 mix weights"):
        Mix(3, [1.0, 2.0])
    with pytest.raises(MismatchError, match="expected 3 layers"):
        Mix(3)([torch.zeros(1, 2)] * 2)
