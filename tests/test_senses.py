"""Senses of a word: uses in groups, typical sentences, nearest words, and the command."""

import json
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn")

from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError, TextError
from elmokit.senses import find_senses

MONEY = [f"he paid {n} coins at the bank to lend money".split() for n in ("one", "two", "three", "four", "five")]
RIVER = [f"{n} reeds grew on the muddy Bank beside water".split() for n in ("one", "two", "three", "four", "five")]
OTHERS = ["he paid money to lend coins".split(), "muddy water grew beside reeds".split()] * 3
TEXT = [*MONEY, [], *RIVER, *OTHERS]


def senses_of(elmo, **options):
    return find_senses(elmo, TEXT, "bank", **{"progress": False, "layer": "top", **options})


def test_uses_of_a_kind_come_together(tiny_elmo):
    found = senses_of(tiny_elmo)
    assert len(found.uses) == 10
    assert {frozenset(use.sentence for use in sense.uses) for sense in found.senses} == {
        frozenset(range(5)),
        frozenset(range(6, 11)),
    }
    assert found.silhouette == found.silhouettes[2] > 0.5


def test_the_most_typical_use_is_nearest_to_the_mean(tiny_elmo):
    found = senses_of(tiny_elmo, n=2)
    vectors = list(tiny_elmo.embed(TEXT, layers="top"))
    for sense in found.senses:
        units = [vectors[use.sentence][use.place] for use in sense.uses]
        units = np.array([v / np.linalg.norm(v) for v in units])
        mean = units.mean(0) / np.linalg.norm(units.mean(0))
        np.testing.assert_allclose([use.similarity for use in sense.uses], units @ mean, atol=1e-5)
        assert [use.similarity for use in sense.uses] == sorted((u.similarity for u in sense.uses), reverse=True)


def test_nearest_words_are_computed_from_their_means(tiny_elmo):
    (sense,) = senses_of(tiny_elmo, n=1, nearest=30).senses
    vectors = list(tiny_elmo.embed(TEXT, layers="top"))
    uses = {}
    for sentence, rows in zip(TEXT, vectors, strict=True):
        for word, row in zip(sentence, rows, strict=True):
            uses.setdefault(word.lower(), []).append(row)
    means = {word: np.mean(rows, axis=0) for word, rows in uses.items()}
    centre = np.mean(list(means.values()), axis=0)
    often = {word for word, rows in uses.items() if len(rows) >= 3} - {"bank"}
    assert {near.word for near in sense.nearest} == often

    def cosine(word):
        a, b = means[word] - centre, means["bank"] - centre
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    np.testing.assert_allclose(
        [n.similarity for n in sense.nearest], [cosine(n.word) for n in sense.nearest], atol=1e-5
    )
    assert [n.similarity for n in sense.nearest] == sorted((n.similarity for n in sense.nearest), reverse=True)


def test_the_number_may_be_chosen_and_the_seed_is_kept(tiny_elmo):
    three, again = (senses_of(tiny_elmo, n=3, nearest=0) for _ in range(2))
    assert three == again
    assert len(three.senses) == 3
    assert [len(sense.uses) for sense in three.senses] == sorted((len(s.uses) for s in three.senses), reverse=True)
    assert senses_of(tiny_elmo, n=1).silhouette is None


def test_layer_0_has_one_sense_for_one_spelling(tiny_elmo):
    found = find_senses(tiny_elmo, MONEY, "bank", layer="0", progress=False)
    assert (len(found.senses), found.silhouette) == (1, None)


def test_one_long_token_does_not_take_its_memory_for_every_word(tiny_elmo):
    sentences = [f"the bank of word{n} is here".split() for n in range(200)] + [["bank", "x" * 100_000]]
    tracemalloc.start()
    find_senses(tiny_elmo, sentences, "bank", n=2, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # 1,200 tokens of 400 kB each would be 480 MB


def test_what_cannot_be_is_told(tiny_elmo):
    with pytest.raises(TextError, match="no use of 'zebra'"):
        find_senses(tiny_elmo, TEXT, "zebra", progress=False)
    with pytest.raises(MismatchError, match="between 1 and 10 groups"):
        senses_of(tiny_elmo, n=11)


# ---------------------------------------------------------------- the commands


@pytest.fixture
def run(run, tiny, tmp_path, monkeypatch):
    """`run` of all tests, in a folder with a text and a model, of which the command is told."""
    write_native(tiny, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n".join(" ".join(sentence) for sentence in TEXT))
    return lambda *args: run(*args, "--model", "model")


def test_senses_are_printed(run):
    code, out, _ = run("senses", "bank", "text.txt", "--layer", "top", "--examples", 2, "--nearest", 3)
    assert code == 0
    assert out.startswith("bank: 10 uses in 2 groups, silhouette 0.")
    assert out.count("[bank]") == out.count("[Bank]") == 2
    assert out.count("nearest words: ") == 2


def test_senses_as_json_hold_every_use(run):
    code, out, _ = run("senses", "BANK", "text.txt", "--json", "-n", 2)
    found = json.loads(out)
    assert (code, found["uses"], len(found["senses"])) == (0, 10, 2)
    assert all(use["tokens"][use["place"]].lower() == "bank" for sense in found["senses"] for use in sense["uses"])
    assert sorted(use["sentence"] for sense in found["senses"] for use in sense["uses"]) == [
        0,
        1,
        2,
        3,
        4,
        *range(5, 10),
    ]


def test_a_word_that_is_not_there_is_one_line(run):
    code, out, err = run("senses", "zebra", "text.txt")
    assert (code, out) == (1, "")
    assert err == "elmo: the text has no use of 'zebra'; expected the word itself, as a token\n"


@pytest.mark.parametrize("ending", ["png", "svg", "html", "parquet"])
def test_a_map_is_written(run, tmp_path, ending):
    for package in ("matplotlib", "bokeh", "pyarrow"):
        pytest.importorskip(package)
    code, out, err = run("plot", "text.txt", f"map.{ending}", "--word", "bank", "--projection", "pca")
    assert (code, out) == (0, "")
    assert f"map.{ending}: 10 uses of bank, coloured by cluster" in err
    assert (tmp_path / f"map.{ending}").stat().st_size > 2000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["map.gif"], 1, "expected a name that ends in one of .png .svg .html .parquet"),
        (["map.png", "--by", "label"], 1, "no labels; name their column with --label"),
        (["map.png", "--layer", "7"], 1, "layer '7' is not there"),
        (["map.png", "--word", "zebra"], 1, "no use of 'zebra'"),
        (["map.png", "--word", "bank", "--sentences"], 2, "choose one"),
        (["map.png", "--by", "pos", "--clusters", "2"], 2, "it is for --by cluster"),
    ],
)
def test_what_is_wrong_leaves_nothing(run, tmp_path, arguments, code, message):
    pytest.importorskip("matplotlib")
    found, _, err = run("plot", "text.txt", *arguments)
    assert found == code
    assert message in err
    assert not list(tmp_path.glob("map*"))
