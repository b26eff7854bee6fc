# %% [markdown]
# # Train your own
#
# **Shows** `elmo train` from a text to a model, in seconds: the text is a tiny language of which it is known how well
# it can be predicted at best, so that one can see what the model has understood.
#
# **Needs** `pip install elmokit`.

# %%
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import elmokit
from elmokit.lm import LanguageModel

kept = tempfile.TemporaryDirectory()  # a folder of yours, where the model shall stay
WORK = Path(kept.name)

# %% [markdown]
# ## A language
#
# Sentences such as *the old dogs near the shy cat sleep .* Two nouns, each of one number, and a verb in the number of
# the first noun, not of the one that stands beside it: five adjectives, six animals, four places between, five verbs.

# %%
ADJECTIVES = ("old", "shy", "big", "wet", "red")
ANIMALS = ("dog", "cat", "bird", "fox", "cow", "pig")
BETWEEN = ("near", "behind", "before", "under")
VERBS = ("sleep", "run", "jump", "wait", "eat")


def sentence() -> str:
    """A sentence, every choice at random."""
    (first, ends), (second, _) = ((random.choice(ANIMALS), random.choice(("", "s"))) for _ in range(2))
    other = second + random.choice(("", "s"))
    verb = random.choice(VERBS) + ("" if ends else "s")
    looks, other_looks = random.choices(ADJECTIVES, k=2)
    return f"the {looks} {first}{ends} {random.choice(BETWEEN)} the {other_looks} {other} {verb} ."


random.seed(1)
for part, n in (("train", 3500), ("heldout", 300)):
    (WORK / f"{part}.txt").write_text("".join(f"{sentence()}\n" for _ in range(n)), encoding="utf-8")
print((WORK / "heldout.txt").read_text(encoding="utf-8").splitlines()[0])

# %% [markdown]
# A sentence is one of 5 x 12 x 4 x 5 x 12 x 5, in nine words and the mark of the end; most of those held out are not in
# the training text. No model can come below the
# perplexity that follows; one that never sees which number the verb must have comes to the second figure.

# %%
best = math.exp(math.log(5 * 12 * 4 * 5 * 12 * 5) / 10)
without_agreement = math.exp(math.log(5 * 12 * 4 * 5 * 12 * 10) / 10)
print(f"at best {best:.3f}; without agreement {without_agreement:.3f}")

# %% [markdown]
# ## Training
#
# In a terminal: `elmo train train.txt --heldout heldout.txt --out model --preset tiny --batch-size 16 --epochs 4`.
# Small batches make many updates of a small text. For real text see `docs/training.md`.

# %%
command = [sys.executable, "-m", "elmokit", "train", WORK / "train.txt", "--heldout", WORK / "heldout.txt"]
command += ["--out", WORK / "model", "--preset", "tiny", "--batch-size", "16", "--epochs", "4", "--processes", "1"]
subprocess.run(list(map(str, command)), check=True)

# %% [markdown]
# ## What it has learned
#
# The model is a folder, opened like any other. In training sentences stood one behind the other and the state of the
# network went on from one to the next; after so short a training it matters to begin from such a state, and not from
# zeros. `warm` gives the model one.

# %%
heldout = [line.split() for line in (WORK / "heldout.txt").read_text(encoding="utf-8").splitlines()]
elmo = elmokit.load(WORK / "model").warm(heldout[:20])
model = LanguageModel(elmo)
perplexity = model.perplexity(heldout[20:], state="warm")
print(f"forward {perplexity.forward:.3f}, at best {best:.3f}")

# %% [markdown]
# How unexpected is a verb in the right number, and in the wrong one, after a noun of the other number? In bits; one of
# five verbs that are all as likely has 2.32.

# %%
verb_bits = {}
for text in ("the old dogs near the shy cat sleep .", "the old dogs near the shy cat sleeps ."):
    (scores,) = model.score([text.split()], state="warm")
    forward, _ = scores.surprisal()
    verb_bits[text] = float(forward[7])
    print(f"{verb_bits[text]:6.2f}  {text}")

# %% [markdown]
# And its vectors:

# %%
(vectors,) = elmo.embed([["the", "old", "dogs", "near", "the", "shy", "cat", "sleep", "."]], state="warm")
print(vectors.shape)

# %%
kept.cleanup()
