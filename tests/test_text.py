"""Spelling and batching: any bytes, any Unicode, exactly as the old tools spell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from bundle_writer import within
from elmokit.errors import FormatError
from elmokit.text import (
    BEGIN_SENTENCE,
    END_SENTENCE,
    CodePointSpeller,
    LexiconSpeller,
    Marks,
    Utf8Speller,
    WordAndCharacterSpeller,
    make_batch,
    plan_batches,
)

# st.text() leaves lone surrogates out; a Python string may hold them.
any_word = st.text(st.characters(exclude_categories=()), max_size=80)
any_sentence = st.lists(any_word, max_size=12)


# ---------------------------------------------------------------- spelling


@given(words=st.lists(any_word | st.sampled_from(["<S>", "</S>", "<UNK>", ""]), max_size=6), size=st.integers(3, 60))
def test_any_word_is_spelled_as_the_reference_spells(words, size):
    chars_UC = Utf8Speller(size).spell(words)
    assert chars_UC.dtype == np.uint16
    assert chars_UC.shape == (len(words), size)
    assert chars_UC.tolist() == [reference.spell(word, size) for word in words]


def test_bytes_between_marks():
    [row] = Utf8Speller(8).spell(["né"])
    assert row.tolist() == [258, ord("n"), 0xC3, 0xA9, 259, 260, 260, 260]


def test_long_words_are_cut_at_48_bytes_even_inside_a_character():
    whole, inside = Utf8Speller(50).spell(["a" * 46 + "é", "a" * 47 + "é"])
    assert whole.tolist() == [258, *[97] * 46, 0xC3, 0xA9, 259]
    assert inside.tolist() == [258, *[97] * 47, 0xC3, 259]


def test_lone_surrogates_vanish_however_many_there_are():
    words = ["\ud800a", "a", "\ud800" * 1000 + "a", "\ud800"]
    one, two, three, none = Utf8Speller().spell(words).tolist()
    assert one == two == three
    assert none[:3] == [258, 259, 260]


def test_sentence_marks_written_in_the_text_are_the_marks():
    chars_UC = Utf8Speller().spell([BEGIN_SENTENCE, END_SENTENCE, "<UNK>", "<s>"])
    assert [row[:4].tolist() for row in chars_UC] == [
        [258, 256, 259, 260],
        [258, 257, 259, 260],
        [258, *b"<UN"],
        [258, *b"<s>"],
    ]


def test_a_token_of_100_000_characters_is_cheap():
    chars_UC = within(1_000_000, lambda: Utf8Speller().spell(["北" * 100_000] * 20))  # a list of its bytes takes 2.4 MB
    assert chars_UC[0].tolist() == [258, *("北" * 16).encode(), 259]


# ---------------------------------------------------------------- lexicon

LEXICON = ("<S>", "</S>", "<UNK>", "the", "cat")


def test_words_from_a_vocabulary():
    ids = LexiconSpeller(LEXICON).spell(["cat", "dog", "<S>", "", "the"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [[4], [2], [0], [2], [3]]
    assert LexiconSpeller(LEXICON).spell([]).shape == (0, 1)


def test_the_last_of_two_equal_words_counts():
    """As in bilm-tf, where a later line of a word replaces an earlier one."""
    assert LexiconSpeller((*LEXICON, "the")).spell(["the"]).tolist() == [[5]]


@pytest.mark.parametrize("missing", ["<S>", "</S>", "<UNK>"])
def test_a_vocabulary_without_the_special_words_is_refused(missing):
    with pytest.raises(FormatError, match=rf"the vocabulary \(4 words\) lacks {missing}"):
        LexiconSpeller(tuple(word for word in LEXICON if word != missing))


# ---------------------------------------------------------------- spelling by a lexicon of characters

CHARACTERS = ("<S>", "</S>", "<UNK>", "<bow>", "<eow>", "c", "a", "t", "北", "\u3000", "<pad>")


def code_points(words, *, max_characters=6):
    return CodePointSpeller(CHARACTERS, max_characters).spell(words)


def test_code_points_between_marks():
    ids = code_points(["cat", "北x", "", "\u3000", "<S>", "</S>", "<pad>", "tttttcc", "\ud800"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [3, 5, 6, 7, 4, 10],
        [3, 8, 2, 4, 10, 10],
        [3, 4, 10, 10, 10, 10],
        [3, 9, 4, 10, 10, 10],
        [3, 0, 4, 10, 10, 10],
        [3, 1, 4, 10, 10, 10],
        [3, 2, 2, 6, 2, 4],  # its characters, not the padding; cut after four
        [3, 7, 7, 7, 7, 4],
        [3, 2, 4, 10, 10, 10],
    ]
    assert code_points([]).shape == (0, 6)


@given(st.lists(any_word, max_size=6))
def test_any_word_is_spelled_in_code_points(words):
    for word, row in zip(words, code_points(words, max_characters=20).tolist(), strict=True):
        length = row.index(4)
        spelled = [CHARACTERS[i] for i in row[1:length]]
        known = [character if character in CHARACTERS else "<UNK>" for character in word[:18]]
        assert spelled == ([word] if word in ("<S>", "</S>") else known)
        assert row[0] == 3
        assert row[length + 1 :] == [10] * (19 - length)


@pytest.mark.parametrize("missing", ["<S>", "</S>", "<UNK>", "<bow>", "<eow>"])
def test_a_lexicon_of_characters_without_the_special_ones_is_refused(missing):
    with pytest.raises(FormatError, match=rf"the lexicon of characters \(10 symbols\) lacks {missing}"):
        CodePointSpeller(tuple(symbol for symbol in CHARACTERS if symbol != missing), 6)


def test_the_padding_is_the_last_row():
    with pytest.raises(FormatError, match="the lexicon of characters ends with 'c', expected <pad>"):
        CodePointSpeller((*CHARACTERS, "c"), 6)


def test_other_marks():
    marks = Marks("<bos>", "<eos>", "<oov>")
    characters = ("<bos>", "<eos>", "<oov>", "<bow>", "<eow>", "S", "<pad>")
    words = LexiconSpeller(("<oov>", "<bos>", "<eos>", "<S>"), marks, 4)
    speller = WordAndCharacterSpeller(words, CodePointSpeller(characters, 5, marks))
    assert speller.spell(["<bos>", "<S>", "<S>ome"]).tolist() == [
        [1, 3, 0, 4, 6, 6],
        [3, 3, 2, 5, 2, 4],
        [0, 3, 2, 5, 2, 4],
    ]
    batch = make_batch([["S"]], speller)
    assert batch.chars_UC[batch.words_BT[0]].tolist() == [[1, 3, 0, 4, 6, 6], [0, 3, 5, 4, 6, 6], [2, 3, 1, 4, 6, 6]]
    with pytest.raises(FormatError, match="lacks <bos>"):
        LexiconSpeller(LEXICON, marks)
    spelled = Utf8Speller(6, marks).spell(["<bos>", "<S>", "<eos>"])
    assert spelled[:, 1].tolist() == [256, ord("<"), 257]


def test_long_words_are_looked_up_by_their_beginning():
    speller = LexiconSpeller((*LEXICON, "international"), longest=3)
    assert speller.spell(["cat", "catalogue", "thesis", "international", "</S>"]).tolist() == [[4], [4], [3], [2], [1]]


# ---------------------------------------------------------------- batches


@given(st.lists(any_sentence, max_size=8))
def test_a_batch_put_together_again_gives_the_sentences(sentences):
    spelled = []

    class Speller:
        marks = Marks()

        def spell(self, words):
            spelled.extend(words)
            return np.zeros((len(words), 1), np.int64)

    batch = make_batch(sentences, Speller())
    assert len(spelled) == len(set(spelled)) == len(batch.chars_UC)
    assert batch.words_BT.dtype == batch.lengths_B.dtype == np.int64
    assert batch.words_BT.shape == (len(sentences), max((len(s) + 2 for s in sentences), default=0))
    for sentence, row, length in zip(sentences, batch.words_BT, batch.lengths_B, strict=True):
        assert [spelled[i] for i in row[:length]] == ["<S>", *sentence, "</S>"]
        assert not row[length:].any()


def test_distinct_words_are_spelled_once():
    batch = make_batch([["a", "b", "a"], [], ["b", "<S>"]], Utf8Speller(10))
    assert batch.chars_UC.shape == (4, 10)
    assert batch.lengths_B.tolist() == [5, 2, 4]
    assert batch.words_BT.tolist() == [[0, 2, 3, 2, 1], [0, 1, 0, 0, 0], [0, 3, 0, 1, 0]]


@given(
    lengths=st.lists(st.integers(0, 40), max_size=120),
    sentences=st.integers(1, 50),
    places=st.integers(1, 500),
    more=st.integers(0, 500),
)
def test_every_sentence_is_in_one_batch_within_the_limits(lengths, sentences, places, more):
    batches = list(plan_batches(lengths, sentences=sentences, most=places, most_of_few=places + more))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= sentences
        limit = places if len(batch) > 32 else places + more
        assert len(batch) == 1 or len(batch) * (max(lengths[i] for i in batch) + 2) <= limit
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(0, 9), max_size=30))
def test_batches_are_not_smaller_than_the_limits_ask(lengths):
    assert len(list(plan_batches(lengths, sentences=5, most=10_000, most_of_few=10_000))) == -(-len(lengths) // 5)
