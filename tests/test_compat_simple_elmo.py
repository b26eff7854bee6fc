"""The front door of simple_elmo: what simple_elmo recorded, and right values where its own are wrong."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmokit.checkpoint import write_native
from elmokit.compat.simple_elmo import ElmoModel
from elmokit.errors import MismatchError, UnknownModel
from recorded import read_lines


def loaded(path, **options):
    model = ElmoModel()
    model.load(str(path), **options)
    return model


@pytest.fixture(scope="module")
def recorded(oracles):
    folder = oracles / "simple-elmo-nlpl-zip"
    return folder / "999.zip", read_lines(folder / "sentences.txt"), np.load(folder / "expected.npz")


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_native(tiny, path)
    return path


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (ElmoModel, ""),
        (ElmoModel.load, "self, directory, max_batch_size=32, limit=100, full=False"),
        (ElmoModel.warmup, "self, sess, texts"),
        (ElmoModel.get_elmo_vectors, "self, texts, warmup=True, layers='average', session=None"),
        (ElmoModel.get_elmo_vector_average, "self, texts, warmup=True, layers='average', session=None"),
    ],
)
def test_arguments_are_those_of_simple_elmo(function, expected):
    parameters = inspect.signature(function).parameters.values()
    assert ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters) == expected


@pytest.mark.parametrize(
    ("layers", "warmup", "batch"),
    [(layers, warmup, 32) for layers in ("top", "average", "all") for warmup in ("warmup", "nowarmup")]
    + [("all", "warmup", 3), ("all", "nowarmup", 3)],
)
def test_recorded_vectors(recorded, layers, warmup, batch):
    """Padding included: layer 0 is not zero there within a batch's own width."""
    path, sentences, expected = recorded
    model = loaded(path, max_batch_size=batch)
    array = expected[f"vectors_{layers}_{warmup}_batch{batch}"]
    for _ in range(2):  # every call starts anew
        found = model.get_elmo_vectors(sentences, warmup=warmup == "warmup", layers=layers)
        assert (found.shape, found.dtype) == (array.shape, np.float64)
        np.testing.assert_allclose(found, array, atol=1e-5 if warmup == "warmup" else 5e-6)


def test_warming_up_and_averaging_are_the_defaults(recorded):
    path, sentences, expected = recorded
    model = loaded(path)
    np.testing.assert_allclose(model.get_elmo_vectors(sentences), expected["vectors_average_warmup_batch32"], atol=1e-5)
    assert (model.vector_size, model.n_layers, model.batch_size) == (12, 3, 32)


def test_recorded_sentence_vectors_of_the_top_layer(recorded):
    path, sentences, expected = recorded
    found = loaded(path).get_elmo_vector_average(sentences, warmup=False, layers="top")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected["sentence_average_top_nowarmup_batch32"], atol=5e-6)


@pytest.mark.parametrize("layers", ["average", "all"])
def test_sentence_vectors_are_sums_of_the_words_alone(recorded, layers):
    """From the vectors that simple_elmo recorded; its own sums add padding, and for "all" mix layers and words."""
    path, sentences, expected = recorded
    found = loaded(path).get_elmo_vector_average(sentences, warmup=False, layers=layers)
    vectors = expected[f"vectors_{layers}_nowarmup_batch32"]
    sums = [array[..., : len(sentence), :].sum(-2) for array, sentence in zip(vectors, sentences, strict=True)]
    np.testing.assert_allclose(found, [array / np.linalg.norm(array) for array in sums], atol=5e-6)
    wrong = expected[f"sentence_average_{layers}_nowarmup_batch32"]
    assert found.shape == wrong.shape
    assert np.abs(found - wrong).max() > 0.1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.text(max_size=6), max_size=5), min_size=1, max_size=4), st.sampled_from(["average", "all"]))
def test_a_sentence_vector_does_not_depend_on_longer_sentences_beside_it(folder, sentences, layers):
    model = loaded(folder)
    alone = model.get_elmo_vector_average(sentences, warmup=False, layers=layers)
    beside = model.get_elmo_vector_average([*sentences, ["word"] * 9], warmup=False, layers=layers)
    np.testing.assert_allclose(beside[:-1], alone, atol=1e-6)


def test_sentences_of_no_words(folder):
    model = loaded(folder)
    assert model.get_elmo_vector_average([[], ["a"]]).tolist()[0] == [0.0] * 8
    assert model.get_elmo_vectors([[]]).shape == (1, 0, 8)
    assert model.get_elmo_vectors([]).shape == (0, 0, 8)


def test_what_a_session_needed_is_taken_and_not_used(folder):
    model = loaded(folder, limit=1)
    model.warmup(None, [["b"]])
    found = model.get_elmo_vectors([["a"]], session=object())
    np.testing.assert_array_equal(found, model.get_elmo_vectors([["a"]]))


def test_loading_says_what_it_said(folder):
    assert ElmoModel().load(directory=folder) == "The model is now loaded."


def test_refusals(folder, tmp_path):
    with pytest.raises(MismatchError, match="no model is loaded"):
        ElmoModel().warmup(None, [["a"]])
    with pytest.raises(MismatchError, match="no model is loaded"):
        ElmoModel().get_elmo_vectors([["a"]])
    with pytest.raises(UnknownModel):
        ElmoModel().load(str(tmp_path / "absent"))
    with pytest.raises(MismatchError, match="has no softmax head"):
        loaded(folder, full=True)
    with pytest.raises(MismatchError, match="layers: expected 'all', 'top', 'average', found 'bottom'"):
        loaded(folder).get_elmo_vectors([["a"]], warmup=False, layers="bottom")


def test_substitutes_of_both_directions(oracles):
    """Log-probabilities are those that bilm-tf recorded; sentences are strings or lists of tokens."""
    folder = oracles / "tfckpt-char2"
    model = ElmoModel()
    model.load(folder, full=True)
    sentences, expected = read_lines(folder / "scored.txt"), np.load(folder / "expected.npz")
    found = model.get_elmo_substitutes([" ".join(sentences[0]), *sentences[1:]], topn=1000, nodelimiters=False)
    for k, (sentence, words) in enumerate(zip(sentences, found, strict=True)):
        targets = expected[f"target_ids_{k}"][1:-1]
        assert len(words) == len(sentence)
        recorded = {"forward": expected[f"logp_forward_{k}"][:-1], "backward": expected[f"logp_backward_{k}"][1:]}
        for i, (word, row) in enumerate(zip(words, targets, strict=True)):
            for way, logs in recorded.items():
                place = word[way]["candidates"].index(row)
                assert word[way]["candidate_words"][place] == word["word"]
                np.testing.assert_allclose(word[way]["logp"][place], logs[i], atol=6e-5)
                assert word[way]["logp"] == sorted(word[way]["logp"], reverse=True)
    for word in model.get_elmo_substitutes(sentences[:1], topn=2)[0]:
        for way in recorded:
            assert len(word[way]["candidates"]) == 2
            assert not {"<S>", "</S>"} & set(word[way]["candidate_words"])
    with pytest.raises(MismatchError, match="no softmax head"):
        model.load(oracles / "alnlp-max30", full=True)
