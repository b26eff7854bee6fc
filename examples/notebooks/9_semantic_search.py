# %% [markdown]
# # Semantic search
#
# **Shows** an index of the sentences of some textbooks, searched by meaning, by words and by both; how well sentences
# are found again whose words were misspelt; and uses of a word in the sense of the question.
#
# **Needs** `pip install 'elmokit[search]'`, and a text of one tokenised sentence a line. Here it is
# `data/openstax/train.txt.xz`, sentences of textbooks by OpenStax (CC BY 4.0, <https://openstax.org>); any text will
# do.

# %%
import random
from itertools import islice
from pathlib import Path

import numpy as np

import elmokit
from elmokit.reading import read_sentences
from elmokit.search import Index

TEXT = Path("data/openstax/train.txt.xz")
N = 1000  # sentences, one in a hundred of the text

sentences = list(islice(read_sentences(TEXT), 0, 100 * N, 100))
elmo = elmokit.load()

# %% [markdown]
# ## The index
#
# A folder. It remembers the model, and how vectors are made of a sentence: from the sample it learns what all words
# have in common, which is taken off, and how rare each word is, which is its weight. `elmo index` and `elmo search` do
# the same on the command line.

# %%
index = Index.create("books.index", elmo, sample=sentences)
print(index.add("openstax", sentences))
print(index.settings.layers, index.settings.pool)

# %%
questions = ["Prices rise when supply falls.", "The cells of the body need energy.", "The war ended with a treaty."]
for question in questions:
    print(question)
    for hit in index.search(question, count=3):
        print(f"   {hit.score:.2f}  {hit.text[:100]}")

# %% [markdown]
# By full text (BM25), and by both: the ranks of a sentence in the two, added up as reciprocals.

# %%
for by in ("text", "both"):
    print(by)
    for hit in index.search(questions[0], by=by, count=3):
        print(f"   {hit.score:.2f}  {hit.text[:100]}")

# %% [markdown]
# ## How well does it find?
#
# A test with known answers: take sentences of the text, leave out every third word, swap two letters in the others, and
# search for what is left. A search for whole words finds none of the changed ones.

# %%
random.seed(1)


def swapped(word: str) -> str:
    """Two neighbouring letters inside a word in each other's place; short words stay."""
    if len(word) < 4:
        return word
    place = random.randrange(1, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def damaged(sentence: list[str]) -> list[str]:
    """Two thirds of the words, misspelt."""
    return [swapped(word) for place, word in enumerate(sentence) if place % 3]


wanted = random.sample([n for n in range(N) if len(sentences[n]) > 4], 150)
queries = [damaged(sentences[number]) for number in wanted]
print(" ".join(queries[0])[:100])


def shares(by: str) -> tuple[float, float]:
    """How often the sentence is found first, and how often among the first ten."""
    found = [[hit.line - 1 for hit in index.search(query, by=by)] for query in queries]
    first = [row[:1] == [number] for number, row in zip(wanted, found, strict=True)]
    return float(np.mean(first)), float(np.mean([number in row for number, row in zip(wanted, found, strict=True)]))


first, among_ten = shares("vector")
print(f"vectors: found first {first:.3f}, among the first ten {among_ten:.3f}; by chance {1 / N:.3f}")
first_by_text, among_ten_by_text = shares("text")
print(f"full text: found first {first_by_text:.3f}, among the first ten {among_ten_by_text:.3f}")
index.close()

# %% [markdown]
# ## A word in the sense that is meant
#
# An index of the uses of some words. The question is a sentence in which the word is marked.

# %%
with Index.create("uses.index", elmo, sample=sentences, unit="word", words=["cell", "cells"]) as uses:
    uses.add("openstax", islice(read_sentences(TEXT), 20_000))
    print(f"{uses.count()} uses")
    for query in ("The prisoner was locked in his *cell* .", "A *cell* divides into two ."):
        print(query)
        for hit in uses.search(query, count=3):
            start = max(0, hit.marked.index("*") - 50)
            print(f"   {hit.score:.2f}  {hit.marked[start : start + 100]}")
