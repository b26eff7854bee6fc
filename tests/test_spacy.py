"""The spaCy component: what it fills, sentences, batches, saved pipelines."""

import numpy as np
import pytest
import spacy

from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError, UnknownModel

TEXTS = ["The cat sat.  It purred!", "", "   ", "Dogs bark."]


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spacy") / "model"
    write_native(tiny, folder)
    return str(folder)


def pipeline(model, *before, **config):
    nlp = spacy.blank("en")
    for name in before:
        nlp.add_pipe(name)
    nlp.add_pipe("elmo", config={"model": model, **config})
    return nlp


def test_tokens_have_the_vectors_of_their_document(tiny_elmo, model):
    doc = pipeline(model)("The cat sat .")
    right = next(tiny_elmo.embed([["The", "cat", "sat", "."]]))
    np.testing.assert_array_equal(doc.tensor, right)
    assert doc.tensor.dtype == np.float32
    assert doc._.elmo is doc.tensor
    for token, row in zip(doc, right, strict=True):
        np.testing.assert_array_equal(token._.elmo, row)
        np.testing.assert_array_equal(token.vector, row)


@pytest.mark.parametrize("layers", ["top", 0, [0.5, 0.25, 0.25]])
def test_layers(tiny_elmo, model, layers):
    doc = pipeline(model, layers=layers)("The cat")
    np.testing.assert_array_equal(doc.tensor, next(tiny_elmo.embed([["The", "cat"]], layers=layers)))


def test_sentences_are_embedded_by_themselves_and_white_space_is_not_read(tiny_elmo, model):
    doc = pipeline(model, "sentencizer")(TEXTS[0])
    first, second = tiny_elmo.embed([["The", "cat", "sat", "."], ["It", "purred", "!"]])
    assert [token.text for token in doc] == ["The", "cat", "sat", ".", " ", "It", "purred", "!"]
    np.testing.assert_allclose(doc.tensor, np.vstack([first, np.zeros((1, 8)), second]), atol=1e-6)


@pytest.mark.parametrize("n_process", [1, 2])
def test_many_documents(model, n_process):
    nlp = pipeline(model, "sentencizer")
    found = list(nlp.pipe(TEXTS * 3, batch_size=5, n_process=n_process))
    assert [doc.text for doc in found] == TEXTS * 3
    for doc in found:
        alone = nlp(doc.text)
        assert doc.tensor.shape == doc._.elmo.shape == (len(doc), 8)
        np.testing.assert_allclose(doc.tensor, alone.tensor, atol=1e-6)


def test_a_saved_pipeline_needs_the_model_no_more(tiny, tmp_path):
    write_native(tiny, tmp_path / "model")
    nlp = pipeline(str(tmp_path / "model"), layers="top")
    right = nlp("The cat").tensor
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "model").rename(tmp_path / "away")
    again = spacy.load(tmp_path / "pipeline")
    np.testing.assert_array_equal(again("The cat").tensor, right)
    nlp.to_disk(tmp_path / "without", exclude=["elmo"])
    assert not (tmp_path / "without" / "elmo").exists()


def test_documents_keep_their_vectors_on_disk(model):
    nlp = pipeline(model)
    doc = nlp("The cat")
    again = spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes())
    np.testing.assert_array_equal(again.tensor, doc.tensor)
    np.testing.assert_array_equal(again[1]._.elmo, doc.tensor[1])


def test_before_the_component_there_are_no_vectors(model):
    nlp = pipeline(model)
    doc = nlp.make_doc("The cat")
    assert doc._.elmo is None
    assert doc[0]._.elmo is None


def test_refusals(model):
    with pytest.raises(MismatchError, match="expected one vector a token, found 'all'"):
        pipeline(model, layers="all")
    with pytest.raises(UnknownModel):
        pipeline("no-such-model")("The cat")


def test_rows_that_fit_the_tokens_no_more_are_not_given(model):
    """Tokens that are merged later would have the rows of others."""
    doc = pipeline(model)("New York is")
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[:2])
    with pytest.raises(MismatchError, match="has 2 tokens and had 3 when the component 'elmo' ran"):
        _ = doc[1]._.elmo
    assert doc.tensor.shape == (2, 8)
