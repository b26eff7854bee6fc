"""What the start of a sentence is worth: parts of speech and word senses with the states fresh, warm and carry.

    python benchmarks/quality/state.py [--model MODEL] [--quick]

The judges are pos.py (universal tags, one strength) and wsd.py (all test sets together), with one of the three
throughout. A carried state reads the data in document order, 64 sentences side by side, as bilm-tf and AllenNLP do. A
model without a warmed state is judged with the other two.
"""

from __future__ import annotations

import judging
import pos
import wsd

from elmokit import load

# What the dev part of the treebank likes best is hardly better than this.
STRENGTH = 0.1


def main() -> None:
    """Judge every policy and write the result."""
    told = judging.parser(__doc__).parse_args()
    elmo = load(told.model)
    parts, train = pos.treebank(told), wsd.semcor(told)
    test = {wsd.ALL: wsd.raganato(told, wsd.ALL)}
    candidates, found = wsd.by_frequency(train), {}
    for state in ("fresh", "warm", "carry") if elmo.warm_state else ("fresh", "carry"):
        system = judging.elmo_system(state, elmo, state=state)
        tagged = pos.universal(system, parts, strength=STRENGTH)
        senses = wsd.judge(system, train, test, candidates)
        found[state] = [{**a, **b} for a, b in zip(tagged, senses, strict=True)]
    judging.write(told, "state", {"data": {"name": "as in pos.json and wsd.json"}, "systems": found})


if __name__ == "__main__":
    main()
