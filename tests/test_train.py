"""Training: packed streams, softmax heads, exact resume of killed processes, and that it learns."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from conftest import make_checkpoint, make_config
from elmokit.checkpoint import read_native
from elmokit.errors import FormatError, MismatchError, OutputError, TextError, TrainingError
from elmokit.head import Softmax
from elmokit.model import Elmo, load
from elmokit.text import Utf8Speller
from elmokit.train import run
from elmokit.train.corpus import Block, CorpusWriter, Rows, add_sentences, corpus_of, stretch_of
from elmokit.train.evaluate import perplexity
from elmokit.train.initial import initial_head
from elmokit.train.loop import Trainer
from elmokit.train.recipe import PRESETS, Recipe
from elmokit.train.settings import Settings
from elmokit.train.softmax import draw_log_uniform, full_loss, log_expected, sampled_losses
from elmokit.train.streams import NO_TARGET, Packed, Streams
from elmokit.train.vocabulary import SPECIALS, build_vocabulary, load_vocabulary

RECIPE = Recipe(batch_size=4, unroll=6, epochs=3.0, softmax="full", warmup=5)
BEGIN, END, UNK = range(3)


def make_text(sentences, *, seed=0):
    """A small language: a subject, a verb that agrees with it, an object, a full stop."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        plural = generator.random() < 0.5
        subject = generator.choice(["dogs", "cats", "birds"] if plural else ["dog", "cat", "bird"])
        lines.append(f"the {subject} {'see' if plural else 'sees'} {generator.choice(['fish', 'food', 'trees'])} .")
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(make_text(600))
    return path


def make_settings(text, **changes):
    recipe = replace(RECIPE, **changes.pop("recipe", {}))
    values = {"texts": [str(text)], "config": make_config(), "recipe": recipe, "min_count": 1, "evaluate_every": 20}
    return Settings(**{**values, "save_every": 7, "processes": 1, **changes})


def vocabulary_of(sentences):
    counts = Counter(word for sentence in sentences for word in sentence)
    return build_vocabulary(counts, min_count=1, max_words=None)


def make_stretch(sentences, vocabulary=None):
    """Sentences in memory, and the words that are predicted."""
    vocabulary = vocabulary or vocabulary_of(sentences)
    block = Block.of(sentence for sentence in sentences if sentence)
    return stretch_of([block], Rows.of(vocabulary, SPECIALS), Utf8Speller(20)), vocabulary


# ---------------------------------------------------------------- vocabulary


def test_vocabulary_is_sorted_by_count_then_alphabet():
    counts = Counter({"b": 2, "a": 2, "c": 5, "rare": 1, "<UNK>": 9})
    assert build_vocabulary(counts, min_count=2, max_words=None) == ("<S>", "</S>", "<UNK>", "c", "a", "b")
    assert build_vocabulary(counts, min_count=1, max_words=5) == ("<S>", "</S>", "<UNK>", "c", "a")
    with pytest.raises(TextError, match="at least 9 times"):
        build_vocabulary(counts, min_count=9, max_words=None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\nb\n", "expected <S> </S> <UNK>"),
        ("<S>\n</S>\n<UNK>\na\nb\na\n", "more than once"),
        ("<S>\n</S>\n<UNK>\nrare\n" + "".join(f"w{i}\n" for i in range(110)) + "often\n", "not sorted"),
    ],
)
def test_a_vocabulary_that_the_sampler_cannot_use_is_refused(tmp_path, lines, message):
    path = tmp_path / "vocab.txt"
    path.write_text(lines)
    with pytest.raises(TextError, match=message):
        load_vocabulary(path, Counter({"often": 9, "rare": 1, "a": 3, "b": 2}))


# ---------------------------------------------------------------- streams


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=3, max_size=12),
    rows=st.integers(1, 3),
    unroll=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_windows_read_every_sentence_in_both_directions(lengths, rows, unroll, seed):
    """Put back together, rows are whole sentences, forward and mirrored, targets shifted; none lost or doubled."""
    numbers = itertools.count()
    sentences = [[f"w{next(numbers)}" for _ in range(n)] for n in lengths]
    if not any(sentences):
        return
    stretch, vocabulary = make_stretch(sentences)
    packed = Packed(stretch, rows=rows, unroll=unroll, generator=np.random.default_rng(seed))
    windows = list(packed.all_windows())
    assert sum(w.n_places for w in windows) == stretch.n_places
    read, predicted = spelled_out(windows, stretch, vocabulary)
    for z, (first, last) in enumerate([("<S>", "</S>"), ("</S>", "<S>")]):
        found = []
        for b in range(rows):
            places = [place for place in zip(read[:, z, b], predicted[:, z, b], strict=True) if place[1]]
            starts = [i for i, (word, _) in enumerate(places) if word == first]
            assert starts[:1] == [0][: len(places)]
            for start, end in itertools.pairwise([*starts, len(places)]):
                words = [word for word, _ in places[start + 1 : end]]
                assert [target for _, target in places[start:end]] == [*words, last]
                found.append(words[::-1] if z else words)
        assert sorted(found) == sorted(s for s in sentences if s)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=3, max_size=12), rows=st.integers(1, 3), unroll=st.integers(1, 4))
def test_training_windows_begin_at_sentences_and_run_on(lengths, rows, unroll):
    numbers = itertools.count()
    sentences = [[f"w{next(numbers)}" for _ in range(n)] for n in lengths]
    stretch, vocabulary = make_stretch(sentences)
    packed = Packed(stretch, rows=rows, unroll=unroll, generator=np.random.default_rng(1))
    windows = [packed.window(step) for step in range(stretch.n_places // rows // unroll)]
    assert all(w.n_places == rows * unroll for w in windows)
    if windows:
        read, predicted = spelled_out(windows, stretch, vocabulary)
        at_sentence = np.isin(packed.starts, [0, *packed.ends])
        assert (read[0][0] == "<S>").tolist() == (read[0][1] == "</S>").tolist() == at_sentence.tolist()
        assert len(set(packed.starts)) == rows
        after = {"</S>": "<S>", "<S>": "</S>"}
        for row in range(rows):
            for z in (0, 1):
                for target, word in zip(predicted[:-1, z, row], read[1:, z, row], strict=True):
                    assert word == after.get(target, target)


@pytest.mark.parametrize("lengths", [[4001], [900, 300, 1500, 40, 700, 800, 500], [1] * 2000, [3000] + [5] * 200])
def test_every_place_is_read_however_long_the_sentences_are(lengths):
    """One sequence of thousands of symbols, or a dozen documents as lines: rows start inside of them."""
    sentences = [[f"w{s}-{k}" for k in range(n)] for s, n in enumerate(lengths)]
    stretch, vocabulary = make_stretch(sentences)
    seen, epochs = Counter(), 12
    for epoch in range(epochs):
        packed = Packed(stretch, rows=16, unroll=20, generator=np.random.default_rng(epoch))
        read = {int(row) for step in range(stretch.n_places // 320) for row in _targets(packed, step)}
        assert len(read) > 0.75 * len(vocabulary)
        seen.update(read)
    words = range(3, len(vocabulary))
    assert all(seen[row] for row in words)
    assert sum(seen[row] for row in words) > 0.88 * epochs * len(words)


def _targets(packed, step):
    return packed.window(step).targets_TZB[:, 0].flat


def spelled_out(windows, stretch, vocabulary):
    """The words read and those predicted, (places, Z, rows), None where nothing is predicted."""
    spelling = {tuple(chars): vocabulary[row] for chars, row in zip(stretch.chars, stretch.rows, strict=True)}
    chars = np.concatenate([w.chars_UC[w.words_TZB] for w in windows])
    targets = np.concatenate([w.targets_TZB for w in windows])
    read = [spelling[tuple(place)] for place in chars.reshape(-1, chars.shape[-1])]
    predicted = [None if i == NO_TARGET else vocabulary[i] for i in targets.flat]
    return (np.array(words, object).reshape(targets.shape) for words in (read, predicted))


def test_words_outside_the_vocabulary_are_spelled_but_predicted_as_unknown():
    stretch, _ = make_stretch([["known", "strange"]] * 3, (*SPECIALS, "known"))
    window = next(Packed(stretch, rows=1, unroll=3).all_windows())
    assert window.targets_TZB[:, 0, 0].tolist() == [3, UNK, END]
    assert window.targets_TZB[:, 1, 0].tolist() == [UNK, 3, BEGIN]
    strange = Utf8Speller(20).spell(["strange"])[0]
    np.testing.assert_array_equal(window.chars_UC[window.words_TZB[2, 0, 0]], strange)


def write_blocks(folder, sentences, *, per_block):
    """A corpus of blocks of so many sentences."""
    writer = CorpusWriter(folder)
    for start in range(0, len(sentences), per_block):
        add_sentences(writer, sentences[start : start + per_block])
    return writer.close()


def make_streams(corpus, vocabulary, **options):
    return Streams(corpus, Rows.of(vocabulary, SPECIALS), Utf8Speller(20), **{"rows": 2, "unroll": 10, **options})


def test_every_epoch_has_its_own_order_and_the_same_seed_the_same(tmp_path):
    sentences = [[f"w{i}"] for i in range(50)]
    corpus = corpus_of(sentences, tmp_path)

    def targets(seed, step):
        return make_streams(corpus, vocabulary_of(sentences), seed=seed).window(step).targets_TZB.tolist()

    steps = make_streams(corpus, vocabulary_of(sentences), seed=1).total_steps(1)
    assert targets(1, 0) == targets(1, 0)
    assert targets(1, 0) != targets(1, steps)
    assert targets(1, 0) != targets(2, 0)


@pytest.mark.parametrize("seed", [None, 1])
def test_an_epoch_reads_all_blocks_a_stretch_at_a_time(tmp_path, seed):
    """With more blocks than a stretch holds every word is still read once an epoch, but for ends of stretches."""
    sentences = [[f"w{i}", "x"] for i in range(420)]
    corpus, vocabulary = write_blocks(tmp_path, sentences, per_block=10), vocabulary_of(sentences)
    assert len(corpus.places) == 42
    streams = make_streams(corpus, vocabulary, seed=seed, rows=3, unroll=6)
    steps = streams.total_steps(2)
    assert steps == 2 * streams.total_steps(1)
    words = Counter(
        vocabulary[row] for step in range(steps) for row in streams.window(step).targets_TZB[:, 0].flat if row > UNK
    )
    read = [words[f"w{i}"] for i in range(420)]
    assert sum(n == 2 for n in read) > 380
    assert max(read) <= 3
    assert streams.epochs_at(streams.total_steps(1)) == 1.0
    whole = list(streams.all_windows())
    assert sum(w.n_places for w in whole) == corpus.n_places


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 30), cut=st.integers(1, 5))
def test_the_rows_of_a_window_may_be_shared_out(tmp_path_factory, step, cut):
    sentences = [[f"w{i}", f"v{i % 7}"] for i in range(200)]
    corpus, vocabulary = write_blocks(tmp_path_factory.mktemp("c"), sentences, per_block=9), vocabulary_of(sentences)
    streams = make_streams(corpus, vocabulary, seed=3, rows=6, unroll=4)
    step %= streams.total_steps(1)
    whole, parts = streams.window(step), [streams.window(step, part) for part in (slice(0, cut), slice(cut, 6))]
    np.testing.assert_array_equal(whole.targets_TZB, np.concatenate([p.targets_TZB for p in parts], axis=2))
    spelled = [w.chars_UC[w.words_TZB] for w in (whole, *parts)]
    np.testing.assert_array_equal(spelled[0], np.concatenate(spelled[1:], axis=2))


# ---------------------------------------------------------------- softmax


def make_softmax(n_words, width, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = Softmax(n_words, width)
    with torch.no_grad():
        head.weight.copy_(torch.randn(n_words, width, generator=generator))
        head.bias.copy_(torch.randn(n_words, generator=generator))
    return head


def test_full_loss_and_log_probabilities_are_the_softmax():
    head, x, targets = make_softmax(7, 3), torch.randn(5, 3), torch.tensor([0, 6, 3, 3, 1])
    exact = torch.log_softmax(x @ head.weight.T + head.bias, 1)[range(5), targets]
    torch.testing.assert_close(head.log_probabilities(x, targets), exact)
    torch.testing.assert_close(full_loss(head, x, targets), -exact.mean())


def test_log_uniform_draws_are_distinct_and_as_likely_as_stated():
    n_words, samples = 40, 8
    generator = torch.Generator().manual_seed(0)
    seen, expected, rounds = torch.zeros(n_words), torch.zeros(n_words), 4000
    for _ in range(rounds):
        rows, tries = draw_log_uniform(n_words, samples, generator)
        assert len(set(rows.tolist())) == samples
        assert tries >= samples
        seen[rows] += 1
        expected += log_expected(torch.arange(n_words), n_words, tries).exp()
    assert seen.sum() == rounds * samples
    torch.testing.assert_close(seen / rounds, expected / rounds, atol=0.03, rtol=0.0)


def sampled_loss(head, x, targets, *, samples, generator):
    (loss,) = sampled_losses(head, x[None], targets[None], [draw_log_uniform(head.n_words, samples, generator)])
    return loss


def test_sampled_loss_draws_towards_the_full_loss():
    """With nearly all words drawn, the corrected loss is close to the exact one."""
    head, x = make_softmax(60, 4), torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(50)
    generator = torch.Generator().manual_seed(2)
    full = full_loss(head, x, targets)
    sampled = torch.stack([sampled_loss(head, x, targets, samples=58, generator=generator) for _ in range(20)]).mean()
    assert abs(full - sampled).item() < 0.05 * full.item()


def test_sampled_loss_and_its_gradients_are_those_of_its_definition():
    """Written out: corrected scores of the true word and of the negatives but itself, cross-entropy of these."""
    head, V = make_softmax(40, 4), 40
    x = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets = torch.randint(0, V, (2, 30), generator=torch.Generator().manual_seed(2))
    draws = [draw_log_uniform(V, 12, torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    found = torch.stack(sampled_losses(head, x, targets, draws))
    expected = []
    for z, (drawn, tries) in enumerate(draws):
        scores = x[z] @ head.weight.T + head.bias - log_expected(torch.arange(V), V, tries)
        true = scores.gather(1, targets[z][:, None])
        negatives = scores[:, drawn].masked_fill(targets[z][:, None] == drawn, -torch.inf)
        expected.append((torch.logsumexp(torch.cat([true, negatives], 1), 1) - true[:, 0]).mean())
    assert any((targets[z][:, None] == drawn).any() for z, (drawn, _) in enumerate(draws))
    torch.testing.assert_close(found, torch.stack(expected))
    weights = torch.tensor([1.0, 3.0])
    inputs = [x, head.weight, head.bias]
    for mine, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((torch.stack(expected) * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_the_softmax_that_suits_a_vocabulary():
    assert Recipe(samples=8192).decided_for(10_000).softmax == "full"
    assert Recipe(samples=8192).decided_for(50_000).softmax == "sampled"
    assert Recipe(softmax="adaptive").decided_for(50).softmax == "adaptive"
    with pytest.raises(MismatchError, match="8,192 negatives do not save work"):
        Recipe(softmax="sampled").decided_for(10_000)


# ---------------------------------------------------------------- perplexity


def test_perplexity_is_that_of_the_reference(tmp_path):
    """Against NumPy: the state runs on from sentence to sentence, each direction reads its own stream."""
    config = make_config()
    sentences = [line.split() for line in make_text(30).splitlines()]
    corpus, vocabulary = corpus_of(sentences, tmp_path), vocabulary_of(sentences)
    arrays = make_checkpoint(config, seed=3, vocabulary=vocabulary).arrays
    elmo_arrays = {name: a.astype(np.float64) for name, a in arrays.items()}
    head = Softmax.from_arrays(arrays)
    from elmokit.network import BiLM

    found = perplexity(BiLM.from_arrays(config, arrays), head, corpus, Rows.of(vocabulary, SPECIALS), Utf8Speller(20))
    assert found.places == corpus.n_places
    losses = [_reference_loss(z, sentences, vocabulary, config, elmo_arrays) for z in (0, 1)]
    np.testing.assert_allclose([found.forward, found.backward], np.exp(losses), rtol=1e-5)
    assert math.isclose(found.mean, math.exp(sum(losses) / 2), rel_tol=1e-5)


def _reference_loss(z, sentences, vocabulary, config, arrays):
    marks = ("<S>", "</S>")
    texts = [s[::-1] if z else s for s in sentences]
    inputs = [w for s in texts for w in (marks[z], *s)]
    targets = [vocabulary.index(w) for s in texts for w in (*s, marks[1 - z])]
    logits = reference.logits(inputs, z, config, arrays)
    log_sum = np.log(np.exp(logits).sum(1))
    return (log_sum - logits[range(len(targets)), targets]).mean()


# ---------------------------------------------------------------- runs


def test_training_learns_and_leaves_a_model_that_embeds(text, tmp_path):
    out = tmp_path / "model"
    summary = run.train(make_settings(text, recipe={"epochs": 8.0}), out, progress=False)
    assert summary.finished
    # Chance gives 14 words; the language has six subjects, one verb for each number, three objects.
    assert summary.perplexity < 3.0
    elmo = load(out)
    assert next(elmo.embed(["the dog sees fish .".split()])).shape == (5, 8)
    assert next(elmo.embed([["the"]], state="warm")).shape == (1, 8)
    log = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]
    assert min(entry["mean"] for entry in log if "mean" in entry) == summary.perplexity
    assert f"mean {summary.perplexity:.2f}" in (out / "README.md").read_text()


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_both_optimisers_learn_with_sampled_negatives(text, tmp_path, optimizer):
    """Word frequencies alone give a perplexity of about 8 in this language."""
    recipe = {"optimizer": optimizer, "samples": 5, "learning_rate": 0.01 if optimizer == "adamw" else 0.2}
    out = tmp_path / "model"
    summary = run.train(make_settings(text, recipe=recipe, evaluate_every=10_000), out, progress=False)
    assert summary.perplexity < 5


def test_the_head_starts_from_word_frequencies():
    rows = Rows.of((*SPECIALS, "a"), SPECIALS)
    counts = rows.target_counts(Counter({"a": 3, "b": 1}), 2)
    assert counts.tolist() == [2, 2, 2, 6]
    head = initial_head(Recipe(softmax="full"), counts, 4)
    np.testing.assert_allclose(np.exp(head["softmax.bias"]), np.array([2.5, 2.5, 2.5, 6.5]) / 14.0, rtol=1e-6)
    assert not head["softmax.weight"].any()


def test_stopping_and_resuming_gives_the_same_bytes(text, tmp_path):
    """Interrupted after every few updates, in the middle of epochs: the weights are bitwise those of one run."""
    settings = make_settings(text)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run.train(settings, whole, progress=False)
    steps = [train_until(settings, parts, stop_after=11)]
    while not steps[-1].finished:
        steps.append(train_until(None, parts, stop_after=11))
    assert len(steps) > 5
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    a, b = (read_native(folder) for folder in (whole, parts))
    assert all((a.arrays[name] == b.arrays[name]).all() for name in a.arrays)


def train_until(settings, out, *, stop_after, start=None):
    """Run in this process and send it Ctrl-C after some updates."""
    step, done = Trainer.step, []

    def stopping_step(trainer):
        loss = step(trainer)
        done.append(loss)
        if len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    Trainer.step = stopping_step
    try:
        return run.train(settings, out, start=start, progress=False) if settings else run.resume(out, progress=False)
    finally:
        Trainer.step = step


_CHILD = """
import sys
from pathlib import Path
from conftest import make_config
from test_train import make_settings
from elmokit.train import run
import torch
torch.set_num_threads(1)
out, text = sys.argv[1:]
if Path(out, "training", "settings.json").exists():
    run.resume(out, progress=False)
else:
    run.train(make_settings(text, recipe={"epochs": 2.0}), out, progress=False)
"""


def test_killed_processes_lose_nothing(text, tmp_path):
    """kill -9 while counting, training, evaluating or saving; in the end the bytes are those of one run."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _run_child(whole, text) == 0
    state, model = killed / "training" / "state.safetensors", killed / "model.safetensors"
    # Before anything is read; with the first state; with a model; with another state; with another model.
    points = [killed / "training", state, model, state, model, state]
    codes = [_run_child(killed, text, kill_at=point, after=0.07 * n) for n, point in enumerate(points)]
    assert codes.count(-signal.SIGKILL) >= 4
    assert _run_child(killed, text) == 0
    assert (whole / "model.safetensors").read_bytes() == model.read_bytes()


def _run_child(out, text, *, kill_at=None, after=0.0):
    """Run a child to its end, or kill it when a file has been written, or replaced, and a moment has passed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    before = _written(kill_at)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(out), str(text)], env=environment)
    while kill_at and child.poll() is None and _written(kill_at) == before:
        time.sleep(0.005)
    if kill_at:
        time.sleep(after)
        child.kill()
    code = child.wait(timeout=900)
    if (out / "model.safetensors").exists():
        load(out)  # whatever stands under the final names is whole
    return code


def _written(path):
    """What changes when a file is replaced."""
    return path and path.exists() and path.stat().st_mtime_ns


# A shape whose state takes a megabyte and whose model takes a third of that.
_WIDE = {"dim": 64, "projection_dim": 32}


def _fill(folder, *, leave):
    """Fill a disk but for some bytes."""
    room = shutil.disk_usage(folder).free - leave
    (folder / "filler").write_bytes(b"x" * max(0, room))


@pytest.mark.parametrize(("what", "steps"), [("model.safetensors", 10), ("state.safetensors", 7)])
def test_a_disk_that_is_full_while_training_costs_nothing(text, tmp_path, small_disk, monkeypatch, what, steps):
    """The kept files are whole, the message says how to go on, and the end is that of a run that was not stopped."""
    folder, _ = small_disk
    settings = make_settings(text, recipe={"epochs": 0.3}, evaluate_every=5, save_every=7)
    settings = replace(settings, config=make_config(**_WIDE))
    run.train(settings, tmp_path / "whole", progress=False)
    step = Trainer.step

    def filling_step(trainer):
        loss = step(trainer)
        if trainer.progress.step == steps:
            _fill(folder, leave=100_000)
        return loss

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", filling_step)
        with pytest.raises(OutputError, match=r"No space left on device\); .* make room, then run again with --resume"):
            run.train(settings, folder / "out", progress=False)
    (folder / "filler").unlink()
    load(folder / "out")
    assert not list(folder.rglob("*.tmp"))
    assert run.resume(folder / "out", progress=False).finished
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (folder / "out/model.safetensors").read_bytes()


@pytest.mark.parametrize(("leave", "file"), [(20_000, "corpus"), (200_000, "state.safetensors")])
def test_a_disk_that_is_full_before_training_is_named(text, small_disk, leave, file):
    folder, _ = small_disk
    _fill(folder, leave=leave)
    settings = replace(make_settings(text, recipe={"epochs": 0.1}), config=make_config(**_WIDE))
    with pytest.raises(OutputError, match=rf"{file}.* cannot be written \(No space left on device\); .*make room"):
        run.train(settings, folder / "out", progress=False)
    (folder / "filler").unlink()
    assert run.train(settings, folder / "out", progress=False).finished


def test_a_run_is_not_started_over_another(text, tmp_path):
    out = tmp_path / "model"
    settings = make_settings(text, recipe={"epochs": 0.1})
    run.train(settings, out, progress=False)
    with pytest.raises(OutputError, match="--resume"):
        run.train(settings, out, progress=False)
    with pytest.raises(OutputError, match="no training run"):
        run.resume(tmp_path / "nothing", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="not an empty"):
        run.train(settings, tmp_path / "full", progress=False)


def test_a_run_goes_on_without_its_text(text, tmp_path):
    """Its text is in OUT/training as numbers; without that it says so."""
    settings, whole, out = make_settings(text), tmp_path / "whole", tmp_path / "model"
    run.train(settings, whole, progress=False)
    assert not train_until(settings, out, stop_after=9).finished
    text.unlink()
    run.resume(out, progress=False)
    assert (whole / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    shutil.rmtree(out / "training" / "corpus")
    with pytest.raises(MismatchError, match="is gone, which held the text"):
        run.resume(out, progress=False)


def test_too_little_text_is_refused_and_leaves_nothing(tmp_path):
    text = tmp_path / "text.txt"
    for content, message in [
        ("", "no sentence"),
        ("a b .\n" * 3, "one in 100 should be held out and none was"),
        (make_text(150), "too short"),
    ]:
        text.write_text(content)
        recipe = {"batch_size": 64, "unroll": 64}
        with pytest.raises(TextError, match=message):
            run.train(make_settings(text, recipe=recipe), tmp_path / "model", progress=False)
        assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_run_that_diverges_says_so_and_is_no_success(text, tmp_path):
    recipe = {"optimizer": "adamw", "learning_rate": 1e9, "warmup": 0, "epochs": 5.0}
    with pytest.raises(TrainingError, match="has diverged at a learning rate of 1e"):
        run.train(make_settings(text, recipe=recipe), tmp_path / "model", progress=False)
    log = tmp_path / "model" / "training" / "log.jsonl"
    assert not log.exists() or not {"Infinity", "NaN"} & set(log.read_text().replace(",", " ").split())


@pytest.mark.parametrize("change", [{"learning_rate": math.nan}, {"learning_rate": -1.0}, {"epochs": math.inf}])
def test_numbers_that_nothing_can_be_trained_with(change):
    with pytest.raises(MismatchError, match=f"{next(iter(change))}: expected"):
        Recipe(**change)


@pytest.mark.parametrize("content", ["[]", "{}", "null"])
def test_settings_that_are_none(text, tmp_path, content):
    run.train(make_settings(text, recipe={"epochs": 0.1}), tmp_path / "model", progress=False)
    (tmp_path / "model" / "training" / "settings.json").write_text(content)
    with pytest.raises(FormatError, match="is not the settings of a run"):
        run.resume(tmp_path / "model", progress=False)


def test_presets_have_the_published_sizes():
    millions = {name: _n_parameters(config) / 1e6 for name, config in PRESETS.items()}
    # as published: 13.6, 28.0, 93.6 million parameters
    assert [round(millions[name], 1) for name in ("small", "medium", "original")] == [13.6, 28.0, 93.6]


def _n_parameters(config):
    from elmokit.checkpoint import network_shapes

    return sum(math.prod(shape) for shape in network_shapes(config).values())


def test_a_trained_model_goes_to_allennlp_and_back(text, tmp_path):
    from elmokit.formats import allennlp, read

    run.train(make_settings(text, recipe={"epochs": 0.1}), tmp_path / "model", progress=False)
    allennlp.write(read(tmp_path / "model"), tmp_path / "there")
    sentence = ["the dog sees fish .".split()]
    a, b = (next(Elmo(read(tmp_path / name)).embed(sentence)) for name in ("model", "there"))
    np.testing.assert_array_equal(a, b)
