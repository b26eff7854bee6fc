"""The language model: exact against NumPy and bilm-tf, and what must hold for any text."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_head
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError
from elmokit.lm import LanguageModel
from elmokit.model import Carry, Elmo
from elmokit.train.initial import initial_head
from elmokit.train.recipe import Recipe
from recorded import read_lines

WORDS = ("<S>", "</S>", "<UNK>", "a", "b", "c", "d")
sentences_of_words = st.lists(st.lists(st.sampled_from(["a", "b", "c", "zz"]), max_size=6), min_size=1, max_size=7)


def make_model(**options):
    return make_checkpoint(make_config(**options), seed=1, vocabulary=WORDS)


@pytest.fixture(scope="module")
def checkpoint():
    return make_model()


@pytest.fixture(scope="module")
def model(checkpoint):
    return LanguageModel(Elmo(checkpoint))


def brute_force(checkpoint, sentence):
    """Log-probabilities from the reference: forward w1..wn </S>, backward <S> w1..wn."""
    config, arrays = checkpoint.config, {name: a.astype(np.float64) for name, a in checkpoint.arrays.items()}
    found = []
    for z, words in enumerate((["<S>", *sentence], ["</S>", *sentence[::-1]])):
        logits = reference_head.logits(words, z, config, arrays)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        rows = [WORDS.index(word) if word in WORDS else 2 for word in (*words[1:], ("</S>", "<S>")[z])]
        found.append((logs[range(len(rows)), rows], logs))
    (forward, all_forward), (backward, all_backward) = found
    return forward, backward[::-1], all_forward, all_backward


@pytest.mark.parametrize("sentence", [["a", "b", "c"], ["zz"], [], ["d"] * 9])
def test_scores_are_those_of_the_reference(checkpoint, model, sentence):
    forward, backward, _, _ = brute_force(checkpoint, sentence)
    (scores,) = model.score([sentence])
    np.testing.assert_allclose(scores.forward, forward, atol=1e-5)
    np.testing.assert_allclose(scores.backward, backward, atol=1e-5)
    found = model.perplexity([sentence])
    assert found.places == len(sentence) + 1
    assert found.unknown == sentence.count("zz")
    assert math.isclose(found.mean, math.exp(-(forward.mean() + backward.mean()) / 2), rel_tol=1e-5)
    bits = scores.surprisal()
    np.testing.assert_allclose(bits[0], -forward[:-1] / math.log(2), atol=1e-4)
    np.testing.assert_allclose(bits[1], -backward[1:] / math.log(2), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(sentences=sentences_of_words, batch_size=st.integers(1, 5), seed=st.integers(0, 9))
def test_order_and_batch_do_not_matter(model, sentences, batch_size, seed):
    order = np.random.default_rng(seed).permutation(len(sentences))
    together = list(model.score(sentences, batch_size=batch_size))
    shuffled = list(model.score([sentences[i] for i in order], batch_size=3))
    for place, i in enumerate(order):
        assert together[i].tokens == shuffled[place].tokens
        np.testing.assert_allclose(together[i].forward, shuffled[place].forward, atol=1e-5)
        np.testing.assert_allclose(together[i].backward, shuffled[place].backward, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(sentences=sentences_of_words, cut=st.integers(0, 7))
def test_a_carried_state_flows_on_between_calls(model, sentences, cut):
    carry = Carry()
    parts = [*model.score(sentences[:cut], state=carry, batch_size=1)]
    parts += model.score(sentences[cut:], state=carry, batch_size=1)
    for a, b in zip(parts, model.score(sentences, state="carry", batch_size=1), strict=True):
        np.testing.assert_array_equal(a.forward, b.forward)
        np.testing.assert_array_equal(a.backward, b.backward)


@settings(max_examples=30, deadline=None, print_blob=False)
@given(sentence=st.lists(st.sampled_from(["a", "b", "zz"]), min_size=1, max_size=6), place=st.integers(0, 5))
def test_substitutes_are_both_directions_together(checkpoint, model, sentence, place):
    place %= len(sentence)
    found = model.substitutes(sentence, place, k=100)
    assert math.isclose(sum(s.probability for s in found), 1.0, rel_tol=1e-6)
    _, _, forward, backward = brute_force(checkpoint, sentence)
    ranks = np.arange(len(WORDS))
    logs = forward[place] + backward[len(sentence) - 1 - place] - np.log(np.log((ranks + 2) / (ranks + 1)))
    shares = np.exp(logs[3:]) / np.exp(logs[3:]).sum()
    assert [s.word for s in found] == [WORDS[3 + i] for i in np.argsort(-shares)]
    np.testing.assert_allclose([s.probability for s in found], np.sort(shares)[::-1], rtol=1e-4)
    # What stands at the place itself is not read.
    changed = [*sentence[:place], "d", *sentence[place + 1 :]]
    for a, b in zip(model.substitutes(changed, place, k=100), found, strict=True):
        assert a.word == b.word
        assert math.isclose(a.probability, b.probability, rel_tol=1e-5)


@pytest.mark.parametrize("state", ["fresh", "warm"])
def test_distributions_are_those_of_the_reference(checkpoint, model, state):
    """Scores, substitutes and distributions are three views of them; from the warmed state they are others."""
    warmed = LanguageModel(model.elmo.warm([["d", "d", "d"]]))
    sentence = ["a", "b", "zz"]
    forward, backward = (logs.numpy() for logs in warmed.distributions(sentence, state=state))
    _, _, right_forward, right_backward = brute_force(checkpoint, sentence)
    right = np.concatenate([right_forward[:3], right_backward[2::-1]])
    distance = np.abs(np.concatenate([forward, backward]) - right).max()
    assert distance < 1e-5 if state == "fresh" else distance > 1e-3
    (scores,) = warmed.score([sentence], state=state)
    rows = [3, 4, 2]
    np.testing.assert_allclose(forward[range(3), rows], scores.forward[:3], atol=1e-5)
    np.testing.assert_allclose(backward[range(3), rows], scores.backward[1:], atol=1e-5)
    best, *_ = warmed.substitutes(sentence, 1, k=1, state=state)
    assert math.isclose(math.log(best.forward), forward[1, WORDS.index(best.word)], rel_tol=1e-4)


def test_an_adaptive_head_gives_probabilities_too(checkpoint):
    arrays = {name: a for name, a in checkpoint.arrays.items() if not name.startswith("softmax.")}
    generator = np.random.default_rng(0)
    words = (*WORDS, *(f"w{i}" for i in range(30)))
    head = initial_head(Recipe(softmax="adaptive"), np.arange(len(words), 0, -1), 4)
    arrays |= {name: generator.normal(0, 1, a.shape).astype(np.float32) for name, a in head.items()}
    from dataclasses import replace

    model = LanguageModel(Elmo(replace(checkpoint, arrays=arrays, vocabulary=words)))
    (scores,) = model.score([["a", "w20"]])
    shares = {s.word: s for s in model.substitutes(["a", "w20"], 1, k=100)}
    assert math.isclose(sum(s.probability for s in shares.values()), 1.0, rel_tol=1e-6)
    assert math.isclose(math.log(shares["w20"].forward), scores.forward[1], rel_tol=1e-4)
    assert math.isclose(math.log(shares["w20"].backward), scores.backward[2], rel_tol=1e-4)


def test_models_that_cannot_predict_say_so(tiny_elmo):
    with pytest.raises(MismatchError, match="has no softmax head"):
        LanguageModel(tiny_elmo)


# ---------------------------------------------------------------- bilm-tf

CHECKPOINTS = [
    "tfckpt-char1",
    "tfckpt-char2",
    "tfckpt-char3-noskip-noclip",
    "tfckpt-word2",
    "tfckpt-word2-shared-softmax",
]


@pytest.fixture(params=CHECKPOINTS)
def recorded(request, oracles):
    folder = oracles / request.param
    return LanguageModel(Elmo(formats.read(folder))), folder, np.load(folder / "expected.npz")


def test_log_probabilities_are_those_of_bilm_tf(recorded):
    """Line after line from a fresh state; tolerance as its README says."""
    model, folder, expected = recorded
    for k, scores in enumerate(model.score(read_lines(folder / "scored.txt"))):
        np.testing.assert_allclose(scores.forward, expected[f"logp_forward_{k}"], rtol=0, atol=5e-6)
        np.testing.assert_allclose(scores.backward, expected[f"logp_backward_{k}"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("n_streams", [1, 3])
def test_perplexities_are_those_of_run_test(recorded, n_streams):
    """Each stream takes the next sentence when it has read one and carries its state; all stop after so many steps."""
    model, folder, expected = recorded
    steps = int(expected[f"steps_batch{n_streams}"])
    losses = np.zeros(2)
    for stream in dealt(read_lines(folder / "heldout.txt"), n_streams, steps):
        scores = list(model.score(stream, state="carry", batch_size=1))
        for z, values in enumerate(([s.forward for s in scores], [s.backward[::-1] for s in scores])):
            losses[z] -= np.concatenate(values)[:steps].sum()
    losses /= steps * n_streams
    np.testing.assert_allclose(np.exp(losses), expected[f"perplexity_per_direction_batch{n_streams}"], rtol=1e-5)
    np.testing.assert_allclose(np.exp(losses.mean()), expected[f"run_test_perplexity_batch{n_streams}"], rtol=1e-5)


def dealt(sentences, n_streams, steps):
    """The sentences that each stream reads."""
    unread, streams, left = iter(sentences), [[] for _ in range(n_streams)], [0] * n_streams
    for _ in range(steps):
        for i in range(n_streams):
            if not left[i]:
                streams[i].append(next(unread))
                left[i] = len(streams[i][-1]) + 1
            left[i] -= 1
    return streams


# ---------------------------------------------------------------- the commands


@pytest.fixture
def run(run, checkpoint, tmp_path, monkeypatch):
    """`run` of all tests, in a folder with a model and a text."""
    write_native(checkpoint, tmp_path / "model")
    (tmp_path / "text.txt").write_text("a b c\n\nb zz\n")
    monkeypatch.chdir(tmp_path)
    return run


def table(out):
    rows = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_the_command_perplexity(run, model):
    expected = model.perplexity([["a", "b", "c"], [], ["b", "zz"]])
    code, out, _ = run("perplexity", "model", "text.txt", "-", stdin=b"a\n")
    assert code == 0
    rows = table(out)
    assert [row["text"] for row in rows] == ["text.txt", "-"]
    assert rows[0]["mean"] == f"{expected.mean:.4f}"
    assert (rows[0]["predictions"], rows[0]["unknown"]) == ("8", "1")
    code, out, _ = run("perplexity", "model", "text.txt", "--lines", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["line"] for line in lines] == [1, 2, 3]
    one = model.perplexity([["b", "zz"]])
    assert math.isclose(lines[2]["forward"], one.forward, rel_tol=1e-6)
    _, out, _ = run("perplexity", "model", "-", "--json", stdin=b"")
    assert json.loads(out, parse_constant=pytest.fail)["mean"] is None  # NaN is no JSON


def test_losses_beyond_all_numbers(run, checkpoint, tmp_path):
    """A damaged head: perplexities without end are told, and JSON, which has no word for them, says null."""
    arrays = {**checkpoint.arrays, "softmax.bias": checkpoint.arrays["softmax.bias"].copy()}
    arrays["softmax.bias"][3] = 3000.0
    write_native(replace(checkpoint, arrays=arrays), tmp_path / "damaged")
    code, out, _ = run("perplexity", str(tmp_path / "damaged"), "-", stdin=b"b b\n")
    assert (code, table(out)[0]["mean"]) == (0, "inf")
    _, out, _ = run("perplexity", str(tmp_path / "damaged"), "-", "--json", stdin=b"b b\n")
    assert json.loads(out, parse_constant=pytest.fail)["mean"] is None


def test_the_command_score(run, model):
    _, out, _ = run("score", "model", "text.txt")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["tokens"] for row in rows] == [["a", "b", "c"], [], ["b", "zz"]]
    (scores,) = model.score([["a", "b", "c"]])
    np.testing.assert_allclose(rows[0]["backward"], scores.surprisal()[1], atol=1e-4)
    assert rows[2]["unknown"] == 1


def test_the_command_substitutes(run, model):
    code, out, _ = run("substitutes", "model", "text.txt", "--word", "b", "-k", "2")
    rows = table(out)
    assert code == 0
    assert [(row["line"], row["position"]) for row in rows] == [("1", "2")] * 2 + [("3", "1")] * 2
    best = model.substitutes(["a", "b", "c"], 1, k=2)
    assert [row["substitute"] for row in rows[:2]] == [s.word for s in best]
    assert float(rows[0]["probability"]) == pytest.approx(best[0].probability, rel=1e-4)
    _, out, _ = run("substitutes", "model", "text.txt", "--position", "3", "--json")
    assert {json.loads(line)["token"] for line in out.splitlines()} == {"c"}
    assert run("substitutes", "model", "text.txt", "--position", "3", "--word", "b")[0] == 2


def test_substitutes_read_a_sentence_once(run, monkeypatch):
    read = []
    tops = LanguageModel._tops
    monkeypatch.setattr(LanguageModel, "_tops", lambda *args: read.append(args[1]) or tops(*args))
    assert len(table(run("substitutes", "model", "text.txt", "-k", "1")[1])) == 5
    assert read == [["a", "b", "c"], ["b", "zz"]]


def test_a_model_without_a_head_is_refused_in_one_sentence(run, tiny, tmp_path):
    write_native(tiny, tmp_path / "bare")
    code, _, err = run("score", "bare", "text.txt")
    assert code == 1
    assert err.startswith("elmo: this model (elmokit) has no softmax head")


def test_the_bundled_model_knows_english(run):
    """It prefers a word that fits to one that does not."""
    _, out, _ = run("substitutes", "bundled", "-", "--position", "4", "-k", "50", stdin=b"He lived in London .\n")
    found = [row["substitute"] for row in table(out)]
    assert {"London", "Paris"} & set(found)
    _, out, _ = run("perplexity", "bundled", "-", "--lines", stdin=b"He lived in London .\nin . lived London He\n")
    good, bad = (float(row["mean"]) for row in table(out))
    assert good < bad
