"""The front door of bilm-tf: what bilm-tf recorded, and what its own tests asked of it."""

import inspect
import json

import h5py
import numpy as np
import pytest
import torch

import manylangs_folder
from checkpoints import SPECIALS, make_word_checkpoint
from conftest import make_config
from elmokit.compat.bilm import (
    Batcher,
    BidirectionalLanguageModel,
    TokenBatcher,
    UnicodeCharsVocabulary,
    Vocabulary,
    dump_bilm_embeddings,
    dump_token_embeddings,
    weight_layers,
)
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import allennlp
from recorded import BATCHES, in_batches, read_lines, stated_tolerance, two_files

SHAPES = (
    "barekeys hardclip l1-h1-tanh l2-h2-relu l3-h0-relu l4-h2-tanh max30 noclip nocnnproj nolstmproj noskip".split()
)
SENTENCES = [["The", "first", "sentence", "."], ["The", "second"], ["Third"]]


def write_words(path, words):
    path.write_text("\n".join(words), "utf-8")
    return path


@pytest.fixture
def vocabulary(tmp_path):
    return write_words(tmp_path / "vocabulary.txt", [*SPECIALS, "the", "."])


@pytest.fixture(scope="module")
def fixture_b(oracles):
    folder = oracles / "bilm-tf-fixture-b"
    return (*two_files(folder, "lm_weights.hdf5"), folder)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Vocabulary, "filename, validate_file=False"),
        (UnicodeCharsVocabulary, "filename, max_word_length, validate_file=False"),
        (Batcher, "lm_vocab_file, max_token_length"),
        (TokenBatcher, "lm_vocab_file"),
        (Batcher.batch_sentences, "self, sentences"),
        (
            BidirectionalLanguageModel,
            "options_file, weight_file, use_character_inputs=True, embedding_weight_file=None, max_batch_size=128",
        ),
        (weight_layers, "name, bilm_ops, l2_coef=None, use_top_only=False, do_layer_norm=False"),
        (dump_bilm_embeddings, "vocab_file, dataset_file, options_file, weight_file, outfile"),
        (dump_token_embeddings, "vocab_file, options_file, weight_file, outfile"),
    ],
)
def test_arguments_are_those_of_bilm_tf(function, expected):
    parameters = inspect.signature(function).parameters.values()
    assert ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters) == expected
    assert {p.kind for p in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


# ---------------------------------------------------------------- vocabularies


def test_words_become_line_numbers(vocabulary):
    words = Vocabulary(vocabulary, validate_file=True)
    ids = words.encode("the unknown .")
    assert (ids.dtype, ids.tolist()) == (np.int32, [0, 3, 2, 4, 1])
    assert words.encode(". unknown the", reverse=True).tolist() == [1, 4, 2, 3, 0]
    assert words.encode(["the", "un known"], split=False).tolist() == [0, 3, 2, 1]
    assert (words.bos, words.eos, words.unk, words.size) == (0, 1, 2, 5)
    assert words.decode([3, 4]) == "the ."
    assert words.word_to_id("dog") == words.unk


def test_odd_lines_of_a_vocabulary(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(b" the \r\n!!!MAXTERMID\n\ncat\nthe\n")
    words = Vocabulary(path)
    assert [words.id_to_word(number) for number in range(words.size)] == ["the", "", "cat", "the"]
    assert (words.word_to_id("the"), words.bos, words.word_to_id("dog")) == (3, -1, -1)
    with pytest.raises(FormatError, match="expected the words <S>, </S>, <UNK>"):
        Vocabulary(path, validate_file=True)


def test_words_become_characters(tmp_path):
    path = write_words(tmp_path / "v.txt", ["the", ".", chr(256) + "t", "<S>", "</S>", "<UNK>"])
    words = UnicodeCharsVocabulary(path, 5)
    assert words.word_to_char_ids("th").tolist() == [258, 116, 104, 259, 260]
    assert words.word_to_char_ids("thhhhh").tolist() == [258, 116, 104, 104, 259]
    assert words.word_to_char_ids(chr(256) + "t").tolist() == [258, 196, 128, 116, 259]
    for mark, chars in (("<S>", words.bos_chars), ("</S>", words.eos_chars)):
        np.testing.assert_array_equal(words.word_to_char_ids(mark), chars)
        np.testing.assert_array_equal(words.word_char_ids[words.word_to_id(mark)], chars)
    expected = [
        [258, 256, 259, 260, 260],
        [258, 116, 104, 259, 260],
        [258, 116, 104, 104, 259],
        [258, 196, 128, 116, 259],
        [258, 257, 259, 260, 260],
    ]
    sentence = ["th", "thhhhh", chr(256) + "t"]
    assert words.encode_chars(" ".join(sentence)).tolist() == expected
    assert words.encode_chars(" ".join(reversed(sentence)), reverse=True).tolist() == expected[::-1]
    assert words.encode_chars(sentence, split=False).dtype == words.word_char_ids.dtype == np.int32
    marks = [words.bos_char, words.eos_char, words.bow_char, words.eow_char, words.pad_char]
    assert (marks, words.max_word_length) == ([256, 257, 258, 259, 260], 5)


# ---------------------------------------------------------------- batchers


def test_character_ids_of_a_batch(vocabulary):
    ids = Batcher(vocabulary, 50).batch_sentences([["The", "first", "sentence"], ["Second", "."]])
    assert (ids.shape, ids.dtype) == ((2, 5, 50), np.int64)
    starts = [[259, 257, 260], [259, 84, 102, 100, 112, 111, 101, 260], [259, 47, 260], [259, 258, 260]]
    assert ids[1].tolist() == [start + [261] * (50 - len(start)) for start in starts] + [[0] * 50]
    assert ids[0, 1, :5].tolist() == [259, 85, 105, 102, 260]


@pytest.mark.parametrize("max_characters", [30, 50])
def test_recorded_character_ids(oracles, max_characters):
    folder = oracles / "char-ids"
    tokens = json.loads((folder / "tokens.json").read_text("utf-8"))
    (ids,) = Batcher(folder / "vocab.txt", max_characters).batch_sentences([tokens])
    expected = np.load(folder / "expected.npz")
    for found, part in ((ids[1:-1], "ids"), (ids[0], "bos"), (ids[-1], "eos")):
        np.testing.assert_array_equal(found, expected[f"bilm_{part}_max{max_characters}"])


def test_recorded_word_ids(oracles):
    folder = oracles / "bilm-token-cache"
    ids = TokenBatcher(folder / "vocab.txt").batch_sentences(read_lines(folder / "sentences.txt"))
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, np.load(folder / "expected.npz")["token_ids"])


def test_the_last_word_of_a_vocabulary_without_marks_keeps_its_spelling(tmp_path):
    """bilm-tf spells it as </S>."""
    path = write_words(tmp_path / "v.txt", ["the", "last"])
    words = UnicodeCharsVocabulary(path, 8)
    assert words.word_to_char_ids("last").tolist() == [258, *b"last", 259, 260, 260]
    np.testing.assert_array_equal(words.word_char_ids[1], words.word_to_char_ids("last"))
    assert Batcher(path, 8).batch_sentences([["last"]])[0, 1, 1] == ord("l") + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["<S>", "</S>", "the"], "neither the word 'dog' nor"),
        (["</S>", "<UNK>", "the"], "neither the word '<S>' nor"),
        (["<S>", "<UNK>", "the"], "neither the word '</S>' nor"),
    ],
)
def test_a_word_without_an_id_is_refused(tmp_path, words, message):
    """bilm-tf gives it the id of padding, and the sentence is cut."""
    batcher = TokenBatcher(write_words(tmp_path / "v.txt", words))
    with pytest.raises(MismatchError, match=message):
        batcher.batch_sentences([["the", "dog"]])


# ---------------------------------------------------------------- the model


def test_published_activations_in_batches_of_three(fixture_b):
    options, weights, folder = fixture_b
    texts = json.loads((folder / "lm_embeddings_sentences.json").read_text("utf-8"))
    batcher = Batcher(folder / "vocab_test.txt", 50)
    model = BidirectionalLanguageModel(options, weights, max_batch_size=4)
    for i in range(10):
        batch = [text[i].strip().split() for text in texts]
        found = model(batcher.batch_sentences(batch))
        assert found["lengths"].tolist() == [len(sentence) for sentence in batch]
        for k, sentence in enumerate(batch):
            with h5py.File(folder / f"lm_embeddings_{k}.hdf5") as file:
                expected = np.concatenate(list(file[str(i)][...]), axis=-1)
            top = found["lm_embeddings"][k, 2, : len(sentence)]
            np.testing.assert_allclose(top, expected, atol=1e-6, rtol=1e-5)


def test_rows_beyond_a_smaller_batch_keep_their_state(fixture_b):
    options, weights, folder = fixture_b
    batcher = Batcher(folder / "vocab_test.txt", 50)
    once, twice = (BidirectionalLanguageModel(options, weights) for _ in range(2))
    for model in (once, twice):
        model(batcher.batch_sentences(SENTENCES))
    twice(batcher.batch_sentences(SENTENCES[:2]))
    twice(np.ones((2, 5, 50), np.int32))
    third = batcher.batch_sentences([["a"], ["b"], ["new", "one"]])
    found, expected = twice(third)["lm_embeddings"], once(third)["lm_embeddings"]
    np.testing.assert_allclose(found[2], expected[2], atol=1e-6)
    assert np.abs(found[:2] - expected[:2]).max() > 1e-3


def test_state_can_be_forgotten(fixture_b):
    options, weights, folder = fixture_b
    model, ids = BidirectionalLanguageModel(options, weights), Batcher(folder / "vocab_test.txt", 50)
    ids = ids.batch_sentences(SENTENCES)
    first = model(ids)["lm_embeddings"]
    assert np.abs(model(ids)["lm_embeddings"] - first).max() > 1e-3
    model.reset_states()
    np.testing.assert_array_equal(model(ids)["lm_embeddings"], first)


@pytest.mark.parametrize("policy", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_batch_policy(oracles, shape, policy):
    folder = oracles / f"alnlp-{shape}"
    expected, tolerance = np.load(folder / "expected.npz"), stated_tolerance(folder)
    model = BidirectionalLanguageModel(*two_files(folder), max_batch_size=16)
    model.network.double()  # so that what is compared does not depend on how a machine rounds
    batcher = Batcher(folder / "vocab.txt", model.max_characters)
    rows = [
        (row, length)
        for batch in in_batches(read_lines(folder / "sentences.txt"), BATCHES[policy])
        for found in [model(batcher.batch_sentences(batch))]
        for row, length in zip(found["lm_embeddings"], found["lengths"], strict=True)
    ]
    for i, (row, length) in enumerate(rows):
        np.testing.assert_allclose(row[:, :length], expected[f"bilm_{policy}_{i}"], atol=tolerance)
    if policy == "fresh":
        np.testing.assert_allclose([row for row, _ in rows], expected["bilm_fresh_padded"], atol=tolerance)


def test_what_a_model_gives(oracles):
    folder = oracles / "alnlp-l1-h1-tanh"
    expected = np.load(folder / "expected.npz")
    sentences = read_lines(folder / "sentences.txt")
    model = BidirectionalLanguageModel(*two_files(folder))
    found = model(Batcher(folder / "vocab.txt", 50).batch_sentences(sentences))
    types = {name: (found[name].dtype, found[name].shape) for name in ("lm_embeddings", "lengths", "mask")}
    assert types == {
        "lm_embeddings": (np.float32, expected["bilm_fresh_padded"].shape),
        "lengths": (np.int32, (9,)),
        "mask": (np.bool_, (9, 91)),
    }
    np.testing.assert_allclose(found["lm_embeddings"], expected["bilm_fresh_padded"], atol=stated_tolerance(folder))
    np.testing.assert_array_equal(found["lengths"], expected["bilm_fresh_lengths"])
    np.testing.assert_array_equal(found["mask"].sum(1), expected["bilm_fresh_lengths"])
    assert found["token_embeddings"].shape == (9, 93, 5)
    np.testing.assert_array_equal(found["token_embeddings"][0, 1:11], found["lm_embeddings"][0, 0, :10, :5])


@pytest.mark.parametrize("policy", ["fresh", "carried"])
def test_cached_word_vectors(oracles, policy):
    folder = oracles / "bilm-token-cache"
    expected = np.load(folder / "expected.npz")
    cache = {"use_character_inputs": False, "embedding_weight_file": folder / "token_embeddings.hdf5"}
    model, batcher = BidirectionalLanguageModel(*two_files(folder), **cache), TokenBatcher(folder / "vocab.txt")
    arrays = []
    for batch in in_batches(read_lines(folder / "sentences.txt"), BATCHES[policy]):
        found = model(batcher.batch_sentences(batch))
        arrays += [row[:, :n] for row, n in zip(found["lm_embeddings"], found["lengths"], strict=True)]
        if policy == "fresh":
            np.testing.assert_allclose(found["lm_embeddings"], expected["bilm_fresh_padded"], atol=5e-6)
    for i, array in enumerate(arrays):
        np.testing.assert_allclose(array, expected[f"bilm_{policy}_{i}"], atol=5e-6)


def test_a_model_without_characters(tmp_path):
    checkpoint = make_word_checkpoint(make_config().lstm, (*SPECIALS, "the", "cat"))
    allennlp.write(checkpoint, tmp_path)
    options, weights = two_files(tmp_path)
    batcher = TokenBatcher(write_words(tmp_path / "v.txt", [*SPECIALS, "the", "cat"]))
    model = BidirectionalLanguageModel(options, weights, False, embedding_weight_file=weights)
    found = model(batcher.batch_sentences([["the", "cat"], ["dog"]]))["lm_embeddings"]
    np.testing.assert_array_equal(found[0, 0, :, :4], checkpoint.arrays["embedding"][3:])
    with pytest.raises(MismatchError, match="use_character_inputs=True needs weights with characters"):
        BidirectionalLanguageModel(options, weights)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.ones((5, 3, 50), np.int64), "expected at most 4 sentences, found 5"),
        (np.ones((2, 3, 30), np.int64), r"the last 50 long, found shape \(2, 3, 30\)"),
        (np.ones((2, 50), np.int64), r"expected 3 axes, the last 50 long, found shape \(2, 50\)"),
        (np.ones((2, 1, 50), np.int64), "expected <S> and </S> in every sentence"),
    ],
)
def test_ids_that_do_not_fit(fixture_b, ids, message):
    model = BidirectionalLanguageModel(*fixture_b[:2], max_batch_size=4)
    with pytest.raises(MismatchError, match=message):
        model(ids)


def test_word_ids_need_their_vectors(fixture_b):
    with pytest.raises(ValueError, match="use_character_inputs=False needs embedding_weight_file"):
        BidirectionalLanguageModel(*fixture_b[:2], use_character_inputs=False)


# ---------------------------------------------------------------- mixes


@pytest.mark.parametrize(
    ("l2_coef", "norm", "top"), [(1.0, True, False), (1.0, False, False), (None, False, False), (None, False, True)]
)
def test_weighted_layers(fixture_b, l2_coef, norm, top):
    options, weights, folder = fixture_b
    model = BidirectionalLanguageModel(options, weights, max_batch_size=4)
    ops = model(Batcher(folder / "vocab_test.txt", 50).batch_sentences(SENTENCES))
    assert ops["mask"].tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    names = {"l2_coef": l2_coef, "do_layer_norm": norm, "use_top_only": top}
    for k in range(2):
        weight_layers(str(k), ops, **names)
    assert len(model.variables) == (2 if top else 4)
    values = [([0.1, 0.3, 0.5], 1.1), ([0.2, 0.4, 0.6], 0.88)]
    for k, (scalars, gamma) in enumerate(values):
        model.variables[f"{k}_ELMo_gamma"].data[:] = gamma
        if not top:
            model.variables[f"{k}_ELMo_W"].data[:] = torch.tensor(scalars)
        expected = gamma * expected_mix(ops, scalars, norm=norm, top=top)
        mixed = weight_layers(str(k), ops, **names)
        np.testing.assert_allclose(mixed["weighted_op"].detach(), expected, atol=1e-6)
        if top:
            assert mixed["regularization_op"] == 0.0
        else:
            (loss,) = mixed["regularization_op"]
            assert loss.item() == pytest.approx((l2_coef or 0.0) * np.square(scalars).sum())


def expected_mix(ops, scalars, *, norm, top):
    layers, mask = list(ops["lm_embeddings"].transpose(1, 0, 2, 3)), ops["mask"]
    if top:
        return layers[-1]
    if norm:
        layers = [(layer - layer[mask].mean()) / (layer[mask].std() + 1e-12) for layer in layers]
    shares = np.exp(np.array(scalars) + 1 / 3) / np.exp(np.array(scalars) + 1 / 3).sum()
    return np.tensordot(shares, layers, 1)


def test_mixes_of_one_name_are_one_and_can_be_trained(fixture_b):
    options, weights, folder = fixture_b
    model, batcher = BidirectionalLanguageModel(options, weights), Batcher(folder / "vocab_test.txt", 50)
    context, question = (model(batcher.batch_sentences(batch)) for batch in (SENTENCES, [["What", "?"]]))
    both = [weight_layers("input", ops, l2_coef=0.1) for ops in (context, question)]
    assert set(model.variables) == {"input_ELMo_W", "input_ELMo_gamma"}
    loss = sum(mixed["weighted_op"].square().sum() + mixed["regularization_op"][0] for mixed in both)
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.variables.values())


# ---------------------------------------------------------------- files


def test_layers_of_a_text_in_a_file(oracles, tmp_path):
    folder = oracles / "alnlp-l2-h2-relu"
    dump_bilm_embeddings(folder / "vocab.txt", folder / "sentences.txt", *two_files(folder), tmp_path / "out.hdf5")
    with h5py.File(tmp_path / "out.hdf5") as found, h5py.File(folder / "dump_bilm_embeddings.hdf5") as expected:
        assert found.keys() == expected.keys()
        for key in expected:
            assert (found[key].dtype, found[key].shape) == (expected[key].dtype, expected[key].shape)
            np.testing.assert_allclose(found[key], expected[key], atol=stated_tolerance(folder))


def test_a_file_that_cannot_be_read_leaves_an_error(fixture_b, tmp_path):
    options, weights, folder = fixture_b
    (tmp_path / "text.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(ValueError, match="line 2, byte 1: expected UTF-8"):
        dump_bilm_embeddings(folder / "vocab_test.txt", tmp_path / "text.txt", options, weights, tmp_path / "out.hdf5")


@pytest.mark.parametrize("entry", ["bilm-token-cache", "allennlp-fixture-a"])
def test_word_vectors_in_a_file(oracles, tmp_path, entry):
    folder = oracles / entry
    ours = entry == "bilm-token-cache"
    files = two_files(folder, "weights.hdf5" if ours else "lm_weights.hdf5")
    dump_token_embeddings(folder / ("vocab.txt" if ours else "vocab_test.txt"), *files, tmp_path / "out.hdf5")
    recorded = folder / ("token_embeddings.hdf5" if ours else "elmo_token_embeddings.hdf5")
    with h5py.File(tmp_path / "out.hdf5") as found, h5py.File(recorded) as expected:
        assert list(found) == ["embedding"]
        assert found["embedding"].dtype == np.float32
        np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=1e-6)


def test_dumped_word_vectors_give_the_published_activations(fixture_b, tmp_path):
    options, weights, folder = fixture_b
    texts = json.loads((folder / "lm_embeddings_sentences.json").read_text("utf-8"))
    words = sorted({"<S>", "</S>", *(word for text in texts for sentence in text for word in sentence.split())})
    path = write_words(tmp_path / "v.txt", words)
    dump_token_embeddings(path, options, weights, tmp_path / "words.hdf5")
    model = BidirectionalLanguageModel(options, weights, False, tmp_path / "words.hdf5", 4)
    for i in range(10):
        batch = [text[i].split() for text in texts]
        found = model(TokenBatcher(path).batch_sentences(batch))
        for k, length in enumerate(found["lengths"]):
            with h5py.File(folder / f"lm_embeddings_{k}.hdf5") as file:
                expected = np.concatenate(list(file[str(i)][...]), axis=-1)
            np.testing.assert_allclose(found["lm_embeddings"][k, 2, :length], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [{}, {"word_dim": 0}])
def test_a_model_that_does_not_spell_in_bytes_is_refused(tmp_path, shape):
    """The batchers' ids would be other characters to it."""
    manylangs_folder.write(manylangs_folder.make(**shape), tmp_path)
    with pytest.raises(MismatchError, match="does not read the bytes of words alone, and bilm-tf's batchers spell in"):
        BidirectionalLanguageModel(tmp_path, None)
