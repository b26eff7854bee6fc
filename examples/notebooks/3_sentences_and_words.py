# %% [markdown]
# # Sentences and words: two kinds of classification
#
# **Shows** what a question asks for (one label a sentence) and the part of speech of every word (one label a word),
# both with a logistic regression on ELMo's vectors.
#
# **Needs** `pip install 'elmokit[sklearn]'`; `data/trec/TREC.train.all` and `TREC.test.all`, from
# <https://github.com/harvardnlp/sent-conv-torch> (`data`); `data/ewt/en_ewt-ud-train.conllu` and
# `en_ewt-ud-test.conllu`, from <https://github.com/UniversalDependencies/UD_English-EWT>.

# %%
import random
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import elmokit
from elmokit.sklearn import ElmoVectorizer

DATA = Path("data")
N_QUESTIONS, N_SENTENCES = 1500, 400  # for training, of 5,452 and 12,544

random.seed(1)
elmo = elmokit.load()

# %% [markdown]
# ## Sentences: what does a question ask for?
#
# Six classes: a description, an entity, an abbreviation, a human being, a place, a number.


# %%
def read_questions(path: Path) -> tuple[list[str], list[int]]:
    """The questions and their classes."""
    rows = [line.split(" ", 1) for line in path.read_text(encoding="latin-1").splitlines()]
    return [text for _, text in rows], [int(label) for label, _ in rows]


questions, kinds = read_questions(DATA / "trec" / "TREC.train.all")
chosen = random.sample(range(len(questions)), N_QUESTIONS)
questions, kinds = [questions[i] for i in chosen], [kinds[i] for i in chosen]
new_questions, new_kinds = read_questions(DATA / "trec" / "TREC.test.all")
print(kinds[0], questions[0])

# %% [markdown]
# `ElmoVectorizer` makes one vector of a text: the mean over its words, or their maximum. Beside it stands what needs no
# ELMo, counts of words.

# %%
systems = {
    "words counted": make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=10, max_iter=500)),
    "ELMo, mean": make_pipeline(ElmoVectorizer(elmo), StandardScaler(), LogisticRegression(C=0.05, max_iter=500)),
    "ELMo, maximum": make_pipeline(
        ElmoVectorizer(elmo, pool="max"), StandardScaler(), LogisticRegression(C=0.05, max_iter=500)
    ),
}
question_scores = {
    name: system.fit(questions, kinds).score(new_questions, new_kinds) for name, system in systems.items()
}
for name, score in question_scores.items():
    print(f"{score:.3f}  {name}")

# %% [markdown]
# A mean of vectors blurs the few words that decide, and the bundled model is small: counting words is a strong rival
# here.

# %%
names = ["a description", "an entity", "an abbreviation", "a human being", "a place", "a number"]
for question in ("Who painted the ceiling ?", "How far is it to the moon ?", "Where do penguins live ?"):
    print(f"{question:30} asks for {names[systems['ELMo, mean'].predict([question])[0]]}")

# %% [markdown]
# ## Words: parts of speech
#
# Here every word is one example. `layers="all"` gives all layers of a word, so that they can be compared: layer 0 knows
# a word by its letters only, the others have read the sentence.


# %%
def read_tagged(path: Path) -> list[list[tuple[str, str]]]:
    """Sentences of words with their parts of speech; lines of ranges and comments are left out."""
    sentences = []
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line[:1].isdigit()]
        sentences.append([(row[1], row[3]) for row in rows if row[0].isdigit()])
    return sentences


def layers_and_tags(sentences: list[list[tuple[str, str]]]) -> tuple[np.ndarray, list[str]]:
    """All layers of all words, (L, N, D), and their tags."""
    stacks = elmo.embed([[word for word, _ in sentence] for sentence in sentences], layers="all")
    return np.concatenate(list(stacks), axis=1), [tag for sentence in sentences for _, tag in sentence]


tagged = random.sample(read_tagged(DATA / "ewt" / "en_ewt-ud-train.conllu"), N_SENTENCES)
new_tagged = random.sample(read_tagged(DATA / "ewt" / "en_ewt-ud-test.conllu"), N_SENTENCES)
layers_LND, tags = layers_and_tags(tagged)
new_layers_LND, new_tags = layers_and_tags(new_tagged)
print(f"{len(tags):,} words to learn from, {len(new_tags):,} to be judged")

# %%
word_scores = []
for layer, new_layer in zip(layers_LND, new_layers_LND, strict=True):
    tagger = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, tol=0.01, max_iter=300))
    word_scores.append(tagger.fit(layer, tags).score(new_layer, new_tags))
    print(f"layer {len(word_scores) - 1}: {word_scores[-1]:.3f} of the words rightly tagged")

# %% [markdown]
# The same word in two sentences, tagged from the top layer, which the regression above was fitted to last:

# %%
for sentence in (["They", "book", "a", "flight", "."], ["He", "read", "a", "book", "."]):
    (vectors,) = elmo.embed([sentence], layers="top")
    print(list(zip(sentence, tagger.predict(vectors).tolist(), strict=True)))
