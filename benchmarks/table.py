"""Write the tables of the pages of docs/ that have markers for them (TABLES) from the results."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quality.tables import TABLES as QUALITY_TABLES
from serve_table import serve_lines

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
OURS = ("elmokit", "elmokit_bfloat16")
LABELS = {
    "elmokit": "elmokit {version}",
    "elmokit_bfloat16": "elmokit {version}, bfloat16",
    "bilm_tf": "bilm-tf {version}",
    "allennlp": "AllenNLP {version}",
    "allennlp_sorted": "AllenNLP {version}, sentences sorted by length",
    "fast_elmo": "pytorch-fast-elmo {version}",
    "fast_elmo_sorted": "pytorch-fast-elmo {version}, sorted",
}


def embed_lines(results: dict[str, Any]) -> list[str]:
    """The table of embed.json, shapes one below the other, and a line for each about how it was measured."""
    lines = [
        "| shape | engine | tokens/s | elmokit against it | in bfloat16 | needed GFLOP/s | of peak | peak MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for shape, measured in sorted(results.items(), reverse=True):
        lines += [embed_row(shape, name, measured) for name in LABELS if name in measured["runs"]]
    return [*lines, "", *(note(shape, measured) for shape, measured in sorted(results.items(), reverse=True))]


def embed_row(shape: str, name: str, measured: dict[str, Any]) -> str:
    run, peak, rounds = measured["runs"][name], measured["matmul_gflops"], "seconds_of_each_round"
    rate = measured["work"]["gflop_for_the_text"] * run["tokens_per_s"] / measured["text"]["tokens"]
    cells = [
        shape,
        LABELS[name].format(**run),
        f"{run['tokens_per_s']:,.0f}",
        *("" if name in OURS else times_faster(measured["runs"][ours][rounds], run[rounds]) for ours in OURS),
        f"{rate:.0f}",
        f"{rate / peak:.0%}",
        f"{run['peak_mb']:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def times_faster(ours: list[float], theirs: list[float]) -> str:
    """How many times faster elmokit was: the median of the rounds' ratios, and their range."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return f"{statistics.median(ratios):.1f} x ({min(ratios):.1f} to {max(ratios):.1f})"


def note(shape: str, measured: dict[str, Any]) -> str:
    """What one shape was measured on."""
    text, machine, work = measured["text"], measured["machine"], measured["work"]
    rounds = len(measured["runs"]["elmokit"]["seconds_of_each_round"])
    torch = " and ".join(sorted({run["torch"] for run in measured["runs"].values() if "torch" in run}))
    return (
        f"- {shape}: {text['sentences']:,} sentences, {text['tokens']:,} tokens, {text['distinct_words']:,} distinct "
        f"words; {machine['cpu']}, threads: {machine['threads']}, torch {torch}, matmul peak "
        f"{measured['matmul_gflops']:.0f} GFLOP/s; "
        f"median of {rounds} rounds; the others in batches of {measured['peer_batch_size']}; needed "
        f"{work['mflop_per_token']:g} MFLOP a token and {work['mflop_per_distinct_word']:g} a distinct word; "
        f"largest difference of the vectors {max(measured['max_difference'].values()):.0e}."
    )


def latency_lines(results: dict[str, Any]) -> list[str]:
    """The table of latency.json, and a line for each shape about what reading weights takes of it."""
    lines = [
        "| shape | engine | one sentence, ms | elmokit is faster | in bfloat16 | words known, ms | elmokit is faster "
        "| in bfloat16 |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for shape, measured in sorted(results.items(), reverse=True):
        lines += [latency_row(shape, name, measured["runs"]) for name in LABELS if name in measured["runs"]]
    return [*lines, "", *(latency_note(shape, measured) for shape, measured in sorted(results.items(), reverse=True))]


def latency_row(shape: str, name: str, runs: dict[str, Any]) -> str:
    """One engine; older tools know no words, so elmokit's time with known ones is compared with their only time."""
    run, cells = runs[name], [shape, LABELS[name].format(**runs[name])]
    for kind in ("latency_ms", "latency_kept_ms"):
        cells.append(f"{run[f'median_{kind}']:.1f}" if kind in run else "")
        cells += ["" if name in OURS else times_faster(runs[ours][kind], run["latency_ms"]) for ours in OURS]
    return "| " + " | ".join(cells) + " |"


def latency_note(shape: str, measured: dict[str, Any]) -> str:
    """What reading the weights of the steps alone takes."""
    bound, machine, rounds = measured["reading"], measured["machine"], len(measured["runs"]["elmokit"]["latency_ms"])
    return (
        f"- {shape}: {machine['cpu']}, threads: {machine['threads']}; median of {rounds} rounds. "
        f"A sentence reads the {bound['weights_mb']:g} MB of the recurrence's weights at each of its 22 places, "
        f"{bound['reading_ms']:.1f} ms in float32 at the {bound['reading_gb_s']:.0f} GB/s of a plain sum over as many "
        "values in the same rounds, half of that in bfloat16, before a word is spelled or a gate computed."
    )


def train_lines(result: dict[str, Any]) -> list[str]:
    """The table of train_peer.json."""
    lines = [
        "| trainer | optimiser | updates | tokens an update | perplexity forward | backward | mean | tokens/s |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for run in result["runs"]:
        perplexity = (f"{run['heldout'][name]:.1f}" for name in ("forward", "backward", "mean"))
        cells = [run["name"], run["optimiser"], f"{run['updates']:,}", str(run["tokens_per_update"]), *perplexity]
        lines.append("| " + " | ".join([*cells, f"{run['tokens_per_s']:,.0f}"]) + " |")
    return [*lines, "", train_note(result)]


def train_note(result: dict[str, Any]) -> str:
    """What the trainers had in common."""
    train, heldout, options = result["text"]["train"], result["text"]["heldout"], result["options"]
    own = result["runs"][0]["heldout_by_its_own_code"]
    return (
        f"{train['tokens']:,} tokens of training text, {heldout['tokens']:,} held out; preset `tiny`, "
        f"{options['n_tokens_vocab']:,} words, {options['n_negative_samples_batch']:,} negative samples, dropout "
        f"{options['dropout']}, {options['n_epochs']} epochs, seed {result['seed']}; {result['machine']['cpu']}, "
        f"threads: {result['machine']['threads']}. Perplexity: exact full softmax after the last update, all by "
        f"elmokit's code; bilm-tf's own code gives {own['mean']:.1f} for its model. The trainers ran one after the "
        f"other, so the speeds compare only roughly."
    )


def speed_lines(results: dict[str, Any]) -> list[str]:
    """The table of train_speed.json, and a line for each shape about how it was measured."""
    lines = ["| shape | trainer | tokens/s | against bilm-tf | of peak |", "|---|---|--:|--:|--:|"]
    notes = []
    for shape, measured in results.items():
        theirs = measured["runs"]["bilm-tf"]["seconds_an_update"]
        for name, run in measured["runs"].items():
            ratios = [a / b for a, b in zip(theirs, run["seconds_an_update"], strict=True)]
            against = f"{statistics.median(ratios):.1f} x ({min(ratios):.1f} to {max(ratios):.1f})"
            cells = [shape, name, f"{run['tokens_per_s']:,.0f}", "" if name == "bilm-tf" else against]
            lines.append("| " + " | ".join([*cells, f"{run['of_peak']:.0%}"]) + " |")
        options, versions, work = measured["options"], measured["versions"], measured["work_of_an_update"]
        notes.append(
            f"- {shape}: {measured['machine']['cpu']}, median of {len(theirs)} rounds, batches of "
            f"{options['batch_size']} x {options['unroll_steps']}, {options['n_tokens_vocab']:,} words, "
            f"{options['n_negative_samples_batch']:,} negatives; an update needs {work['gflop']} GFLOP "
            f"({work['distinct_words']:.0f} distinct words); a large float32 product runs at "
            f"{measured['matmul_gflops']:.0f} GFLOP/s; TensorFlow {versions['tensorflow']} on Python "
            f"{versions['peer_python']}, torch {versions['torch']}."
        )
    return [*lines, "", *notes]


def ablation_lines(results: dict[str, Any]) -> list[str]:
    """The table of ablation.json, shapes apart, the best first."""
    lines = ["| one change | updates | forward | backward | mean | seconds |", "|---|--:|--:|--:|--:|--:|"]
    for name, run in sorted(results["runs"].items(), key=lambda item: (item[1]["updates"] < 1000, item[1]["mean"])):
        figures = (f"{run[key]:.1f}" for key in ("forward", "backward", "mean"))
        lines.append("| " + " | ".join([name, f"{run['updates']:,}", *figures, str(run["seconds"])]) + " |")
    return lines


def learning_lines(found: dict[str, Any]) -> list[str]:
    """The table of learning.json: of what the judges ask, the best layer."""
    asked = ("parts of speech", "senses", "twenty words")
    lines = [
        f"| million tokens read | held-out perplexity | {' | '.join(asked)} | model |",
        "|--:|--:" + "|--:" * len(asked) + "|---|",
    ]
    for one in found["models"]:
        best = (f"{max(one[name].values()):.1f}" for name in asked)
        figures = [f"{one['million_tokens']:g}", f"{one['perplexity']:.1f}", *best, one["sha256"][:8]]
        lines.append("| " + " | ".join(figures) + " |")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    held = f"the first {found['heldout']['sentences']:,} sentences of {found['heldout']['text']}"
    described = f"held out: {held}; judged: the best layer, or the average; {versions}; {found['date']}."
    return [*lines, "", f"`{found['command']} TOKENS=MODEL ...`; {described}"]


def gpu_lines(results: dict[str, Any]) -> list[str]:
    """The table of many_gpus.json."""
    lines = [
        "| GPUs | rows a GPU | distinct words | GFLOP | compute, ms | sent, GB | sending, ms | sending / compute |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for step in results["steps"]:
        share = step["communication_ms"] / step["compute_ms"]
        keys = ("gpus", "rows_a_gpu", "distinct_words", "gflop", "compute_ms", "sent_gb", "communication_ms")
        lines.append("| " + " | ".join([*(f"{step[key]:,}" for key in keys), f"{share:.2f}"]) + " |")
    return lines


def output_lines(found: dict[str, Any]) -> list[str]:
    """Return the table of output.json."""
    tokens = found["text"]["tokens"]
    runs = {(run["kind"], run["output"]): run for run in found["runs"]}
    rows = ["| kept | file | MB per million tokens | seconds against computing alone |", "|---|---|--:|--:|"]
    for (kind, ending), run in runs.items():
        alone = runs[kind, "thrown away"]["seconds"]
        if run["bytes"]:
            ratios = [ours / theirs for ours, theirs in zip(run["seconds"], alone, strict=True)]
            times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append(f"| {kind} | `{ending}` | {run['bytes'] / tokens:,.0f} | {times} |")
    note = (
        f"Shape `{found['shape']}`, {tokens:,} tokens, {found['text']['sentences']:,} sentences; "
        f"{found['machine']['cpu']}, threads: {found['machine']['threads']}; {len(alone)} rounds."
    )
    return [*rows, "", note]


def growth_lines(found: dict[str, Any]) -> list[str]:
    """Return the table of growth.json."""
    rows = ["| tokens | a sentence has | layers | cells | tokens/s | peak MB |", "|--:|--:|--:|--:|--:|--:|"]
    for one in found["runs"]:
        of = f"{one['length']:,}" if one["length"] else "as it comes"
        rate = f"{one['tokens'] / one['seconds']:,.0f}"
        rows.append(f"| {one['tokens']:,} | {of} | {one['layers']} | {one['cells']:,} | {rate} | {one['peak_mb']:,} |")
    text, where = found["text"], found["machine"]
    note = (
        f"Shape `{found['shape']}` but for the layers and cells; text of {text['tokens']:,} tokens; {where['cpu']}, "
        f"threads: {where['threads']}. Slope of the logarithms of seconds and tokens, rows of the first kind: "
        f"{found['slope']:.3f}"
    )
    of_arithmetic = found.get("slope_against_arithmetic")
    if of_arithmetic is not None:
        note += f"; of seconds and needed arithmetic, each distinct word once: {of_arithmetic:.3f}"
    return [*rows, "", f"{note}."]


def start_lines(found: dict[str, Any]) -> list[str]:
    """Return the table of start.json."""
    rows = ["| command | seconds |", "|---|--:|"]
    rows += [
        f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |"
        for name, times in found["seconds"].items()
    ]
    return rows


def stages_lines(found: dict[str, Any]) -> list[str]:
    """The table of stages.json: shares of the time."""
    names = list(dict.fromkeys(name for run in found["runs"].values() for name in run if name != "all"))
    rows = ["| | " + " | ".join(found["runs"]) + " |", "|---|" + "--:|" * len(found["runs"])]
    for name in names:
        cells = (f"{run[name] / run['all']:.0%}" if name in run else "" for run in found["runs"].values())
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    rows.append("| all | " + " | ".join(f"{run['all']:.2f} s" for run in found["runs"].values()) + " |")
    text, machine = found["text"], found["machine"]
    note = (
        f"{text['sentences']:,} sentences, {text['tokens']:,} tokens; {machine['cpu']}, threads: {machine['threads']}."
    )
    return [*rows, "", note]


def precision_lines(found: dict[str, Any]) -> list[str]:
    """The table of precision.json, and what a tagger makes of it."""
    rows = ["| layer | lowest cosine | mean cosine |", "|--:|--:|--:|"]
    rows += [f"| {n} | {c['lowest']:.5f} | {c['mean']:.6f} |" for n, c in enumerate(found["cosines"])]
    note = f"{found['text']['tokens']:,} tokens of English, bundled model."
    if found["accuracy"]:
        scores = (
            f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} in {name}"
            for name, values in found["accuracy"].items()
        )
        seeds = len(found["accuracy"]["float32"])
        tagger = f"parts of speech (UD English EWT, recipes/parts_of_speech.py, {seeds} seeds)"
        note += f" Accuracy of {tagger}: {' and '.join(scores)}."
    return [*rows, "", note]


def scaling_lines(found: dict[str, Any]) -> list[str]:
    """Return the tables of scaling.json: what was taken for granted, then hours, bytes and parts."""
    assumed, measured = found["assumed"], found["measured"]
    rows = ["| rate | value | from |", "|---|--:|---|"]
    rows += [
        f"| a GPU computes | {assumed['gpu_tokens_per_s']:,} tokens/s | **assumed**: the target, not measured |",
        f"| storage takes, from all machines | {assumed['storage_gb_per_s']} GB/s | **assumed** |",
        f"| a vector has | {assumed['width']:,} values, {assumed['layers']} layers | shape `original` |",
        f"| a sentence has | {measured['tokens_a_sentence']} tokens | counted in the text of docs/benchmarks.md |",
        f"| a core computes, shape `small` | {measured['cpu_tokens_per_s'] / measured['cpu_threads']:,.0f} tokens/s "
        f"| docs/benchmarks.md, float32, {measured['cpu_threads']} threads |",
        f"| a core reads and splits | {measured['reader_tokens_per_s'] / 1e6:.1f} million tokens/s "
        f"| measured, {measured['processor']}, lines |",
        f"| a core writes Parquet | {measured['writer_mb_per_s']:,} MB/s | measured, the same, float32 |",
    ]
    gpus = list(found["time"][0]["hours"])
    names = " | ".join(f"hours of {gpu} GPU{'s' * (gpu != '1')}" for gpu in gpus)
    rows += ["", f"| tokens | {names} | core hours, `small` on CPUs |"]
    rows += ["|--:" * (len(gpus) + 2) + "|"]
    for one in found["time"]:
        cells = [f"{one['tokens']:,}", *(f"{one['hours'][gpu]:.3g}" for gpu in gpus), f"{one['cpu_core_hours']:,.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return [*rows, "", *output_size_lines(found), "", *part_lines(found)]


def output_size_lines(found: dict[str, Any]) -> list[str]:
    """Return what each kind of output takes."""
    rows = [
        "| kept | numbers | TB, a billion tokens | TB, a trillion | GB/s of one GPU | GPU hours, a trillion, one "
        "worker each | workers a GPU that hide writing | GPUs that fill the storage |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found["output"]:
        cells = [
            one["kind"],
            one["dtype"],
            *(f"{size:,.0f}" if size >= 100 else f"{size:.2g}" for size in one["tb"].values()),
        ]
        cells += [f"{one['gb_per_s_a_gpu']:.2g}", f"{one['gpu_hours_of_a_trillion']:,.0f}"]
        cells += [str(one["workers_that_hide_writing"]), f"{one['gpus_that_fill_the_storage']:,.1f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def part_lines(found: dict[str, Any]) -> list[str]:
    """Return how many parts there are, and of what size."""
    kinds = list(found["parts"][0]["gb"])
    rows = [
        f"| tokens | `--save-every` | parts | {' | '.join(f'GB a part: {kind}' for kind in kinds)} "
        "| parts a second of 64 GPUs |",
        "|--:" * (len(kinds) + 4) + "|",
    ]
    for one in found["parts"]:
        cells = [f"{one['tokens']:,}", f"{one['sentences']:,}", f"{one['parts']:,.0f}"]
        cells += [*(f"{one['gb'][kind]:.2g}" for kind in kinds), f"{one['parts_per_s_of_64_gpus']:,.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def search_lines(result: dict[str, Any]) -> list[str]:
    """The table of search.json: both stores at every size, with the effort of the default and around it."""
    lines = [
        "| vectors | store | effort | recall@10 | median, ms | 95th percentile, ms | filled in, s | index in, s | MB |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size, measured in result["sizes"].items():
        latency = measured["NumPy"]["latency_ms"]
        lines.append(f"| {int(size):,} | NumPy | all | 1 | {latency['median']} | {latency['p95']} | | | |")
        for store in ("LanceDB", "PostgreSQL"):
            found = measured[store]
            for run in found["runs"]:
                cells = [f"{int(size):,}", store, "all" if run["effort"] is None else str(run["effort"])]
                cells += [f"{run['recall@10']:.3f}", *(str(run["latency_ms"][kind]) for kind in ("median", "p95"))]
                lines.append(
                    "| " + " | ".join([*cells, *(str(found[k]) for k in ("fill_s", "optimize_s", "mb"))]) + " |"
                )
    about = result["about"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    load = ", ".join(f"{measured['load']:.0f} at {int(size):,}" for size, measured in result["sizes"].items())
    return [
        *lines,
        "",
        f"`python benchmarks/search.py --text {about['text']}`; {about['questions']} questions, vectors of "
        f"{about['width']} values, {about['cpu']}, threads: {about['threads']}, programs at work on the machine (load "
        f"average): {load}; {versions}.",
    ]


def page_lines(result: dict[str, Any]) -> list[str]:
    """The table of page.json."""
    lines = [
        "| points | page, MB | opened, s | layer, ms | click, ms | search, ms | frame of a drag, ms |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in result["runs"]:
        figures = (f"{run[key]:,.0f}" for key in ("switch_ms", "click_ms", "search_ms", "frame_ms"))
        lines.append(f"| {run['points']:,} | {run['megabytes']} | {run['open_s']} | {' | '.join(figures)} |")
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    described = f"{machine['processor']}, {machine['cores']} cores, no graphics card; {versions}; {machine['date']}"
    return [*lines, "", f"`python benchmarks/page.py`; {described}."]


TABLES = [
    ("seeing.md", "page", page_lines),
    ("benchmarks.md", "embed", embed_lines),
    ("benchmarks.md", "latency", latency_lines),
    ("benchmarks.md", "train_peer", train_lines),
    ("benchmarks.md", "train_speed", speed_lines),
    ("benchmarks.md", "precision", precision_lines),
    ("benchmarks.md", "stages", stages_lines),
    ("benchmarks.md", "output", output_lines),
    ("benchmarks.md", "growth", growth_lines),
    ("benchmarks.md", "start", start_lines),
    ("training.md", "ablation", ablation_lines),
    ("training.md", "many_gpus", gpu_lines),
    ("training.md", "learning", learning_lines),
    ("scaling.md", "scaling", scaling_lines),
    ("search.md", "search", search_lines),
    ("serving.md", "serve", serve_lines),
    *QUALITY_TABLES,
]


def replace(page: str, name: str, lines: list[str]) -> str:
    """Put the lines between the comments `<!-- NAME -->` and `<!-- /NAME -->`."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = page.split(start, 1)
    return "\n".join([before + start, *lines, end]) + rest.split(end, 1)[1]


def fill(page: Path, made: Mapping[str, list[str]]) -> None:
    """Write tables between their comments."""
    text = page.read_text(encoding="utf-8")
    for name, lines in made.items():
        text = replace(text, name, lines)
    page.write_text(text, encoding="utf-8")


def main() -> None:
    for page, name, make in TABLES:
        file = HERE / "results" / f"{name}.json"
        if file.exists():
            fill(DOCS / page, {name: make(json.loads(file.read_text(encoding="utf-8")))})
        else:
            print(f"{file.name} is not there: its table stays as it is", file=sys.stderr)


if __name__ == "__main__":
    main()
