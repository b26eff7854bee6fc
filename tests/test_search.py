"""Semantic search: rankings against brute force, what an index remembers, and that changes leave what they should.

What a store must do is tested on every store: LanceDB in a folder, and a PostgreSQL server that is started here.
"""

import contextlib
import importlib
import json
import math
import sys
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_checkpoint
from elmokit.errors import FormatError, MismatchError, MissingExtra, OutputError
from elmokit.model import Elmo, load
from elmokit.search import Changes, Condition, Hit, Index, settings_of, vectors
from elmokit.search.pooling import Idf, Pooling, Whitening
from elmokit.search.query import read_query
from elmokit.search.rows import fuse
from elmokit.search.settings import from_json, to_json
from elmokit.search.store import shown
from elmokit.vectors import unit

pytest.importorskip("lancedb")

WORDS = "the a river bank money cell prison phone boat fish old new runs sleeps and of in".split()


def sentences(n, *, seed=0, longest=9):
    """Random sentences, and among them some of no words."""
    draw = np.random.default_rng(seed)
    return [[WORDS[i] for i in draw.integers(len(WORDS), size=draw.integers(longest))] for _ in range(n)]


_names = (f"index{number}" for number in count())


@pytest.fixture(params=["lance", "postgres"])
def place(request, tmp_path):
    """Address and name of an index that is not there yet."""
    if request.param == "postgres":
        return {"address": request.getfixturevalue("server").address, "name": next(_names)}
    return {"address": str(tmp_path / "index"), "name": next(_names)}


@pytest.fixture
def made(place, tiny_elmo):
    """A function that makes an index; all are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Index.create(place["address"], tiny_elmo, name=place["name"], **options)
        )


def contents(index, where=()):
    """All rows as they are found with any query, by their keys."""
    asked = {"query": ["bank"], "place": 0} if index.settings.unit == "word" else {"query": ["bank"]}
    hits = index.search(**asked, count=100_000, exact=True, where=where)
    assert len({hit.key for hit in hits}) == len(hits)
    return {hit.key: hit for hit in hits}


# ---------------------------------------------------------------- ranking


@pytest.mark.parametrize("layers", ["average", 0, [0.5, 0.25, 0.25], np.array([0.5, 0.25, 0.25])])
@pytest.mark.parametrize("pool", ["mean", "white-idf"])
def test_distances_are_those_of_brute_force(made, tiny_elmo, layers, pool):
    texts = [text for text in sentences(200) if text]
    index = made(sample=texts, layers=layers, pool=pool)
    index.add("s", texts)
    stacks = list(tiny_elmo.embed([*texts, ["old", "bank"]], layers=layers))
    vectors_ND = np.stack([index.pooling(*pair) for pair in zip([*texts, ["old", "bank"]], stacks, strict=True)])
    cosines_N = unit(vectors_ND[:-1]) @ unit(vectors_ND[-1])
    assert (index.pooling.whitening is not None) == (pool == "white-idf")
    for exact in (False, True):
        hits = index.search(["old", "bank"], count=50, exact=exact)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines_N)[::-1][:50], atol=2e-6)
        np.testing.assert_allclose([cosines_N[hit.line - 1] for hit in hits], [hit.score for hit in hits], atol=2e-6)


def test_layer_0_is_the_same_without_the_layers_above(tiny_elmo, tmp_path):
    texts = [[text, []] for text in sentences(30)]
    with Index.create(tmp_path / "index", tiny_elmo, unit="passage") as index:
        assert index.settings.layers == 0
        found = list(vectors.embedded(tiny_elmo, index.settings, texts))
    for made, known in zip(found, tiny_elmo.embed([text[0] for text in texts], layers=0), strict=True):
        np.testing.assert_array_equal(made, known)
        assert made.dtype == np.float32


def test_uses_of_a_word_are_found_by_their_vectors_in_context(made, tiny_elmo):
    texts = sentences(60)
    index = made(unit="word", words=["bank", "Cell"])
    index.add("s", texts)
    uses = {f"s:{n}:{p}" for n, text in enumerate(texts, 1) for p, word in enumerate(text) if word in ("bank", "cell")}
    assert set(contents(index)) == uses
    asked = ["the", "bank", "of", "money"]
    vector = next(iter(tiny_elmo.embed([asked])))[1]
    stacks = list(tiny_elmo.embed(texts))
    best = max(
        uses, key=lambda use: float(unit(stacks[int(use.split(":")[1]) - 1][int(use.split(":")[2])]) @ unit(vector))
    )
    hit, *others = index.search("the *bank* of money", count=len(uses))
    assert hit.key == best
    assert hit.marked.split()[hit.place] == f"*{hit.word}*"
    assert len(others) == len(uses) - 1


def test_every_character_of_an_index_of_symbols_is_a_token(made):
    index = made(symbols=True)
    index.add("proteins", [list("MKT"), list("GAVL")])
    assert index.search("MKT", exact=True)[0].text == "M K T"
    assert [hit.text for hit in index.search("v", by="text")] == ["G A V L"]


def test_an_index_of_vectors_from_the_warmed_state(made, place, tiny_elmo):
    """Queries start from it too, and the index is not opened with a model that has another."""
    warmed = tiny_elmo.warm([["the", "river"]])
    with Index.create(place["address"], warmed, name=place["name"], state="warm", layers="top") as index:
        index.add("s", [["old", "bank"], ["new", "cell"]])
        vectors = [
            unit(v) for v in warmed.embed([["old", "bank"], ["new", "cell"]], state="warm", layers="top", pool="mean")
        ]
        (first, second) = index.search(["old", "bank"], exact=True)
        assert math.isclose(second.score, float(vectors[0] @ vectors[1]), abs_tol=2e-6)
        assert math.isclose(first.score, 1, abs_tol=2e-6)
    with pytest.raises(MismatchError, match="made with another model"):
        Index.open(place["address"], tiny_elmo, name=place["name"])


def test_an_index_remembers_the_name_of_its_model(place):
    bundled = load()
    with Index.create(place["address"], bundled, name=place["name"], model_name="bundled") as index:
        index.add("s", [["old", "bank"]])
    with Index.open(place["address"], name=place["name"]) as index:
        assert index.search("old bank")[0].text == "old bank"


def test_a_passage_is_one_row_of_all_its_sentences(made, tiny_elmo):
    index = made(unit="passage", pool="mean", layers="top")
    index.add("s", [[["old", "bank"], ["new", "cell", "phone"]], [["fish"]], []])
    stacks = np.concatenate(list(tiny_elmo.embed([["old", "bank"], ["new", "cell", "phone"]], layers="top")))
    hits = {hit.key: hit for hit in index.search(["river"], count=9, exact=True)}
    assert set(hits) == {"s:1", "s:2"}
    asked = unit(next(iter(tiny_elmo.embed([["river"]], layers="top", pool="mean"))))
    assert math.isclose(hits["s:1"].score, float(unit(stacks.mean(0)) @ asked), abs_tol=2e-6)
    assert hits["s:1"].text == "old bank new cell phone"


def has_graph(index):
    """Whether the store has an index of the vectors, or compares with all of them."""
    if index.address.startswith("postgresql"):
        with index._store._run() as connection:
            asked = "SELECT count(*) FROM pg_indexes WHERE indexname = %s"
            return connection.execute(asked, [f"{index._store.name}_vector"]).fetchone()[0] == 1
    return any("vector" in one.columns for one in index._store._table.list_indices())


def test_the_graph_of_a_large_index_finds_what_is_near(made, monkeypatch):
    """With a small number for a large one. All are looked at where `effort` is large."""
    for module in ("lance", "postgres"):
        with contextlib.suppress(MissingExtra):
            monkeypatch.setattr(importlib.import_module(f"elmokit.search.{module}"), "_SMALL", 300)
    texts = [text for text in sentences(600, longest=12) if len(text) > 3]
    index = made(pool="mean", layers="average")
    index.add("s", texts)
    assert not has_graph(index)
    index.optimize()
    assert has_graph(index)
    index.add("late", texts[:5])  # not in the graph yet
    for text in texts[::50]:
        near = {hit.key for hit in index.search(text, count=10, effort=400)}
        assert len(near & {hit.key for hit in index.search(text, count=10, exact=True)}) >= 9
    assert index.search(texts[0], where=["source=late"], effort=50)[0].key == "late:1"
    index.optimize()
    assert index.count() == len(texts) + 5


# ---------------------------------------------------------------- conditions and full text


def test_conditions_and_full_text(made):
    index = made(fields={"year": "integer", "author": "text", "share": "number"})
    texts = [["The", "rivers", "rise"], ["An", "old", "bank"], ["Money", "in", "the", "bank"], ["It", "'s", "mine"]]
    known = [{"year": 1990, "author": "O'Neil", "share": 0.5}, {"year": 2000}, {"year": 2010, "author": "Ba"}, {}]
    assert index.add("a", texts, fields=known) == Changes(added=4)
    assert [hit.line for hit in index.search("what does a river do", by="text")] == [1]  # river, rivers
    assert [hit.line for hit in index.search("bank money", by="text")] == [3, 2]
    assert index.search("' OR ( * & | ! : xyz", by="text") == []
    assert {hit.line for hit in index.search("bank", where=["year>=2000"])} == {2, 3}
    assert {hit.line for hit in index.search("bank", where=["year!=2000", "line>1"])} == {3}
    assert [hit.fields for hit in index.search("x", where=["author=O'Neil", "share<0.75"])] == [known[0]]
    assert [hit.fields["author"] for hit in index.search("bank", by="both", where=["author=Ba"])] == ["Ba"]
    assert index.search("bank", by="both", count=1)[0].line in (2, 3)
    assert index.count("author='; DROP TABLE elmo; --") == 0
    assert index.delete("year<2005") == 2
    assert set(contents(index)) == {"a:3", "a:4"}


def test_of_uses_full_text_finds_those_of_the_word(made):
    index = made(unit="word")
    index.add("a", [["The", "bank", "has", "money"], ["The", "bank", "of", "the", "river"], ["a", "river"]])
    assert index.search("The *bank* near a river", by="text")[0].key == "a:2:1"
    assert {hit.word for hit in index.search("The *bank* near a river", by="text")} == {"bank"}


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6), min_size=1, max_size=3), st.integers(1, 7)
)
def test_fusion_adds_reciprocal_ranks(rankings, n):
    made = [[Hit(1.0, name, "s", 1, -1, "", name, {}) for name in ranking] for ranking in rankings]
    names = {name for ranking in rankings for name in ranking}
    expected = {name: sum(1 / (61 + ranking.index(name)) for ranking in rankings if name in ranking) for name in names}
    found = fuse(made, n)
    assert [hit.score for hit in found] == sorted(expected.values(), reverse=True)[:n]
    assert all(hit.score == expected[hit.key] for hit in found)


@pytest.mark.parametrize("by", ["vector", "text", "both"])
def test_more_than_there_is_gives_all(made, by):
    index = made()
    index.add("a", [["old", "bank"], ["new", "bank"]])
    for many in (2**31, 10**30):
        assert {hit.key for hit in index.search("bank", count=many, effort=many, by=by)} == {"a:1", "a:2"}


def test_what_is_no_number_is_missing(made):
    index = made(fields={"share": "number"})
    index.add("a", [["one"], ["two"]], fields=[{"share": math.nan}, {"share": math.inf}])
    assert {k: hit.fields["share"] for k, hit in contents(index).items()} == {"a:1": None, "a:2": math.inf}
    assert index.count("share>1") == 1


# ---------------------------------------------------------------- changes


def test_add_update_and_delete(made):
    index = made()
    texts = [["one"], ["two"], [], ["four"]]
    assert index.add("a", texts) == Changes(added=3)
    assert index.add("a", texts) == Changes(unchanged=3)
    assert index.add("b", iter([["x"]])) == Changes(added=1)
    assert index.update("a", [["one"], ["zwei"], ["drei"]]) == Changes(added=1, changed=1, unchanged=1, deleted=1)
    assert {k: hit.text for k, hit in contents(index).items()} == {
        "a:1": "one",
        "a:2": "zwei",
        "a:3": "drei",
        "b:1": "x",
    }
    assert index.add("a", [[], ["four"]], first=3) == Changes(added=1, deleted=1)
    assert set(contents(index)) == {"a:1", "a:2", "a:4", "b:1"}
    assert index.delete(Condition("source", "=", "a")) == 3
    assert index.update("b", []) == Changes(deleted=1)
    assert index.count() == 0


def test_fewer_words_in_a_line_leave_no_uses_behind(made):
    index = made(unit="word")
    index.add("a", [["old", "river", "bank"], ["a", "cell"]])
    assert index.add("a", [["old", "bank"]]) == Changes(changed=2, deleted=1)
    assert {k: hit.word for k, hit in contents(index).items()} == {
        "a:1:0": "old",
        "a:1:1": "bank",
        "a:2:0": "a",
        "a:2:1": "cell",
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from(["", "x", "y z"]), max_size=4)), max_size=5))
def test_an_index_holds_what_its_sources_held_last(tmp_path_factory, tiny_elmo, updates):
    with Index.create(tmp_path_factory.mktemp("lance") / "index", tiny_elmo) as index:
        for source, lines in updates:
            index.update(source, [line.split() for line in lines])
        held = {f"{s}:{n}": line for s, lines in dict(updates).items() for n, line in enumerate(lines, 1) if line}
        assert {k: hit.text for k, hit in contents(index).items()} == held


def test_a_passage_that_is_split_otherwise_is_computed_again(tiny_elmo, tmp_path):
    with Index.create(tmp_path / "index", tiny_elmo, unit="passage", layers="top") as index:
        index.add("a", [[["old", "bank"], ["river"]]])
        before = index.search(["bank"])
        assert index.add("a", [[["old"], ["bank", "river"]]]) == Changes(changed=1)
        assert index.search(["bank"])[0].score != pytest.approx(before[0].score, abs=1e-5)


def test_what_was_changed_is_seen_by_one_who_has_the_index_open(made, place, tiny_elmo):
    index = made()
    with Index.open(place["address"], tiny_elmo, name=place["name"]) as other:
        index.add("a", [["one"], ["two"]])
        index.optimize()
        assert other.count() == 2
        assert {hit.text for hit in other.search("one")} == {"one", "two"}


# ---------------------------------------------------------------- what an index remembers


def test_it_remembers_how_it_was_made_and_refuses_another_model(made, place, tiny_elmo):
    texts = [text for text in sentences(200) if text]
    index = made(sample=texts, layers="top", pool="white-idf", fields={"year": "integer"}, model_name="m", language="")
    again = Index.open(place["address"], tiny_elmo, name=place["name"])
    assert again.settings == index.settings == settings_of(place["address"], name=place["name"])
    assert (again.settings.layers, again.settings.pool, again.settings.state) == ("top", "white-idf", "fresh")
    np.testing.assert_array_equal(again.pooling.whitening.matrix_DD, index.pooling.whitening.matrix_DD)
    np.testing.assert_array_equal(again.pooling.centre_D, index.pooling.centre_D)
    np.testing.assert_array_equal(again.pooling.idf(WORDS), index.pooling.idf(WORDS))
    again.close()
    other = Elmo(make_checkpoint(seed=1))
    with pytest.raises(
        MismatchError,
        match=f"another model m .fingerprint {tiny_elmo.fingerprint[:12]}, found {other.fingerprint[:12]}",
    ):
        Index.open(place["address"], other, name=place["name"])
    with pytest.raises(OutputError, match="holds an index already"):
        Index.create(place["address"], tiny_elmo, name=place["name"])
    with pytest.raises(MismatchError, match="made with layers 'top', found 'average'"):
        index.settings.check(layers="average", pool=None)


def test_settings_survive_as_json_and_those_of_a_later_version_are_refused(tiny_elmo, tmp_path):
    with Index.create(tmp_path / "index", tiny_elmo, sample=sentences(300), unit="word", words=["B"]) as index:
        plain = json.loads(json.dumps(to_json(index.settings, index.pooling)))
        settings, pooling = from_json(plain)
        assert settings == index.settings
        asked = np.ones(tiny_elmo.dim, np.float32)
        np.testing.assert_array_equal(pooling.word(asked), index.pooling.word(asked))
        with pytest.raises(FormatError, match="expected format 1, found 2; update elmokit"):
            from_json({**plain, "version": 2})


def test_a_small_sample_does_not_whiten(tiny_elmo, tmp_path):
    with Index.create(tmp_path / "index", tiny_elmo, sample=sentences(10)) as index:
        assert index.pooling.whitening is None
        assert index.settings.pool == vectors.DEFAULTS["sentence"][1]


def test_an_index_begun_with_one_text_finds_it(tiny_elmo, tmp_path):
    """The mean of all texts, which is taken off, must not be the text itself."""
    passage = sentences(300)
    with Index.create(tmp_path / "index", tiny_elmo, unit="passage", pool="white-mean", sample=[passage]) as index:
        index.add("s", [passage])
        found = index.search(passage[1])
    assert index.pooling.whitening
    assert [hit.key for hit in found] == ["s:1"]


# ---------------------------------------------------------------- pooling


@given(st.integers(0, 1000))
def test_whitened_vectors_have_no_mean_and_no_direction_of_their_own(seed):
    draw = np.random.default_rng(seed)
    turned = np.linalg.qr(draw.normal(size=(6, 6))).Q
    vectors_ND = (draw.normal(size=(400, 6)) * [9, 5, 1, 1, 0.5, 0.2] @ turned + 7).astype(np.float32)
    words = [f"w{n}" for n in range(400)]
    made = Whitening.of(words, vectors_ND)
    white_ND = (vectors_ND - made.mean_D) @ made.matrix_DD
    np.testing.assert_allclose(white_ND.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(np.cov(white_ND.T, bias=True), np.eye(6), atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(made(vectors_ND), axis=1), 1, rtol=1e-5)


def test_a_frequent_word_does_not_count_more_in_whitening():
    rare = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    words = [*(f"w{n}" for n in range(50)), *["w0"] * 500]
    many = Whitening.of(words, np.concatenate([rare, np.repeat(rare[:1], 500, 0)]))
    once = Whitening.of(words[:50], rare)
    np.testing.assert_allclose(many.mean_D, once.mean_D, atol=1e-5)
    np.testing.assert_allclose(np.abs(many.matrix_DD), np.abs(once.matrix_DD), atol=1e-3)


def test_a_direction_without_spread_is_not_stretched_without_end():
    flat = np.zeros((30, 3), np.float32)
    flat[:, 0] = np.arange(30)
    assert np.isfinite(Whitening.of([str(n) for n in range(30)], flat)(flat + 1)).all()


def test_rare_words_weigh_more():
    idf = Idf.of([["The", "bank"], ["the", "river"], ["the"]])
    np.testing.assert_allclose(idf(["THE", "bank", "unseen"]), [0, math.log(3), math.log(3)], rtol=1e-6)
    np.testing.assert_array_equal(idf(["the"]), [1])  # where no word tells anything, all count
    pooled = Pooling(idf)(["the", "bank"], np.array([[1, 0], [0, 2]], np.float32))
    np.testing.assert_allclose(pooled, [0, 1])
    assert not Pooling(idf)([], np.zeros((0, 2), np.float32)).any()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("no word marked", "one marked word, such as 'the .bank. of the river', found 0"),
        ("*two* words *marked*", "found 2"),
        ("the *old bank* here", "expected one word between the asterisks, found 'old bank'"),
    ],
)
def test_queries_for_uses_that_are_none(query, message):
    with pytest.raises(MismatchError, match=message):
        read_query(query, word=True, symbols=False)


@given(st.lists(st.sampled_from("old bank of Rome , 12".split()), max_size=5), st.lists(st.sampled_from(["a", "b."])))
def test_a_marked_word_is_found_wherever_it_stands(before, after):
    text = " ".join([*before, "*cell*", *after])
    query = read_query(text, word=True, symbols=False)
    assert query.sentences[0][query.place] == "cell"
    assert query.place == len(before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda index: index.search("  "), "has no words"),
        (lambda index: index.search("x", count=0), "from 1 on, found 0"),
        (lambda index: index.search("x", place=0), "mark the word with asterisks"),
        (lambda index: index.search(["x"], place=0), "holds no uses of words"),
        (lambda index: index.search("x", by="sound"), "by: expected 'vector', 'text', 'both', found 'sound'"),
        (lambda index: index.search("x", where=["yaer=1"]), "no field 'yaer'; it has: key, source"),
        (lambda index: index.search("x", where=["year=new"]), "the field year holds integers, found 'new'"),
        (lambda index: index.search("x", where=[Condition("year", "=", "1")]), "holds integers, found '1'"),
        (lambda index: index.search("x", where=["year"]), "expected a condition such as"),
        (lambda index: index.search("x", where=["line>=99999999999999999999"]), "of up to 63 bits, found one of 67"),
        (lambda index: index.search("x", where=["share>=nan"]), "share is compared with nan, expected a finite number"),
        (
            lambda index: index.search("x", where=["share<1e400"]),
            "share is compared with inf, expected a finite number",
        ),
        (
            lambda index: index.search("x", where=["source=\udcff"]),
            "source in a condition: expected UTF-8, found '.udcff'",
        ),
        (lambda index: index.delete(), "what to delete, found none"),
        (lambda index: index.add("s", ["a string"]), "s, line 1: expected a list of tokens, found 'a string'"),
        (lambda index: index.add("", [["x"]]), "name of a source"),
        (
            lambda index: index.add("s", [["x"], ["y"]], first=2**63 - 1),
            "the line in s: expected a whole number of up to 63 bits",
        ),
        (lambda index: index.add("s", [["x"]], fields=[{"month": 1}]), "no field 'month'; it has: year, share"),
        (lambda index: index.add("s", [["x"]], fields=[{"year": "1"}]), "the field year holds integers, found '1'"),
        (
            lambda index: index.add("s", [["x"]], fields=[{"year": 10**400}]),
            "s, line 1: the field year: expected a whole",
        ),
        (lambda index: index.add("\udcff", [["x"]]), "the name of a source: expected UTF-8, found '.udcff'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tiny_elmo, tmp_path, wrong, message):
    with Index.create(tmp_path / "index", tiny_elmo, fields={"year": "integer", "share": "number"}) as index:
        index.add("a", [["x"]])
        with pytest.raises(MismatchError, match=message):
            wrong(index)
        assert index.count() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "all"}, "one vector a word, found 'all'"),
        ({"layers": 9}, "layer 9 does not exist"),
        ({"state": "warm"}, "stores no warmed state"),
        ({"words": ["bank"]}, "words are for an index of uses, found unit 'sentence'"),
        ({"pool": "max"}, "pool: expected 'mean', 'idf', 'white-mean', 'white-idf', found 'max'"),
        ({"unit": "line"}, "unit: expected 'sentence', 'passage', 'word', found 'line'"),
        ({"fields": {"text": "text"}}, "the field 'text' cannot be called so"),
        ({"fields": {"a b": "text"}}, "the field 'a b' cannot be called so"),
        ({"fields": {"rank": "integer"}}, "the field 'rank' cannot be called so"),
    ],
)
def test_an_index_that_cannot_be_is_not_made(tiny_elmo, tmp_path, options, message):
    with pytest.raises(MismatchError, match=message):
        Index.create(tmp_path / "index", tiny_elmo, **options)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:...@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://postgres:@/postgres?host=/tmp/a", "postgresql://postgres:...@/postgres?host=/tmp/a"),
        ("books.index", "books.index"),
    ],
)
def test_no_password_is_printed(address, printed):
    assert shown(address) == printed


def test_a_place_that_holds_something_else_is_left_alone(tiny_elmo, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for address, message in (
        (tmp_path, "holds other files, expected an index"),
        (tmp_path / "notes.txt", "is a file, expected a folder"),
    ):
        with pytest.raises(OutputError, match=message):
            Index.create(address, tiny_elmo)
    with pytest.raises(OutputError, match="there is no index 'elmo' at"):
        Index.open(tmp_path / "absent", tiny_elmo)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("lance", "lancedb", "search"), ("postgres", "psycopg", "postgres")]
)
def test_a_missing_package_is_an_error_that_names_the_command(monkeypatch, module, package, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"elmokit.search.{module}", raising=False)
    with pytest.raises(MissingExtra, match=rf"pip install 'elmokit\[{extra}\]'"):
        importlib.import_module(f"elmokit.search.{module}")
