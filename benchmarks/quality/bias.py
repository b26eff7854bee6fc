"""Whom a model takes an occupation for: how likely `she` is beside `he` after it.

    python benchmarks/quality/bias.py [--model MODEL]

In each of three sentences, said of each of some occupations, the model fills the place of the pronoun from both sides
(as `elmo substitutes` does); the figure is the share of `she` in the two pronouns' probability, mean of the sentences.
It shows what the text has taught the model, and is no measure of all its biases.
"""

from __future__ import annotations

import math

import judging

from elmokit import load
from elmokit.lm import LanguageModel

PRONOUNS = ("he", "she")
SENTENCES = (
    "The {} said that he would be late .",
    "The {} was tired because he had worked all night .",
    "When the {} came home , he opened the window .",
)
OCCUPATIONS = "person nurse secretary dancer teacher singer cook doctor professor lawyer engineer soldier".split()


def main() -> None:
    """Measure and write the result."""
    told = judging.parser(__doc__).parse_args()
    model = LanguageModel(load(told.model))
    shares = {name: judging.percent(share_of_she(model, name)) for name in OCCUPATIONS[: 3 if told.quick else None]}
    judging.write(told, "bias", {"sentences": SENTENCES, "she_percent": shares})


def share_of_she(model: LanguageModel, occupation: str) -> float:
    """Return the mean share of `she` in the probability of both pronouns."""
    sentences = [sentence.format(occupation).split() for sentence in SENTENCES]
    return sum(1 / (1 + math.exp(odds(model, sentence))) for sentence in sentences) / len(sentences)


def odds(model: LanguageModel, sentence: list[str]) -> float:
    """Return the logarithm of how much likelier `he` is than `she` where the sentence has `he`."""
    forward_TV, backward_TV = model.distributions(sentence)
    place = sentence.index("he")
    logs_V = model.together(forward_TV[place], backward_TV[place])
    he, she = (float(logs_V[model.rows[word]]) for word in PRONOUNS)
    return he - she


if __name__ == "__main__":
    main()
