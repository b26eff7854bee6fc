"""What the server finds in an index, and senses of words; the page shows uses in the corpus."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import make_checkpoint
from elmokit.cli import main
from elmokit.model import Elmo
from elmokit.serve import Hosted, Limits, Settings
from serving import WORDS, make_hosted, post, served

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")
search = pytest.importorskip("elmokit.search")
senses = pytest.importorskip("elmokit.senses")

CORPUS = [
    ["the", "cat", "sat", "on", "the", "mat", "."],
    ["the", "dog", "sat", "."],
    ["it", "purred", "."],
    ["a", "cat", "purred", "on", "it", "."],
]


@pytest.fixture(scope="module")
def elmo():
    return Elmo(make_checkpoint(vocabulary=WORDS))


@pytest.fixture(scope="module", params=["word", "sentence"])
def index(request, elmo, tmp_path_factory):
    address = tmp_path_factory.mktemp("index") / request.param
    with search.Index.create(address, elmo, unit=request.param, pool="mean") as index:
        index.add("corpus.txt", CORPUS)
        yield index


@pytest.fixture(scope="module")
def address(elmo, index):
    with served(Hosted("tiny", elmo, index=index), make_hosted("other")) as address:
        yield address


def test_search_finds_what_the_index_finds(address, index):
    place = 1 if index.settings.unit == "word" else None
    wanted = {"sentence": CORPUS[0], "k": 3} | ({"place": place} if place else {})
    reply = post(address, "/search", wanted)
    assert reply.status_code == 200, reply.text
    expected = index.search(CORPUS[0], place=place, count=3)
    assert len(expected) == 3
    for found, hit in zip(reply.json()["found"], expected, strict=True):
        assert found["score"] == pytest.approx(hit.score)
        assert (found["text"], found["source"], found["line"]) == (hit.text, "corpus.txt", hit.line)
        assert (found["place"], found["word"]) == ((hit.place, hit.word) if place else (None, None))


def test_searches_and_substitutes_asked_together_are_told_apart(address, index):
    """With the same k they are alike in all but what is asked."""
    place = {"place": 1} if index.settings.unit == "word" else {}
    asked = [("/search", {"sentence": CORPUS[0], "k": 3, **place}, "found")]
    asked += [("/substitutes", {"sentence": CORPUS[0], "k": 3, "place": 1}, "substitutes")]
    alone = [post(address, path, wanted).json()[key] for path, wanted, key in asked]
    with ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(lambda one: post(address, one[0], {**one[1], "model": "tiny"}), asked * 40))
    for number, reply in enumerate(replies):
        assert reply.status_code == 200, reply.text
        assert reply.json()[asked[number % 2][2]] == alone[number % 2]


def test_search_says_what_is_wrong(address, index):
    wrong = {} if index.settings.unit == "word" else {"place": 0}
    reply = post(address, "/search", {"sentence": ["cat"], **wrong})
    assert reply.status_code == 422
    assert "place" in reply.json()["error"]
    reply = post(address, "/search", {"sentence": ["cat"], "model": "other"})
    assert (reply.status_code, "start the server with --index" in reply.json()["error"]) == (422, True)


def test_senses_are_those_of_find_senses(address, elmo):
    reply = post(address, "/senses", {"sentences": CORPUS, "word": "sat", "n": 2, "layer": "top"})
    assert reply.status_code == 200, reply.text
    expected = senses.find_senses(elmo, CORPUS, "sat", n=2, layer="top", progress=False).as_dict()
    assert [len(sense["uses"]) for sense in reply.json()["senses"]] == [len(s["uses"]) for s in expected["senses"]]
    assert reply.json()["uses"] == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"word": "unheard"}, "no use of 'unheard'"),
        ({"word": "cat", "layer": "9"}, "layer '9' is not there"),
        ({"word": "cat", "n": 20}, "groups"),
        ({"word": ""}, "word: "),
    ],
)
def test_senses_say_what_is_wrong(address, wanted, message):
    reply = post(address, "/senses", {"sentences": CORPUS, **wanted})
    assert reply.status_code == 422
    assert message in reply.json()["error"]


def test_too_many_uses_are_refused(elmo):
    with served(Hosted("tiny", elmo), settings=Settings(limits=Limits(tokens=3000))) as address:
        reply = post(address, "/senses", {"sentences": [["a"] * 2001], "word": "A"})
        assert (reply.status_code, "at most 2000 are grouped" in reply.json()["error"]) == (422, True)


def test_a_missing_package_is_named(elmo, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with served(Hosted("tiny", elmo)) as address:
        reply = post(address, "/senses", {"sentences": CORPUS, "word": "sat", "n": 1})
        assert (reply.status_code, "pip install" in reply.json()["error"]) == (501, True)


def test_an_index_of_another_model_is_refused(index, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["elmo", "serve", "bundled", "--index", index.address])
    with pytest.raises(SystemExit):
        main()
    assert "was made with none of these models" in capsys.readouterr().err


def test_an_index_is_looked_for_under_its_name(elmo, index, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["elmo", "serve", "bundled", "--index", index.address, "--index-name", "other"])
    with pytest.raises(SystemExit):
        main()
    assert "there is no index 'other'" in capsys.readouterr().err


def test_the_page_shows_uses_in_the_corpus(address, index):
    page_tests = pytest.importorskip("test_serve_page")
    if not page_tests.BROWSER:
        pytest.skip("no Chromium is here")
    with page_tests.playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=page_tests.BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(str(address))
        page_tests.show(page, "a cat sat")
        page_tests.word(page, 1).click()
        place = 1 if index.settings.unit == "word" else None
        expected = index.search(["a", "cat", "sat"], place=place, count=10)
        rows = page.locator("#corpus li")
        page_tests.playwright.expect(rows).to_have_count(len(expected))
        page_tests.playwright.expect(rows.first).to_contain_text(f"{expected[0].score:.3f}")
        for row, hit in zip(rows.all(), expected, strict=True):
            assert " ".join(row.locator("span").nth(1).inner_text().split()) == hit.text
            if place is not None:
                assert row.locator("b").inner_text() == hit.word
        browser.close()
