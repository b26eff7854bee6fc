"""Reading texts: any bytes in, sentences or one plain error out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmokit.errors import TextError
from elmokit.reading import Splitter, expand, read_items, read_lines, read_sentences


@pytest.fixture
def written(tmp_path):
    """A function from bytes to the path of a file that holds them."""

    def write(content, name="text.txt"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a b\nc\n", [["a", "b"], ["c"]]),
        (b"a b\r\nc\r\n", [["a", "b"], ["c"]]),
        (b"a b\r\nc\n", [["a", "b"], ["c"]]),
        (b"a b\nc", [["a", "b"], ["c"]]),
        (b"\xef\xbb\xbfa b\nc\n", [["a", "b"], ["c"]]),
        (b"\xef\xbb\xbf\nc\n", [[], ["c"]]),
        (b"a\n\n \t \n\nb\n\n", [["a"], [], [], [], ["b"], []]),
        (b"\n", [[]]),
        (b"", []),
        (b"  a \t b  \n", [["a", "b"]]),
        (b"a\x00b \x00\n", [["a\x00b", "\x00"]]),
        ("<S> \U0001f98a שלום עולם\n".encode(), [["<S>", "\U0001f98a", "שלום", "עולם"]]),
        ("a\n\ufeffb\n".encode(), [["a"], ["\ufeffb"]]),
    ],
)
def test_one_sentence_a_line(written, content, expected):
    assert list(read_sentences(written(content))) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_line_feeds_end_lines(written, separator):
    path = written(f"a{separator}b\nc\n".encode())
    assert list(read_lines(path)) == [f"a{separator}b", "c"]
    assert list(read_sentences(path)) == [["a", "b"], ["c"]]


@settings(deadline=None)
@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1), max_size=5)))
def test_what_is_written_is_read(tmp_path_factory, sentences):
    path = tmp_path_factory.getbasetemp() / "written.txt"
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences), "utf-8", newline="\n")
    assert list(read_sentences(path)) == sentences


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\nna\xefve\n", r"line 2, byte 3: expected UTF-8, found byte 0xef; .*iconv"),
        (b"\xef\xbb\xbfab\xff\n", r"line 1, byte 6: expected UTF-8, found byte 0xff"),
        ("naïve\n".encode("utf-16"), r"line 1, byte 1: expected UTF-8, found byte 0xff"),
        (b"cut \xe5\x8c", r"line 1, byte 5: expected UTF-8, found byte 0xe5"),
        (b"surrogate \xed\xa0\x80\n", r"line 1, byte 11: expected UTF-8, found byte 0xed"),
    ],
)
def test_what_is_not_utf_8_is_named_by_line_and_byte(written, content, message):
    path = written(content)
    with pytest.raises(TextError, match=message) as caught:
        list(read_sentences(path))
    assert str(path) in str(caught.value)


def test_sentences_before_a_bad_line_come_first(written):
    sentences = read_sentences(written(b"a\nb\n\xff\n"))
    assert list(islice(sentences, 2)) == [["a"], ["b"]]
    with pytest.raises(TextError):
        next(sentences)


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "text.gz"), (lzma.compress, "text.xz")])
def test_compressed_texts(written, compress, name):
    content = compress(b"a b\n" * 50_000)
    assert list(read_sentences(written(content, name))) == [["a", "b"]] * 50_000
    truncated, changed = content[:-20], content[:60] + bytes(200) + content[60:]
    for broken in (truncated, changed, b"not compressed\n"):
        with pytest.raises(TextError, match=r"text\..z cannot be read \(.+\); check the file"):
            list(read_sentences(written(broken, name)))


def test_a_directory_and_a_missing_file(tmp_path):
    with pytest.raises(TextError, match="is a directory, expected a text file"):
        list(read_sentences(tmp_path))
    with pytest.raises(TextError, match=r"absent\.txt cannot be read \(No such file or directory\)"):
        list(read_sentences(tmp_path / "absent.txt"))


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffé b\n\nc".encode()), "ascii"))
    assert list(read_sentences("-")) == [["é", "b"], [], ["c"]]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff")))
    with pytest.raises(TextError, match="standard input, line 2, byte 1"):
        list(read_sentences("-"))
    with pytest.raises(TextError, match="standard input is no Parquet file and has no column 'text'"):
        list(read_sentences("-", column="text"))


# ---------------------------------------------------------------- raw text


def test_raw_text_is_split_into_sentences_and_tokens(written):
    content = "The cat sat. It didn't purr (twice)!\n\n  \nשלום עולם\n".encode()
    assert list(read_sentences(written(content), tokenize=True)) == [
        ["The", "cat", "sat", "."],
        ["It", "did", "n't", "purr", "(", "twice", ")", "!"],
        ["שלום", "עולם"],
    ]


def test_raw_text_of_strange_characters(written):
    content = b"a\x00b <S> \x00 \xe2\x80\x8b\n" + "\U0001f98a\u2028x\n".encode() + b"x" * 100_000
    sentences = list(read_sentences(written(content), tokenize=True))
    assert sentences[0] == ["a\x00b", "<", "S", ">", "\x00"]
    assert sentences[1:] == [["\U0001f98a", "x"], ["x" * 100_000]]


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text(" ab.'-_\u200b\xad\n"))
def test_raw_text_gives_no_empty_token_or_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "raw.txt"
    path.write_bytes(text.encode())
    for sentence in read_sentences(path, tokenize=True):
        assert sentence
        assert all(sentence)


# ---------------------------------------------------------------- packed, FASTA, Parquet


def zstandard(content):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("ending", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard)],
)
def test_packed_texts(written, ending, pack):
    content = "é b\nc\n".encode() * 20_000
    assert list(read_sentences(written(pack(content), f"a.txt{ending}"))) == [["é", "b"], ["c"]] * 20_000
    fasta = written(pack(b">a\nMK\n"), f"a.fa{ending}")
    assert list(read_sentences(fasta)) == [["M", "K"]]
    for broken in (pack(content)[:-9], b"no such thing"):
        path = written(broken, f"b.txt{ending}")
        with pytest.raises(TextError, match=r"b\.txt.* cannot be read"):
            list(read_sentences(path))


def test_fasta_gives_one_sentence_a_record(written):
    content = b"; a comment\n>sp|P1 first\nMKV\nlla*\n\n>second\n>third\n G A \n"
    assert list(read_sentences(written(content, "p.fasta"))) == [list("MKVLLA"), [], ["G", "A"]]
    with pytest.raises(TextError, match=r"p\.faa, line 1: expected '>'"):
        list(read_sentences(written(b"MKV\n", "p.faa")))


def test_symbols():
    assert list(Splitter(symbols=True)(["AB c", "", "é"])) == [["A", "B", "c"], [], ["é"]]


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_tokens_that_are_missing_or_empty_are_none(tmp_path):
    path = parquet(tmp_path / "tokens.parquet", words=[["a", None, "", "b"], None, [None]])
    assert list(read_sentences(path)) == [["a", "b"], [], []]


@pytest.mark.parametrize(
    "kind", [pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.string_view(), pyarrow.large_string()]
)
def test_parquet_columns_of_every_kind_of_string(tmp_path, kind):
    path = parquet(tmp_path / "text.parquet", text=pyarrow.array(["a b", None, "a b"], pyarrow.string()).cast(kind))
    assert list(read_sentences(path)) == [["a", "b"], [], ["a", "b"]]


def test_parquet_columns(tmp_path):
    path = parquet(tmp_path / "one.parquet", number=[1, 2, 3], body=["a b", None, "c"])
    assert list(read_sentences(path)) == [["a", "b"], [], ["c"]]
    path = parquet(tmp_path / "named", text=["a b"], title=["t"])  # known by its content
    assert list(read_sentences(path)) == [["a", "b"]]
    assert list(read_sentences(path, column="title")) == [["t"]]
    path = parquet(tmp_path / "tokens.parquet", words=[["a b", "c"], []])
    assert list(read_sentences(path)) == [["a b", "c"], []]
    path = parquet(tmp_path / "two.parquet", left=["a"], right=["b"])
    with pytest.raises(TextError, match="columns of strings: left, right; name one with --column"):
        list(read_sentences(path))
    with pytest.raises(TextError, match="no column of strings called 'middle'"):
        list(read_sentences(path, column="middle"))
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TextError, match=r"broken\.parquet cannot be read"):
        list(read_sentences(tmp_path / "broken.parquet"))
    (tmp_path / "text.txt").write_text("a\n")
    with pytest.raises(TextError, match="is no Parquet file"):
        list(read_items(tmp_path / "text.txt", column="body"))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="pipes have no names here")
def test_a_pipe_with_a_name_is_read_from_its_beginning():
    """As the shell's <(...) makes one."""
    reader, writer = os.pipe()
    os.write(writer, b"a b\nc\n")
    os.close(writer)
    assert list(read_sentences(f"/dev/fd/{reader}")) == [["a", "b"], ["c"]]
    os.close(reader)


def test_a_giant_line_is_refused(written, monkeypatch):
    monkeypatch.setattr("elmokit.reading._LONGEST_LINE", 100)
    assert list(read_lines(written(b"a" * 99 + b"\nb"))) == ["a" * 99, "b"]
    with pytest.raises(TextError, match="line 2 is longer than"):
        list(read_lines(written(b"a\n" + b"b" * 101)))


# ---------------------------------------------------------------- finding


def test_names_stand_for_files_folders_and_patterns(tmp_path):
    for name in ("b.txt", "a.txt.gz", "deep/c.fasta", "deep/d.parquet", ".hidden/e.txt", "notes.md", "[odd].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = [str(tmp_path / name) for name in ("[odd].txt", "a.txt.gz", "b.txt", "deep/c.fasta", "deep/d.parquet")]
    assert expand([str(tmp_path)]) == inside
    assert expand([f"{tmp_path}/*.txt*", "-"]) == [*inside[:3], "-"]
    assert expand([f"{tmp_path}/**/*.fasta"]) == [inside[3]]
    assert expand([inside[0], "absent.txt"]) == [inside[0], "absent.txt"]  # whoever reads it says that it is absent
    for name in ("old/vocab.txt", "old/model.safetensors", "begun/training/corpus/vocabulary.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert expand([str(tmp_path)]) == inside  # the words of a model are no text
    with pytest.raises(TextError, match="no file matches"):
        expand([f"{tmp_path}/*.csv"])
    with pytest.raises(TextError, match="only once"):
        expand(["-", "-"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextError, match="holds no text"):
        expand([str(tmp_path / "empty")])
