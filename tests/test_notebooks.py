"""The notebooks run from end to end, and what they find is better than chance. Each is run as the script that it is."""

import importlib.util
import re
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from elmokit import formats
from elmokit.checkpoint import WEIGHTS

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.py"))
ARCHIVES = {"sst2": "sst2-tsv", "trec": "sentconv", "ewt": "ud-english-ewt"}  # the others are called like the folder

pytestmark = [
    pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks are not beside the tests"),
    pytest.mark.skipif(not (formats.BUNDLED / WEIGHTS).is_file(), reason="no model is bundled with this installation"),
]


@pytest.fixture
def run(tmp_path, monkeypatch, request):
    """Run a notebook in a folder of its own, with data and extras that it needs; return its variables."""

    def run(name, *data, extras=()):
        for extra in extras:
            if importlib.util.find_spec(extra) is None:
                pytest.skip(f"needs the package {extra}")
        work = tmp_path / "notebooks"
        work.mkdir()
        shutil.copy(EXAMPLES / "sentences.txt", tmp_path)
        for folder in data:
            unpack(request.getfixturevalue("shared_data"), folder, work / "data" / folder)
        monkeypatch.chdir(work)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("PYTHONPATH", ":".join(part for part in sys.path if part))
        return runpy.run_path(str(EXAMPLES / "notebooks" / name), run_name="notebook")

    return run


def unpack(shared, folder, target):
    """Put the files of a data set into one folder."""
    target.mkdir(parents=True)
    if folder == "openstax":
        for path in (shared / "lm" / folder).glob("*.xz"):
            (target / path.name).symlink_to(path)
        return
    with tarfile.open(shared / "tasks" / f"{ARCHIVES.get(folder, folder)}.tar.xz") as archive:
        for member in archive:
            if member.isfile() and member.name.count("/") == 2:
                (target / Path(member.name).name).write_bytes(archive.extractfile(member).read())


def test_four_ways_give_the_same_vectors(run):
    found = run("1_four_ways.py", extras=["sklearn"])
    for way in ("from_python", "from_torch"):
        differences = [abs(a - b).max() for a, b in zip(found["from_command"], found[way], strict=True)]
        assert max(differences) < 1e-5
    assert found["features"].shape == (len(found["sentences"]), found["elmo"].dim)
    assert found["layer"].mixes[0].weights.grad.abs().max() > 0


def test_sentiment_is_learned(run):
    found = run("2_sentiment.py", "sst2")
    assert found["test_accuracy"] > found["larger_class"] + 0.05


def test_sentences_and_words_are_classified(run):
    found = run("3_sentences_and_words.py", "trec", "ewt", extras=["sklearn"])
    assert min(found["question_scores"].values()) > 0.6  # the largest class has 0.28
    assert found["word_scores"][0] < max(found["word_scores"][1:])  # the sentence tells what the spelling does not
    assert min(found["word_scores"]) > 0.7


def test_vectors_are_computed_once(run):
    found = run("4_preprocess_once.py", "sst2", extras=["sklearn", "pyarrow"])
    assert len(found["scores"]) == 6
    assert max(found["scores"].values()) > 0.55
    assert found["table"].num_rows == found["N"]


def test_contexts_are_seen(run):
    found = run("5_seeing_contexts.py", extras=["altair", "vl_convert"])
    assert found["spread"][0] < 1e-5 < found["spread"][1]  # spelled alike, used differently
    found["charts"].save("uses.svg")
    assert len(re.findall(">[^<>]*cell phone[^<>]*</text>", Path("uses.svg").read_text("utf-8"))) == 3
    assert {near.word for near in found["neighbours"][:2]} == {"bank"}


def test_spam_is_filtered(run):
    found = run("6_spam.py", "sms-spam", extras=["sklearn"])
    assert min(found["scores"].values()) > 0.8
    stopped = found["stopped"]
    assert stopped["plain", "ELMo", "as written", "ham"] < 0.1
    assert stopped["both", "ELMo", "in disguise", "spam"] > 0.7
    assert stopped["both", "ELMo", "in disguise", "ham"] < 0.2


def test_toxic_comments_are_mapped(run, capsys):
    found = run("7_toxic_map.py", "hate-offensive", extras=["sklearn", "altair", "vl_convert"])
    assert found["macro_f1"] > 0.45  # by chance 0.33
    assert found["same"] > 0.35  # by chance 0.33
    found["chart"].save("map.svg")
    assert "<svg" in Path("map.svg").read_text("utf-8")
    shown = capsys.readouterr().out + found["chart"].to_json()
    assert not any(tweet in shown for tweet, _ in found["sample"])


def test_a_model_is_trained(run):
    found = run("8_train_your_own.py")
    assert found["best"] <= found["perplexity"].forward < found["without_agreement"]
    right, wrong = found["verb_bits"].values()
    assert right < wrong


def test_sentences_are_found(run):
    found = run("9_semantic_search.py", "openstax", extras=["lancedb"])
    assert found["first"] > 0.2
    assert found["among_ten"] > 0.5
    assert found["first"] > found["first_by_text"]  # which knows whole words only
    assert found["uses"].settings.unit == "word"


def test_senses_are_on_a_map(run):
    found = run("10_senses_on_a_map.py", extras=["sklearn", "matplotlib", "bokeh"])
    assert len(found["found"].uses) == 13
    assert sorted(set(found["labels"])) == ["_", "biology", "prison", "table", "telephone"]
    groups = [[found["labels"][use.sentence] for use in sense.uses] for sense in found["found"].senses]
    assert sorted(group.count("telephone") for group in groups) == [0, 0, 0, 3]
    assert "<script" in Path("map.html").read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_says_what_it_shows_and_needs(path):
    """All text is in cells, the first tells what to expect, and the list of notebooks has it."""
    cells = re.split(r"^# %%(.*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    assert not cells[0]
    assert set(cells[1::2]) == {"", " [markdown]"}
    assert re.match(r"# # .+\n#\n# \*\*Shows\*\* (.+\n)+#\n# \*\*Needs\*\* ", cells[2])
    assert f"]({path.name})" in (path.parent / "README.md").read_text("utf-8")
    for kind, cell in zip(cells[1::2], cells[2::2], strict=True):
        assert not kind or all(line.startswith("#") for line in cell.strip().splitlines())
