"""How well words are found from both sides of their place: each direction alone, their product, and `together`.

python benchmarks/quality/substitutes.py --text valid.txt [--model MODEL] [--sentences 200]
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path

import judging
import torch

from elmokit import load
from elmokit.lm import LanguageModel
from elmokit.reading import read_sentences

RESULTS = Path(__file__).parents[1] / "results" / "substitutes.json"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--model")
    parser.add_argument("--sentences", type=int, default=200)
    arguments = parser.parse_args()
    model = LanguageModel(load(arguments.model))
    found: dict[str, list[torch.Tensor]] = {}
    ranks: dict[str, list[torch.Tensor]] = {}
    for number, sentence in enumerate(read_sentences(arguments.text)):
        if number == arguments.sentences:
            break
        for name, logs_TV in distributions(model, sentence).items():
            targets = torch.tensor([model.rows.get(word, model.marks[2]) for word in sentence])
            known = ~torch.isin(targets, torch.tensor(model.marks))
            at_T = logs_TV.gather(1, targets[:, None])[:, 0][known]
            found.setdefault(name, []).append(at_T)
            ranks.setdefault(name, []).append((logs_TV[known] > at_T[:, None]).sum(1))
    result = {
        "text": Path(arguments.text).name,
        "model": judging.described(arguments.model),
        "versions": {name: version(name) for name in ("elmokit", "torch")},
        **{name: summary(torch.cat(found[name]), torch.cat(ranks[name])) for name in found},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def distributions(model: LanguageModel, sentence: list[str]) -> dict[str, torch.Tensor]:
    """Log-probabilities (n, V) of words at the places of a sentence, without the marks, in four ways."""
    forward, backward = model.distributions(sentence)
    ways = {"forward": forward, "backward": backward, "product": forward + backward}
    for logs in ways.values():
        logs[:, model.marks] = -math.inf
    scaled = {name: torch.log_softmax(logs, 1) for name, logs in ways.items()}
    return {**scaled, "together": model.together(forward, backward)}


def summary(logs: torch.Tensor, ranks: torch.Tensor) -> dict[str, float]:
    """Perplexity, and how often the word itself comes first or among ten."""
    return {
        "words": len(logs),
        "perplexity": round(float((-logs.mean()).exp()), 1),
        "first_percent": round(100 * float((ranks == 0).double().mean()), 1),
        "among_ten_percent": round(100 * float((ranks < 10).double().mean()), 1),
    }


if __name__ == "__main__":
    main()
