# %% [markdown]
# # ELMo in four ways
#
# **Shows** the same vectors from the command line, from Python, from a PyTorch layer and from scikit-learn.
#
# **Needs** `pip install 'elmokit[sklearn]'`, and `examples/sentences.txt`, which lies in the folder above this one.
#
# The bundled English model is used throughout. Another one is named by its path or name:
# `elmo embed --model original ...`, `elmokit.load("original")`, `ElmoEmbedding("original")`,
# `ElmoVectorizer("original")`.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

import elmokit
from elmokit.nn import ElmoEmbedding
from elmokit.sklearn import ElmoVectorizer

TEXT = Path("../sentences.txt")
lines = TEXT.read_text(encoding="utf-8").splitlines()
sentences = [line.split() for line in lines]
print(f"{len(sentences)} sentences, the first: {sentences[0]}")

# %% [markdown]
# ## 1. The command line
#
# In a terminal this is `elmo embed sentences.txt sentences.hdf5`; `python -m elmokit` is the same command, and finds
# the Python that this notebook runs in. The file holds an array (words, width) for each sentence, under its number.

# %%
with tempfile.TemporaryDirectory() as folder:
    vectors = Path(folder) / "sentences.hdf5"
    subprocess.run([sys.executable, "-m", "elmokit", "embed", str(TEXT), str(vectors)], check=True)
    with h5py.File(vectors) as file:
        from_command = [file[str(number)][()] for number in range(len(sentences))]
print(from_command[0].shape)

# %% [markdown]
# ## 2. Python
#
# `embed` takes sentences one after the other and gives their arrays one after the other, so a text may be larger than
# memory. `layers="all"` would give every layer, `pool="mean"` one vector a sentence.

# %%
elmo = elmokit.load()
from_python = list(elmo.embed(sentences))
print(np.abs(from_python[0] - from_command[0]).max())

# %% [markdown]
# ## 3. A layer of a PyTorch model
#
# The layer takes the sentences themselves and gives one padded tensor, and a mask that is true where there is a word.
# What learns is chosen when it is made: nothing, the mix of the layers, or all of the network.

# %%
layer = ElmoEmbedding(elmo, trainable="mix")
vectors_BTD, mask_BT = layer(sentences)
print(tuple(vectors_BTD.shape), "requires a gradient:", vectors_BTD.requires_grad)
from_torch = [row[mask].detach().numpy() for row, mask in zip(vectors_BTD, mask_BT, strict=True)]
print(np.abs(from_torch[0] - from_command[0]).max())

# %% [markdown]
# A step of learning changes the mix, and with it the vectors:

# %%
optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
vectors_BTD[mask_BT].square().mean().backward()
optimizer.step()
print([round(share, 4) for share in torch.softmax(layer.mixes[0].weights, 0).tolist()])

# %% [markdown]
# ## 4. scikit-learn
#
# A transformer from texts to one vector each, for pipelines and searches.

# %%
features = ElmoVectorizer(elmo).fit_transform(lines)
print(features.shape)
print(np.abs(features[0] - from_command[0].mean(axis=0)).max())
