"""How much training data ELMo saves: tasks learned from 1 %, 10 % and all of their data, with and without.

    python recipes/sample_efficiency.py --work work/

The part that is learned from is drawn anew for each seed; the parts for development and test stay whole. What is in
the results already, such as the runs with all data of the other recipes, is not computed again.
"""

from __future__ import annotations

import argparse

from chunking import CHUNKING
from classification import recipe
from command import arguments, run, told_plainly
from parts_of_speech import POS

FRACTIONS = (0.01, 0.1, 1.0)
TASKS = (POS, CHUNKING, recipe("sst-2"), recipe("trec"))


def main() -> None:
    """Run every task with every part of its data."""
    told = arguments(__doc__).parse_args()
    if told.data:
        raise SystemExit("the data are those of several recipes; set ELMOKIT_SHARED in place of --data")
    for task in TASKS:
        for fraction in FRACTIONS:
            print(f"\n{task.name}, {fraction:.0%} of the training data")
            run(task, argparse.Namespace(**{**vars(told), "fraction": fraction, "systems": ["no ELMo", "mix"]}))


if __name__ == "__main__":
    with told_plainly():
        main()
