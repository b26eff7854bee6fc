"""Every public function, given the wrong type or shape, says so in one sentence of elmokit's own, before it works."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elmokit
from checkpoints import SPECIALS
from conftest import make_checkpoint, make_config
from elmokit import catalog, formats
from elmokit.errors import ElmoError
from elmokit.job import embed_file
from elmokit.labelled import LabelledText, read_labelled
from elmokit.lm import LanguageModel
from elmokit.model import Carry, Elmo
from elmokit.network import Mix
from elmokit.nn import ElmoEmbedding
from elmokit.plot import make_map
from elmokit.plot import write as write_map
from elmokit.reading import expand, read_sentences, words
from elmokit.search import Index
from elmokit.senses import find_senses
from elmokit.similar import WordsInContext
from elmokit.sklearn import ElmoVectorizer
from elmokit.train import run
from elmokit.train.settings import Settings

CHECKPOINT = make_checkpoint(vocabulary=(*SPECIALS, "a"))
ELMO = Elmo(CHECKPOINT)
OTHER = Elmo(make_checkpoint(make_config(dim=5)))
MODEL = LanguageModel(ELMO)
LAYER = ElmoEmbedding(ELMO)
SIMILAR = WordsInContext(ELMO, [["a", "b"]])
S = [["a", "b"]]
JUNK = [None, 5, 1.5, b"bytes", object(), [3], {"a": 1}, np.zeros((2, 3))]


def embedded(sentences=S, **options):
    return list(ELMO.embed(sentences, **options))


SENTENCES = {
    "a string": "The cat",
    "a list of strings": ["The cat"],
    "a number": 5,
    "None": None,
    "None as a sentence": [None],
    "a number as a token": [["a", 1]],
    "None as a token": [["a", None]],
    "bytes as a token": [[b"a"]],
    "numbers": np.zeros((2, 3)),
    "three axes": [[["a"]]],
}
TAKE_SENTENCES = {
    "Elmo.embed": embedded,
    "Elmo.embed carry": lambda sentences: embedded(sentences, state="carry"),
    "Elmo.warm": ELMO.warm,
    "LanguageModel.score": lambda sentences: list(MODEL.score(sentences)),
    "LanguageModel.perplexity": MODEL.perplexity,
    "WordsInContext": lambda sentences: WordsInContext(ELMO, sentences),
}


@pytest.mark.parametrize("given", SENTENCES)
@pytest.mark.parametrize("function", TAKE_SENTENCES)
def test_sentences_that_are_none(function, given):
    with pytest.raises(ElmoError, match="expected"):
        TAKE_SENTENCES[function](SENTENCES[given])


# Of those that take one sentence, or strings too.
@pytest.mark.parametrize("given", [None, 5, [1], [None], b"a"])
def test_one_sentence_that_is_none(given):
    for function in (MODEL.substitutes, SIMILAR.most_similar):
        with pytest.raises(ElmoError, match="expected"):
            function(given, 0)
    for function in (LAYER, LAYER.ids):
        with pytest.raises(ElmoError, match="expected"):
            function(given)


OPTIONS = {
    "layers by a name that is none": lambda: embedded(layers="bottom"),
    "layers beyond the top": lambda: embedded(layers=7),
    "too few weights": lambda: embedded(layers=[1.0]),
    "weights that are words": lambda: embedded(layers=["a", "b", "c"]),
    "weights of two axes": lambda: embedded(layers=np.zeros((3, 3))),
    "weights that are no numbers": lambda: embedded(layers=[float("nan")] * 3),
    "no layers": lambda: embedded(layers=None),
    "half a layer": lambda: embedded(layers=1.5),
    "pool": lambda: embedded(pool="sum"),
    "no pool": lambda: embedded(pool=None),
    "pools": lambda: embedded(pool=["mean"]),
    "state": lambda: embedded(state="cold"),
    "no state": lambda: embedded(state=None),
    "a state of another model": lambda: embedded(state=Carry(OTHER.network.zero_state(2))),
    "a state that is none": lambda: embedded(state=Carry(3)),
    "batches of none": lambda: embedded(batch_size=0),
    "batches of one and a half": lambda: embedded(batch_size=1.5),
    "batches of x": lambda: embedded(batch_size="x"),
    "words of another model": lambda: embedded(words=OTHER.word_vectors()),
    "words that are none": lambda: embedded(words={}),
    "cached: numbers": lambda: ELMO.cached([1]),
    "cached: a string": lambda: ELMO.cached("abc"),
    "warm: nothing": lambda: ELMO.warm([]),
    "Elmo: nothing": lambda: Elmo(None),
    "Elmo: a path": lambda: Elmo("model"),
    "load: device": lambda: elmokit.load(device="gpu"),
    "load: precision": lambda: elmokit.load(precision="float8"),
    "load: precisions": lambda: elmokit.load(precision=["float32"]),
    "Mix of none": lambda: Mix(0),
    "Mix of three in letters": lambda: Mix("3"),
    "Mix: too few weights": lambda: Mix(3, weights=[1.0]),
    "Mix: too few layers": lambda: Mix(3)([torch.zeros(2, 4)] * 2),
    "Mix: other shapes": lambda: Mix(2)([torch.zeros(2, 4), torch.zeros(3, 4)]),
    "Mix: strings": lambda: Mix(2)("ab"),
    "Mix: arrays": lambda: Mix(2)([np.zeros((2, 4))] * 2),
    "Mix: another mask": lambda: Mix(2, layer_norm=True)(torch.zeros(2, 3, 4), torch.ones(5)),
    "LanguageModel of none": lambda: LanguageModel(None),
    "LanguageModel of a model without a head": lambda: LanguageModel(OTHER),
    "score: state": lambda: list(MODEL.score(S, state="cold")),
    "score: batches of none": lambda: list(MODEL.score(S, batch_size=0)),
    "substitutes beyond the end": lambda: MODEL.substitutes(["a"], 5),
    "substitutes before the beginning": lambda: MODEL.substitutes(["a"], -1),
    "substitutes: a place in letters": lambda: MODEL.substitutes(["a"], "0"),
    "substitutes: none": lambda: MODEL.substitutes(["a"], 0, 0),
    "ElmoEmbedding: ids of two axes": lambda: LAYER(torch.zeros(2, 3)),
    "ElmoEmbedding: ids that are fractions": lambda: LAYER(torch.zeros(2, 3, 20)),
    "ElmoEmbedding: ids that are none": lambda: LAYER(torch.full((1, 2, 20), 999)),
    "ElmoEmbedding: nothing": lambda: LAYER([]),
    "ElmoEmbedding: trainable": lambda: ElmoEmbedding(ELMO, trainable="some"),
    "ElmoEmbedding: no mix": lambda: ElmoEmbedding(ELMO, n_mixes=0),
    "ElmoEmbedding: dropout": lambda: ElmoEmbedding(ELMO, dropout=2.0),
    "ElmoEmbedding: words": lambda: ElmoEmbedding(ELMO, words={}),
    "ElmoEmbedding: weights": lambda: ElmoEmbedding(ELMO, mix_weights=[1.0]),
    "WordsInContext: nothing": lambda: WordsInContext(ELMO, []),
    "WordsInContext: all layers": lambda: WordsInContext(ELMO, S, layers="all"),
    "most_similar beyond the end": lambda: SIMILAR.most_similar(["a"], 3),
    "most_similar: some": lambda: SIMILAR.most_similar(["a"], 0, topn="some"),
    "formats.write: another format": lambda: formats.write(CHECKPOINT, "never", to="pickle"),
    "formats.write: another type": lambda: formats.write(CHECKPOINT, "never", dtype="int9"),
    "formats.write: no checkpoint": lambda: formats.write(None, "never"),
    "save: another type": lambda: ELMO.save("never", dtype="int9"),
    "catalog.models: a number": lambda: catalog.models(5),
    "catalog.find: a number": lambda: catalog.find(5),
    "catalog.fetch: a name that is none": lambda: catalog.fetch("nope"),
    "expand: a string": lambda: expand("text"),
    "expand: numbers": lambda: expand([1]),
    "words: a number": lambda: words(3),
    "train: no settings": lambda: run.train(None, "never"),
    "train: settings of nothing": lambda: run.train(Settings(texts=[], config=None, recipe=None), "never"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_are_none(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ElmoError) as caught:
        OPTIONS[case]()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: type(junk).__name__)
def test_paths_that_are_none(junk, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "out.npz"
    text.write_text("a b\n")
    takers = [
        lambda: elmokit.load(junk) if junk is not None else elmokit.load([]),
        lambda: formats.read(junk),
        lambda: formats.write(CHECKPOINT, junk),
        lambda: ELMO.save(junk),
        lambda: catalog.locate(junk),
        lambda: list(read_sentences(junk)),
        lambda: embed_file(junk, out, elmo=ELMO, progress=False),
        lambda: embed_file(text, junk, elmo=ELMO, progress=False),
        lambda: embed_file(text, out, elmo=junk, progress=False),
        lambda: embed_file(text, out, elmo=ELMO, dtype="int8", progress=False),
        lambda: embed_file(text, out, elmo=ELMO, save_every="a", progress=False),
        lambda: embed_file(text, out, elmo=ELMO, layers=None, progress=False),
        lambda: embed_file(text, out, elmo=ELMO, layers=1.5, progress=False),
        lambda: run.resume(junk, progress=False),
    ]
    for take in takers:
        with pytest.raises(ElmoError):
            take()
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """An index of sentences with a field, and one of uses of a word."""
    folder = tmp_path_factory.mktemp("indexes")
    sentences = Index.create(folder / "sentences", ELMO, fields={"year": "integer"})
    uses = Index.create(folder / "uses", ELMO, unit="word", words=["a"])
    sentences.add("s", S, fields=[{"year": 1}])
    uses.add("s", S)
    yield sentences, uses
    sentences.close()
    uses.close()


NO_NUMBER = [*JUNK[3:], "x", float("nan")]  # neither None, which leaves many things out, nor a number


@pytest.mark.parametrize("junk", [*JUNK, np.array(3), [[1, 2], [3]], np.full((2, 3), np.nan)])
def test_maps_senses_and_word_lists_that_are_none(junk, tmp_path):
    takers = [
        lambda: make_map(junk, S, progress=False),
        lambda: make_map(ELMO, junk, method="pca", progress=False),
        lambda: make_map(ELMO, S, words=[junk], method="pca", progress=False),
        lambda: make_map(ELMO, S, layers=[junk], method="pca", progress=False),
        lambda: make_map(ELMO, S, method=junk, progress=False),
        lambda: write_map(junk, tmp_path / "map.png"),
        lambda: read_labelled(junk),
        lambda: LabelledText(junk),
        lambda: find_senses(junk, S, "a", progress=False),
        lambda: find_senses(ELMO, junk, "a", progress=False),
        lambda: find_senses(ELMO, S, junk, progress=False),
        lambda: find_senses(ELMO, S, "a", layer=junk, progress=False),
        lambda: WordsInContext(junk, S),
        lambda: Mix(3)(junk),
        lambda: Mix(3, weights=5 if junk is None else junk),
        lambda: embedded([junk]),
        lambda: elmokit.load(device=[junk]),
    ]
    for take in takers:
        with pytest.raises(ElmoError):
            take()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("junk", NO_NUMBER, ids=lambda junk: type(junk).__name__)
def test_numbers_and_functions_that_are_none(junk, indexes):
    sentences, uses = indexes
    takers = [
        lambda: find_senses(ELMO, S, "a", n=junk, progress=False),
        lambda: find_senses(ELMO, S, "a", nearest=junk, progress=False),
        lambda: SIMILAR.most_similar(["a"], junk),
        lambda: LAYER.penalty([junk]),
        lambda: ElmoEmbedding(ELMO, dropout=junk),
        lambda: ElmoVectorizer(ELMO, tokenizer=junk).fit(["a"]),
        lambda: ElmoVectorizer(ELMO, pool=junk).fit(["a"]),
        lambda: ElmoVectorizer(ELMO, memory=[junk]).fit(["a"]),
        lambda: sentences.search("a b", count=junk),
        lambda: sentences.search("a b", effort=junk),
        lambda: uses.search(["a"], place=junk),
        lambda: sentences.add("t", S, first=junk),
    ]
    for take in takers:
        with pytest.raises(ElmoError):
            take()


@pytest.mark.parametrize("junk", [*JUNK[1:], np.array(3), [[1, 2]]], ids=lambda junk: type(junk).__name__)
def test_indexes_that_are_none(junk, indexes, tmp_path):
    sentences, uses = indexes
    place = tmp_path / "index"
    takers = [
        lambda: Index.create(junk, ELMO),
        lambda: Index.create(place, junk),
        lambda: Index.create(place, ELMO, unit="word", words=[junk]),
        lambda: Index.create(place, ELMO, unit="word", words="a"),
        lambda: Index.create(place, ELMO, fields={"year": junk}),
        lambda: Index.create(place, ELMO, layers=[junk]),
        lambda: Index.create(place, ELMO, pool=junk),
        lambda: Index.create(place, ELMO, state=junk),
        lambda: Index.create(place, ELMO, name=junk),
        lambda: Index.create(place, ELMO, sample=[[junk]]),
        lambda: Index.open(junk, ELMO),
        lambda: Index.open(sentences.address, junk),
        lambda: sentences.add(junk, S),
        lambda: sentences.add("t", [[junk]]),
        lambda: sentences.add("t", S, fields=[junk]),
        lambda: sentences.add("t", S, fields=[]),
        lambda: sentences.add("t", [], fields=[{"year": 1}]),
        lambda: sentences.update(junk, S),
        lambda: sentences.search([junk]),
        lambda: uses.search([junk], place=0),
        lambda: sentences.search("a b", where=[junk]),
        lambda: sentences.search("a b", by=junk),
        lambda: sentences.delete(junk),
    ]
    for take in takers:
        with pytest.raises(ElmoError):
            take()
    assert list(tmp_path.iterdir()) == []
    assert sentences.count() == uses.count() == 1


def test_labels_of_another_number_are_refused():
    for name, labels in (("labels", ["x"] * 2), ("word_labels", [["x"]]), ("parts_of_speech", [])):
        with pytest.raises(ElmoError, match=name):
            LabelledText(S, **{name: labels})


def test_whole_numbers_of_numpy_are_taken(indexes):
    one = np.int64(1)
    assert len(indexes[0].search("a b", count=one)) == 1
    assert len(SIMILAR.most_similar(["a"], np.int64(0), topn=one)) == 1
    assert len(find_senses(ELMO, S, "a", n=one, progress=False).senses) == 1


any_text = st.text(st.characters(exclude_categories=()), max_size=200)


@given(lines=st.lists(any_text, max_size=12))
@settings(max_examples=30, deadline=None)
def test_any_text_becomes_finite_vectors_of_its_lines(lines, tmp_path_factory):
    """Whatever Unicode a file holds: as many arrays as lines, as many rows as tokens, and no number that is none."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "ignore"))
    sentences = list(read_sentences(path))
    vectors = embedded(sentences)
    assert len(sentences) == path.read_bytes().count(b"\n")
    assert [array.shape for array in vectors] == [(len(sentence), ELMO.dim) for sentence in sentences]
    assert all(np.isfinite(array).all() for array in vectors)
