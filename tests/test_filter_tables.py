"""Filters by tables: what a convolution of the characters gives, in each variant that this processor runs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_checkpoint, make_config, needs_compiled
from elmokit.kernels import filter_tables
from elmokit.kernels.filter_tables import FilterTables
from elmokit.model import Elmo

pytestmark = needs_compiled
FILTERS = ((1, 32), (3, 64), (5, 32))
WORDS = ["", "a", "word", "straße", "longer-than-the-others", "w" * 60, "<S>", "</S>", "\U0001f600" * 4]


def make_encoder(precision="float32", filters=FILTERS, **changes):
    elmo = Elmo(make_checkpoint(make_config(filters=filters, **changes)), precision=precision)
    return elmo.network.encoder, elmo.speller


def spelled(speller, words):
    return torch.from_numpy(speller.spell(words).astype(np.int64))


@torch.inference_mode()
def maxima(encoder, ids_UC):
    return encoder._maxima(ids_UC)


@pytest.fixture
def looked_up(monkeypatch):
    """How many times tables were asked."""
    taken, method = [], FilterTables.maxima
    monkeypatch.setattr(FilterTables, "maxima", lambda self, *given: taken.append(1) or method(self, *given))
    return taken


def convolved(encoder, ids_UC):
    """The definition: every window of every filter, padding and all, in float64."""
    x_UCE = encoder.char_embed.double()[ids_UC]
    found = []
    for one in encoder.cnn:
        width = one.weight.shape[0]
        windows = x_UCE.unfold(1, width, 1).transpose(2, 3)  # (U, W, width, E)
        found.append(torch.einsum("uwke,ken->uwn", windows, one.weight.double()).amax(1) + one.bias.double())
    return torch.cat(found, dim=1)


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=9), st.integers(0, 99), st.integers(5, 24),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=4),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_as_a_convolution_whatever_the_words(words, seed, longest, shapes):
    filters = [(width, 32 * n) for width, n in shapes]
    checkpoint = make_checkpoint(make_config(filters=filters, max_characters=longest), seed=seed)
    elmo = Elmo(checkpoint)
    ids_UC = spelled(elmo.speller, words)
    assert filter_tables.can_run(ids_UC, elmo.network.encoder.char_embed, [c.weight for c in elmo.network.encoder.cnn])
    found = maxima(elmo.network.encoder, ids_UC)
    torch.testing.assert_close(found.double(), convolved(elmo.network.encoder, ids_UC), atol=1e-5, rtol=1e-5)


def test_each_variant_and_type(dtype, looked_up):
    encoder, speller = make_encoder(str(dtype).removeprefix("torch."))
    ids_UC = spelled(speller, WORDS)
    found = maxima(encoder, ids_UC)
    assert looked_up
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(found.double(), convolved(encoder, ids_UC), atol=tolerance, rtol=tolerance)


def test_alone_and_among_many(dtype):
    """To the last bit, with any number of threads."""
    encoder, speller = make_encoder(str(dtype).removeprefix("torch."))
    ids_UC = spelled(speller, WORDS * 9)
    many, threads = maxima(encoder, ids_UC), torch.get_num_threads()
    for row, ids_C in zip(many, ids_UC, strict=True):
        assert torch.equal(maxima(encoder, ids_C.unsqueeze(0))[0], row)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            assert torch.equal(maxima(encoder, ids_UC), many)
    finally:
        torch.set_num_threads(threads)


def test_padding_between_characters():
    """As only ids that are given by hand can have it."""
    encoder, speller = make_encoder()
    ids_UC = spelled(speller, ["word", "w"])
    ids_UC[0, 3] = ids_UC[1, 1:9] = len(encoder.char_embed) - 1
    torch.testing.assert_close(maxima(encoder, ids_UC).double(), convolved(encoder, ids_UC), atol=1e-5, rtol=1e-5)


def test_views_of_ids():
    encoder, speller = make_encoder()
    ids_UC = spelled(speller, WORDS)
    turned = ids_UC.T.contiguous().T
    assert torch.equal(maxima(encoder, turned), maxima(encoder, ids_UC))


def test_where_it_can(looked_up, monkeypatch):
    """And not for filters that fill no block, a lexicon too large, words too short, weights that learn, autocast."""

    def looks_up(encoder, ids_UC, *, gradients=False):
        looked_up.clear()
        with torch.set_grad_enabled(gradients):
            encoder._maxima(ids_UC)
        return bool(looked_up)

    encoder, speller = make_encoder()
    ids_UC = spelled(speller, WORDS)
    assert looks_up(encoder, ids_UC)
    assert not looks_up(encoder, ids_UC, gradients=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert not looks_up(encoder, ids_UC)
    assert not looks_up(make_encoder(filters=((1, 32), (2, 24)))[0], ids_UC)
    encoder.cnn[1].weight.requires_grad_()
    assert not looks_up(encoder, ids_UC)
    encoder.cnn[1].weight.requires_grad_(False)
    assert looks_up(encoder, ids_UC)
    monkeypatch.setattr(filter_tables, "_MOST_BYTES", 1 << 10)
    assert not looks_up(encoder, ids_UC)


def test_what_is_no_id():
    """Nothing is read from beyond the table."""
    encoder, speller = make_encoder()
    for wrong in (-1, len(encoder.char_embed), 1 << 40):
        ids_UC = spelled(speller, WORDS)
        ids_UC[2, 1] = wrong
        with pytest.raises(IndexError):
            maxima(encoder, ids_UC)


@pytest.mark.parametrize("name", ["weight", "bias", "char_embed"])
def test_weights_that_change(name):
    encoder, speller = make_encoder()
    ids_UC = spelled(speller, WORDS)
    before = maxima(encoder, ids_UC)
    with torch.no_grad():
        (encoder.char_embed if name == "char_embed" else getattr(encoder.cnn[1], name)).add_(0.1)
    after = maxima(encoder, ids_UC)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.double(), convolved(encoder, ids_UC), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number(value, looked_up):
    """A weight that is none makes none of what depends on it, as a convolution does."""
    encoder, speller = make_encoder()
    with torch.no_grad():
        encoder.cnn[0].weight[0, 0, 3] = value
    ids_UC = spelled(speller, WORDS)
    found = maxima(encoder, ids_UC)
    assert not looked_up
    assert not found[:, 3].isfinite().any()
    assert found[:, 32:].isfinite().all()


def test_without_words(looked_up):
    encoder, _ = make_encoder()
    ids_UC = torch.empty(0, 20, dtype=torch.int64)
    assert not filter_tables.can_run(ids_UC, encoder.char_embed, [one.weight for one in encoder.cnn])
