# %% [markdown]
# # Spam
#
# **Shows** a filter of text messages from ELMo's vectors and a logistic regression, and what becomes of it when people
# write `fr33` for `free`.
#
# **Needs** `pip install 'elmokit[sklearn]'`, and `data/sms-spam/SMSSpamCollection`, the SMS Spam Collection, from
# <https://archive.ics.uci.edu/dataset/228/sms+spam+collection>.

# %%
import random
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import elmokit
from elmokit.reading import words
from elmokit.sklearn import ElmoVectorizer

N = 1000  # for training, and as many to be judged, of 5,574 messages, of which some are the same

lines = dict.fromkeys(Path("data/sms-spam/SMSSpamCollection").read_text("utf-8").splitlines())
rows = [line.split("\t", 1) for line in lines]
rows = [row for row in rows if row[0] in ("ham", "spam")]  # some copies begin with a line of headings
texts, kinds = [text for _, text in rows], [kind for kind, _ in rows]
texts, new_texts, kinds, new_kinds = train_test_split(
    texts, kinds, train_size=N, test_size=N, stratify=kinds, random_state=1
)
print(f"{kinds.count('spam')} of {len(kinds)} messages are spam; one of them: {texts[kinds.index('spam')]}")

# %% [markdown]
# ## A filter
#
# The messages are raw text: `elmokit.reading.words` parts words from punctuation. Few messages are spam, so that spam
# gets a larger weight.

# %%
elmo = elmokit.load()
filters = {
    "words counted": make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, class_weight="balanced", max_iter=500)),
    "ELMo": make_pipeline(
        ElmoVectorizer(elmo, tokenizer=words),
        StandardScaler(),
        LogisticRegression(C=0.05, class_weight="balanced", max_iter=500),
    ),
}
found = {name: filter_.fit(texts, kinds).predict(new_texts) for name, filter_ in filters.items()}
print(classification_report(new_kinds, found["ELMo"], digits=3))
scores = {name: f1_score(new_kinds, kind, pos_label="spam") for name, kind in found.items()}
print(", ".join(f"F1 of spam, {name}: {score:.3f}" for name, score in scores.items()))

# %% [markdown]
# ## In disguise
#
# Now digits stand in place of every other vowel or so. So that a filter which takes everything odd for spam does not
# look clever, honest messages are disguised too: of them, few should be stopped.

# %%
random.seed(1)


def disguise(text: str) -> str:
    """The text with digits in place of about half of its vowels."""
    digits = {"a": "4", "e": "3", "i": "1", "o": "0"}
    return "".join(digits.get(c.lower(), c) if random.random() < 0.5 else c for c in text)


disguised, new_disguised = [disguise(text) for text in texts], [disguise(text) for text in new_texts]
print(new_disguised[new_kinds.index("spam")])
stopped = {}


def judge(trained_on: str) -> None:
    """Show which share of new messages each filter stops, by kind, as written and in disguise."""
    for name, filter_ in filters.items():
        for how, messages in (("as written", new_texts), ("in disguise", new_disguised)):
            is_spam = filter_.predict(messages) == "spam"
            for kind in ("spam", "ham"):
                stopped[trained_on, name, how, kind] = float(is_spam[[other == kind for other in new_kinds]].mean())
            shares = (f"{kind} {stopped[trained_on, name, how, kind]:.3f}" for kind in ("spam", "ham"))
            print(f"{name}, {how}: stopped of {', of '.join(shares)}")


judge("plain")

# %% [markdown]
# Of a trick that they have not met, counting overlooks much, and ELMo takes much for spam that is none. So let both
# meet it: each message is learned from as written and in disguise.

# %%
for filter_ in filters.values():
    filter_.fit(texts + disguised, kinds + kinds)
judge("both")
