"""TF-Hub's front door against what an exported module recorded: both signatures, all outputs, state from run to run."""

import json

import numpy as np
import pytest

from checkpoints import SPECIALS, make_word_checkpoint
from conftest import make_config
from elmokit.checkpoint import write_native
from elmokit.compat import tfhub as hub
from elmokit.errors import MismatchError
from elmokit.model import Elmo
from recorded import read_lines

OUTPUTS = ["word_emb", "lstm_outputs1", "lstm_outputs2", "elmo", "default"]


@pytest.fixture(scope="module")
def folder(oracles):
    return oracles / "tfhub"


@pytest.fixture(scope="module")
def expected(folder):
    return dict(np.load(folder / "expected.npz"))


@pytest.fixture
def module(folder):
    return hub.Module(str(folder / "module"), trainable=True)


@pytest.fixture(scope="module")
def tokens(folder):
    sentences = read_lines(folder / "sentences.txt")
    longest = max(map(len, sentences))
    padded = [sentence + [""] * (longest - len(sentence)) for sentence in sentences]
    return {"tokens": padded, "sequence_len": [len(sentence) for sentence in sentences]}


def assert_outputs(found, expected, prefix):
    assert sorted(found) == sorted(OUTPUTS)
    for name in OUTPUTS:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[f"{prefix}_{name}"], atol=5e-6, err_msg=name)


def test_the_signature_tokens_run_twice(module, tokens, expected):
    assert_outputs(module(tokens, signature="tokens", as_dict=True), expected, "tokens")
    assert_outputs(module(inputs=tokens, signature="tokens", as_dict=True), expected, "tokens_secondrun")
    module.reset_states()
    assert_outputs(module(tokens, signature="tokens", as_dict=True), expected, "tokens")


def test_the_signature_default_run_twice(module, folder, expected):
    strings = json.loads((folder / "default_inputs.json").read_text("utf-8"))
    assert_outputs(module(strings, as_dict=True), expected, "default")
    encoded = np.array([line.encode() for line in strings], object)
    assert_outputs(module(encoded, signature="default", as_dict=True), expected, "default_secondrun")


def test_each_signature_has_its_own_state(module, tokens, folder, expected):
    module(json.loads((folder / "default_inputs.json").read_text("utf-8")))
    assert_outputs(module(tokens, signature="tokens", as_dict=True), expected, "tokens")


def test_without_as_dict_it_is_one_vector_a_sentence(module, tokens, expected):
    np.testing.assert_allclose(module(tokens, signature="tokens"), expected["tokens_default"], atol=5e-6)


def test_the_archive_loaded_as_tensorflow_2_does(folder, tokens, expected):
    signatures = hub.load(folder / "module.tar.gz").signatures
    found = signatures["tokens"](tokens=tokens["tokens"], sequence_len=np.array(tokens["sequence_len"], np.int32))
    assert_outputs(found, expected, "tokens")
    strings = json.loads((folder / "default_inputs.json").read_text("utf-8"))
    assert_outputs(signatures["default"](strings), expected, "default")
    assert_outputs(signatures["default"](strings=np.array(strings)), expected, "default_secondrun")


def test_what_a_module_tells_of_its_inputs(module):
    assert module.get_signature_names() == ["default", "tokens"]
    (name, strings), *others = module.get_input_info_dict().items()
    assert (name, strings.dtype, strings.get_shape(), strings.is_sparse, others) == (
        "strings",
        "string",
        (None,),
        False,
        [],
    )
    tokens = module.get_input_info_dict(signature="tokens")
    assert {name: (info.dtype, len(info.shape)) for name, info in tokens.items()} == {
        "tokens": ("string", 2), "sequence_len": ("int32", 1),
    }  # fmt: skip
    with pytest.raises(MismatchError, match="expected 'default' or 'tokens', found 'words'"):
        module.get_input_info_dict("words")


@pytest.mark.parametrize(
    ("inputs", "signature", "message"),
    [
        (["a"], "words", "expected 'default' or 'tokens', found 'words'"),
        ([], "default", "at least one sentence"),
        (["a"], "tokens", "expects a dict"),
        ({"tokens": [["a"]]}, "tokens", "expects a dict"),
        ({"tokens": [["a"]], "sequence_len": [2]}, "tokens", "expected 0 to 1"),
        ({"tokens": [["a"]], "sequence_len": [1, 1]}, "tokens", "expected tokens"),
        ({"tokens": [["a"]], "sequence_len": [1.0]}, "tokens", "expected tokens"),
    ],
)
def test_inputs_that_do_not_fit(module, inputs, signature, message):
    with pytest.raises(MismatchError, match=message):
        module(inputs, signature=signature)


def test_outputs_of_a_model_in_bfloat16(tiny):
    """As the server gives them, whatever the precision that it computes in."""
    shares_L = np.full(3, 1 / 3, np.float32)
    exact, coarse = (
        hub.outputs_of(elmo, shares_L, list(elmo.embed([["the", "cat"]], layers="all")), 3)
        for elmo in (Elmo(tiny), Elmo(tiny, precision="bfloat16"))
    )
    for name in OUTPUTS:
        assert coarse[name].dtype == np.float32
        np.testing.assert_allclose(coarse[name], exact[name], atol=0.05)


def test_a_model_without_a_mix_is_no_module(tmp_path):
    write_native(make_word_checkpoint(make_config().lstm, SPECIALS), tmp_path)
    with pytest.raises(MismatchError, match="holds 0 trained mixes of layers, expected one"):
        hub.Module(tmp_path)
