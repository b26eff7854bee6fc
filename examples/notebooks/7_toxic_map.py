# %% [markdown]
# # Toxic comments, and a map of them
#
# **Shows** a classifier of tweets that insult, and a map on which every tweet is a point (t-SNE). No tweet is printed:
# the texts are foul.
#
# **Needs** `pip install 'elmokit[sklearn,plot]'`, and `data/hate-offensive/labeled_data.csv`, from
# <https://github.com/t-davidson/hate-speech-and-offensive-language> (`data`).

# %%
import csv
import html
import random
import re
from pathlib import Path

import altair as alt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import classification_report, f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from elmokit.reading import words
from elmokit.sklearn import ElmoVectorizer

CLASSES = ("hate", "offensive", "neither")
N = 400  # of each class; the file has 1,430, 19,190 and 4,163

random.seed(1)
with open(Path("data/hate-offensive/labeled_data.csv"), encoding="utf-8", newline="") as file:
    rows = [(row["tweet"], int(row["class"])) for row in csv.DictReader(file)]
sample = [row for number in range(3) for row in random.sample([r for r in rows if r[1] == number], N)]
labels = [CLASSES[number] for _, number in sample]

# %% [markdown]
# ## From tweets to vectors
#
# Names of users and addresses say who was spoken to, not how; they become one word each.


# %%
def clean(tweet: str) -> str:
    """Entities of HTML resolved, users and addresses hidden."""
    text = html.unescape(tweet)
    return re.sub(r"https?://\S+", "link", re.sub(r"@\w+", "user", text))


vectors_ND = ElmoVectorizer(tokenizer=words).fit_transform([clean(tweet) for tweet, _ in sample])
print(vectors_ND.shape)

# %% [markdown]
# ## The classifier
#
# Each fifth is judged by a model that was trained on the other four. By guessing, a third would be right.

# %%
classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
judged = cross_val_predict(classifier, vectors_ND, labels, cv=5)
macro_f1 = f1_score(labels, judged, average="macro")
print(classification_report(labels, judged, labels=CLASSES, digits=3))

# %% [markdown]
# And by counting words. Insults are a matter of few words, which can be counted; a mean vector blurs them, and the
# bundled model learned from an encyclopedia, textbooks and novels, where they hardly occur. `elmo train --from` would
# train it further on tweets.

# %%
counting = make_pipeline(TfidfVectorizer(), LogisticRegression(C=5, max_iter=500))
counted = cross_val_predict(counting, [clean(tweet) for tweet, _ in sample], labels, cv=5)
counted_f1 = f1_score(labels, counted, average="macro")
print(f"macro F1: ELMo {macro_f1:.3f}, words counted {counted_f1:.3f}")

# %% [markdown]
# ## The map
#
# t-SNE puts tweets with like vectors near each other; the classes overlap. Distances between far points mean nothing.

# %%
reduced = PCA(30, random_state=1).fit_transform(vectors_ND)
map_N2 = TSNE(perplexity=30, init="pca", random_state=1, max_iter=500).fit_transform(reduced)
points = [
    {"x": float(x), "y": float(y), "class": label, "judged": found}
    for (x, y), label, found in zip(map_N2, labels, judged.tolist(), strict=True)
]
chart = (
    alt.Chart(alt.Data(values=points), width=560, height=420, title="tweets by their mean vector")
    .mark_circle(size=25, opacity=0.6)
    .encode(
        alt.X("x:Q", title=None, axis=None),
        alt.Y("y:Q", title=None, axis=None),
        alt.Color("class:N", scale=alt.Scale(domain=list(CLASSES))),
        tooltip=["class:N", "judged:N"],
    )
)
chart

# %% [markdown]
# How much of the classes is left on the map? Of the ten nearest points to a tweet, so many are of its class:

# %%
distances = np.linalg.norm(map_N2[:, None] - map_N2[None], axis=-1)
nearest = np.argsort(distances, axis=1)[:, 1:11]
same = float((np.array(labels)[nearest] == np.array(labels)[:, None]).mean())
print(f"{same:.3f}, by chance 0.333")
