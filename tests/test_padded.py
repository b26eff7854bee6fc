"""Padded ids in, padded layers out: what the older tools take and give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import SPECIALS, make_word_checkpoint
from elmokit.errors import MismatchError
from elmokit.network import BiLM
from elmokit.padded import batch_of_ids, blank_word, pad
from elmokit.text import Utf8Speller, make_batch

CHARACTERS = 261


def padded_ids(sentences, *, n=20, wider=0):
    """Ids one higher than ours, <S> and </S> among the places, zeros behind; `wider` places of padding for all."""
    spelled = [Utf8Speller(n).spell(["<S>", *sentence, "</S>"]).astype(np.int64) + 1 for sentence in sentences]
    ids = np.zeros((len(sentences), max(map(len, spelled)) + wider, n), np.int64)
    for row, ids_TC in zip(ids, spelled, strict=True):
        row[: len(ids_TC)] = ids_TC
    return ids


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=12), max_size=6), min_size=1, max_size=5), st.integers(0, 3))
def test_ids_give_the_batch_of_the_words(sentences, wider):
    batch = batch_of_ids(padded_ids(sentences, wider=wider), n_symbols=CHARACTERS)
    expected = make_batch(sentences, Utf8Speller(20))
    np.testing.assert_array_equal(batch.lengths_B, expected.lengths_B)
    for found, words, length in zip(batch.words_BT, expected.words_BT, expected.lengths_B, strict=True):
        np.testing.assert_array_equal(batch.chars_UC[found[:length]], expected.chars_UC[words[:length]])
    assert len(np.unique(batch.chars_UC, axis=0)) == len(batch.chars_UC)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=12), max_size=6), min_size=1, max_size=5), st.integers(0, 3))
def test_layers_are_the_same_through_padding(tiny_elmo, sentences, wider):
    ids = padded_ids(sentences, wider=wider)
    present = torch.from_numpy((ids != 0).any(-1))
    with torch.inference_mode():
        layers, _ = tiny_elmo.network(batch_of_ids(ids, n_symbols=CHARACTERS))
        expected, _ = tiny_elmo.network(make_batch(sentences, tiny_elmo.speller))
    for layer, packed in zip(layers, expected, strict=True):
        padded = pad(layer, present)
        assert padded.shape == (*ids.shape[:2], 8)
        np.testing.assert_allclose(padded[present], packed, atol=1e-6)
        assert not padded[~present].any()


def test_padding_may_be_something_else():
    layer, present = torch.arange(6.0).reshape(3, 2), torch.tensor([[True, True], [True, False]])
    padded = pad(layer, present, blank_D=torch.tensor([7.0, 8.0]))
    assert padded.tolist() == [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [7.0, 8.0]]]


def test_gradients_pass_through_padding():
    layer = torch.ones(3, 2, requires_grad=True)
    pad(layer, torch.tensor([[True, True], [True, False]])).sum().backward()
    assert layer.grad.tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids.__setitem__((0, 1), 0), "a place of zeros stands before the end of a sentence"),
        (lambda ids: ids.__setitem__((0, 1, 2), 0), "expected 1 to 261 in every word, found 0"),
        (lambda ids: ids.__setitem__((0, 1, 2), 262), "expected 1 to 261 in every word, found 262"),
        (lambda ids: ids.__setitem__((0, 1, 2), -1), "expected 1 to 261 in every word, found -1"),
        (lambda ids: ids.__setitem__((0, 1, 2), 261), "the padding character 261 stands before the end of a word"),
    ],
)
def test_ids_for_which_no_vectors_would_be_right_are_refused(change, message):
    ids = padded_ids([["one", "two"], ["three"]])
    change(ids)
    with pytest.raises(MismatchError, match=message):
        batch_of_ids(ids, n_symbols=CHARACTERS)


def test_no_sentences_are_refused():
    with pytest.raises(MismatchError, match="expected at least one sentence"):
        batch_of_ids(np.zeros((0, 2, 20), np.int64), n_symbols=CHARACTERS)


def test_where_there_is_no_word_the_characters_are_zeros(tiny_elmo):
    """The same as convolving vectors of zeros, which is what the two tools do."""
    encoder = tiny_elmo.network.encoder
    with torch.inference_mode():
        maxima = torch.cat([convolution(torch.zeros(1, 20, 4)) for convolution in encoder.cnn], dim=-1)
        x = torch.relu(maxima)
        for highway in encoder.highway:
            x = highway(x)
        np.testing.assert_allclose(blank_word(tiny_elmo.network), encoder.projection(x)[0], atol=1e-6)


def test_where_there_is_no_word_in_a_table_the_vector_is_zero(tiny):
    checkpoint = make_word_checkpoint(tiny.config.lstm, (*SPECIALS, "the", "cat"))
    assert blank_word(BiLM.from_arrays(checkpoint.config, checkpoint.arrays)).tolist() == [0.0] * 4
