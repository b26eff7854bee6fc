"""`ElmoVectorizer`: scikit-learn's own checks, pipelines, searches, frames, the cache, copies."""

import pickle

import joblib
import numpy as np
import pandas
import polars
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError
from elmokit.model import Elmo, load
from elmokit.reading import words
from elmokit.sklearn import ElmoVectorizer

TEXTS = ["The cat sat .", "", "It purred"]


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sklearn") / "model"
    write_native(tiny, folder)
    return str(folder)


def expected(elmo, texts=TEXTS, *, layers="average", pool="mean"):
    vectors = elmo.embed([text.split() for text in texts], layers=layers, pool=pool)
    return np.stack([vector.reshape(-1) for vector in vectors])


RULES = """check_estimator_cloneable check_estimator_tags_renamed check_valid_tag_types check_estimator_repr
check_no_attributes_set_in_init check_mixin_order check_parameters_default_constructible check_get_params_invariance
check_set_params check_do_not_raise_errors_in_init_or_set_params""".split()


@pytest.mark.filterwarnings("ignore:Can't test estimator:sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("rule", RULES)
def test_rules_of_scikit_learn(rule):
    """`check_estimator` stops at estimators that take texts; of its rules, these feed no numbers."""
    check_estimator(ElmoVectorizer())
    getattr(estimator_checks, rule)("ElmoVectorizer", ElmoVectorizer())


def test_rules_of_scikit_learn_with_texts(tiny_elmo):
    """Those that feed numbers, with texts: fitting returns the object, sets what ends in _ alone, may be repeated."""
    vectorizer = ElmoVectorizer(tiny_elmo, layers="top")
    before = dict(vectorizer.get_params())
    with pytest.raises(NotFittedError):
        vectorizer.transform(TEXTS)
    assert vectorizer.fit(TEXTS, y=[0, 1, 0]) is vectorizer
    assert vectorizer.get_params() == before
    assert {name for name in vars(vectorizer) if name not in before} == {"elmo_"}
    first = vectorizer.transform(TEXTS)
    np.testing.assert_array_equal(vectorizer.fit(TEXTS[:1]).transform(TEXTS), first)
    np.testing.assert_array_equal(vectorizer.fit_transform(TEXTS), first)
    np.testing.assert_allclose(vectorizer.transform(TEXTS[::-1])[::-1], first, atol=1e-6)
    assert len(vectorizer.get_feature_names_out()) == first.shape[1]


@pytest.mark.parametrize("layers", ["average", "top", "all", 0, (0.5, 0.25, 0.25)])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_vectors_are_those_of_embed(tiny_elmo, model, layers, pool):
    vectors = ElmoVectorizer(model, layers=layers, pool=pool).fit_transform(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected(tiny_elmo, layers=layers, pool=pool))
    assert not vectors[1].any()


def test_a_trained_mix_is_taken_as_it_comes(tiny_elmo, tmp_path):
    """`Elmo.mixes` says that a row of it is ready for `layers`; it is an array."""
    mix = np.array([0.5, 0.25, 0.25], np.float32)
    for memory in (None, str(tmp_path)):
        found = ElmoVectorizer(tiny_elmo, layers=mix, memory=memory).fit_transform(TEXTS)
        np.testing.assert_array_equal(found, expected(tiny_elmo, layers=mix))


def test_tokens_and_tokenizers(tiny_elmo, model):
    vectorizer = ElmoVectorizer(model).fit(None)
    np.testing.assert_array_equal(vectorizer.transform([text.split() for text in TEXTS]), expected(tiny_elmo))
    raw = ElmoVectorizer(model, tokenizer=words).fit_transform(["The cat sat."])
    np.testing.assert_array_equal(raw, expected(tiny_elmo, ["The cat sat ."]))
    by_letter = ElmoVectorizer(model, tokenizer=list).fit_transform(["cat"])
    np.testing.assert_array_equal(by_letter, expected(tiny_elmo, ["c a t"]))


def test_a_model_for_its_path_and_texts_of_any_kind(tiny_elmo, model):
    np.testing.assert_array_equal(
        ElmoVectorizer(tiny_elmo).fit_transform(TEXTS), ElmoVectorizer(model).fit_transform(iter(TEXTS))
    )
    assert ElmoVectorizer(tiny_elmo, layers="all").fit_transform([]).shape == (0, 24)


FRAMES = [pandas.DataFrame({"text": TEXTS}), polars.DataFrame({"text": TEXTS})]


@pytest.mark.parametrize("frame", FRAMES, ids=["pandas", "polars"])
def test_columns_of_frames(tiny_elmo, frame):
    right = expected(tiny_elmo)
    vectorizer = ElmoVectorizer(tiny_elmo).fit(frame["text"])
    for column in (frame["text"], frame[["text"]], np.array(TEXTS), np.array(TEXTS, object).reshape(-1, 1)):
        np.testing.assert_array_equal(vectorizer.transform(column), right)
    frame = frame.assign(n=1.0) if isinstance(frame, pandas.DataFrame) else frame.with_columns(n=polars.lit(1.0))
    columns = ColumnTransformer([("elmo", vectorizer, "text")], remainder="passthrough")
    np.testing.assert_array_equal(columns.fit_transform(frame), np.hstack([right, np.ones((3, 1))]))


@pytest.mark.parametrize(("kind", "frame"), [("pandas", pandas.DataFrame), ("polars", polars.DataFrame)])
def test_frames_come_out_when_asked_for(tiny_elmo, kind, frame):
    found = ElmoVectorizer(tiny_elmo).set_output(transform=kind).fit_transform(TEXTS)
    assert isinstance(found, frame)
    assert list(found.columns) == [f"elmovectorizer{n}" for n in range(8)]
    np.testing.assert_array_equal(found.to_numpy(), expected(tiny_elmo))


ABOUT = ["cats purr", "dogs bark", "a cat sat", "the dog ran", "cat food", "dog house", "my cat", "our dogs"]


def test_a_search_over_layers_and_pool():
    labels = ["cat" in text for text in ABOUT]
    pipeline = make_pipeline(ElmoVectorizer(), LogisticRegression())
    grid = {"elmovectorizer__layers": ["top", 0], "elmovectorizer__pool": ["mean", "max"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(ABOUT, labels)
    assert search.best_params_["elmovectorizer__layers"] in ("top", 0)
    assert len(search.cv_results_["params"]) == 4
    assert search.predict(ABOUT).tolist() == labels
    again = pickle.loads(pickle.dumps(search))
    assert again.predict(ABOUT).tolist() == labels


def test_the_cache_is_used(tiny, tiny_elmo, tmp_path, monkeypatch):
    counts = []
    embed = Elmo.embed

    def counted(self, sentences, **options):
        counts.append(len(sentences))
        return embed(self, sentences, **options)

    monkeypatch.setattr(Elmo, "embed", counted)
    vectorizer = ElmoVectorizer(tiny_elmo, memory=str(tmp_path))
    first = vectorizer.fit_transform(TEXTS)
    again = clone(vectorizer).set_params(memory=joblib.Memory(str(tmp_path), verbose=0), batch_size=1)
    np.testing.assert_array_equal(again.fit_transform(TEXTS), first)
    assert counts == [0, 3, 0]
    for changed in ({"layers": "top"}, {"pool": "max"}, {"model": load()}):
        assert not np.array_equal(clone(vectorizer).set_params(**changed).fit_transform(TEXTS), first)
    assert counts == [0, 3, 0] + 3 * [0, 3]


def test_fitted_copies_need_no_file(model, tmp_path, tiny_elmo):
    write_native(tiny_elmo.checkpoint(), tmp_path / "moved")
    fitted = ElmoVectorizer(str(tmp_path / "moved")).fit(TEXTS)
    stored = pickle.dumps(fitted)
    (tmp_path / "moved").rename(tmp_path / "away")
    np.testing.assert_array_equal(pickle.loads(stored).transform(TEXTS), expected(tiny_elmo))
    with pytest.raises(NotFittedError):
        clone(fitted).transform(TEXTS)


@pytest.mark.parametrize(
    ("options", "texts", "message"),
    [
        ({"pool": "none"}, TEXTS, "pool: expected 'mean', 'max', found 'none'"),
        ({"layers": "best"}, TEXTS, "layers: expected 'all', 'top', 'average', found 'best'"),
        ({"layers": 3}, TEXTS, "layer 3 does not exist"),
        ({}, "The cat", "found the string 'The cat'"),
        ({}, 3, "expected a sequence of texts, found 3"),
        ({}, [["The", None]], "expected tokens as strings, found None"),
        ({}, [b"The"], "expected tokens as strings, found 84"),
        ({}, ["The", None], "text 1: expected a string or a list of tokens, found None"),
        ({}, pandas.Series(["The", float("nan")]), "text 1: .* found nan"),
        ({}, pandas.DataFrame({"a": TEXTS, "b": TEXTS}), "expected one column of texts, found the shape .3, 2."),
    ],
)
def test_refusals(tiny_elmo, options, texts, message):
    with pytest.raises(MismatchError, match=message):
        ElmoVectorizer(tiny_elmo, **options).fit_transform(texts)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pool": "none"}, "pool: expected 'mean', 'max', found 'none'"),
        ({"tokenizer": 3}, "tokenizer: expected a function"),
        ({"tokenizer": lambda _: None}, "tokenizer: expected a function that returns tokens, found None"),
    ],
)
def test_options_that_are_set_later_are_checked(tiny_elmo, option, message):
    vectorizer = ElmoVectorizer(tiny_elmo).fit(TEXTS)
    with pytest.raises(MismatchError, match=message):
        vectorizer.set_params(**option).transform(TEXTS)


def test_kept_vectors_are_of_one_precision(tiny_elmo, tmp_path):
    """A model in bfloat16, and what was saved of it, have the same weights and do not compute the same."""
    rounded = Elmo(tiny_elmo.checkpoint(), precision="bfloat16")
    again = Elmo(rounded.checkpoint())
    assert again.fingerprint == rounded.fingerprint
    found = [ElmoVectorizer(elmo, memory=str(tmp_path)).fit_transform(TEXTS) for elmo in (rounded, again)]
    np.testing.assert_array_equal(found[1], ElmoVectorizer(again).fit_transform(TEXTS))
    assert not np.array_equal(*found)
