"""The published numbers: what bilm-tf and AllenNLP computed with real checkpoint files, within the stated tolerances.

Two comparisons for each: the network in float64 with the tolerance that the oracle's README states (three times the
distance its float32 values have from an exact computation), and the float32 network as users run it. Some of these
random recurrences amplify rounding on their longest sentence: there float32 may differ by three times as much as exact
outputs move when the weights move within their own rounding, measured in the same test.
"""

import json

import h5py
import numpy as np
import pytest
import torch

from checkpoints import read_datasets
from elmokit import formats
from elmokit.formats import allennlp
from elmokit.job import embed_file
from elmokit.model import Carry, Elmo
from elmokit.network import Mix
from elmokit.text import Utf8Speller, make_batch
from recorded import BATCHES, in_batches, read_lines, stated_tolerance

SHAPES = (
    "barekeys hardclip l1-h1-tanh l2-h2-relu l3-h0-relu l4-h2-tanh max30 noclip nocnnproj nolstmproj noskip".split()
)


def embed_in_batches(elmo, sentences, sizes):
    """All layers of each sentence, state carried over batches of these sizes."""
    carry, arrays = Carry(), []
    for batch in in_batches(sentences, sizes):
        arrays += elmo.embed(batch, layers="all", state=carry, batch_size=len(batch))
    return arrays


def sensitivity(checkpoint, sentences, sizes, exact):
    """How far exact outputs move when every weight moves by at most half a unit in its last float32 place."""
    moves = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        elmo = Elmo(checkpoint)
        elmo.network.double()
        with torch.no_grad():
            for parameter in elmo.network.parameters():
                parameter *= 1 + torch.from_numpy(generator.uniform(-(2.0**-24), 2.0**-24, parameter.shape))
        moved = embed_in_batches(elmo, sentences, sizes)
        moves.append(max(np.abs(a - b).max(initial=0.0) for a, b in zip(moved, exact, strict=True)))
    return max(moves)


def largest_difference(found, expected, prefix):
    pairs = [(a, expected[f"{prefix}_{i}"]) for i, a in enumerate(found) if f"{prefix}_{i}" in expected]
    assert len(pairs) >= 8
    for a, b in pairs:
        assert a.shape == b.shape
    return max(np.abs(a - b).max(initial=0.0) for a, b in pairs)


@pytest.mark.parametrize("policy", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_batch_policy(oracles, shape, policy):
    folder = oracles / f"alnlp-{shape}"
    checkpoint, sentences = formats.read(folder), read_lines(folder / "sentences.txt")
    assert len(sentences) == 9
    expected, tolerance = np.load(folder / "expected.npz"), stated_tolerance(folder)
    elmo, exact = Elmo(checkpoint), Elmo(checkpoint)
    exact.network.double()
    sizes = BATCHES[policy]
    in_float32, in_float64 = (embed_in_batches(e, sentences, sizes) for e in (elmo, exact))

    floor = sensitivity(checkpoint, sentences, sizes, in_float64)
    for tool in ("bilm", "allennlp"):
        if f"{tool}_{policy}_0" in expected:
            assert largest_difference(in_float64, expected, f"{tool}_{policy}") <= tolerance
            assert largest_difference(in_float32, expected, f"{tool}_{policy}") <= max(tolerance, 3 * floor)


@pytest.mark.parametrize("name", ["allennlp-fixture-a", "bilm-tf-fixture-b"])
def test_published_activations_of_three_streams(oracles, name):
    """The authors' own numbers: three texts side by side, state carried over ten batches, top layer."""
    folder = oracles / name
    elmo = Elmo(formats.read(folder))
    texts = json.loads(next(folder.glob("*sentences.json")).read_text("utf-8"))
    carry = Carry()
    for i in range(10):
        batch = [text[i].split() for text in texts]
        for k, found in enumerate(elmo.embed(batch, layers="top", state=carry, batch_size=3)):
            with h5py.File(folder / f"lm_embeddings_{k}.hdf5") as file:
                expected = np.concatenate(list(file[str(i)][...]), axis=-1)
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)


def test_published_layers_of_thirty_sentences(oracles):
    folder = oracles / "allennlp-fixture-a"
    elmo = Elmo(formats.read(folder))
    sentences = read_lines(folder / "sentences.txt")
    assert len(sentences) == 30
    with h5py.File(folder / "expected_embeddings.hdf5") as file:
        for i, found in enumerate(elmo.embed(sentences, layers="all", state="carry", batch_size=10)):
            np.testing.assert_allclose(found, file[str(i)][...], atol=5e-6)


def test_published_token_vectors(oracles):
    folder = oracles / "allennlp-fixture-a"
    elmo = Elmo(formats.read(folder))
    words = (folder / "vocab_test.txt").read_text("utf-8").split()
    assert len(words) == 458
    vectors = np.concatenate(list(elmo.embed([words], layers=0)))
    with h5py.File(folder / "elmo_token_embeddings.hdf5") as file:
        np.testing.assert_allclose(vectors[:, :16], file["embedding"][...], atol=1e-6)
    np.testing.assert_array_equal(vectors[:, :16], vectors[:, 16:])


@pytest.mark.parametrize("max_characters", [30, 50])
def test_character_ids(oracles, max_characters):
    folder = oracles / "char-ids"
    expected = np.load(folder / "expected.npz")
    speller = Utf8Speller(max_characters)
    tokens = json.loads((folder / "tokens.json").read_text("utf-8"))
    np.testing.assert_array_equal(speller.spell(tokens) + 1, expected[f"bilm_ids_max{max_characters}"])
    marks = speller.spell(["<S>", "</S>"]) + 1
    np.testing.assert_array_equal(marks[0], expected[f"bilm_bos_max{max_characters}"])
    np.testing.assert_array_equal(marks[1], expected[f"bilm_eos_max{max_characters}"])


def test_cached_token_embeddings(oracles):
    folder = oracles / "bilm-token-cache"
    checkpoint = allennlp.read_token_cache(
        folder / "options.json",
        folder / "weights.hdf5",
        token_embeddings=folder / "token_embeddings.hdf5",
        vocabulary=folder / "vocab.txt",
    )
    expected, sentences = np.load(folder / "expected.npz"), read_lines(folder / "sentences.txt")
    ids = make_batch(sentences, checkpoint.speller())
    for row, length, words in zip(expected["token_ids"], ids.lengths_B, ids.words_BT, strict=True):
        np.testing.assert_array_equal(ids.chars_UC[words[:length], 0] + 1, row[:length])
    elmo = Elmo(checkpoint)
    for policy in ("fresh", "carried"):
        found = embed_in_batches(elmo, sentences, BATCHES[policy])
        assert largest_difference(found, expected, f"bilm_{policy}") <= 5e-6


@pytest.fixture(scope="module")
def mixed(oracles):
    folder = oracles / "elmo-module-scalar-mix"
    elmo, sentences = Elmo(formats.read(folder)), read_lines(folder / "sentences.txt")
    return elmo, sentences, np.load(folder / "expected.npz")


@pytest.mark.parametrize("version", ["v09", "v210"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_scalar_mixes_of_a_network(mixed, version, keep, norm):
    """AllenNLP normalises over the places of the batch, <S> and </S> among them, before it takes these away."""
    elmo, sentences, expected = mixed
    batch = make_batch(sentences, elmo.speller)
    with torch.inference_mode():
        layers, _ = elmo.network(batch)
        for k, (weights, gamma) in enumerate(zip(expected["scalars"], expected["gammas"], strict=True)):
            mix = Mix(3, weights.tolist(), gamma=float(gamma), layer_norm=norm)
            name = f"{version}_{'layernorm' if norm else 'plain'}{'_keep' if keep else ''}_rep{k}"
            kept = [
                (i, m, length)
                for i, (m, length) in enumerate(
                    zip(mix(layers).split(batch.lengths_B.tolist()), batch.lengths_B, strict=True)
                )
            ]
            for i, vectors, length in kept:
                if length == 2:
                    continue  # the empty sentence: AllenNLP gives zeros
                found = vectors if keep else vectors[1:-1]
                np.testing.assert_allclose(found.numpy(), expected[name][i, : len(found)], atol=5e-6)


def test_scalar_mix_alone(mixed):
    _, _, expected = mixed
    layers, mask = torch.from_numpy(expected["mix_tensors"]), torch.from_numpy(expected["mix_mask"])
    weights = [0.3, -2.0, 1.0]
    plain, normed = Mix(3, weights), Mix(3, weights, gamma=1.7, layer_norm=True)
    with torch.no_grad():
        np.testing.assert_allclose(plain(layers), expected["v210_mix_plain"], atol=5e-6)
        found = normed(layers, mask).numpy()
    np.testing.assert_allclose(found, expected["v210_mix_layernorm_gamma1.7"], atol=5e-6)


COMMANDS = {
    "all": {"layers": "all"},
    "all_batch3": {"layers": "all", "batch_size": 3},
    "top": {"layers": "top"},
    "average": {"layers": "average"},
    "average_forget": {"layers": "average", "forget_sentences": True},
    "top_sentence_keys": {"layers": "top", "use_sentence_keys": True},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_the_allennlp_command(oracles, tmp_path, name):
    folder = oracles / "allennlp-elmo-command"
    text = folder / ("sentences_unique.txt" if "keys" in name else "sentences.txt")
    out = tmp_path / "out.hdf5"
    embed_file(text, out, elmo=Elmo(formats.read(folder)), state="carry", progress=False, **COMMANDS[name])
    found, expected = read_datasets(out), read_datasets(folder / f"{name}.hdf5")
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        if key == "sentence_to_index":
            assert json.loads(found[key][0]) == json.loads(array[0])
        else:
            assert found[key].dtype == array.dtype
            np.testing.assert_allclose(found[key], array, atol=1e-5)


def test_layers_lie_as_in_the_published_seqvec_vectors(oracles, tiny_elmo):
    """SeqVec's published vectors, whose weights are not here: layers first, then residues; layer 0 stands twice."""
    folder = oracles / "seqvec-outputs"
    proteins = [line for line in (folder / "input.fasta").read_text().splitlines() if not line.startswith(">")]
    with np.load(folder / "seqvec.npz") as published:
        arrays = list(published.values())
    for protein, theirs in zip(proteins, arrays, strict=True):
        ours = next(tiny_elmo.embed([list(protein)], layers="all"))
        assert theirs.shape[:2] == ours.shape[:2] == (3, len(protein))
        for stack in (theirs, ours):
            forward, backward = np.split(stack, 2, axis=-1)
            np.testing.assert_array_equal(forward[0], backward[0])
            assert not (forward[1:] == backward[1:]).all(-1).any()
        # One vector a protein is the mean over residues of the sum of layers.
        pooled = next(tiny_elmo.embed([list(protein)], layers=[1.0, 1.0, 1.0], pool="mean"))
        np.testing.assert_allclose(pooled, ours.sum(0).mean(0), atol=1e-5)
