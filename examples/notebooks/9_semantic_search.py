# %% [markdown]
# # Semantic search
#
# **Shows** a search for the sentences that are nearest to a question: mean vectors, compared by cosine with every
# sentence of some textbooks. For up to some hundred thousand sentences NumPy needs no index.
#
# **Needs** `pip install elmokit`, and a text of one tokenised sentence a line. Here it is `data/openstax/train.txt.xz`,
# sentences of textbooks by OpenStax (CC BY 4.0, <https://openstax.org>); any text will do.

# %%
import random
from itertools import islice
from pathlib import Path

import numpy as np

import elmokit
from elmokit.reading import read_sentences, words

TEXT = Path("data/openstax/train.txt.xz")
N = 1000  # sentences, one in a hundred of the text

sentences = list(islice(read_sentences(TEXT), 0, 100 * N, 100))
elmo = elmokit.load()

# %% [markdown]
# ## The index
#
# All mean vectors have a large part in common, which says nothing; without it the cosines tell more. What remains is
# brought to length 1, so that a product is a cosine.

# %%
pooled_ND = np.stack(list(elmo.embed(sentences, pool="mean")))
common_D = pooled_ND.mean(axis=0)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors without what is common, of length 1."""
    centred = vectors - common_D
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True)


index_ND = unit(pooled_ND)
print(f"{index_ND.shape}, {index_ND.nbytes / 1e6:.1f} MB")


# %%
def search(queries: list[list[str]], n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the n nearest sentences of each query, and their cosines."""
    cosines_QN = unit(np.stack(list(elmo.embed(queries, pool="mean")))) @ index_ND.T
    nearest_QN = np.argsort(-cosines_QN, axis=1)[:, :n]
    return nearest_QN, np.take_along_axis(cosines_QN, nearest_QN, axis=1)


# %%
questions = ["Prices rise when supply falls.", "The cells of the body need energy.", "The war ended with a treaty."]
for question, found, cosines in zip(questions, *search([words(question) for question in questions]), strict=True):
    print(question)
    for number, cosine in zip(found, cosines, strict=True):
        print(f"   {cosine:.2f}  {' '.join(sentences[number])[:100]}")

# %% [markdown]
# The bundled model is small, and a mean of words is a plain picture of a sentence: what is found is alike in wording
# and form as much as in meaning.
#
# ## How well does it find?
#
# A test with known answers: take sentences of the text, leave out every third word, swap two letters in the others, and
# search for what is left. A search for whole words would find none of the changed ones.

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


wanted = random.sample(range(N), 150)
queries = [damaged(sentences[number]) for number in wanted]
print(" ".join(queries[0])[:100])
found, _ = search(queries, n=10)
first = float(np.mean(found[:, 0] == wanted))
among_ten = float(np.mean([number in row for number, row in zip(wanted, found, strict=True)]))
print(f"found first {first:.3f}, among the first ten {among_ten:.3f}; by chance {1 / N:.3f}")
