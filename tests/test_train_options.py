"""What a training run can be told: units, heads, texts, parts, patience, a model to go on from, many processes."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_checkpoint, make_config
from elmokit import cli
from elmokit.checkpoint import read_native, write_native
from elmokit.errors import FormatError, MismatchError, MissingExtra, OutputError, TextError
from elmokit.head import AdaptiveSoftmax, read_head
from elmokit.model import load
from elmokit.reading import Splitter
from elmokit.text import UNKNOWN
from elmokit.train import run
from elmokit.train.corpus import Block, Corpus, CorpusWriter
from elmokit.train.dropout import Dropout
from elmokit.train.evaluate import Perplexity
from elmokit.train.initial import initial_head
from elmokit.train.loop import Trainer
from elmokit.train.prepare import prepare, reopen
from elmokit.train.recipe import Recipe
from elmokit.train.report import read_log
from elmokit.train.saved import SavedRun
from elmokit.train.settings import Settings
from elmokit.train.splitting import Splitting, fingerprints, mark_of, write_corpus
from elmokit.train.vocabulary import build_lexicon
from elmokit.train.workers import Workers
from test_train import make_settings, make_text, train_until

WORDS = ("<S>", "</S>", "<UNK>", "the", "dog", "sees", "fish", ".")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(make_text(600))
    return path


def train(settings, out, **options):
    return run.train(settings, out, progress=False, **options)


# ---------------------------------------------------------------- texts on disk

sentences_of_words = st.lists(
    st.lists(st.text(st.characters(exclude_categories=()), min_size=1, max_size=5), min_size=1, max_size=6), max_size=9
)


@settings(max_examples=50, deadline=None)
@given(sentences=sentences_of_words)
def test_a_block_is_read_as_it_was_written(tmp_path_factory, sentences):
    """Any words that Python can hold, lone surrogates and line breaks among them."""
    path = tmp_path_factory.getbasetemp() / "block.npz"
    Block.of(sentences).save(path)
    assert spelled_out(Block.load(path)) == sentences


def spelled_out(block):
    words = iter([block.words[number] for number in block.tokens])
    return [list(itertools.islice(words, int(n))) for n in block.lengths]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_text_is_never_in_memory_whole(tmp_path, monkeypatch, processes):
    """Reading is at most a few blocks ahead of writing."""
    monkeypatch.setattr("elmokit.train.corpus.BLOCK_TOKENS", 100)
    writer = CorpusWriter(tmp_path / "train")
    ahead = []

    def lines():
        for number in range(2000):
            ahead.append(number // 10 - len(writer.places))  # a line of this size is a tenth of a block
            yield "a b c d e f g h i " * 3

    write_corpus(lines(), Splitting(Splitter()), writer, None, processes=processes)
    assert len(writer.places) > 150
    assert max(ahead) < 60


@pytest.mark.parametrize("processes", [1, 3])
def test_blocks_are_the_same_for_any_number_of_processes(tmp_path, monkeypatch, processes):
    """Held-out sentences are those whose marks say so, so that alike sentences are never on both sides."""
    monkeypatch.setattr("elmokit.train.corpus.BLOCK_TOKENS", 500)
    lines = make_text(2000).splitlines()
    train_part, heldout = CorpusWriter(tmp_path / "train"), CorpusWriter(tmp_path / "heldout")
    write_corpus(lines, Splitting(Splitter(), heldout_every=4), train_part, heldout, processes=processes)
    found = [write.close() for write in (train_part, heldout)]
    a, b = ([" ".join(s) for i in range(len(c.places)) for s in spelled_out(c.block(i))] for c in found)
    assert sorted(a + b) == sorted(lines)
    assert not set(a) & set(b)
    assert a == [line for line in lines if line in set(a)]
    assert [c.facts.sentences for c in found] == [len(a), len(b)]
    assert train_part.counts == Counter(" ".join(a).split())
    opened = Corpus.load(tmp_path / "train")
    assert (opened.places.tolist(), opened.facts) == (found[0].places.tolist(), found[0].facts)


def test_a_text_as_numbers_takes_what_the_page_says(tmp_path):
    """Some 5 bytes a token: of natural text, by Zipf's law, in sentences of 25 words."""
    generator = np.random.default_rng(0)
    words = np.minimum(generator.zipf(1.25, 200_000), 60_000)
    Block.of([f"word{n}" for n in line] for line in words.reshape(-1, 25)).save(tmp_path / "block.npz")
    assert 4.0 < (tmp_path / "block.npz").stat().st_size / len(words) < 5.5


class _KillsItself:
    """A splitter that takes its process with it, as a machine without memory does."""

    def __call__(self, items):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_while_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("elmokit.train.corpus.BLOCK_TOKENS", 500)
    lines = make_text(1000).splitlines()
    with pytest.raises(TextError, match="was killed, perhaps for want of memory"):
        write_corpus(lines, Splitting(_KillsItself()), CorpusWriter(tmp_path), None, processes=2)


def test_sentences_are_the_same_only_if_their_words_are(tmp_path):
    """Two sentences of one CRC-32 are not taken for each other."""
    found = {}
    for number in np.random.default_rng(0).integers(1 << 60, size=300_000).tolist():
        a = [str(number)]
        b = found.setdefault(mark_of(a), a)
        if a is not b:
            break
    assert mark_of(a) == mark_of(b)
    writer = CorpusWriter(tmp_path)
    write_corpus([a, b, ["y"]], Splitting(Splitter(), heldout=fingerprints([a])), writer, None, processes=1)
    assert writer.facts.shared == 1


def test_rare_words_are_not_counted_beyond_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("elmokit.train.corpus.MOST_WORDS", 10)
    writer = CorpusWriter(tmp_path)
    for start in range(0, 40, 5):
        block = Block.of([["often", "often", *(f"w{i}" for i in range(start, start + 5))]])
        writer.add(block, writer.facts)
    assert writer.counts["often"] == 16
    assert len(writer.counts) <= 10


def test_a_text_from_standard_input_is_read_once(text, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "elmokit", "train", "-", "--out", str(out), "--preset", "tiny", "--epochs", "0.3"]
    command += ["--batch-size", "4", "--threads", "1", "--precision", "float32", "--processes", "1", "--min-count", "1"]
    with text.open() as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "held-out perplexity" in done.stdout
    assert "standard input" in (out / "README.md").read_text()
    assert (out / "curve.svg").read_text().startswith("<svg")


def test_event_files_hold_the_curves_of_the_log(text, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(make_settings(text, tensorboard=True), tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out/training/log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "out/training/tensorboard")).Reload()
    for tag, key in (("loss", "loss"), ("perplexity", "mean"), ("forward", "forward")):
        wanted = [(line["step"], line[key]) for line in log if key in line]
        assert wanted
        np.testing.assert_allclose([(event.step, event.value) for event in events.Scalars(tag)], wanted, rtol=1e-6)


def test_a_run_without_the_package_that_draws_says_so(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "altair", None)
    run.train(make_settings(text), tmp_path / "out")
    assert "pip install 'elmokit[train]'" in capsys.readouterr().err
    assert not (tmp_path / "out/curve.svg").exists()
    assert (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "heldout", "note"),
    [
        (make_text(600), "the dog sees fish .\n" * 30, "are held-out sentences too"),
        (("the dog sees fish . " * 40 + "\n") * 10, "a b\n", "one sentence a line"),
        (make_text(600).replace(" .", "."), "a b\n", "does not look tokenised"),
        (make_text(600), "a b\n", "useful models begin"),
    ],
)
def test_what_users_get_wrong_is_said(tmp_path, capsys, content, heldout, note):
    (tmp_path / "text.txt").write_text(content)
    (tmp_path / "heldout.txt").write_text(heldout)
    chosen = make_settings(tmp_path / "text.txt", heldout=str(tmp_path / "heldout.txt"), recipe={"epochs": 0.01})
    run.train(chosen, tmp_path / "out", progress=True)
    assert note in capsys.readouterr().err


def test_long_sequences_of_symbols_are_no_raw_text(tmp_path, capsys):
    (tmp_path / "text.fasta").write_text(">one\n" + "ACDEFGHIKL" * 600 + "\n")
    (tmp_path / "heldout.txt").write_text("A C D\n")
    chosen = make_settings(
        tmp_path / "text.fasta", heldout=str(tmp_path / "heldout.txt"), recipe={"epochs": 0.01}, min_count=1
    )
    run.train(chosen, tmp_path / "out", progress=True)
    told = capsys.readouterr().err
    assert "the longest sequence has 6,000 symbols" in told
    assert "--tokenize" not in told


def test_a_vocabulary_of_other_words_is_noticed(text, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("<S>\n</S>\n<UNK>\nthe\nhund\n")
    run.train(make_settings(text, vocabulary=str(tmp_path / "words.txt"), recipe={"epochs": 0.01}), tmp_path / "out")
    assert "of the words to predict are not in the vocabulary" in capsys.readouterr().err


def test_words_with_white_space_are_reopened_as_they_are(tmp_path):
    """A list of tokens in Parquet may hold " w0" beside "w0"."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = [[*line.split(), " dog"] for line in make_text(600).splitlines()]
    parquet.write_table(arrow.table({"tokens": lines}), tmp_path / "text.parquet")
    (tmp_path / "heldout.txt").write_text("the dog\n")
    heldout = str(tmp_path / "heldout.txt")
    settings = make_settings(tmp_path / "text.parquet", heldout=heldout, recipe={"epochs": 0.1})
    train(settings, tmp_path / "whole")
    assert " dog" in read_native(tmp_path / "whole").vocabulary
    assert not train_until(settings, tmp_path / "parts", stop_after=9).finished
    run.resume(tmp_path / "parts", progress=False)
    for name in ("model.safetensors", "vocab.txt"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_column_is_that_of_parquet_files_only(text, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = make_text(600, seed=1).splitlines()
    parquet.write_table(arrow.table({"a": lines, "b": ["other"] * 600}), tmp_path / "text.parquet")
    heldout = tmp_path / "heldout.txt"
    heldout.write_text(make_text(30, seed=2) + "something new .\n")
    train(
        make_settings(tmp_path / "text.parquet", column="a", heldout=str(heldout), recipe={"epochs": 0.1}),
        tmp_path / "o",
    )
    assert "other" not in read_native(tmp_path / "o").vocabulary
    with pytest.raises(TextError, match="there is no column 'a'"):
        train(make_settings(text, column="a"), tmp_path / "p")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus/train/000000.npz", None),
        ("corpus/train/000000.npz", b"PK\x03\x04 cut"),
        ("corpus/train/index.json", b"{}"),
        ("corpus/train/index.json", b"[1]"),
        ("corpus/target_counts.npy", b"\x93NUMPY"),
        ("corpus/vocabulary.txt", b"<S>\n"),
        ("state.safetensors", None),
        ("state.safetensors", b"no state"),
    ],
)
def test_a_damaged_run_says_which_file_it_is(stopped_run, tmp_path, name, content):
    shutil.copytree(stopped_run, tmp_path / "out")
    file = tmp_path / "out" / "training" / name
    file.write_bytes(content) if content else file.unlink()
    with pytest.raises(FormatError, match=rf"{re.escape(str(file))} .*start the run again in another folder"):
        run.resume(tmp_path / "out", progress=False)


def test_the_state_of_another_run_is_refused(stopped_run, text, tmp_path):
    shutil.copytree(stopped_run, tmp_path / "out")
    other = replace(make_settings(text, recipe={"epochs": 0.1}), config=make_config(projection_dim=5))
    train(other, tmp_path / "other")
    state = "training/state.safetensors"
    shutil.copy(tmp_path / "other" / state, tmp_path / "out" / state)
    with pytest.raises(FormatError, match=r"is that of another run.*expected shape"):
        run.resume(tmp_path / "out", progress=False)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "out" / state)
    with pytest.raises(FormatError, match="start the run again in another folder"):
        run.resume(tmp_path / "out", progress=False)


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """The folder of a run that was stopped after a few updates."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "text.txt").write_text(make_text(600))
    train_until(make_settings(folder / "text.txt", recipe={"epochs": 0.2}), folder / "out", stop_after=3)
    return folder / "out"


def test_a_log_line_that_was_cut_does_not_matter(stopped_run, tmp_path):
    shutil.copytree(stopped_run, tmp_path / "out")
    log = tmp_path / "out" / "training" / "log.jsonl"
    log.write_bytes(b'{"step": 1, "places": 24, "seconds": 1.0, "loss": 2.5}\n{"step": 20, "pla')
    assert run.resume(tmp_path / "out", progress=False).finished
    first, *further = list(read_log(log))
    assert first["loss"] == 2.5
    assert further[0]["step"] == 20
    assert (tmp_path / "out" / "curve.svg").exists()


def test_more_epochs_than_anyone_reads(text, tmp_path):
    """A million is planned at once, more are refused; a thread that no signal reaches may train."""
    with pytest.raises(MismatchError, match="epochs: expected a number from 0 to 1,000,000"):
        Recipe(epochs=1e7)
    corpus = prepare(make_settings(text), tmp_path / "corpus", None, progress=False)
    trainer = Trainer(replace(make_settings(text).recipe, epochs=1e6), corpus, Workers())
    assert trainer.total_steps == 1_000_000 * trainer.streams.total_steps(1)
    assert trainer.streams.epochs_at(trainer.total_steps - 1) < 1e6
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, make_settings(text, recipe={"epochs": 0.1}), tmp_path / "out").result().finished


def test_a_text_named_by_a_dot_has_a_name_in_the_card(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(make_settings(".", recipe={"epochs": 0.1}), tmp_path / "out")
    assert f"- {tmp_path.name}\n" in (tmp_path / "out" / "README.md").read_text()


def test_a_shape_without_characters_has_none_to_list(text, tmp_path):
    config = make_config().model_copy(update={"char_cnn": None})
    with pytest.raises(MismatchError, match="the shape has no characters"):
        train(replace(make_settings(text, unit="characters"), config=config), tmp_path / "out")


def test_a_shape_that_is_not_for_training(text, tmp_path):
    config = make_config()
    marked = config.model_copy(update={"marks": ["<bos>", "<eos>", "<oov>"]})
    with pytest.raises(MismatchError, match="not trained with the options marks of its shape"):
        train(replace(make_settings(text), config=marked), tmp_path / "out")


@pytest.mark.parametrize(
    "number",
    [{"dropout": 1.0}, {"dropout": math.nan}, {"samples": 0}, {"warmup": -1}, {"seed": -1}, {"learning_rate": 0}],
)
def test_a_recipe_with_which_nothing_can_be_trained(number):
    with pytest.raises(MismatchError, match=rf"{next(iter(number))}: expected .*, found"):
        Recipe(**number)


@pytest.mark.parametrize("count", ["evaluate_every", "save_every", "evaluate_places", "patience", "min_count"])
def test_counts_with_which_nothing_can_be_done(text, count):
    with pytest.raises(MismatchError, match=rf"{count}: expected a whole number from [01] on, found -1"):
        make_settings(text, **{count: -1})


def test_a_script_whose_processes_run_it_again(tmp_path):
    """Nothing is written by them, and what is wrong is said."""
    (tmp_path / "text.txt").write_text(make_text(600))
    (tmp_path / "script.py").write_text(
        "from elmokit.train import corpus, run\nfrom elmokit.train.recipe import PRESETS, Recipe\n"
        "from elmokit.train.settings import Settings\n"
        "corpus.BLOCK_TOKENS = 500\n"
        "run.train(Settings(['text.txt'], PRESETS['tiny'], Recipe(epochs=0), processes=2), 'out', progress=False)\n"
    )
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert 'a script of your own with the call under  if __name__ == "__main__":' in ended.stderr
    assert not list((tmp_path / "out").glob("training/settings.json"))


def test_the_most_words_to_predict(text, tmp_path):
    train(make_settings(text, max_vocab=6, recipe={"epochs": 0.1}), tmp_path / "out")
    assert len(read_native(tmp_path / "out").vocabulary) == 6


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "is none; expected auto"), ("meta", "is not one that training knows"), ("cuda:99", "99|there is no cuda")],
)
def test_devices_that_are_not_there(text, tmp_path, device, message):
    with pytest.raises(MismatchError, match=message):
        train(make_settings(text, device=device), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_text_that_is_all_held_out_is_refused(text, tmp_path):
    with pytest.raises(TextError, match="nearly all sentences"):
        train(make_settings(text, heldout=str(text)), tmp_path / "out")


# ---------------------------------------------------------------- units


@pytest.mark.parametrize("unit", ["bytes", "characters", "words"])
def test_every_unit_learns_and_opens_again(text, tmp_path, unit):
    out = tmp_path / "out"
    summary = train(make_settings(text, unit=unit, recipe={"epochs": 8.0}), out)
    assert summary.perplexity < 3.5
    elmo = load(out)
    assert next(elmo.embed([["the", "dog", "Ж"]])).shape == (3, 8)
    assert ("char_embed" in read_native(out).arrays) == (unit != "words")


def test_a_lexicon_holds_what_is_frequent_enough():
    marks = ("<S>", "</S>", UNKNOWN, "<bow>", "<eow>")
    counts = Counter({"ab": 3, "b\n": 4, "c": 2, "語": 5})
    assert build_lexicon(counts, marks, "<pad>") == (*marks, "b", "語", "a", "<pad>")


def test_proteins_are_sequences_of_symbols(tmp_path):
    generator = np.random.default_rng(0)
    records = ("".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(900))
    fasta = tmp_path / "p.fasta"
    fasta.write_text("".join(f">{i}\n{record}\n" for i, record in enumerate(records)))
    train(make_settings(fasta, recipe={"epochs": 1.0}), tmp_path / "out")
    assert set(read_native(tmp_path / "out").vocabulary) == {"<S>", "</S>", "<UNK>", *"ACDEFGHIKLMNPQRSTVWY"}


@pytest.mark.parametrize("n_layers", [1, 4, 8])
def test_any_number_of_layers(text, tmp_path, n_layers):
    config = make_config(n_layers=n_layers, n_highway=2, activation="tanh", filters=((1, 4), (4, 4)))
    train(replace(make_settings(text, recipe={"epochs": 0.2}), config=config), tmp_path / "out")
    assert next(load(tmp_path / "out").embed([["the"]], layers="all")).shape == (n_layers + 1, 1, 8)


# ---------------------------------------------------------------- heads


def test_an_adaptive_head_is_torchs(tmp_path):
    """Against torch.nn.AdaptiveLogSoftmaxWithLoss with the same weights (its tails have no bias)."""
    counts = np.arange(200, 0, -1)
    arrays = initial_head(Recipe(softmax="adaptive"), counts, 16)
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(0, 0.3, a.shape).astype(np.float32) for name, a in arrays.items()}
    arrays |= {name: np.zeros_like(a) for name, a in arrays.items() if "tail" in name and name.endswith("bias")}
    head = AdaptiveSoftmax.from_arrays(arrays)
    assert head.bounds == [20, 80, 200]
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 200, [20, 80], div_value=4.0, head_bias=True)
    names = {"head.weight": "head.weight", "head.bias": "head.bias"}
    for k in (0, 1):
        names |= {f"tail.{k}.0.weight": f"tail.{k}.down", f"tail.{k}.1.weight": f"tail.{k}.out"}
    theirs.load_state_dict({name: torch.tensor(arrays[f"softmax.{ours}"]) for name, ours in names.items()})
    x, targets = torch.randn(50, 16, generator=torch.Generator().manual_seed(1)), torch.arange(0, 200, 4)
    torch.testing.assert_close(head.log_probabilities(x, targets), theirs(x, targets).output)
    torch.testing.assert_close(head.all_log_probabilities(x), theirs.log_prob(x))
    whole = head.all_log_probabilities(x)
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(50))


def test_an_adaptive_head_starts_from_word_frequencies():
    counts = np.array([2, 2, 4, 300, 200, 100, 50, 20, 10, 5, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1])
    head = AdaptiveSoftmax.from_arrays(initial_head(Recipe(softmax="adaptive"), counts, 8))
    shares = head.all_log_probabilities(torch.randn(3, 8)).exp().detach().numpy()
    np.testing.assert_allclose(shares, np.tile((counts + 0.5) / (counts + 0.5).sum(), (3, 1)), rtol=0.05, atol=1e-3)


def test_an_adaptive_head_is_trained_and_kept(text, tmp_path):
    out = tmp_path / "out"
    summary = train(make_settings(text, recipe={"softmax": "adaptive", "epochs": 8.0}), out)
    assert summary.perplexity < 4
    checkpoint = read_native(out)
    assert isinstance(read_head(checkpoint.arrays), AdaptiveSoftmax)
    from elmokit.formats import lost_in

    assert "the softmax head" in lost_in(checkpoint, "allennlp")


def test_a_tied_head_predicts_with_the_vectors_it_reads(text, tmp_path):
    out = tmp_path / "out"
    summary = train(make_settings(text, unit="words", recipe={"tie": True, "epochs": 8.0, "learning_rate": 0.01}), out)
    assert summary.perplexity < 4
    arrays = read_native(out).arrays
    np.testing.assert_array_equal(arrays["embedding"], arrays["softmax.weight"])
    with pytest.raises(MismatchError, match="take --unit words"):
        train(make_settings(text, recipe={"tie": True}), tmp_path / "other")


# ---------------------------------------------------------------- how it is trained


def losses_of(out):
    return [
        entry["loss"]
        for entry in map(json.loads, (out / "training" / "log.jsonl").read_text().splitlines())
        if "loss" in entry
    ]


@given(st.floats(0.05, 0.9), st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=50)
def test_dropout_of_a_row_does_not_depend_on_other_rows(rate, seed, T, B, data):
    x = torch.ones(T, 2, B, 3)
    first = data.draw(st.integers(0, B - 1))
    whole, part = Dropout(rate, seed=seed, first_row=0), Dropout(rate, seed=seed, first_row=first)
    calls = [(whole(x), part(x[:, :, first:])) for _ in range(3)]
    assert all(torch.equal(a[:, :, first:], b) for a, b in calls)
    many = Dropout(rate, seed=seed, first_row=0)(torch.ones(100, 2, 10, 50))
    assert abs(float((many == 0).float().mean()) - rate) < 0.01
    assert abs(float(many.mean()) - 1) < 0.05


@pytest.mark.parametrize("softmax", [{"softmax": "full"}, {"softmax": "sampled", "samples": 5}])
def test_a_batch_read_in_parts_is_the_same_update(text, tmp_path, softmax):
    recipe = {"dropout": 0.2, "batch_size": 8, "epochs": 1.0, **softmax}
    whole = train(make_settings(text, recipe=recipe), tmp_path / "whole")
    parts = train(make_settings(text, recipe={**recipe, "accumulate": 4}), tmp_path / "parts")
    np.testing.assert_allclose(losses_of(tmp_path / "whole"), losses_of(tmp_path / "parts"), rtol=1e-5)
    assert abs(whole.perplexity - parts.perplexity) < 1e-3 * whole.perplexity


def test_bfloat16_follows_float32(text, tmp_path):
    """The same run in both: losses stay together, and what is written is float32."""
    recipe = {"dropout": 0.0, "epochs": 1.0}
    for precision in ("float32", "bfloat16"):
        train(make_settings(text, recipe={**recipe, "precision": precision}), tmp_path / precision)
    np.testing.assert_allclose(losses_of(tmp_path / "float32"), losses_of(tmp_path / "bfloat16"), rtol=0.02)
    assert losses_of(tmp_path / "float32") != losses_of(tmp_path / "bfloat16")
    assert all(a.dtype == np.float32 for a in read_native(tmp_path / "bfloat16").arrays.values())


def test_a_run_ends_when_it_learns_nothing_more(text, tmp_path):
    chosen = make_settings(text, evaluate_every=5, patience=2, recipe={"learning_rate": 1e-9, "epochs": 3.0})
    summary = train(chosen, tmp_path / "out")
    assert summary.finished
    # Held-out perplexity moves by rounding alone, so two evaluations without a better one come soon.
    assert summary.steps < 200


def test_the_order_of_the_document_is_kept_on_request(text, tmp_path):
    chosen = make_settings(text)
    prepared = prepare(chosen, tmp_path / "corpus", None, progress=False)
    first = " ".join(spelled_out(prepared.train.block(0))[0])
    for shuffled in (False, True):
        trainer = Trainer(chosen.recipe, prepared, Workers(), shuffled=shuffled)
        stretch = trainer.streams._stretch(0, 0)
        assert (stretch.sentences[0] == 0) is not shuffled
    assert first in text.read_text()


# ---------------------------------------------------------------- going on from a model


def test_fine_tuning_a_model_with_a_head(text, tmp_path):
    """A model of other words, then the same on this text: perplexity before and after, the head's words kept."""
    old = tmp_path / "old.txt"
    old.write_text(make_text(600, seed=5).replace("dog", "fox").replace("fish", "dog"))
    train(make_settings(old, recipe={"epochs": 3.0}), tmp_path / "old")
    source = read_native(tmp_path / "old")
    chosen = make_settings(text, start=str(tmp_path / "old"), recipe={"epochs": 4.0})
    summary = train(replace(chosen, config=source.config), tmp_path / "new", start=source)
    assert summary.perplexity < 0.8 * summary.before
    assert read_native(tmp_path / "new").vocabulary == source.vocabulary
    assert "perplexity before training on this text" in (tmp_path / "new" / "README.md").read_text()


def test_fine_tuning_a_model_without_a_head_fits_one_first(text, tmp_path):
    """While the new head is fitted the network does not move; then it does."""
    source = make_checkpoint(scale=0.2)
    write_native(source, tmp_path / "bare")
    chosen = make_settings(text, start=str(tmp_path / "bare"), recipe={"epochs": 2.0, "head_share": 0.5})
    prepared = prepare(chosen, tmp_path / "corpus", source, progress=False)
    trainer = Trainer(chosen.recipe, prepared, Workers())
    while trainer.progress.step < trainer.head_steps:
        trainer.step()
    assert all((trainer.network.arrays()[name] == source.arrays[name]).all() for name in source.arrays)
    assert trainer.head.exact.weight.detach().any()
    trainer.step()
    assert any((trainer.network.arrays()[name] != source.arrays[name]).any() for name in source.arrays)
    summary = train(chosen, tmp_path / "out", start=source)
    assert summary.perplexity < summary.before < 15


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Models to go on from: without a head, with a full one, with an adaptive one."""
    vocabulary = ("<S>", "</S>", "<UNK>", "the", ".", *"dog dogs cat cats bird birds see sees fish food trees".split())
    full = make_checkpoint(scale=0.2, vocabulary=vocabulary)
    network = {name: array for name, array in full.arrays.items() if not name.startswith("softmax.")}
    head = initial_head(Recipe(softmax="adaptive"), np.arange(len(vocabulary), 0, -1), full.config.lstm.projection_dim)
    return {
        "headless": replace(full, arrays=network, vocabulary=None),
        "full": full,
        "adaptive": replace(full, arrays={**network, **head}),
    }


def go_on(text, **changes):
    recipe = {"epochs": 0.2, "head_share": 0.5, **changes.pop("recipe", {})}
    return make_settings(text, start="given", evaluate_every=10, save_every=6, **{"recipe": recipe, **changes})


@pytest.mark.parametrize("kind", ["headless", "full", "adaptive"])
def test_fine_tuning_that_is_stopped_and_resumed_gives_the_same_bytes(text, tmp_path, given, kind):
    """Stopped twice while only a new head learns, and afterwards; perplexity before is not forgotten."""
    recipe = {"softmax": "auto"} if kind == "adaptive" else {"softmax": "sampled", "samples": 5}
    settings, whole, parts = go_on(text, recipe=recipe), tmp_path / "whole", tmp_path / "parts"
    summary = train(settings, whole, start=given[kind])
    stopped = train_until(settings, parts, stop_after=6, start=given[kind])
    while not stopped.finished:
        stopped = train_until(None, parts, stop_after=9)
    assert stopped == summary
    assert summary.before < math.inf
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    (a, _), (b, _) = (SavedRun(out).read_state() for out in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert f"before training on this text: {summary.before:.2f}" in (parts / "README.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"epochs": 0.2, "softmax": "adaptive"}},
        {"recipe": {"epochs": 0.2, "tie": True}, "unit": "words"},
        {"recipe": {"epochs": 0.2, "optimizer": "adagrad", "learning_rate": 0.2}, "unit": "characters"},
    ],
)
def test_every_kind_of_model_is_resumed_exactly(text, tmp_path, changes):
    settings = make_settings(text, evaluate_every=10, **changes)
    summary = train(settings, tmp_path / "whole")
    assert not train_until(settings, tmp_path / "parts", stop_after=6).finished
    assert run.resume(tmp_path / "parts", progress=False) == summary
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert a == b


def test_a_run_that_is_killed_at_once_goes_on_from_the_model_it_was_given(text, tmp_path, given, monkeypatch):
    """The head that was given is not in the folder that --from names; it is kept before the first update."""
    settings = go_on(text)
    train(settings, tmp_path / "whole", start=given["full"])
    with monkeypatch.context() as patched:
        patched.setattr("elmokit.train.loop.Trainer.step", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "killed", start=given["full"])
    monkeypatch.chdir("/")
    run.resume(tmp_path / "killed", progress=False)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert a == b


@pytest.mark.parametrize(("kind", "softmax"), [("full", "adaptive"), ("adaptive", "sampled"), ("adaptive", "full")])
def test_a_head_is_trained_as_the_kind_it_is(text, tmp_path, given, kind, softmax):
    with pytest.raises(MismatchError, match=f"a head for the {kind} softmax"):
        train(go_on(text, recipe={"softmax": softmax}), tmp_path / "out", start=given[kind])
    assert not (tmp_path / "out").exists()


def test_evaluations_while_a_head_is_fitted_do_not_count_as_idle(text, tmp_path, given, monkeypatch):
    """Measured once a step, at the end of the fit too; patience begins there."""
    measured = []

    def worse(trainer, _places):
        measured.append(trainer.progress.step)
        return Perplexity(10.0 + len(measured), 10.0, 1)

    monkeypatch.setattr("elmokit.train.loop.Trainer.evaluate", worse)
    settings = go_on(text, patience=2, recipe={"epochs": 0.5})
    summary = train(replace(settings, evaluate_every=5), tmp_path / "out", start=given["headless"])
    assert len(measured) == len(set(measured))
    half = round(0.5 * steps_of(tmp_path / "out"))
    assert half in measured
    assert [step for step in measured if step > half] == measured[-2:]
    assert summary.steps == measured[-1]


def steps_of(out):
    """How many updates the whole run would have."""
    settings = Settings.from_json(SavedRun(out).read_settings())
    prepared = reopen(settings, SavedRun(out).corpus_folder)
    return Trainer(settings.recipe, prepared, Workers()).total_steps


# ---------------------------------------------------------------- what is refused, and when


def test_what_cannot_be_trained_leaves_its_folder_free(text, tmp_path, monkeypatch):
    """What is wrong is said before the text is read, or else a run that has not begun does not stand in the way."""
    out = tmp_path / "out"
    with pytest.raises(MismatchError, match="do not save work"):
        train(make_settings(text, recipe={"softmax": "sampled"}), out)
    assert not (out / "training" / "settings.json").exists()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tensorboard", None)
        with pytest.raises(MissingExtra, match="tensorboard"):
            train(make_settings(text, tensorboard=True), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert train(make_settings(text, recipe={"epochs": 0.1}), out).finished


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("full", "--preset tiny", "--preset: shape and spelling are those of the model"),
        ("full", "--options o.json --unit words", "--options, --unit: shape and spelling"),
        ("full", "--min-count 5 --max-vocab 100", "--max-vocab, --min-count: the words are those of the model"),
        ("full", "--vocabulary words.txt", "--vocabulary: the words are those of the model"),
        ("full", "--head-share 0.5", "--head-share: only a model --from that has no head"),
        (None, "--head-share 0.5", "--head-share: only a model --from that has no head"),
        (None, "--options o.json --preset tiny", "--preset: --options gives the shape"),
        (None, "--options o.json --unit bytes", "--unit: the shape that --options gives has no characters"),
        (None, "--vocabulary words.txt --max-vocab 9", "--max-vocab: --vocabulary lists the words"),
    ],
)
def test_options_that_a_run_has_no_use_for_are_refused(tmp_path, monkeypatch, capsys, given, kind, options, message):
    monkeypatch.chdir(tmp_path)
    lstm = make_config().lstm.model_dump()
    (tmp_path / "o.json").write_text(json.dumps({"lstm": lstm}))
    if kind:
        write_native(given[kind], tmp_path / "model")
        options += " --from model"
    monkeypatch.setattr("sys.argv", ["elmo", "train", "text.txt", "--out", "out", *options.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err.replace("'", "")
    assert not (tmp_path / "out").exists()


def test_the_card_tells_of_the_head_and_the_spelling_that_were_trained(text, tmp_path, given):
    train(go_on(text, recipe={"softmax": "auto"}), tmp_path / "adaptive", start=given["adaptive"])
    assert "adaptive softmax" in (tmp_path / "adaptive" / "README.md").read_text()
    config = make_config().model_copy(update={"char_cnn": None})
    train(replace(make_settings(text, recipe={"epochs": 0.1}), config=config), tmp_path / "table")
    assert "no characters (a table of words)" in (tmp_path / "table" / "README.md").read_text()


def test_the_share_of_a_process_must_be_readable_in_parts():
    assert Workers(1, 2).share(8, parts=4) == slice(4, 8)
    with pytest.raises(MismatchError, match="the 2 rows that each of 2 processes has of a batch of 4"):
        Workers(0, 2).share(4, parts=4)


def test_a_restart_goes_on_only_with_what_it_was_told(text, tmp_path, monkeypatch):
    """As torchrun does it: the first start is refused, for there is a run in OUT, and is tried again."""
    settings = make_settings(text, recipe={"epochs": 0.1})
    out = tmp_path / "out"
    train(settings, out)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(settings, out).finished
    for other in (replace(settings, texts=["other.txt"]), replace(settings, recipe=replace(settings.recipe, seed=2))):
        with pytest.raises(OutputError, match="holds a training run"):
            train(other, out)


# ---------------------------------------------------------------- many processes


def torchrun_command(arguments, *, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--monitor-interval", "0.2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return {"args": [*command, "-m", "elmokit", "train", *map(str, arguments)], "env": environment, "text": True}


def torchrun(arguments):
    return subprocess.run(**torchrun_command(arguments), capture_output=True, check=False, timeout=300)


def arguments_for(text, out, *more):
    fixed = "--preset tiny --epochs 0.5 --batch-size 4 --unroll 10 --dropout 0.2 --min-count 1 --precision float32"
    return [text, "--out", out, *fixed.split(), "--processes", "1", "--device", "cpu", *more]


def test_two_processes_do_what_one_does(text, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    done = torchrun(arguments_for(text, two, "--softmax", "sampled", "--samples", "5"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out perplexity") == 1
    single = [sys.executable, "-m", "elmokit", "train", *map(str, arguments_for(text, one))]
    single += ["--softmax", "sampled", "--samples", "5", "--threads", "1"]
    subprocess.run(single, check=True, capture_output=True, timeout=300)
    np.testing.assert_allclose(losses_of(one), losses_of(two), rtol=1e-4)
    a, b = (read_native(out).arrays for out in (one, two))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-2, atol=1e-4, err_msg=name)


def test_rows_that_processes_cannot_share_are_refused(text, tmp_path):
    done = torchrun([*arguments_for(text, tmp_path / "out"), "--batch-size", "5"])
    assert done.returncode != 0
    assert "a batch of 5 rows cannot be shared by 2 processes" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children of a process are found through /proc")
def test_a_lost_process_is_restarted_and_the_run_goes_on(text, tmp_path):
    """One of two workers is killed when a state has been saved; torchrun starts both again, and the end is the same."""
    options = ["--save-every", "5", "--evaluate-every", "1000"]
    done = torchrun([*arguments_for(text, tmp_path / "whole"), *options])
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    with subprocess.Popen(
        **torchrun_command([*arguments_for(text, out), *options], restarts=1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as agent:
        deadline = time.monotonic() + 120
        while not (out / "training" / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        try:
            _, err = agent.communicate(timeout=200)
        except subprocess.TimeoutExpired:  # or leaving the block would wait for ever
            agent.terminate()
            raise
    assert agent.returncode == 0, err[-3000:]
    a, b = (read_native(folder).arrays for folder in (tmp_path / "whole", out))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)
