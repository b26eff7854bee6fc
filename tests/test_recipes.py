"""The recipes that train an ELMo of their own run from end to end: with `--quick`, on data made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from test_train import make_text

RECIPES = Path(__file__).parents[1] / "recipes"

pytestmark = pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes are not beside the tests")


def run_recipe(name, work, **files):
    """Run a recipe and return the scores that it wrote."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RECIPES / name), "--quick", "--work", str(work)]
    command += [str(part) for option, path in files.items() for part in (f"--{option}", path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = {}
    for run in json.loads((work / "result.json").read_text())["runs"]:
        scores.setdefault(run["task"], {}).setdefault(run["system"], []).append(run["score"])
    return scores


def test_the_spanish_recipe(tmp_path):
    (tmp_path / "text.txt").write_text(make_text(600))
    (tmp_path / "heldout.txt").write_text("the fox sees fish .\n" * 20)
    for part in ("train", "testa", "testb"):
        sentence = "Juan NP B-PER\nRuiz NP I-PER\nvive VM O\nen SP O\nMadrid NP B-LOC\n\n"
        (tmp_path / f"esp.{part}").write_text(sentence * 8)
    files = {"text": tmp_path / "text.txt", "heldout": tmp_path / "heldout.txt", "conll": tmp_path}
    scores = run_recipe("spanish.py", tmp_path / "work", **files)
    assert set(scores) == {"parts of speech", "named entities"}
    for systems in scores.values():
        assert [len(found) for found in systems.values()] == [1, 1, 1]
        assert all(0 <= score <= 1 for found in systems.values() for score in found)


def test_the_protein_recipe(tmp_path):
    generator = np.random.default_rng(0)

    def fasta(name, titles):
        records = (f">{title}\n{''.join(generator.choice(list('ACDEFGHIKLMNPQRSTVWY'), 40))}\n" for title in titles)
        (tmp_path / name).write_text("".join(records))
        return tmp_path / name

    labels = [f"P{n} {'Nucleus' if n % 2 else 'Cell.membrane'}-U" for n in range(40)]
    files = {
        "proteome": fasta("proteome.fasta", (f"p{n}" for n in range(900))),
        "known": fasta("known.fasta", labels),
        "test": fasta("test.fasta", labels),
    }
    scores = run_recipe("proteins.py", tmp_path / "work", **files)
    assert set(scores["localisation"]) == {"residues counted", "ELMo with random weights", "ELMo"}
