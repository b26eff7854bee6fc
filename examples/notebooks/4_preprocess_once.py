# %% [markdown]
# # Compute vectors once, train many times
#
# **Shows** how to put the vectors of a data set into a file, HDF5 or Parquet, and to train on the file as often as you
# like. ELMo does not change while you try a dozen classifiers, so it need not run again.
#
# **Needs** `pip install 'elmokit[sklearn,arrow]'`, and SST-2 as two columns: `data/sst2/train.tsv` and
# `data/sst2/test.tsv`, from <https://github.com/clairett/pytorch-sentiment-classification> (`data/SST2`).

# %%
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DATA = Path("data/sst2")
N = 800  # sentences of each part

kept = tempfile.TemporaryDirectory()  # a folder of yours, where the files shall stay
WORK = Path(kept.name)
labels = {}
for part in ("train", "test"):
    rows = [line.rsplit("\t", 1) for line in (DATA / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[:N]]
    (WORK / f"{part}.txt").write_text("".join(f"{text}\n" for text, _ in rows), encoding="utf-8")
    labels[part] = np.array([int(label) for _, label in rows])


def elmo(*arguments: str | Path) -> None:
    """The command `elmo`, as in a terminal."""
    subprocess.run([sys.executable, "-m", "elmokit", *map(str, arguments)], check=True)


# %% [markdown]
# ## HDF5: every layer of every word
#
# `elmo embed --all --dtype float16 train.txt train.hdf5` keeps everything, so that the choice of layers can be made
# later. If the run is interrupted, `--resume` goes on with it. The n-th line of the text is the array named n.

# %%
begun = time.perf_counter()
for part in labels:
    elmo("embed", "--all", "--dtype", "float16", WORK / f"{part}.txt", WORK / f"{part}.hdf5")
seconds_to_embed = time.perf_counter() - begun
megabytes = sum((WORK / f"{part}.hdf5").stat().st_size for part in labels) / 1e6
print(f"{2 * N} sentences took {seconds_to_embed:.1f} s and {megabytes:.1f} MB")


# %%
def features(part: str, layer: int, pool: str) -> np.ndarray:
    """One vector for each sentence of a part, from the file."""
    with h5py.File(WORK / f"{part}.hdf5") as file:
        words = (file[str(number)][layer].astype(np.float32) for number in range(N))
        return np.stack([getattr(word_vectors, pool)(axis=0) for word_vectors in words])


scores = {}
begun = time.perf_counter()
for layer in range(3):
    for pool in ("mean", "max"):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        model.fit(features("train", layer, pool), labels["train"])
        scores[layer, pool] = model.score(features("test", layer, pool), labels["test"])
        print(f"layer {layer}, {pool:4}  accuracy {scores[layer, pool]:.3f}")
print(f"six models in {time.perf_counter() - begun:.1f} s")

# %% [markdown]
# ## Parquet: one vector a sentence, beside its words
#
# For tables, data frames and other languages. `--pool mean` makes one vector of each sentence.

# %%
elmo("embed", "--pool", "mean", WORK / "train.txt", WORK / "train.parquet")
table = pq.read_table(WORK / "train.parquet")
print(table.schema.names, f"{table.num_rows} rows")

# %% [markdown]
# A third way, for scikit-learn: `ElmoVectorizer(memory="folder")` keeps the vectors of texts that it has seen, so that
# a search over the settings of a classifier computes them once.

# %%
kept.cleanup()
