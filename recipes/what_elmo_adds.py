"""Write the tables of docs/what-elmo-adds.md, and draw its pictures, from the results of the recipes.

    python recipes/what_elmo_adds.py --results recipes/results

The layer test comes from the judges, `benchmarks/quality/pos.py`, `wsd.py` and `wic.py`: from the folder `judges` of
the results, else from those of the bundled model, where they judged the model that the recipes took.
A table whose results are not there stays as it is. A few of the tasks go into docs/bundled-model.md as well. Needs the
extra `plot`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair
from command import told_plainly
from results import grouped, shown
from trainer import SYSTEMS

from elmokit import load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import table  # noqa: E402 (the folder is on the path only now)

PAGE = ROOT / "docs" / "what-elmo-adds.md"
BUNDLED = ROOT / "docs" / "bundled-model.md"
JUDGED = ROOT / "benchmarks" / "results" / "quality"
# Of the results of each judge, what the page shows of each layer.
FIGURES = (
    ("pos", "upos", "parts of speech"),
    ("wsd", "ALL", "senses, F1"),
    ("wsd", "nearest use", "senses, nearest use"),
    ("wic", "accuracy", "words in context"),
)
JUDGES = tuple(dict.fromkeys(name for name, *_ in FIGURES))
NAMES = {
    "ner": "names, WNUT-17",
    "pos": "parts of speech, UD English EWT",
    "chunking": "chunks, CoNLL-2000",
    "question-answering": "answers, SQuAD dev by article",
    "entailment": "entailment, SICK",
    "sst-5": "sentiment, SST-5",
    "sst-2": "sentiment, SST-2",
    "mr": "sentiment, MR",
    "imdb": "sentiment, IMDB",
    "trec": "questions, TREC",
    "subj": "subjectivity, SUBJ",
    "sms": "spam, SMS",
    "hate": "offence, tweets",
    "wic": "words in context, WiC",
}
# What the page of the bundled model shows.
OF_BUNDLED = ("ner", "sst-5", "trec", "mr", "subj")
# Table 1 of Peters et al. 2018 (NAACL), test: data, the task's own baseline, with ELMo.
PAPER = {
    "ner": ("CoNLL-2003", 90.15, 92.22),
    "question-answering": ("SQuAD v1.1", 81.1, 85.8),
    "entailment": ("SNLI", 88.0, 88.7),
    "sst-5": ("SST-5", 51.4, 54.7),
}
Found = Mapping[str, dict[str, Any]]


def main() -> None:
    """Fill what there are results for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--page", type=Path, default=PAGE, help="a page with the same marks; pictures go beside it")
    told = parser.parse_args()
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(told.results.glob("*.json"))}
    judged = judges(found, told.results / "judges")
    quick = [name for name, one in found.items() if one["about"]["quick"]]
    published = told.page.resolve() == PAGE.resolve()
    if quick and published:
        raise SystemExit(f"results of --quick do not go into {PAGE.name}: {', '.join(quick)}; name another --page")
    table.fill(told.page, tables(found, judged))
    if published:
        table.fill(BUNDLED, tables_of_bundled(found, load().fingerprint))
    images = told.page.parent / "images"
    images.mkdir(exist_ok=True)
    for name, picture in pictures(found).items():
        picture.save(str(images / f"adds-{name}.svg"))


def judges(found: Found, folder: Path) -> Found:
    """Return what the judges found of the model that the recipes took."""
    taken = {one["about"]["model"]["fingerprint"] for one in found.values() if "model" in one["about"]}
    judged = {}
    for file in (place / f"{name}.json" for place in (JUDGED, folder) for name in JUDGES):  # of two the later counts
        one = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if one and one["model"]["sha256"][:16] in taken:
            judged[file.stem] = one
        elif one and file.parent == folder:
            raise SystemExit(f"{file} is of another model than the recipes'; delete it and run the judge again")
    return judged


def tables(found: Found, judged: Found) -> dict[str, list[str]]:
    """Return the lines of each table that there are results for."""
    tasks = {name: found[name] for name in NAMES if name in found}
    made = {"tasks": task_lines(tasks) if tasks else [], "mixes": mix_lines(tasks)}
    made["efficiency"] = efficiency_lines(efficiency(found))
    made["robustness"] = robustness_lines(found["robustness"]) if "robustness" in found else []
    made["layers"] = layer_lines(judged) if judged else []
    return {name: lines for name, lines in made.items() if lines}


def tables_of_bundled(found: Found, fingerprint: str) -> dict[str, list[str]]:
    """Return the lines of the table of a few tasks, of those that were measured with the bundled model as it is."""
    few = {name: found[name] for name in OF_BUNDLED if name in found}
    few = {name: one for name, one in few.items() if fingerprint.startswith(one["about"]["model"]["fingerprint"])}
    return {"tasks": task_lines(few)} if few else {}


# ---------------------------------------------------------------- the tables


def task_lines(tasks: Found) -> list[str]:
    """Every task with every system; what the mix at the input takes away of the error; the paper's figures."""
    rows = [
        f"| task | measure | {' | '.join(SYSTEMS)} | error less | paper |",
        "|---|---" + "|--:" * (len(SYSTEMS) + 2) + "|",
    ]
    for name, one in tasks.items():
        scores = {system: values for (system,), values in grouped(one["runs"]).items()}
        cells = [shown(scores[system]) if system in scores else "" for system in SYSTEMS]
        rows.append("| " + " | ".join([NAMES[name], one["about"]["metric"], *cells, less(scores), paper(name)]) + " |")
    return [*rows, "", *notes(tasks)]


def less(scores: Mapping[str, Sequence[float]]) -> str:
    """How much of the error without ELMo is gone with a mix at the input."""
    if not {"no ELMo", "mix"} <= scores.keys():
        return ""
    before, after = (1 - statistics.mean(scores[name]) for name in ("no ELMo", "mix"))
    return f"{(before - after) / before:.0%}"


def paper(name: str) -> str:
    """What the paper has for the task, and how much of the error that is."""
    if name not in PAPER:
        return ""
    data, before, after = PAPER[name]
    return f"{data}: {before} → {after} ({(after - before) / (100 - before):.0%})"


def notes(tasks: Found) -> list[str]:
    """What the figures were made with."""
    models: dict[str, list[str]] = {}
    for name, one in tasks.items():
        model = one["about"]["model"]
        models.setdefault(f"{model['name']} ({model['fingerprint'][:8]})", []).append(NAMES[name])
    several = len(models) > 1
    elmos = [f"{model} for {'; '.join(names)}" if several else model for model, names in sorted(models.items())]
    vectors = sorted({one["about"]["word vectors"] for one in tasks.values()})
    versions = sorted(
        {f"elmokit {one['versions']['elmokit']}, torch {one['versions']['torch']}" for one in tasks.values()}
    )
    seeds = sorted({len(scores) for one in tasks.values() for scores in grouped(one["runs"]).values()})
    over = f"mean ± standard deviation over {' or '.join(map(str, seeds))} seeds"
    return [
        f"Test parts, {'one seed' if seeds == [1] else over}, in per cent. ELMo: "
        f"{'. '.join(elmos)}. Word vectors: {', '.join(vectors)}. {'; '.join(versions)}."
    ]


def mix_lines(tasks: Found) -> list[str]:
    """What share each layer got, the mean over the seeds, at the input of "mix" and at the output of the next."""
    n_layers = max((len(layers) for one in tasks.values() for layers in mixes(one, "mix", "input")), default=0)
    if not n_layers:
        return []
    heads = [f"{where}, layer {n}" for where in ("input", "output") for n in range(n_layers)]
    rows = ["| task | " + " | ".join(heads) + " |", "|---" + "|--:" * len(heads) + "|"]
    for name, one in tasks.items():
        cells = [NAMES[name]]
        for learned in (mixes(one, "mix", "input"), mixes(one, "mix at the output", "output")):
            means = [f"{statistics.mean(values):.2f}" for values in zip(*learned, strict=True)]
            cells += means or [""] * n_layers
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def mixes(one: Mapping[str, Any], system: str, place: str) -> list[list[float]]:
    """Return the shares of the layers, of each seed."""
    return [run["mix"][place]["layers"] for run in one["runs"] if run["system"] == system]


def efficiency(found: Found) -> list[dict[str, Any]]:
    """Return a row for each task, part of its data and system, of the tasks that were learned from parts."""
    rows = []
    for name in NAMES:
        of_task = [one for one in found.values() if one["about"]["recipe"] == name]
        for one in of_task if len(of_task) > 1 else ():
            for (system,), scores in grouped(one["runs"]).items():
                if system in ("no ELMo", "mix"):
                    about = one["about"]
                    rows.append({"task": NAMES[name], "share": about["fraction"], "system": system, "scores": scores})
    return sorted(rows, key=lambda row: (row["task"], row["system"], row["share"]))


def efficiency_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores by part of the training data."""
    shares = sorted({row["share"] for row in rows})
    lines = [
        "| task | system | " + " | ".join(f"{s:.0%}" for s in shares) + " |",
        "|---|---" + "|--:" * len(shares) + "|",
    ]
    for task, system in dict.fromkeys((row["task"], row["system"]) for row in rows):
        cells = {row["share"]: shown(row["scores"]) for row in rows if (row["task"], row["system"]) == (task, system)}
        lines.append("| " + " | ".join([task, system, *(cells.get(share, "") for share in shares)]) + " |")
    return [*lines, "", shown_picture("efficiency", "Scores against the part of the training data")] if rows else []


def robustness_lines(found: Mapping[str, Any]) -> list[str]:
    """Accuracy by share of misspelt words."""
    shares = found["about"]["words changed"]
    lines = ["| words misspelt | " + " | ".join(f"{share:.0%}" for share in shares.values()) + " |"]
    lines.append("|---" + "|--:" * len(shares) + "|")
    for system in dict.fromkeys(run["system"] for run in found["runs"]):
        curves = [run["curve"] for run in found["runs"] if run["system"] == system]
        lines.append("| " + " | ".join([system, *(shown([c[share] for c in curves]) for share in shares)]) + " |")
    return [*lines, "", shown_picture("robustness", "Accuracy against the share of misspelt words")]


def layer_lines(judged: Found) -> list[str]:
    """What each layer alone knows: a linear probe of parts of speech, senses by two rules, words in context."""
    columns = [(name, key, title) for name, key, title in FIGURES if name in judged]
    lines = ["| system | layer | " + " | ".join(title for *_, title in columns) + " |"]
    lines.append("|---|---" + "|--:" * len(columns) + "|")
    scores = [
        {(system, row["layer"]): row[key] for system, rows in judged[name]["systems"].items() for row in rows}
        for name, key, _ in columns
    ]
    for place in dict.fromkeys(place for one in scores for place in one):
        cells = (f"{one[place]:.1f}" if place in one else "" for one in scores)
        lines.append("| " + " | ".join([*place, *cells]) + " |")
    models = {f"{one['model']['name']} ({one['model']['sha256'][:8]})" for one in judged.values()}
    back_off = f"; back-off of senses: {judged['wsd']['data']['back-off']}" if "wsd" in judged else ""
    return [*lines, "", f"Judged: {', '.join(sorted(models))}{back_off}."]


# ---------------------------------------------------------------- the pictures


def shown_picture(name: str, title: str) -> str:
    """Return the line of a page that shows one of the pictures."""
    return f"![{title}](images/adds-{name}.svg)"


def pictures(found: Found) -> dict[str, Any]:
    """Return the pictures that there are results for."""
    rows, made = efficiency(found), {}
    if rows:
        made["efficiency"] = efficiency_picture(rows)
    if "robustness" in found:
        made["robustness"] = robustness_picture(found["robustness"])
    return made


def efficiency_picture(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Scores against the part of the training data, a panel for each task."""
    values = [{**row, "scores": None, "per cent": 100 * statistics.mean(row["scores"])} for row in rows]
    share = altair.X("share:Q", scale=altair.Scale(type="log"), title="part of the training data", axis={"format": "%"})
    line = (
        altair.Chart(altair.Data(values=values))
        .mark_line(point=True)
        .encode(x=share, y=altair.Y("per cent:Q", scale={"zero": False}), color=altair.Color("system:N", title=None))
    )
    panels = line.properties(width=200, height=160).facet(altair.Facet("task:N", title=None), columns=2)
    return panels.resolve_scale(y="independent")


def robustness_picture(found: Mapping[str, Any]) -> Any:
    """Accuracy against the share of words that are misspelt, the mean over the seeds."""
    shares = found["about"]["words changed"]
    values = [
        {"system": run["system"], "share": shares[share], "per cent": 100 * score}
        for run in found["runs"]
        for share, score in run["curve"].items()
    ]
    return (
        altair.Chart(altair.Data(values=values))
        .mark_line(point=True)
        .encode(
            x=altair.X("share:Q", title="words misspelt", axis={"format": "%"}),
            y=altair.Y("mean(per cent):Q", title="accuracy of parts of speech, per cent", scale={"zero": False}),
            color=altair.Color("system:N", title=None, sort=None),
        )
        .properties(width=420, height=260)
    )


if __name__ == "__main__":
    with told_plainly():
        main()
