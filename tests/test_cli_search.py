"""`elmo index` and `elmo search`: what is printed and written, and one plain sentence for whatever is wrong."""

import json
import shutil

import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import make_checkpoint
from elmokit.checkpoint import write_native
from elmokit.search import settings_of

pytest.importorskip("lancedb")

TEXT = "The old bank of the river\n\nMoney in the bank\nA prison cell\n"


@pytest.fixture
def here(tiny, tmp_path, monkeypatch):
    """An empty folder to work in, with a text and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    write_native(tiny, tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def run(here, run):
    """`run` of all tests, in that folder."""
    return run


@pytest.fixture
def done(run):
    """Run what must succeed; return standard output, and of standard error what is no progress bar."""

    def done(*args, stdin=""):
        code, out, err = run(*args, stdin=stdin.encode())
        assert code == 0, err
        return out, [line for line in err.splitlines() if " texts" not in line and line]

    return done


def rows(out):
    header, *lines = (line.split("\t") for line in out.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_sentences_are_indexed_brought_up_to_date_and_found(done, here):
    _, told = done("index", "text.txt", "db", "--model", "tiny")
    assert told == ["db: 3 rows (3 added, 0 changed, 0 unchanged, 0 deleted)"]
    # the model is the one that the index remembers
    out, _ = done("search", "db", "Money in the bank", "-k", "2")
    first, second = rows(out)
    assert (first["rank"], first["score"], first["source"], first["line"]) == ("1", "1.0000", "text.txt", "3")
    assert first["text"] == "Money in the bank"
    assert second["rank"] == "2"
    (here / "text.txt").write_text("A new bank\nMoney in the bank\n")
    assert done("index", "text.txt", "db")[1] == ["db: 2 rows (1 added, 1 changed, 0 unchanged, 2 deleted)"]
    assert [row["line"] for row in rows(done("search", "db", "new", "--by", "text")[0])] == ["1"]
    assert done("index", "text.txt", "db", "--delete")[1] == ["text.txt: 2 rows deleted"]
    assert rows(done("search", "db", "new")[0]) == []


def test_a_folder_is_deleted_as_it_is_indexed(done, here):
    (here / "news").mkdir()
    (here / "text.txt").rename(here / "news" / "text.txt")
    done("index", "news", "db", "--model", "tiny")
    assert done("index", "news", "db", "--delete")[1] == ["news/text.txt: 3 rows deleted"]


def test_uses_of_a_word_are_found(done):
    done("index", "text.txt", "db", "--model", "tiny", "--word", "Bank")
    assert settings_of("db").unit == "word"
    (hit,) = rows(done("search", "db", "the *bank* of the river", "--where", "line<3")[0])
    assert hit["text"] == "The old *bank* of the river"


def test_many_queries_as_json_and_parquet(done, here):
    done("index", "text.txt", "db", "--model", "tiny")
    queries = "money\n\nold river\n"
    found = [json.loads(line) for line in done("search", "db", "-", "--json", "-k", "2", stdin=queries)[0].splitlines()]
    assert [(row["query"], row["rank"]) for row in found] == [
        ("money", 1), ("money", 2), ("old river", 1), ("old river", 2)
    ]  # fmt: skip
    assert {"score", "key", "source", "line", "place", "word", "text", "marked"} < set(found[0])
    _, told = done("search", "db", "-", "--out", "hits.parquet", "-k", "2", stdin=queries)
    assert told == ["hits.parquet: 4 rows"]
    assert parquet.read_table("hits.parquet").to_pylist() == found


def test_standard_input_is_read_once(done):
    _, told = done("index", "-", "db", "--model", "tiny", stdin=TEXT)
    assert told == ["db: 3 rows (3 added, 0 changed, 0 unchanged, 0 deleted)"]
    assert {row["source"] for row in rows(done("search", "db", "bank")[0])} == {"-"}


def test_passages_of_raw_text(done, here):
    (here / "raw.txt").write_text("He can't swim. The river is deep!\nBanks lend.\n")
    done("index", "raw.txt", "db", "--model", "tiny", "--unit", "passage", "--tokenize")
    found = rows(done("search", "db", "river", "--by", "text")[0])
    assert [(row["line"], row["text"]) for row in found] == [("1", "He ca n't swim . The river is deep !")]


def test_columns_of_parquet_are_kept_and_filtered_by(done, run, here):
    table = {"text": ["a river", "a bank", "a cell"], "year": [1990, None, 2010], "by": ["Ann", "Bo", "Ann"]}
    parquet.write_table(pa.table(table), here / "data.parquet")
    arguments = ["index", "data.parquet", "db", "--column", "text", "--model", "tiny"]
    done(*arguments, "--field", "year", "--field", "by")
    assert settings_of("db").fields == {"year": "integer", "by": "text"}
    (hit,) = rows(done("search", "db", "x", "--where", "year>=2000", "--where", "by=Ann")[0])
    assert (hit["year"], hit["by"], hit["text"]) == ("2010", "Ann", "a cell")
    # the index remembers the columns
    assert done(*arguments)[1] == ["db: 3 rows (0 added, 0 changed, 3 unchanged, 0 deleted)"]
    code, _, err = run(*arguments, "--field", "year")
    assert code == 1
    assert "made with fields {'year': 'integer', 'by': 'text'}, found {'year': 'integer'}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nothing", "x"], "there is no index 'elmo' at nothing; make one with  elmo index TEXT nothing"),
        (["search", "text.txt", "x"], "text.txt is a file, expected a folder"),
        (["search", "db", "x", "--where", "line~1"], "expected a condition such as  source=a.txt  or  line>=10"),
        (["search", "db", "x", "--model", "other"], "the index db was made with another model"),
        (["index", "text.txt", "db", "--model", "other"], "the index db was made with another model"),
        (["index", "text.txt", "db", "--layers", "top"], "the index was made with layers 0, found 'top'"),
        (["index", "text.txt", "db", "--state", "warm"], "the index was made with state 'fresh', found 'warm'"),
        (["index", "text.txt", "db", "--pool", "mean"], "the index was made with pool 'white-idf', found 'mean'"),
        (["index", "text.txt", "new", "--pool", "max", "--model", "tiny"], "pool: expected 'mean', 'idf'"),
        (["index", "text.txt", "new", "--state", "warm", "--model", "tiny"], "this model stores no warmed state"),
        (["index", "text.txt", "db", "--field", "year"], "is no Parquet file and has no columns to keep"),
        (["index", "absent.txt", "db"], "absent.txt cannot be read"),
        (["index", "fake.parquet", "new", "--field", "year", "--model", "tiny"], "fake.parquet cannot be read"),
        (["index", "text.txt", "new", "--language", "Klingon", "--model", "tiny"], "requested language: 'Klingon'"),
        (["search", "db", "x", "--out", "tiny"], "tiny is a directory, expected the name of a file to write"),
        (["search", "db", "x", "--out", "nothing/x.parquet"], "the folder nothing does not exist; make it first"),
        (["search", "foo://bar/x", "x"], "the index foo://bar/x cannot be read"),
        (["search", "postgresql://127.0.0.1:1/x", "x"], "the server of the index cannot be reached"),
    ],
)
def test_what_is_wrong_is_one_sentence(done, run, here, arguments, message):
    write_native(make_checkpoint(seed=1), here / "other")
    (here / "fake.parquet").write_bytes(b"PAR1" + b"x" * 100)
    done("index", "text.txt", "db", "--model", "tiny")
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    [sentence] = [line for line in err.splitlines() if line.startswith("elmo: ")]
    assert message in sentence
    assert "Traceback" not in err
    assert not (here / "new").exists()
    assert not (here / "nothing").exists()
    assert len(rows(done("search", "db", "x")[0])) == 3


@pytest.mark.parametrize("lost", ["elmo.lance", "elmo.lance/data", "elmo_settings.lance/data"])
def test_a_damaged_index_is_told_in_one_sentence(done, run, here, lost):
    done("index", "text.txt", "db", "--model", "tiny")
    shutil.rmtree(here / "db" / lost)
    for arguments in (["search", "db", "x"], ["index", "text.txt", "db"]):
        code, _, err = run(*arguments)
        assert code == 1
        assert "elmo: the index db " in err
        assert "Traceback" not in err


def test_values_that_tsv_and_json_cannot_hold(done, here):
    table = {"text": ["a river"], "by": ["Ann\tand\nBo"], "share": [float("inf")]}
    parquet.write_table(pa.table(table), here / "data.parquet")
    done("index", "data.parquet", "db", "--column", "text", "--field", "by", "--field", "share", "--model", "tiny")
    (hit,) = rows(done("search", "db", "x")[0])
    assert (hit["by"], hit["share"]) == ("Ann and Bo", "inf")
    row = json.loads(done("search", "db", "x", "--json")[0])
    assert (row["by"], row["share"]) == ("Ann\tand\nBo", None)
    done("search", "db", "x", "--where", "line>9", "--out", "none.parquet")
    none = parquet.read_table("none.parquet")
    done("search", "db", "x", "--out", "one.parquet")
    assert none.num_rows == 0
    assert none.schema == parquet.read_schema("one.parquet")


def test_the_same_commands_with_a_server(done, server):
    done("index", "text.txt", server.address, "--model", "tiny", "--name", "commands", "--word", "bank")
    out, _ = done("search", server.address, "the old *bank* of the river", "--name", "commands", "-k", "1")
    assert rows(out)[0]["text"] == "The old *bank* of the river"
