# %% [markdown]
# # Senses on a map
#
# **Shows** how the uses of a word fall into groups, a map of them, and a page to explore in a browser.
#
# **Needs** `pip install 'elmokit[plot]'`, and `examples/sentences.txt`, which lies in the folder above this one.

# %%
from pathlib import Path

import elmokit
from elmokit import plot
from elmokit.labelled import LabelledText
from elmokit.senses import find_senses

sentences = [line.split() for line in Path("../sentences.txt").read_text(encoding="utf-8").splitlines()]
elmo = elmokit.load()

# %% [markdown]
# ## Groups of uses
#
# `find_senses` groups the uses of a word by their vectors, and finds how many groups fit best. The first sentence of a
# group is its most typical one.

# %%
found = find_senses(elmo, sentences, "cell", n=4, layer="top", progress=False)
for number, sense in enumerate(found.senses, start=1):
    for use in sense.uses:
        before, word, after = found.parts(use)
        print(f"{number}  {use.similarity:.2f}  {before}[{word}]{after}")
print(f"silhouette {found.silhouette:.2f}")

# %% [markdown]
# ## On a map
#
# The same uses, coloured by what is meant, told by hand. A picture is a figure of matplotlib.

# %%
meant = {"phone": "telephone", "prison": "prison", "body": "biology", "table": "table"}
hints = {"phone": "phone", "prisoner": "prison", "guard": "prison", "jail": "prison"}
hints |= dict.fromkeys(("blood", "plant", "microscope", "virus"), "body")
hints |= dict.fromkeys(("column", "formula", "row"), "table")
labels = [next((meant[hints[word.lower()]] for word in words if word.lower() in hints), "_") for words in sentences]
drawn = plot.make_map(
    elmo, LabelledText(sentences, labels=labels), words=["cell"], layers=("top",), method="pca", progress=False
)
figure = plot.figure(drawn)
figure

# %% [markdown]
# ## In a browser
#
# One file that needs no network: point, click, search, switch layers, draw a lasso.

# %%
drawn = plot.make_map(
    elmo, sentences, layers=("average", *map(str, range(elmo.n_layers))), method="pca", by="word", progress=False
)
plot.write(drawn, "map.html")
print(f"map.html: {drawn.title}, {Path('map.html').stat().st_size / 1e6:.1f} MB")
