"""The front door of flair: `ELMoEmbeddings` on anything with tokens."""

import inspect
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from conftest import make_checkpoint, make_config
from elmokit import catalog
from elmokit.compat import flair
from elmokit.compat.flair import ELMoEmbeddings
from elmokit.errors import MismatchError, UnknownModel
from elmokit.formats import allennlp
from elmokit.model import Carry, Elmo
from recorded import read_lines, stated_tolerance, two_files


@dataclass
class Token:
    text: str


@dataclass
class FlairToken:
    """As much of flair's token as matters here."""

    text: str
    _embeddings: dict = field(default_factory=dict)

    def set_embedding(self, name, vector):
        self._embeddings[name] = vector


@dataclass
class Sentence:
    tokens: list


def make_sentences(texts, token=Token):
    return [Sentence([token(word) for word in text]) for text in texts]


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    allennlp.write(tiny, folder)
    return dict(zip(("options_file", "weight_file"), two_files(folder), strict=True))


TEXTS = [["The", "grass", "is", "green", "."], ["Yes", "."]]


def expected_layers(tiny, *batches):
    """All layers of every word after "hello", the state carried."""
    elmo, carry = Elmo(tiny), Carry()
    list(elmo.embed([["hello"]], state=carry, batch_size=1))
    arrays = [elmo.embed(batch, layers="all", state=carry, batch_size=len(batch)) for batch in batches]
    return [layers[:, place] for batch in arrays for layers in batch for place in range(layers.shape[1])]


def vectors(sentences):
    return np.stack([token.embedding.numpy() for sentence in sentences for token in sentence.tokens])


def test_arguments_are_those_of_flair():
    parameters = inspect.signature(ELMoEmbeddings).parameters.values()
    found = ", ".join(f"{p.name}={p.default!r}" for p in parameters)
    assert found == "model='original', options_file=None, weight_file=None, embedding_mode='all'"


MODES = {
    "all": lambda layers: np.concatenate(list(layers)),
    "top": lambda layers: layers[-1],
    "average": lambda layers: layers.mean(0),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_three_ways_to_combine_layers(tiny, files, mode):
    embeddings = ELMoEmbeddings("mine", **files, embedding_mode=mode)
    sentences = make_sentences(TEXTS)
    assert embeddings.embed(sentences) == sentences
    expected = [MODES[mode](layers) for layers in expected_layers(tiny, TEXTS)]
    np.testing.assert_allclose(vectors(sentences), expected, atol=1e-6)
    assert sentences[0].tokens[0].embedding.dtype == torch.float32
    assert embeddings.embedding_length == expected[0].size
    assert embeddings.name == str(embeddings.get_names()[0]) == f"elmo-mine-{mode}"


def test_the_word_hello_comes_before_the_first_sentence_and_state_flows_on(tiny, files):
    embeddings = ELMoEmbeddings(**files, embedding_mode="top")
    batches = [TEXTS, TEXTS[:1], TEXTS]
    sentences = [make_sentences(batch) for batch in batches]
    for batch in sentences:
        embeddings.embed(batch)
    expected = [layers[-1] for layers in expected_layers(tiny, *batches)]
    np.testing.assert_allclose(vectors([s for batch in sentences for s in batch]), expected, atol=1e-6)
    fresh = next(Elmo(tiny).embed(TEXTS, layers="top"))
    assert np.abs(vectors(sentences[0][:1]) - fresh).max() > 1e-3


def test_recorded_vectors_of_a_batch(oracles):
    """After "hello" row 0 of a batch is not fresh, row 1 is: there AllenNLP's own numbers hold."""
    folder = oracles / "alnlp-l1-h1-tanh"
    embeddings = ELMoEmbeddings("l1", *two_files(folder), embedding_mode="top")
    sentences = make_sentences(read_lines(folder / "sentences.txt"))
    embeddings.embed(sentences)
    expected = np.load(folder / "expected.npz")
    for i in (1, 2, 3, 5, 6, 7, 8):
        np.testing.assert_allclose(
            vectors(sentences[i : i + 1]), expected[f"allennlp_fresh_{i}"][-1], atol=stated_tolerance(folder)
        )


def test_one_sentence_is_a_list_of_one(files):
    (sentence,) = make_sentences(TEXTS[:1])
    assert ELMoEmbeddings(**files).embed(sentence) == [sentence]
    assert sentence.tokens[4].embedding.shape == (24,)


def test_tokens_of_flair_keep_vectors_by_name_and_get_them_once(files):
    embeddings = ELMoEmbeddings("x", **files)
    sentences = make_sentences(TEXTS, FlairToken)
    embeddings.embed(sentences)
    first = [token._embeddings["elmo-x-all"] for sentence in sentences for token in sentence.tokens]
    embeddings.embed(sentences)
    again = [token._embeddings["elmo-x-all"] for sentence in sentences for token in sentence.tokens]
    assert all(a is b for a, b in zip(first, again, strict=True))
    new = make_sentences(TEXTS, FlairToken)
    embeddings.embed([*sentences, *new])
    assert sentences[0].tokens[0]._embeddings["elmo-x-all"] is not first[0]


def test_sentences_of_no_tokens(files):
    embeddings = ELMoEmbeddings(**files)
    sentences = make_sentences([[], ["word"]])
    embeddings.embed(sentences[:1])
    embeddings.embed(sentences)
    assert sentences[1].tokens[0].embedding.shape == (24,)
    assert embeddings.embed([]) == []


def test_every_layer_of_models_with_more_or_fewer(tmp_path):
    """flair takes the first three layers, whatever the model has."""
    for n_layers in (1, 4):
        allennlp.write(make_checkpoint(make_config(n_layers=n_layers)), tmp_path / str(n_layers))
        assert ELMoEmbeddings("m", *two_files(tmp_path / str(n_layers))).embedding_length == (n_layers + 1) * 8


def test_it_can_stand_in_a_stack_and_be_saved(files):
    """flair's stacks hold torch modules, and its models are pickled whole."""
    embeddings = ELMoEmbeddings(**files)
    assert isinstance(embeddings, torch.nn.Module)
    assert embeddings.get_named_embeddings_dict() == {embeddings.name: embeddings}
    assert embeddings.static_embeddings
    copy = pickle.loads(pickle.dumps(embeddings))
    found, expected = make_sentences(TEXTS), make_sentences(TEXTS)
    copy.embed(found)
    embeddings.embed(expected)
    np.testing.assert_array_equal(vectors(found), vectors(expected))


@pytest.mark.filterwarnings("ignore")  # of flair and what is under it
def test_a_tagger_of_flair_learns_is_saved_and_loaded(files, tmp_path):
    """In flair itself. It asks for transformers 4 and huggingface_hub 0, so that it is not among our test tools."""
    pytest.importorskip("flair", reason="flair is not installed", exc_type=ImportError)
    from flair.data import Dictionary
    from flair.data import Sentence as FlairSentence
    from flair.embeddings import StackedEmbeddings
    from flair.models import SequenceTagger

    tags = Dictionary(add_unk=False)
    for tag in ("O", "NOUN"):
        tags.add_item(tag)
    sentences = [FlairSentence("The cat sat .") for _ in range(4)]
    for sentence in sentences:
        sentence[1].add_label("pos", "NOUN")
    embeddings = ELMoEmbeddings("mine", **files)
    options = {"hidden_size": 16, "use_crf": False, "allow_unk_predictions": True}
    options |= {"dropout": 0.0, "word_dropout": 0.0, "locked_dropout": 0.0}
    for used in (embeddings, StackedEmbeddings([embeddings])):
        tagger = SequenceTagger(used, tags, "pos", **options)
        optimizer = torch.optim.Adam(tagger.parameters(), lr=0.02)
        losses = []
        for _ in range(50):
            optimizer.zero_grad()
            loss, _ = tagger.forward_loss(sentences)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2
    tagger = SequenceTagger(embeddings, tags, "pos", **options)
    tagger.save(tmp_path / "tagger.pt")
    loaded = SequenceTagger.load(tmp_path / "tagger.pt")
    assert torch.equal(loaded.forward(*loaded._prepare_tensors(sentences)), tagger(*tagger._prepare_tensors(sentences)))


@pytest.mark.parametrize(
    ("name", "ours"), [("original", "original"), ("large", "original-5.5b"), ("pt", "pt-wikipedia")]
)
def test_published_models_by_the_names_of_flair(tiny, monkeypatch, name, ours):
    opened = []
    monkeypatch.setattr(flair, "load", lambda model: opened.append(model) or Elmo(tiny))
    assert ELMoEmbeddings(name).name == f"elmo-{name}-all"
    assert opened == [ours]
    assert ours in {model.name for model in catalog.models()}


def test_refusals(files):
    with pytest.raises(MismatchError, match="found 'sum'"):
        ELMoEmbeddings(**files, embedding_mode="sum")
    with pytest.raises(UnknownModel):
        ELMoEmbeddings("no-such-model")
