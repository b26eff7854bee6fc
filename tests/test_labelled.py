"""Labelled texts: tables and CoNLL-U, what is read of them, and one plain sentence for what cannot be."""

import csv
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmokit.errors import TextError
from elmokit.labelled import LabelledText, joined, read_labelled

CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVB\tNumber=Sing|Person=1\t0\troot\t_\tSense=a
2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_
2.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_

1\tcats\tcat\tNOUN\tNNS\tNumber=Plur\t0\troot\t_\t_
"""


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_table_is_read_by_its_header(file):
    text = read_labelled(file("a.tsv", 'id\tSentence\tsense\n1\tthe "old bank\tmoney\n\n2\ta bank\t\n'))
    assert text == LabelledText([["the", '"old', "bank"], ["a", "bank"]], labels=["money", "_"])


def test_columns_are_named(file):
    path = file("a.csv", 'a,b,c\nx y,"one, two",1\nz,"three",2\n')
    assert read_labelled(path, column="b", label="C").sentences == [["one,", "two"], ["three"]]
    assert read_labelled(path, column="b", label="C").labels == ["1", "2"]
    assert read_labelled(path, column="a").labels is None


def test_columns_are_numbered_where_there_is_no_header(file):
    text = read_labelled(file("a.tsv", "good\tfine day\nbad\train\n"), column="2", label="1")
    assert (text.sentences, text.labels) == ([["fine", "day"], ["rain"]], ["good", "bad"])


def test_raw_text_of_a_row_may_be_several_sentences(file):
    text = read_labelled(file("a.tsv", "text\tlabel\nIt rains. We stay.\tsad\n"), tokenize=True)
    assert text.sentences == [["It", "rains", "."], ["We", "stay", "."]]
    assert text.labels == ["sad", "sad"]


def test_a_packed_table_is_a_table(tmp_path):
    with gzip.open(tmp_path / "a.tsv.gz", "wt") as stream:
        stream.write("text\tlabel\na b\tx\n")
    assert read_labelled(tmp_path / "a.tsv.gz").labels == ["x"]


def test_conllu_has_words_and_parts_of_speech(file):
    text = read_labelled(file("a.conllu", CONLLU))
    assert text.sentences == [["do", "n't"], ["cats"]]
    assert text.parts_of_speech == [["AUX", "PART"], ["NOUN"]]
    assert text.word_labels is None


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("deprel", [["root", "advmod"], ["root"]]),
        ("XPOS", [["VB", "RB"], ["NNS"]]),
        ("Number", [["Sing", "_"], ["Plur"]]),
        ("Sense", [["a", "_"], ["_"]]),
    ],
)
def test_conllu_labels(file, label, wanted):
    assert read_labelled(file("a.conllu", CONLLU), label=label).word_labels == wanted


def test_any_other_text_has_no_labels(file):
    assert read_labelled(file("a.txt", "a b\n\nc\n")) == LabelledText([["a", "b"], ["c"]])


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.tsv", "x\ty\n1\t2\n", {}, "line 1: expected a column called sentence, text, tokens, found x, y"),
        ("a.tsv", "text\ty\n1\t2\n", {"label": "z"}, "has no column 'z' for the labels; its columns: text, y"),
        ("a.tsv", "text\tlabel\nonly one\n", {}, "line 2 has 1 columns, expected at least 2"),
        ("a.tsv", "1\t2\n", {"label": "1"}, "give it with --column"),
        ("a.tsv", "text\tlabel\n", {}, "holds no sentence"),
        ("a.tsv", "", {}, "found no line"),
        ("a.txt", "a b\n", {"label": "x"}, "has no columns to take the label 'x' from"),
        ("a.conllu", "1\tcat\n", {}, "line 1: expected 10 columns parted by tabs, found 2"),
        ("a.conllu", CONLLU, {"label": "Case"}, "has no label 'Case'; expected a column"),
        ("a.conllu", "# nothing\n", {}, "holds no sentence"),
        ("a.csv", 'text\n"' + "x" * 200_000 + '"\n', {}, "line 2 cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(file, name, content, options, message):
    with pytest.raises(TextError) as caught:
        read_labelled(file(name, content), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_are_joined_and_keep_what_all_have():
    one, two = LabelledText([["a"]], labels=["x"]), LabelledText([["b"], ["c"]], labels=["y", "z"])
    assert joined([one, two]) == LabelledText([["a"], ["b"], ["c"]], labels=["x", "y", "z"])
    assert joined([one, LabelledText([["b"]])]) == LabelledText([["a"], ["b"]])


WORDS = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=5), WORDS), min_size=1, max_size=5))
def test_what_is_written_as_csv_is_read_again(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *((" ".join(words), label) for words, label in rows)])
    text = read_labelled(path)
    assert text.sentences == [words for words, _ in rows]
    assert text.labels == [label for _, label in rows]
