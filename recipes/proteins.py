"""An ELMo of proteins, one residue a token, and what its vectors say about where in the cell a protein belongs.

    python recipes/proteins.py --proteome proteome.fasta --known known.fasta --test test.fasta --work proteins/

trains on the sequences of a FASTA file and then, with the mean of each protein's vectors, a linear classifier on the
labelled file `--known`; accuracy is counted on `--test`. Both label a sequence by the second word of its title, up to
the last hyphen (">Q9H400 Cell.membrane-M"). Beside it: the share of each residue in the protein, and an ELMo of the
same shape with random weights. `--quick` takes little of everything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from command import told_plainly
from numpy.typing import NDArray
from results import Results
from training import beginning, card, train_elmo, untrained

from elmokit import Elmo, load
from elmokit.reading import read_sentences

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    """Train, classify, print a table, write WORK/result.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteome", type=Path, required=True)
    parser.add_argument("--known", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    # A softmax over some twenty-five symbols is exact at once; each symbol is a row of a table, it has no spelling.
    text = beginning(told.proteome, told.work / "proteome.fasta", 1000) if told.quick else told.proteome
    epochs = "0.2" if told.quick else told.epochs
    options = ["--unit", "words", "--preset", "tiny", "--epochs", epochs, "--min-count", "1", "--unroll", "40"]
    folder = train_elmo(told.work / "elmo", text, options)
    known, test = (labelled(path) for path in (told.known, told.test))
    if told.quick:  # such files are often sorted by label
        known, test = (part[:: max(1, len(part) // 100)] for part in (known, test))
    data = f"{told.known.name}, {told.test.name}"
    results = Results(told.work / "result.json", {"data": data, "card": card(folder)})
    for name, elmo in {
        "residues counted": None,
        "ELMo with random weights": untrained(folder),
        "ELMo": load(folder),
    }.items():
        if not results.has(system=name):
            vectors = [means(elmo, part) if elmo else composition(part) for part in (known, test)]
            score = classify(*vectors, [kind for _, kind in known], [kind for _, kind in test])
            results.add({"task": "localisation", "system": name, "score": score})
    results.print_means()


def labelled(path: Path) -> list[tuple[list[str], str]]:
    """Return the sequences of a FASTA file, residues as tokens, and their labels."""
    titles = [line.split()[1].rsplit("-", 1)[0] for line in path.read_text().splitlines() if line.startswith(">")]
    return list(zip(read_sentences(path), titles, strict=True))


def means(elmo: Elmo, proteins: list[tuple[list[str], str]]) -> NDArray[np.float32]:
    """Return the mean of every protein's vectors, the layers side by side."""
    return np.stack([stack.reshape(-1) for stack in elmo.embed((p for p, _ in proteins), layers="all", pool="mean")])


def composition(proteins: list[tuple[list[str], str]]) -> NDArray[np.float32]:
    """Return the share of each residue in each protein."""
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return np.array(
        [[sequence.count(letter) / len(sequence) for letter in letters] for sequence, _ in proteins], np.float32
    )


def classify(known: NDArray, test: NDArray, known_labels: list[str], test_labels: list[str]) -> float:
    """Return the accuracy of a linear softmax classifier, its penalty chosen on a fifth of what is known."""
    kinds = sorted(set(known_labels))
    right = torch.tensor([kinds.index(label) for label in known_labels])
    mean, deviation = known.mean(0), known.std(0) + 1e-8
    known_XD, test_XD = (torch.from_numpy((part - mean) / deviation).float() for part in (known, test))
    aside = torch.arange(len(right)) % 5 == 0
    scores = {p: _hits(_fit(known_XD[~aside], right[~aside], p), known_XD[aside], right[aside]) for p in PENALTIES}
    weight = _fit(known_XD, right, max(PENALTIES, key=scores.__getitem__))
    wanted = torch.tensor([kinds.index(label) if label in kinds else -1 for label in test_labels])
    return _hits(weight, test_XD, wanted)


def _fit(x_XD: torch.Tensor, right: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the weights of a softmax regression, the last row its bias."""
    weight = torch.zeros(x_XD.shape[1] + 1, int(right.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(_scores(weight, x_XD), right) + penalty * (weight[:-1] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def _scores(weight: torch.Tensor, x_XD: torch.Tensor) -> torch.Tensor:
    return x_XD @ weight[:-1] + weight[-1]


def _hits(weight: torch.Tensor, x_XD: torch.Tensor, right: torch.Tensor) -> float:
    return float((_scores(weight, x_XD).argmax(1) == right).float().mean())


if __name__ == "__main__":
    with told_plainly():
        main()
