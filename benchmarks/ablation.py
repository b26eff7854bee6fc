"""What each part of the training recipe is worth: the same text, held-out text and tokens, one change at a time.

    python benchmarks/ablation.py --text train.txt --heldout valid.txt --work WORK

Every variant is one run of `elmo train` in a process of its own; perplexities are exact, over the same held-out text
and vocabulary. Variants that `results/ablation.json` holds are not run again; name some with --only.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "ablation.json"

# All runs: shape tiny, one pass, 32 rows of 20 places, dropout 0.1, seed 1, unless the variant differs.
COMMON = ["--preset", "tiny", "--epochs", "1", "--min-count", "3", "--seed", "1", "--evaluate-every", "1000000"]
DEFAULT = {
    "--softmax": "sampled",
    "--precision": "float32",
    "--batch-size": "32",
    "--unroll": "20",
    "--samples": "2048",
    "--dropout": "0.1",
}
VARIANTS = {
    "published: Adagrad 0.2": {"--optimizer": "adagrad"},
    "AdamW 0.002, warm-up, cosine": {},
    "full softmax": {"--softmax": "full"},
    "adaptive softmax": {"--softmax": "adaptive"},
    "no dropout": {"--dropout": "0"},
    "16 rows of 20": {"--batch-size": "16"},
    "64 rows of 20": {"--batch-size": "64"},
    "16 rows of 40": {"--batch-size": "16", "--unroll": "40"},
    "64 rows of 10": {"--batch-size": "64", "--unroll": "10"},
    "learning rate 0.004": {"--learning-rate": "0.004"},
    "learning rate 0.001": {"--learning-rate": "0.001"},
    "512 negatives": {"--samples": "512"},
    "dropout 0.2": {"--dropout": "0.2"},
    "learning rate 0.008": {"--learning-rate": "0.008"},
    "characters": {"--unit": "characters"},
    "words": {"--unit": "words"},
    "words, tied head": {"--unit": "words", "--tie": ""},
    "bfloat16": {"--precision": "bfloat16"},
    "0.004, 16 rows of 20": {"--learning-rate": "0.004", "--batch-size": "16"},
    "learning rate 0.016": {"--learning-rate": "0.016"},
    "0.008, 64 rows of 20": {"--learning-rate": "0.008", "--batch-size": "64"},
    "0.008, no dropout": {"--learning-rate": "0.008", "--dropout": "0"},
}
VARIANTS["float32, seed 2"] = {"--seed": "2"}
# The best learning rate depends on the width: the same text, half a pass of it, with four times the cells.
SMALL = {"--preset": "small", "--epochs": "0.5", "--precision": "bfloat16"}
VARIANTS |= {
    f"preset small, half a pass, {rate}": {**SMALL, "--learning-rate": rate} for rate in ("0.002", "0.004", "0.008")
}


def main() -> None:
    """Run what is missing, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    found["versions"] = {"python": platform.python_version(), "torch": version("torch")}
    for name in arguments.only or VARIANTS:
        if name not in found["runs"]:
            found["runs"][name] = run(VARIANTS[name], arguments)
            RESULTS.write_text(json.dumps(found, indent=2) + "\n")
            print(name, found["runs"][name]["mean"], flush=True)


def run(changes: dict[str, str], arguments: argparse.Namespace) -> dict:
    """Train once; return the last evaluation and the time."""
    options = {**DEFAULT, **changes}
    out = arguments.work / f"run-{time.time_ns()}"
    command = [sys.executable, "-m", "elmokit", "train", arguments.text, "--out", str(out), *COMMON]
    command += ["--heldout", arguments.heldout, "--threads", arguments.threads]
    command += [part for pair in options.items() for part in pair if part]
    started = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    log = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]
    last = [entry for entry in log if "mean" in entry][-1]
    return {
        "options": options,
        "updates": last["step"],
        "places": last["places"],
        **{key: round(last[key], 2) for key in ("forward", "backward", "mean")},
        "heldout_places": last["heldout_places"],
        "seconds": round(seconds),
    }


if __name__ == "__main__":
    main()
