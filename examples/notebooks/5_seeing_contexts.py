# %% [markdown]
# # Seeing contextual vectors
#
# **Shows** that the vector of a word depends on its sentence: the uses of *cell* and *bank*, drawn on a plane.
#
# **Needs** `pip install 'elmokit[plot]'`, and `examples/sentences.txt`, which lies in the folder above this one.

# %%
from pathlib import Path

import altair as alt
import numpy as np

import elmokit
from elmokit.similar import WordsInContext

WORDS = ("cell", "bank", "spring", "bat")
sentences = [line.split() for line in Path("../sentences.txt").read_text(encoding="utf-8").splitlines()]
elmo = elmokit.load()
layers = list(elmo.embed(sentences, layers="all"))  # of each sentence: (layers, words, width)

# %% [markdown]
# ## Every use, in every layer
#
# Layer 0 sees the letters of a word and nothing else, so all uses of a word have one vector. The layers above have read
# the sentence from both ends.

# %%
uses = [(s, p) for s, words in enumerate(sentences) for p, word in enumerate(words) if word in WORDS]
uses_LND = np.stack([layers[s][:, p] for s, p in uses], axis=1)
cells = [n for n, (s, p) in enumerate(uses) if sentences[s][p] == "cell"]
spread = [float(layer[cells].std(axis=0).mean()) for layer in uses_LND]
print(f"{len(cells)} uses of 'cell'; how far they spread, by layer: {[round(value, 3) for value in spread]}")

# %% [markdown]
# ## On a plane
#
# A vector has hundreds of values; a plane has two. Principal components are the directions in which the uses differ
# most, and they follow from a singular value decomposition.


# %%
def principal(vectors_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components (N, 2), and the share of the variance that they show."""
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    left, values, _ = np.linalg.svd(centred_ND, full_matrices=False)
    return left[:, :2] * values[:2], float((values[:2] ** 2).sum() / (values**2).sum())


def around(sentence: list[str], place: int) -> str:
    """The words at both sides of a place."""
    return " ".join(sentence[max(0, place - 4) : place + 5])


def draw(word: str) -> alt.Chart:
    """The uses of a word in the top layer, each with its surroundings."""
    chosen = [n for n, (s, p) in enumerate(uses) if sentences[s][p] == word]
    points, share = principal(uses_LND[-1, chosen])
    rows = [
        {"x": float(x), "y": float(y), "use": around(sentences[uses[n][0]], uses[n][1])}
        for n, (x, y) in zip(chosen, points, strict=True)
    ]
    base = alt.Chart(alt.Data(values=rows), width=640, height=320).encode(
        alt.X("x:Q", title=None, scale=alt.Scale(padding=120)), alt.Y("y:Q", title=None)
    )
    title = f"uses of '{word}'; the plane shows {share:.0%} of how they differ"
    return (base.mark_point(filled=True) + base.mark_text(dy=-10).encode(text="use:N")).properties(title=title)


# %%
charts = alt.vconcat(draw("cell"), draw("bank"))
charts

# %% [markdown]
# `charts.save("uses.svg")` writes the picture to a file.
#
# ## Without a picture: the nearest uses
#
# `WordsInContext` holds words with their sentences and finds those of like use, by cosine.

# %%
index = WordsInContext(elmo, sentences, layers="top")
for text in ("the bank lent him the money .", "they fished from the bank of the canal ."):
    words = text.split()
    print(text)
    neighbours = index.most_similar(words, words.index("bank"), topn=3)
    for near in neighbours:
        print(f"   {near.similarity:.2f}  {near.word}: {around(sentences[near.sentence], near.place)}")
