"""Words in context and their neighbours, against cosines computed one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmokit import load
from elmokit.errors import MismatchError
from elmokit.similar import WordsInContext

SENTENCES = [["The", "cat", "sat", "."], [], ["A", "cat", "purred"], ["The", "cat", "sat", "."]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "cat", "."]), max_size=5), min_size=1, max_size=5).filter(any),
    st.lists(st.sampled_from(["a", "cat"]), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 30),
)  # fmt: skip
def test_neighbours_are_the_words_of_the_largest_cosines(tiny_elmo, sentences, query, place, topn):
    place %= len(query)
    found = WordsInContext(tiny_elmo, sentences, layers="top").most_similar(query, place, topn=topn)
    vector = next(tiny_elmo.embed([query], layers="top"))[place]
    cosines = {}
    for s, array in enumerate(tiny_elmo.embed(sentences, layers="top")):
        for p, other in enumerate(array):
            if (sentences[s], p) != (query, place):
                cosines[s, p] = float(other @ vector / np.linalg.norm(other) / np.linalg.norm(vector))
    assert len(found) == min(topn, len(cosines)) == len({(word.sentence, word.place) for word in found})
    right = sorted(cosines.values(), reverse=True)[:topn]
    np.testing.assert_allclose([word.similarity for word in found], right, atol=1e-5)
    for word in found:
        assert word.word == sentences[word.sentence][word.place]
        assert word.similarity == pytest.approx(cosines[word.sentence, word.place], abs=1e-5)


def test_the_word_itself_is_no_neighbour_but_its_like_in_other_sentences_is(tiny_elmo):
    words = WordsInContext(tiny_elmo, SENTENCES)
    assert len(words) == 11
    found = words.most_similar(SENTENCES[0], -3, topn=100)
    assert len(found) == 9
    assert (0, 1) not in {(word.sentence, word.place) for word in found}
    assert ("cat", 2, 1) in {(word.word, word.sentence, word.place) for word in found}


def test_a_trained_mix_is_taken_as_it_comes(tiny_elmo):
    words = WordsInContext(tiny_elmo, SENTENCES, layers=np.array([0.0, 0.0, 1.0], np.float32))
    assert words.most_similar(["cat"], 0) == WordsInContext(tiny_elmo, SENTENCES, layers="top").most_similar(["cat"], 0)


def test_one_line_with_the_bundled_model():
    """The nearest use of "cell" is that of the same kind."""
    uses = ["He phoned from his cell", "The prisoner sat in his cell", "The guard locked the cell of the prisoner",
            "A nerve cell sends signals", "Each cell of the body divides"]  # fmt: skip
    found = WordsInContext(load(), map(str.split, uses)).most_similar("The thief slept in his cell".split(), 5)
    assert (found[0].word, found[0].sentence) == ("cell", 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda elmo: WordsInContext(elmo, []), "expected sentences with words"),
        (lambda elmo: WordsInContext(elmo, [[]]), "expected sentences with words"),
        (lambda elmo: WordsInContext(elmo, SENTENCES, layers="all"), "expected one vector a word, found 'all'"),
        (lambda elmo: WordsInContext(elmo, SENTENCES).most_similar(["a"], 1), "has 1 words, .* there is no word 1"),
        (lambda elmo: WordsInContext(elmo, SENTENCES).most_similar([], 0), "has 0 words"),
        (
            lambda elmo: WordsInContext(elmo, ["The cat"]),
            "sentence 0: expected a list of tokens, found the string 'The cat'; split it",
        ),
        (lambda elmo: WordsInContext(elmo, [["The"], None]), "sentence 1: expected a list of tokens, found None"),
        (lambda elmo: WordsInContext(elmo, SENTENCES).most_similar("The cat", 0), "the string 'The cat'; split it"),
    ],
)
def test_refusals(tiny_elmo, call, message):
    with pytest.raises(MismatchError, match=message):
        call(tiny_elmo)
