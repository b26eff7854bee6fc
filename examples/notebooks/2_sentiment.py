# %% [markdown]
# # Sentiment, with ELMo as an embedding layer
#
# **Shows** a small PyTorch model that reads sentences as lists of words through ELMo and learns whether a film review
# is good or bad. The mix of ELMo's layers learns with it.
#
# **Needs** `pip install elmokit`, and SST-2 as two columns: `data/sst2/train.tsv` and `data/sst2/test.tsv`, from
# <https://github.com/clairett/pytorch-sentiment-classification> (`data/SST2`).

# %%
import random
from pathlib import Path

import torch
from torch import Tensor, nn

from elmokit.nn import ElmoEmbedding

DATA = Path("data/sst2")
N_TRAIN, N_TEST, EPOCHS = 3000, 600, 2  # of 6,920 and 1,821 sentences: more is better, and takes longer

torch.manual_seed(1)
random.seed(1)


def read(path: Path, n: int) -> list[tuple[list[str], int]]:
    """Words and label (1 is good) of n sentences, drawn at random."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(text.split(), int(label)) for text, label in random.sample(rows, n)]


train, test = read(DATA / "train.tsv", N_TRAIN), read(DATA / "test.tsv", N_TEST)
print(train[0])

# %% [markdown]
# ## The model
#
# ELMo gives a vector for every word; their mean and their maximum go through one hidden layer. Places beyond the end of
# a sentence must not count, which is what the mask is for.


# %%
class Sentiment(nn.Module):
    """Scores of bad and good, (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.elmo = ElmoEmbedding(trainable="mix", dropout=0.2)
        D = 2 * self.elmo.dim
        self.classify = nn.Sequential(
            nn.BatchNorm1d(D), nn.Dropout(0.3), nn.Linear(D, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 2)
        )

    def forward(self, sentences: list[list[str]]) -> Tensor:
        vectors_BTD, mask_BT = self.elmo(sentences)
        mask_BT1 = mask_BT.unsqueeze(-1)
        mean_BD = vectors_BTD.sum(1) / mask_BT1.sum(1)
        largest_BD = vectors_BTD.masked_fill(~mask_BT1, -torch.inf).amax(1)
        return self.classify(torch.cat([mean_BD, largest_BD], dim=1))


model = Sentiment()
learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{learns:,} of {sum(p.numel() for p in model.parameters()):,} parameters learn")

# %% [markdown]
# ## Training


# %%
def batches(examples: list[tuple[list[str], int]], size: int = 50) -> list[tuple[list[list[str]], Tensor]]:
    """Sentences and labels, some at a time."""
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    return [([words for words, _ in part], torch.tensor([label for _, label in part])) for part in parts]


@torch.no_grad()
def accuracy(examples: list[tuple[list[str], int]]) -> float:
    """Share of sentences that are judged rightly."""
    model.eval()
    right = sum(int((model(sentences).argmax(1) == labels).sum()) for sentences, labels in batches(examples))
    return right / len(examples)


optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for epoch in range(1, EPOCHS + 1):
    model.train()
    random.shuffle(train)
    for sentences, labels in batches(train):
        loss = nn.functional.cross_entropy(model(sentences), labels) + model.elmo.penalty(0.001)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test_accuracy = accuracy(test)
    print(f"epoch {epoch}: accuracy on new sentences {test_accuracy:.3f}")

# %% [markdown]
# ## What it learned
#
# The larger class alone would be right this often; and these are the shares of ELMo's layers in the learned mix, from
# the layer of spellings to the top.

# %%
labels = [label for _, label in test]
larger_class = max(labels.count(0), labels.count(1)) / len(labels)
shares = torch.softmax(model.elmo.mixes[0].weights, 0).tolist()
print(f"larger class {larger_class:.3f}; layers {[round(share, 3) for share in shares]}")

# %%
for text in ("a warm and clever film", "two hours that i want back", "not funny , not moving , not even short"):
    with torch.no_grad():
        bad, good = torch.softmax(model([text.split()])[0], 0).tolist()
    print(f"{good:.2f}  {text}")

# %% [markdown]
# With `trainable="all"` the network itself learns too, which takes several times as long. To train many models on the
# same sentences, compute their vectors once: `4_preprocess_once.py`.
