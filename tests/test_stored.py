"""How weights are kept in our own files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as matrices
from safetensors.numpy import load_file, save_file

from conftest import make_checkpoint
from elmokit.checkpoint import WEIGHTS, read_native, write_native
from elmokit.errors import FormatError
from elmokit.stored import stored_arrays

WORDS = ("<S>", "</S>", "<UNK>", "the", "cell")


@pytest.fixture
def packed(tmp_path):
    write_native(make_checkpoint(vocabulary=WORDS), tmp_path / "packed", dtype="int8")
    return tmp_path / "packed"


def test_the_head_in_8_bits(packed):
    expected, found = make_checkpoint(vocabulary=WORDS).arrays, read_native(packed).arrays
    assert found.keys() == expected.keys()
    stored = load_file(packed / WEIGHTS)
    assert stored["softmax.weight"].dtype == np.int8
    assert stored["softmax.bias"].dtype == stored["lstm.0.kernel"].dtype == np.float16
    for name in expected.keys() - {"softmax.weight"}:
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float16))
    bound = np.abs(expected["softmax.weight"]).max(1, keepdims=True) / 127 / 2
    error = np.abs(found["softmax.weight"] - expected["softmax.weight"])
    assert (error <= bound * 1.001).all()
    assert error.max() > 0


@given(matrices(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_8_bits_hold_any_row(matrix):
    stored = stored_arrays({"softmax.weight": matrix}, "int8")
    values, scale = stored["softmax.weight"].astype(np.float32), stored["softmax.weight.scale"]
    # Half a step, and the rounding of the scale itself, which the 127 steps multiply; below float32 it underflows.
    bound = scale * 0.5 + np.abs(matrix).max(1) * 1e-5 + 127 * np.finfo(np.float32).smallest_normal
    assert (np.abs(values * scale[:, None] - matrix).max(1) <= bound).all()


def test_writing_again_changes_nothing(packed, tmp_path):
    write_native(read_native(packed), tmp_path / "again", dtype="int8")
    first, second = read_native(packed).arrays, read_native(tmp_path / "again").arrays
    for name in first:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("scale", [None, np.ones(4, np.float32), np.ones((5, 1), np.float32)])
def test_8_bits_need_their_scales(packed, scale):
    arrays = load_file(packed / WEIGHTS)
    arrays.pop("softmax.weight.scale")
    save_file({**arrays, **({} if scale is None else {"softmax.weight.scale": scale})}, packed / WEIGHTS)
    with pytest.raises(FormatError, match=r"'softmax\.weight' is of 8 bits: expected a matrix with"):
        read_native(packed)


def test_a_scale_of_8_bits_is_none(packed):
    arrays = load_file(packed / WEIGHTS)
    scale = np.ones(5, np.int8)
    save_file(
        {**arrays, "softmax.weight.scale": scale, "softmax.weight.scale.scale": np.float32([1])}, packed / WEIGHTS
    )
    with pytest.raises(FormatError, match=r"'softmax\.weight' is of 8 bits: expected a matrix with"):
        read_native(packed)


def test_a_scale_without_8_bits_is_unknown(tmp_path):
    write_native(make_checkpoint(vocabulary=WORDS), tmp_path / "model")
    arrays = load_file(tmp_path / "model" / WEIGHTS)
    save_file({**arrays, "softmax.weight.scale": np.ones(5, np.float32)}, tmp_path / "model" / WEIGHTS)
    with pytest.raises(FormatError, match=r"'softmax.weight.scale' \(5,\) is not part of the network"):
        read_native(tmp_path / "model")
