"""The recipes of docs/what-elmo-adds.md: what they share, by hand, and each with `--quick` on data made here."""

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elmokit import load
from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError, TextError

RECIPES = Path(__file__).parents[1] / "recipes"
if not RECIPES.is_dir():
    pytest.skip("the recipes are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(RECIPES))

import chunking  # noqa: E402 (the folder above is on the path only now)
import classification  # noqa: E402
import command  # noqa: E402
import data  # noqa: E402
import documents  # noqa: E402
import entailment  # noqa: E402
import measures  # noqa: E402
import ner  # noqa: E402
import parts_of_speech  # noqa: E402
import question_answering  # noqa: E402
import robustness  # noqa: E402
import sample_efficiency  # noqa: E402
import stored  # noqa: E402
import stored_vectors  # noqa: E402
import tagging  # noqa: E402
import trainer  # noqa: E402
import what_elmo_adds  # noqa: E402
import word_vectors  # noqa: E402
import words_in_context  # noqa: E402
from results import Results  # noqa: E402

WORDS = "the red fox sees a blue fish and one old dog runs home".split()
COLOURS = {"red", "blue", "old"}


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_native(tiny, folder)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def sentences(count, seed=0):
    generator = np.random.default_rng(seed)
    return [[str(word) for word in generator.choice(WORDS, generator.integers(3, 9))] for _ in range(count)]


def write_columns(path, count, seed, *, row):
    lines = ("".join(row(n, word) for n, word in enumerate(words, 1)) + "\n" for words in sentences(count, seed))
    path.write_text("".join(lines))


def told(model, work, *more):
    return command.arguments(None).parse_args(["--model", str(model), "--work", str(work), "--quick", *map(str, more)])


# ---------------------------------------------------------------- measures


@given(st.lists(st.lists(st.sampled_from(["A", "B", ""]), min_size=1, max_size=4), max_size=5))
def test_spans_are_those_that_were_written(kinds):
    """Each inner list is read as runs of one kind, an empty kind as words outside of any span."""
    tags, wanted = [], []
    for run in kinds:
        for kind in run:
            length = len(run)
            if kind:
                wanted.append((len(tags), len(tags) + length, kind))
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)] if kind else ["O"] * length
    assert list(measures.spans(tags)) == wanted


def test_a_span_without_beginning_counts():
    assert list(measures.spans(["I-A", "I-B", "O", "I-B"])) == [(0, 1, "A"), (1, 2, "B"), (3, 4, "B")]


def test_scores_by_hand():
    assert measures.span_f1([["B-A", "I-A", "B-B"]], [["B-A", "I-A", "O"]]) == pytest.approx(2 * 1 / (2 + 1))
    assert measures.tag_accuracy([["x", "y"], ["x"]], [["x", "x"], ["x"]]) == pytest.approx(2 / 3)
    assert measures.macro_f1(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx((2 / 3 + 2 / 3) / 2)
    found = measures.answer_f1([("The Old Bridge", "a bridge"), ("1973",)], ["old bridge!", "in May"])
    assert found == pytest.approx((1 + 0) / 2)


# ---------------------------------------------------------------- what the recipes share


def test_stored_layers_are_those_of_the_model(tiny_elmo, tmp_path):
    words = [("a", "fox"), ("fish",), ("a", "fox")]
    kept, means = (stored.store(words, tiny_elmo, tmp_path, pooled=pooled) for pooled in (False, True))
    for one, layers in zip(words, tiny_elmo.embed(words, layers="all"), strict=True):
        assert kept[one].dtype == np.float16
        np.testing.assert_allclose(kept[one], layers, atol=2e-3)
        np.testing.assert_allclose(means[one], layers.mean(1, keepdims=True), atol=2e-3)
    files = sorted(tmp_path.iterdir())
    stored.store(words, tiny_elmo, tmp_path)
    assert sorted(tmp_path.iterdir()) == files


@given(st.lists(st.text(max_size=8), min_size=1, max_size=8))
def test_clean_words_make_a_line_of_as_many(words):
    assert len(" ".join(stored.clean(words)).split()) == len(words)


@torch.no_grad()
def test_a_crf_tagger_agrees_with_counting_all_sequences():
    torch.manual_seed(0)
    examples = [trainer.Example((("a", "b", "c"),), ["X", "Y", "X"]), trainer.Example((("a",),), ["Z"])]
    parts = trainer.Parts(examples, examples, examples)
    text = trainer.Input(examples, trainer.System(), None, size=4)
    tagger = tagging.Tagger(text, parts, crf=True).eval()
    scores_BTK, crf = tagger(examples), tagger.crf
    losses, best = [], []
    for scores_TK, one in zip(scores_BTK, examples, strict=True):
        totals = {}
        for tags in itertools.product(range(3), repeat=len(one.right)):
            steps = sum((crf.transitions[a, b] for a, b in itertools.pairwise(tags)), start=torch.tensor(0.0))
            ends = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
            totals[tags] = float(ends + steps + sum(scores_TK[n, tag] for n, tag in enumerate(tags)))
        right = totals[tuple(tagger.tags.index(tag) for tag in one.right)]
        losses.append(np.logaddexp.reduce(list(totals.values())) - right)
        best.append([tagger.tags[n] for n in max(totals, key=totals.get)])
    assert float(tagger.loss(examples)) == pytest.approx(np.mean(losses), abs=1e-5)
    assert tagger.predict(examples) == best


@pytest.mark.parametrize("name", trainer.SYSTEMS)
def test_a_tagger_learns_and_its_mix_is_the_systems(name, tiny_elmo, tmp_path):
    """Which words are colours can be learned with every system; what is fixed of the mix stays as it was."""
    examples = [trainer.Example((tuple(s),), ["C" if w in COLOURS else "O" for w in s]) for s in sentences(120)]
    parts = trainer.Parts(examples[:80], examples[80:100], examples[100:])
    kept = stored.store(command.sentences_of(parts), tiny_elmo, tmp_path)
    recipe = trainer.Recipe(
        "x",
        "x",
        "",
        parts_of_speech.read,
        tagging.Tagger,
        measures.tag_accuracy,
        trainer.SYSTEMS,
        epochs=4,
        updates=5,
        rate=1e-2,
    )
    tagger, log = trainer.train_network(recipe, parts, trainer.SYSTEMS[name], kept, seed=1)
    assert measures.tag_accuracy([one.right for one in parts.test], trainer.predict(tagger, parts.test)) > 0.95
    assert set(log["mix"]) == ({*trainer.SYSTEMS[name].places} if name != "no ELMo" else set())
    shares = [place["layers"] for place in log["mix"].values()]
    if name == "top layer":
        assert shares == [[0.0, 0.0, 1.0]]
    elif name == "average":
        assert shares == [pytest.approx([1 / 3] * 3)]
    elif name != "no ELMo":
        assert all(max(place) - min(place) > 1e-4 for place in shares)


def test_given_vectors_are_what_a_network_begins_with(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The red fox sees the blue fish\n" * 50)
    command_line = [sys.executable, str(RECIPES / "word_vectors.py"), str(text), "--out", str(tmp_path / "v.bin")]
    subprocess.run([*command_line, "--size", "8"], check=True, capture_output=True, timeout=120)
    vectors = word_vectors.read_words(tmp_path / "v.bin", {"fox", "fish", "unheard"})
    assert set(vectors) == {"fox", "fish"}
    text = trainer.Input([trainer.Example((("Fox", "unheard"),), "")], trainer.System(), None, vectors=vectors).eval()
    found = text([("Fox", "unheard")])
    np.testing.assert_array_equal(found[0, 0].detach(), vectors["fox"])
    with pytest.raises(MismatchError, match="none of the 1 words"):
        word_vectors.read_words(tmp_path / "v.bin", {"unheard"})


def test_results_go_on_and_refuse_others(tmp_path):
    file = tmp_path / "results" / "x.json"
    Results(file, {"model": "a"}).add({"system": "s", "seed": 1, "score": 0.5})
    again = Results(file, {"model": "a"})
    assert again.has(system="s", seed=1)
    assert not again.has(system="s", seed=2)
    with pytest.raises(MismatchError, match="another model"):
        Results(file, {"model": "b"})


def test_parts_of_a_data_set_without_parts_share_nothing():
    parts = data.in_parts([trainer.Example(((str(n),),), "") for n in range(100)])
    assert [len(part) for part in parts] == [72, 8, 20]
    assert len({one.sentences for part in parts for one in part}) == 100


def test_data_that_is_not_there_is_told(model, work):
    with pytest.raises(TextError, match="name a folder or an archive with --data"):
        command.run(ner.NER, told(model, work, "--data", work / "nothing"))


# ---------------------------------------------------------------- every recipe from end to end


def tagged(folder, names, *, row):
    for seed, name in enumerate(names):
        write_columns(folder / name, 40, seed, row=row)


def make_ner(folder):
    tag = {"red": "B-thing", "fox": "I-thing"}
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    tagged(folder, names, row=lambda n, word: f"{word}\t{tag.get(word, 'O')}\n")


def make_pos(folder):
    names = [f"en-ud-{part}.conllu" for part in ("train", "dev", "test")]

    def row(n, word):
        extra = f"{n}-{n + 1}\tx{word}\t_\t_\t_\t_\t_\t_\t_\t_\n" if n == 1 else ""
        return f"{extra}{n}\t{word}\t_\t{'ADJ' if word in COLOURS else 'X'}\t_\t_\t_\t_\t_\t_\n"

    tagged(folder, names, row=row)


def make_chunking(folder):
    tagged(folder, ("train.txt", "test.txt"), row=lambda n, word: f"{word} NN {'B-NP' if n % 2 else 'I-NP'}\n")


def make_sst(folder):
    (folder / "fiveclass").mkdir()
    for seed, part in enumerate(("train", "dev", "test")):
        trees = (f"({len(words) % 5} " + " ".join(f"(2 {w})" for w in words) + ")" for words in sentences(40, seed))
        (folder / "fiveclass" / f"{part}.txt").write_text("\n".join(trees) + "\n")


def make_trec(folder):
    (folder / "raw" / "raw").mkdir(parents=True)
    for seed, part in enumerate(("train", "test")):
        lines = (f"{'DESC' if len(w) % 2 else 'HUM'}:x {' '.join(w)} ?\n" for w in sentences(40, seed))
        (folder / "raw" / "raw" / f"TREC.{part}").write_text("".join(lines))


def make_sst2(folder):
    (folder / "binary").mkdir()
    for seed, part in enumerate(("train", "dev", "test")):
        trees = (f"({len(words) % 3 - 1} " + " ".join(f"(0 {w})" for w in words) + ")" for words in sentences(40, seed))
        (folder / "binary" / f"{part}-binary.txt").write_text("\n".join(trees) + "\n")


def make_labelled(folder, name):
    (folder / name).write_text("".join(f"{n % 2} {' '.join(w)}\n" for n, w in enumerate(sentences(60))))


def make_sms(folder):
    rows = "".join(f"{'spam' if n % 3 else 'ham'}\t{' '.join(w)}!\n" for n, w in enumerate(sentences(60)))
    (folder / "SMSSpamCollection").write_text("Label\tSMS\n" + rows)


def make_hate(folder):
    with (folder / "labeled_data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", "class", "tweet"])
        rows.writerows([n, n % 3, f'"{" ".join(w)}",\nsaid &amp; done'] for n, w in enumerate(sentences(60)))


def make_imdb(folder):
    for seed, part in enumerate(("train", "test")):
        rows = ({"id": f"{part}/{'pos' if n % 2 else 'neg'}/{n}", "text": " ".join(w) + ".<br />Yes."}
                for n, w in enumerate(sentences(40, seed)))  # fmt: skip
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_sick(folder):
    head = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    for part in ("train", "trial", "test_annotated"):
        pairs = itertools.pairwise(sentences(40))
        rows = (f"1\t{' '.join(a)}\t{' '.join(b)}\t3\t{'NEUTRAL' if len(a) % 2 else 'ENTAILMENT'}\n" for a, b in pairs)
        (folder / f"SICK_{part}.txt").write_text(head + "".join(rows))


def make_squad(folder):
    def passage(words):
        asked = {"question": f"Who sees {words[1]}?", "answers": [{"text": words[2], "answer_start": len(words[0] + words[1]) + 2}]}  # fmt: skip # noqa: E501
        return {"context": " ".join(words) + ".", "qas": [asked]}

    articles = [{"paragraphs": [passage(words) for words in sentences(6, seed)]} for seed in range(12)]
    (folder / "dev-v1.1.json").write_text(json.dumps({"data": articles}))


def make_wic(folder):
    for part in ("train", "dev", "test"):
        pairs = [(a, b) for a, b in itertools.pairwise(sentences(40))]
        rows = (f"{a[0]}\tN\t0-{len(b) - 1}\t{' '.join(a)}\t{' '.join(b)}\n" for a, b in pairs)
        (folder / f"{part}.data.txt").write_text("".join(rows))
        (folder / f"{part}.gold.txt").write_text("".join("FT"[len(a) % 2] + "\n" for a, _ in pairs))


RUNS = {
    "ner": (ner.NER, make_ner),
    "parts of speech": (parts_of_speech.POS, make_pos),
    "chunking": (chunking.CHUNKING, make_chunking),
    "sst-5": (classification.recipe("sst-5"), make_sst),
    "trec": (classification.recipe("trec"), make_trec),
    "sst-2": (classification.recipe("sst-2"), make_sst2),
    "mr": (classification.recipe("mr"), lambda folder: make_labelled(folder, "rt-polarity.all")),
    "subj": (classification.recipe("subj"), lambda folder: make_labelled(folder, "subj.all")),
    "sms": (classification.recipe("sms"), make_sms),
    "hate": (classification.recipe("hate"), make_hate),
    "imdb": (documents.IMDB, make_imdb),
    "entailment": (entailment.ENTAILMENT, make_sick),
    "question answering": (question_answering.ANSWERS, make_squad),
    "words in context": (words_in_context.WIC, make_wic),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_runs_and_goes_on(name, model, work, tmp_path, monkeypatch):
    recipe, make = RUNS[name]
    make(tmp_path)
    options = told(model, work, "--data", tmp_path, "--results", work / "results")
    command.run(recipe, options)
    found = json.loads((work / "results" / f"{recipe.name}.json").read_text())
    assert [run["system"] for run in found["runs"]] == list(recipe.systems)
    assert all(0 <= run["score"] <= 1 for run in found["runs"])
    assert found["about"]["quick"]
    assert {"elmokit", "torch", "python"} <= found["versions"].keys()
    monkeypatch.setattr(command, "train_network", None)  # nothing is left to be trained
    command.run(recipe, options)


def test_a_number_sign_is_a_word_but_in_conllu(tmp_path):
    """CoNLL-2000 has lines of it; comments of CoNLL-U begin with it."""
    (tmp_path / "a.txt").write_text("-DOCSTART- -X- O\n\n# # I-NP\n1 CD I-NP\n\n#5 NN O\n")
    assert [one.sentences[0] for one in data.columns(tmp_path / "a.txt")] == [("#", "1"), ("#5",)]
    columns = ["1-2", "dont", "_", "_"], ["1", "do", "_", "AUX"], ["2", "nt", "_", "PART"], ["2.1", "e", "_", "_"]
    rows = "\n".join("\t".join([*row, *"______"]) for row in columns)
    (tmp_path / "a.conllu").write_text(f"# text = dont\n#\n{rows}\n")
    (one,) = data.columns(tmp_path / "a.conllu", word=1, tag=3)
    assert (one.sentences[0], one.right) == (("do", "nt"), ["AUX", "PART"])


def test_what_a_user_can_mend_is_one_sentence(tmp_path):
    for options, told in (
        (["--data", "nowhere"], "the data of ner is not at nowhere; name a folder or an archive with --data"),
        (["--seeds", "0"], "argument --seeds: expected a whole number from 1 on, found '0'"),
    ):
        line = [sys.executable, str(RECIPES / "ner.py"), "--work", str(tmp_path), *options]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode
        assert done.stderr.splitlines()[-1].endswith(told)


def test_tables_and_pictures_of_what_the_recipes_found(model, work, tmp_path, monkeypatch):
    """Parts of the training data, misspelt words and the page, from the quick results; those stay out of the docs."""
    shared = tmp_path / "data" / "tasks"
    (shared / "ewt").mkdir(parents=True)
    make_pos(shared / "ewt")
    (shared / "en.natural").write_text("red rad ret\nfish fsh\n")
    monkeypatch.setattr(command, "SHARED", tmp_path)
    results = ["--results", str(tmp_path / "results")]
    line = ["x", "--model", str(model), "--work", str(work), "--quick", *results]
    task = trainer.Recipe(**{**vars(parts_of_speech.POS), "data": "ewt", "epochs": 1})
    for module, names in ((sample_efficiency, {"TASKS": (task,)}), (robustness, {"POS": task})):
        for attribute, value in names.items():
            monkeypatch.setattr(module, attribute, value)
    monkeypatch.setattr(sys, "argv", line)
    sample_efficiency.main()
    monkeypatch.setattr(sys, "argv", [*line, "--noise", str(shared)])
    robustness.main()
    page = tmp_path / "page.md"
    page.write_text(what_elmo_adds.PAGE.read_text())
    monkeypatch.setattr(sys, "argv", ["x", *results, "--page", str(page)])
    what_elmo_adds.main()
    text = page.read_text()
    assert "| parts of speech, UD English EWT | mix | " in text.split("<!-- efficiency -->")[1]
    assert "| ELMo, word vectors and letters | " in text.split("<!-- robustness -->")[1]
    pictures = {"adds-efficiency.svg", "adds-robustness.svg"}
    assert {file.name for file in (tmp_path / "images").iterdir()} == pictures
    assert all(f"](images/{picture})" in text for picture in pictures)
    monkeypatch.setattr(sys, "argv", ["x", *results])
    with pytest.raises(SystemExit, match="do not go into"):
        what_elmo_adds.main()


def test_the_page_of_the_bundled_model_gets_a_few_of_the_tasks(tmp_path):
    """Those that were measured with it, not with what was bundled before."""
    runs = [{"system": system, "seed": 1, "score": 0.5} for system in ("no ELMo", "average")]
    versions = {"elmokit": "1", "torch": "2"}

    def result(name, fingerprint):
        about = {"recipe": name, "metric": "accuracy", "word vectors": "v.bin"}
        about["model"] = {"name": "bundled", "fingerprint": fingerprint}
        return {"about": about, "versions": versions, "runs": runs}

    found = {name: result(name, mark * 16) for name, mark in (("mr", "a"), ("trec", "b"), ("imdb", "a"))}
    *_, note = what_elmo_adds.tables(found, {})["tasks"]
    models = "bundled (aaaaaaaa) for sentiment, MR; sentiment, IMDB. bundled (bbbbbbbb) for questions, TREC."
    assert f"ELMo: {models} Word vectors: v.bin." in note
    assert list(what_elmo_adds.tables(found, {})) == ["tasks"]  # no mix was learned
    made = what_elmo_adds.tables_of_bundled(found, "a" * 64)
    page = tmp_path / "page.md"
    page.write_text(what_elmo_adds.BUNDLED.read_text())
    what_elmo_adds.table.fill(page, made)
    table = page.read_text().split("<!-- tasks -->\n")[1].split("\n<!-- /tasks -->")[0].splitlines()
    assert [row.split(" | ")[0] for row in table[2:-2]] == ["| sentiment, MR"]
    assert "ELMo: bundled (aaaaaaaa). Word" in table[-1]
    assert what_elmo_adds.tables_of_bundled(found, "c" * 64) == {}


def test_the_pages_show_the_results():
    """What the script would write of recipes/results is what the pages have."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted((RECIPES / "results").glob("*.json"))}
    judged = what_elmo_adds.judges(found, RECIPES / "results" / "judges")
    of_bundled = what_elmo_adds.tables_of_bundled(found, load().fingerprint)
    pages = (what_elmo_adds.PAGE, what_elmo_adds.tables(found, judged)), (what_elmo_adds.BUNDLED, of_bundled)
    for page, made in pages:
        text = page.read_text("utf-8")
        stale = [name for name, lines in made.items() if what_elmo_adds.table.replace(text, name, lines) != text]
        assert (page.name, stale) == (page.name, [])


def test_a_pair_of_wic_with_its_places():
    found = words_in_context._pair(["spring", "N", "1-2", "A spring .", "One `` spring"], "F")
    assert found == trainer.Example((("A", "spring", "."), ("One", '"', "spring")), words_in_context.Use((1, 2), "F"))


def test_a_sense_is_learned_from_the_word_alone(tiny_elmo, tmp_path):
    """The words at the two places are colours or not; the network finds out whether they are alike."""
    examples = []
    for n, (a, b) in enumerate(itertools.pairwise(sentences(240))):
        places = n % len(a), n % len(b)
        same = (a[places[0]] in COLOURS) == (b[places[1]] in COLOURS)
        examples.append(trainer.Example((tuple(a), tuple(b)), words_in_context.Use(places, "FT"[same])))
    parts = trainer.Parts(examples[:180], examples[180:200], examples[200:])
    recipe = trainer.Recipe(**{**vars(words_in_context.WIC), "epochs": 8, "updates": 20, "rate": 1e-2})
    network, _ = trainer.train_network(recipe, parts, trainer.SYSTEMS["no ELMo"], None, seed=1)
    found = trainer.predict(network, parts.test)
    assert recipe.measure([one.right for one in parts.test], found) > 0.9


def test_judges_of_another_model_do_not_count(tmp_path, monkeypatch):
    """Those of the bundled model are left out, those that belong to the results end it."""
    own, bundled = tmp_path / "own", tmp_path / "bundled"
    monkeypatch.setattr(what_elmo_adds, "JUDGED", bundled)
    for folder, name, digest in (
        (own, "wsd", "a"),
        (bundled, "wsd", "b"),
        (bundled, "pos", "a"),
        (bundled, "wic", "b"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"model": {"sha256": digest * 64}, "systems": {}}))
    found = {"ner": {"about": {"model": {"fingerprint": "a" * 16}}}, "robustness": {"about": {}}}
    judged = what_elmo_adds.judges(found, own)
    assert {name: one["model"]["sha256"][0] for name, one in judged.items()} == {"wsd": "a", "pos": "a"}
    (own / "wic.json").write_text((bundled / "wic.json").read_text())
    with pytest.raises(SystemExit, match=r"wic\.json is of another model than the recipes'"):
        what_elmo_adds.judges(found, own)


def test_layers_are_told_side_by_side():
    first = {"layer": "", "ALL": 60.0, "nearest use": 60.0}
    second = {"layer": "2", "ALL": 61.5, "nearest use": 62.0}
    model = {"name": "bundled", "sha256": "abcdefghijk"}
    judged = {
        "pos": {"model": model, "systems": {"ELMo": [{"layer": "1", "upos": 91.26}, {"layer": "2", "upos": 90.0}]}},
        "wsd": {"model": model, "systems": {"first sense": [first], "ELMo": [second]}, "data": {"back-off": "none"}},
    }
    *rows, _, model_line = what_elmo_adds.layer_lines(judged)
    assert model_line == "Judged: bundled (abcdefgh); back-off of senses: none."
    assert rows[0] == "| system | layer | parts of speech | senses, F1 | senses, nearest use |"
    assert rows[2:4] == ["| ELMo | 1 | 91.3 |  |  |", "| ELMo | 2 | 90.0 | 61.5 | 62.0 |"]
    assert rows[4:] == ["| first sense |  |  | 60.0 | 60.0 |"]


@pytest.mark.skipif(os.name == "nt", reason="a shell file")
def test_everything_is_one_command(tmp_path):
    """Each recipe is called once, its folders and options with blanks in them unharmed, the page last."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" >> "$CALLS"\necho >> "$CALLS"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "CALLS": str(tmp_path / "calls"), "RESULTS": "r s", "JOBS": "1"}
    environment["WORDNET"] = "w n"
    line = ["bash", str(RECIPES / "run-all.sh"), "w x", "--vectors", "v w", "--model", "m n", "--quick"]
    subprocess.run(line, check=True, env=environment, timeout=60)
    *calls, last = (tmp_path / "calls").read_text().splitlines()
    assert last == f"{RECIPES}/what_elmo_adds.py|--results|r s|"
    calls, judges = calls[:-3], calls[-3:]
    for name, call in zip(("pos", "wsd", "wic"), judges, strict=True):
        wordnet = "--wordnet|w n|" if name == "wsd" else ""
        judge = f"{RECIPES}/../benchmarks/quality/{name}.py|{wordnet}--model|m n|--quick|"
        assert call == f"{judge}--out|r s/judges/{name}.json|"
    assert all(call.endswith("|--work|w x|--results|r s|--vectors|v w|--model|m n|--quick|") for call in calls)
    called = [call.removeprefix(f"{RECIPES}/").split("|--work")[0] for call in calls]
    assert len(set(called)) == len(called) == 17
    sets = {call.split("|")[1] for call in called if call.startswith("classification.py")}
    assert sets == set(classification.SOURCES)


@given(st.lists(st.sampled_from(["Red", "fish", "fox"]), min_size=1, max_size=9), st.integers(0, 99), st.data())
def test_more_errors_are_the_same_ones_and_others(words, seed, drawn):
    """A word that is misspelt at some share is so at every higher one; tags and other words stay."""
    errors = {"red": ["rad", "ret"], "fish": ["fsh"]}
    one = trainer.Example((tuple(words),), words)
    low, high = sorted(drawn.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    some, more, all_ = (robustness.misspelt(one, errors, share, seed) for share in (low, high, 1.0))
    for word, a, b, c in zip(words, some.sentences[0], more.sentences[0], all_.sentences[0], strict=True):
        assert a in (word, b)
        assert b in (word, c)
        assert (c != word) == (word != "fox")
        assert c[0].isupper() == word[0].isupper()
    assert all_.right == words


def test_stored_vectors_are_the_same_from_both_files(model, work, tmp_path, monkeypatch):
    make_pos(tmp_path)
    line = ["x", "--model", str(model), "--work", str(tmp_path), "--data", str(tmp_path), "--quick"]
    monkeypatch.setattr(sys, "argv", line)
    stored_vectors.main()
    runs = json.loads((tmp_path / "results" / "stored-vectors.json").read_text())["runs"]
    scores = {run["system"]: run["score"] for run in runs}
    assert len(scores) == 6
    assert all(scores[f"layer {n}, hdf5"] == scores[f"layer {n}, parquet"] for n in range(3))
    (folder,) = tmp_path.glob("dumped-*")
    np.testing.assert_array_equal(
        stored_vectors.read_hdf5(folder / "test.hdf5"), stored_vectors.read_parquet(folder / "test.parquet")
    )
