"""`Elmo` beyond its network: trained mixes that came with it, words looked up in place of spelled."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch

from checkpoints import SPECIALS, assert_same, make_word_checkpoint
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import read_native, write_native
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import allennlp
from elmokit.job import embed_file
from elmokit.model import Carry, Elmo
from elmokit.network import Mix
from elmokit.text import make_batch

SENTENCES = [["the", "cat", "sat"], ["cat"], []]


# ---------------------------------------------------------------- mixes


@pytest.fixture
def mixed(tiny):
    arrays = {"mix.weights": [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]], "mix.gamma": [2.0, 0.5]}
    arrays = {name: np.array(value, np.float32) for name, value in arrays.items()}
    return dataclasses.replace(tiny, arrays={**tiny.arrays, **arrays})


def test_a_trained_mix_is_that_of_the_network(mixed):
    elmo = Elmo(mixed)
    assert elmo.mixes.shape == (2, 3)
    for k in (0, 1):
        mix = Mix(3, mixed.arrays["mix.weights"][k], gamma=float(mixed.arrays["mix.gamma"][k]))
        for stack, found in zip(
            elmo.embed(SENTENCES, layers="all"), elmo.embed(SENTENCES, layers=elmo.mixes[k]), strict=True
        ):
            expected = mix(list(torch.from_numpy(stack))).detach().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_without_mixes_has_none(tiny_elmo):
    assert tiny_elmo.mixes.shape == (0, 3)


def test_mixes_are_kept_in_our_format(mixed, tmp_path):
    Elmo(mixed).save(tmp_path / "model")
    assert_same(read_native(tmp_path / "model"), mixed)
    assert allennlp.lost_in(mixed) == ["the trained mixes of layers"]
    broken = dataclasses.replace(mixed, arrays={**mixed.arrays, "mix.weights": np.zeros((2, 4), np.float32)})
    write_native(broken, tmp_path / "broken")
    with pytest.raises(FormatError, match=r"'mix.weights': expected shape \(2, 3\), found \(2, 4\)"):
        read_native(tmp_path / "broken")


# ---------------------------------------------------------------- cached words


@pytest.mark.parametrize("filters", [((1, 3), (2, 4), (3, 5)), ((1, 1), (2, 3))])
def test_cached_words_give_the_same_vectors(filters):
    elmo = Elmo(make_checkpoint(make_config(filters=filters)))
    cached = elmo.cached(["the", "cat", "sat", "cat"])
    assert cached.vocabulary == (*SPECIALS, "the", "cat", "sat")
    for a, b in zip(elmo.embed(SENTENCES, layers="all"), cached.embed(SENTENCES, layers="all"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    unknown, spelled = (list(cached.embed([[word]])) for word in ("strange", "<UNK>"))
    np.testing.assert_array_equal(unknown, spelled)


def test_cached_words_keep_the_precision_and_their_lines(tmp_path):
    cached = Elmo(make_checkpoint(), precision="bfloat16").cached(["the"])
    assert (cached.precision, cached.network.device.type) == ("bfloat16", "cpu")
    broken = Elmo(make_checkpoint()).cached(["a\nb"])
    with pytest.raises(MismatchError, match=r"the word 'a\\nb' has a line break"):
        broken.save(tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_many_words_are_cached():
    words = [f"w{i}" for i in range(5000)]
    elmo = Elmo(make_checkpoint())
    cached = elmo.cached(words)
    np.testing.assert_allclose(*(next(model.embed([words[4000:4003]])) for model in (elmo, cached)), atol=1e-6)


def test_a_model_without_characters_has_nothing_to_cache():
    with pytest.raises(MismatchError, match="there is nothing to cache"):
        Elmo(make_word_checkpoint(make_config().lstm, SPECIALS)).cached(["a"])


def test_the_cache_is_that_of_bilm_tf(oracles, tmp_path, run):
    """`elmo convert --cache-words` writes what `dump_token_embeddings` wrote."""
    folder = oracles / "bilm-token-cache"
    vocabulary = folder / "vocab.txt"
    weights = next(path for path in folder.glob("*.hdf5") if "weights" in path.name)
    with h5py.File(next(path for path in folder.glob("*.hdf5") if "embedding" in path.name)) as file:
        expected = file["embedding"][...]
    args = ["convert", folder / "options.json", tmp_path / "cached", "--to", "allennlp"]
    assert run(*args, "--weights", weights, "--cache-words", vocabulary)[0] == 0
    words = vocabulary.read_text(encoding="utf-8").split("\n")[:-1]
    found = formats.read(tmp_path / "cached")
    rows = [found.vocabulary.index(word) for word in words]
    np.testing.assert_allclose(found.arrays["embedding"][rows], expected, atol=1e-6)


# ---------------------------------------------------------------- precision and device


def cosines(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("state", ["fresh", "warm", "carry"])
def test_bfloat16_gives_nearly_the_same_vectors(tiny, state):
    sentences = [["the", "cat", "sat"], ["strange"] * 30, ["a"]]
    exact, coarse = (Elmo(tiny, precision=precision).warm(sentences) for precision in ("float32", "bfloat16"))
    for a, b in zip(*(model.embed(sentences, layers="all", state=state) for model in (exact, coarse)), strict=True):
        assert b.dtype == np.float32
        assert cosines(a, b).min() > 0.999
        assert not np.array_equal(a, b)
    assert exact.fingerprint != coarse.fingerprint


def test_a_model_in_bfloat16_can_be_saved_and_carried(tiny, tmp_path):
    model = Elmo(tiny, precision="bfloat16")
    model.save(tmp_path / "model")
    saved = Elmo(read_native(tmp_path / "model"), precision="bfloat16")
    (tmp_path / "text.txt").write_text("the cat\nsat\n" * 10)
    for number, one in enumerate((model, saved)):
        embed_file(tmp_path / "text.txt", tmp_path / f"{number}.npz", elmo=one, state="carry", save_every=2)
    with np.load(tmp_path / "0.npz") as first, np.load(tmp_path / "1.npz") as second:
        assert len(first) == len(second) == 20
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision: expected 'float32', 'bfloat16', found 'int8'"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used .*leave it out"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used .*leave it out"),
    ],
)
def test_what_cannot_compute_is_refused(tiny, options, message):
    with pytest.raises(MismatchError, match=message):
        Elmo(tiny, **options)


@pytest.mark.parametrize("learnt_from", ["a", "a" * 99])  # words that fill their places are convolved in another way
def test_changed_weights_are_used(tiny, learnt_from):
    """What is packed for speed follows the weights, however they are changed."""
    model = Elmo(tiny)
    first = next(model.embed([["a", "b"]]))
    with torch.no_grad():
        model.network.lstm[0].kernel.mul_(0.5)
    halved = next(model.embed([["a", "b"]]))
    np.testing.assert_array_equal(halved, next(Elmo(model.checkpoint()).embed([["a", "b"]])))
    assert not np.allclose(first, halved)
    model.network.load_state_dict(Elmo(tiny).network.state_dict())
    np.testing.assert_array_equal(first, next(model.embed([["a", "b"]])))
    optimizer = torch.optim.AdamW(model.network.requires_grad_(True).parameters(), lr=0.1, fused=True)
    model.network(make_batch([[learnt_from, "b"]], model.speller))[0][-1].sum().backward()
    optimizer.step()
    for learns in (True, False):  # frozen again, it is packed again
        model.network.requires_grad_(learns)
        learnt = next(model.embed([["a", "b"]]))
        np.testing.assert_array_equal(learnt, next(Elmo(model.checkpoint()).embed([["a", "b"]])))
        assert not np.allclose(first, learnt)


# ---------------------------------------------------------------- batches within a batch


def test_carried_rows_may_be_of_any_length(tiny_elmo):
    """A long line beside short ones: rows are run by length, and each keeps its own state."""
    sentences = [["long"] * 3000, ["a"], [], ["b", "c"], ["d"] * 40, ["e"]]
    together, alone = Carry(), [Carry() for _ in range(3)]
    found = list(tiny_elmo.embed(sentences, layers="top", state=together, batch_size=3))
    for i, sentence in enumerate(sentences):
        expected = next(tiny_elmo.embed([sentence], layers="top", state=alone[i % 3], batch_size=1))
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
    for row, carry in enumerate(alone):
        np.testing.assert_allclose(together.state.c[:, :, row], carry.state.c[:, :, 0], atol=1e-5)


def test_models_whose_words_stand_in_other_rows_are_others():
    one = make_word_checkpoint(make_config().lstm, (*SPECIALS, "a", "b"))
    other = dataclasses.replace(one, vocabulary=(*SPECIALS, "b", "a"))
    assert Elmo(one).fingerprint != Elmo(other).fingerprint


def test_kept_word_vectors_change_nothing(tiny_elmo):
    words = tiny_elmo.word_vectors()
    calls = [[["a", "b", "c"]], [["c", "d"], ["a"]], [["d", "b", "a", "e", "c", "a"]]]
    for sentences in calls:
        kept = tiny_elmo.embed(sentences, layers="all", words=words)
        for one, other in zip(kept, tiny_elmo.embed(sentences, layers="all"), strict=True):
            assert np.array_equal(one, other)
    assert {"a", "b", "c", "d", "e"} <= set(words.index)
    assert sorted(words.index.values()) == list(range(len(words.index)))


def test_threads_may_share_word_vectors(tiny_elmo, monkeypatch):
    """Whatever one forgets, another has what it asked for."""
    monkeypatch.setattr("elmokit.word_vectors._VALUES", 6 * tiny_elmo.config.lstm.projection_dim)
    words = tiny_elmo.word_vectors()
    sentences = [["a", "b", chr(ord("a") + n % 26)] for n in range(200)]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda sentence: next(tiny_elmo.embed([sentence], words=words)), sentences)
        for one, sentence in zip(found, sentences, strict=True):
            assert np.array_equal(one, next(tiny_elmo.embed([sentence])))


def test_word_vectors_of_another_model_are_refused(tiny_elmo):
    with pytest.raises(MismatchError, match="of this model"):
        tiny_elmo.embed([["a"]], words=tiny_elmo.cached(["a"]).word_vectors())


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([["a"], None], "sentence 1: expected a list of tokens, found None"),
        ([["a"], ["b", None]], "expected tokens as strings, found None .NoneType. at place 1"),
        ([["a", float("nan")]], "found nan .float. at place 1"),
        ([["a", ["b"]]], r"found \['b'\] .list. at place 1"),
    ],
)
def test_what_is_no_word_is_refused(tiny_elmo, sentences, message):
    with pytest.raises(MismatchError, match=message):
        list(tiny_elmo.embed(sentences))
