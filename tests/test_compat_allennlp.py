"""The front door of AllenNLP: what AllenNLP 0.9 recorded, and what its own tests asked of it."""

import copy
import inspect
import io
import json
import pickle
import tarfile
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checkpoints import SPECIALS, make_word_checkpoint
from conftest import make_checkpoint, make_config
from elmokit import catalog
from elmokit.compat.allennlp import (
    DEFAULT_OPTIONS_FILE,
    ConfigurationError,
    Elmo,
    ElmoEmbedder,
    ScalarMix,
    _ElmoBiLm,
    _ElmoCharacterEncoder,
    batch_to_ids,
    remove_sentence_boundaries,
)
from elmokit.errors import FormatError, MismatchError, UnknownModel
from elmokit.formats import allennlp
from elmokit.model import Carry
from elmokit.model import Elmo as Model
from recorded import BATCHES, in_batches, read_lines, stated_tolerance, two_files

ACCEPTED = "hardclip l1-h1-tanh l2-h2-relu l3-h0-relu l4-h2-tanh noclip".split()  # the models that AllenNLP opens
SENTENCES = [["The", "sentence", "."], ["ELMo", "helps", "disambiguate", "ELMo", "from", "Elmo", "."]]


@pytest.fixture(scope="module")
def fixture_a(oracles):
    return two_files(oracles / "allennlp-fixture-a", "lm_weights.hdf5")


@pytest.fixture(scope="module")
def mixed(oracles):
    folder = oracles / "elmo-module-scalar-mix"
    return folder, np.load(folder / "expected.npz")


# ---------------------------------------------------------------- signatures and ids


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            Elmo,
            "options_file, weight_file, num_output_representations, requires_grad=False, do_layer_norm=False, "
            "dropout=0.5, vocab_to_cache=None, keep_sentence_boundaries=False, scalar_mix_parameters=None, module=None",
        ),
        (Elmo.forward, "self, inputs, word_inputs=None"),
        (_ElmoBiLm, "options_file, weight_file, requires_grad=False, vocab_to_cache=None"),
        (_ElmoCharacterEncoder, "options_file, weight_file, requires_grad=False"),
        (ScalarMix, "mixture_size, do_layer_norm=False, initial_scalar_parameters=None, trainable=True"),
        (ScalarMix.forward, "self, tensors, mask=None"),
        (batch_to_ids, "batch"),
        (remove_sentence_boundaries, "tensor, mask"),
        (ElmoEmbedder.embed_sentence, "self, sentence"),
        (ElmoEmbedder.embed_batch, "self, batch"),
        (ElmoEmbedder.embed_sentences, "self, sentences, batch_size=64"),
        (ElmoEmbedder.batch_to_embeddings, "self, batch"),
        (
            ElmoEmbedder.embed_file,
            "self, input_file, output_file_path, output_format='all', batch_size=64, forget_sentences=False, "
            "use_sentence_keys=False",
        ),
    ],
)
def test_arguments_are_those_of_allennlp(function, expected):
    parameters = inspect.signature(function).parameters.values()
    found = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert ", ".join(found) == expected
    assert {p.kind for p in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_the_embedder_opens_the_published_model_unless_told_otherwise(oracles, monkeypatch):
    parameters = inspect.signature(ElmoEmbedder).parameters
    assert list(parameters) == ["options_file", "weight_file", "cuda_device"]
    assert parameters["options_file"].default == DEFAULT_OPTIONS_FILE
    assert parameters["cuda_device"].default == -1
    fetched = []
    monkeypatch.setattr(catalog, "fetch", lambda name: fetched.append(name) or oracles / "alnlp-l1-h1-tanh")
    assert ElmoEmbedder().embed_sentence(["word"]).shape == (2, 1, 10)
    assert set(fetched) == {"original"}


def test_a_model_named_alone_is_that_model(oracles, tmp_path, monkeypatch):
    """Not its options with the published weights."""
    monkeypatch.setattr(catalog, "fetch", lambda name: pytest.fail(f"{name} was fetched"))
    folder = oracles / "alnlp-l1-h1-tanh"
    assert ElmoEmbedder(folder).embed_sentence(["word"]).shape == (2, 1, 10)
    assert ElmoEmbedder(str(folder / "options.json")).embed_sentence(["word"]).shape == (2, 1, 10)


def test_an_address_that_nobody_published():
    with pytest.raises(UnknownModel, match=r"x\.org/options\.json is no published model.s"):
        Elmo("https://x.org/options.json", "https://x.org/weights.hdf5", 1)


def test_character_ids(oracles):
    folder = oracles / "char-ids"
    tokens = json.loads((folder / "tokens.json").read_text("utf-8"))
    ids = batch_to_ids([tokens])
    assert ids.dtype == torch.int64
    np.testing.assert_array_equal(ids[0], np.load(folder / "expected.npz")["allennlp_ids"])


def test_a_batch_of_ids(mixed):
    folder, expected = mixed
    np.testing.assert_array_equal(batch_to_ids(read_lines(folder / "sentences.txt")), expected["character_ids"])
    assert batch_to_ids([[]]).shape == (1, 0, 50)
    assert batch_to_ids([["Second", "."], []])[1].tolist() == [[0] * 50] * 2


@pytest.mark.parametrize(
    ("token", "expected"), [("<S>", [259, 257, 260]), ("</S>", [259, 258, 260]), ("Ā" + "t", [259, 197, 129, 117, 260])]
)
def test_ids_of_marks_and_of_bytes(token, expected):
    assert batch_to_ids([[token]])[0, 0].tolist() == expected + [261] * (50 - len(expected))


# ---------------------------------------------------------------- the language model


def test_published_activations_in_batches_of_three(fixture_a, oracles):
    folder = oracles / "allennlp-fixture-a"
    texts = json.loads((folder / "sentences.json").read_text("utf-8"))
    bilm = _ElmoBiLm(*fixture_a)
    for i in range(10):
        batch = [text[i].split() for text in texts]
        output = bilm(batch_to_ids(batch))
        top, mask = remove_sentence_boundaries(output["activations"][2], output["mask"])
        assert mask.sum(1).tolist() == [len(sentence) for sentence in batch]
        for k, sentence in enumerate(batch):
            with h5py.File(folder / f"lm_embeddings_{k}.hdf5") as file:
                expected = np.concatenate(list(file[str(i)][...]), axis=-1)
            np.testing.assert_allclose(top[k, : len(sentence)], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("language", "weights"), [("es", ""), ("fr", ""), ("it", ""), ("fr", "_zero")])
def test_all_layers_with_the_sentence_marks(oracles, language, weights):
    folder = oracles / "elmo-multilingual"
    expected = np.load(folder / "expected.npz")
    bilm = _ElmoBiLm(*two_files(folder / language, f"weights{weights}.hdf5"))
    output = bilm(batch_to_ids(read_lines(folder / "sentences.txt")))
    np.testing.assert_array_equal(output["mask"], expected[f"{language}_weights{weights}_mask"])
    for k, layer in enumerate(output["activations"]):
        np.testing.assert_allclose(layer, expected[f"{language}_weights{weights}_layers"][:, k], atol=1e-6)


@pytest.mark.parametrize("language", ["es", "fr", "it"])
def test_vectors_aligned_between_languages(oracles, language):
    """AllenNLP's class for this is a mix and one product, which a user writes down."""
    folder = oracles / "elmo-multilingual"
    expected = np.load(folder / "expected.npz")
    files = two_files(folder / language)
    elmo = Elmo(*files, 1, dropout=0.0, scalar_mix_parameters=[0.2, 1.0, -0.5])
    (mixed,) = elmo(batch_to_ids(read_lines(folder / "sentences.txt")))["elmo_representations"]
    np.testing.assert_allclose(mixed, expected[f"{language}_multilang_none"], atol=1e-6)
    aligned = mixed @ torch.from_numpy(expected[f"{language}_align_matrix"]).T
    np.testing.assert_allclose(aligned, expected[f"{language}_multilang_align"], atol=1e-6)


def test_published_token_vectors(fixture_a, oracles):
    folder = oracles / "allennlp-fixture-a"
    words = (folder / "vocab_test.txt").read_text("utf-8").split()
    output = _ElmoCharacterEncoder(*fixture_a)(batch_to_ids([words[:400], words[400:]]))
    vectors, mask = remove_sentence_boundaries(output["token_embedding"], output["mask"])
    with h5py.File(folder / "elmo_token_embeddings.hdf5") as file:
        np.testing.assert_allclose(vectors[mask.bool()], file["embedding"][...], atol=1e-6)


def test_the_encoder_adds_the_vectors_of_the_sentence_marks(fixture_a):
    encoder = _ElmoCharacterEncoder(*fixture_a)
    first, second = (encoder(batch_to_ids([[mark]]))["token_embedding"][0] for mark in ("<S>", "</S>"))
    torch.testing.assert_close(first[0], first[1])
    torch.testing.assert_close(second[2], second[1])
    assert encoder.get_output_dim() == first.shape[1]


def test_the_encoder_leaves_something_where_there_is_no_word(oracles):
    """What bilm-tf recorded of the same network: the vector of no characters."""
    folder = oracles / "alnlp-l2-h2-relu"
    output = _ElmoCharacterEncoder(*two_files(folder))(batch_to_ids([["a"], ["b", "c", "d"]]))
    blank = np.load(folder / "expected.npz")["bilm_fresh_padded"][0, 0, -1, :6]
    np.testing.assert_allclose(output["token_embedding"][0, 3:], [blank] * 2, atol=1e-6)
    assert not _ElmoBiLm(*two_files(folder))(batch_to_ids([["a"], ["b", "c", "d"]]))["activations"][0][0, 3:].any()


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("policy", BATCHES)
@pytest.mark.parametrize("shape", ACCEPTED)
def test_every_shape_and_batch_policy(oracles, shape, policy):
    folder = oracles / f"alnlp-{shape}"
    expected = np.load(folder / "expected.npz")
    embedder = ElmoEmbedder(*two_files(folder))
    embedder.elmo_bilm.double()  # so that what is compared does not depend on how a machine rounds
    batches = in_batches(read_lines(folder / "sentences.txt"), BATCHES[policy])
    for i, found in enumerate(array for batch in batches for array in embedder.embed_batch(batch)):
        if i == 4:
            assert found.shape == (3, 0, 1024)
        elif i < 9:
            np.testing.assert_allclose(found, expected[f"allennlp_{policy}_{i}"], atol=stated_tolerance(folder))


def test_arrays_of_thirty_sentences(fixture_a, oracles):
    folder = oracles / "allennlp-fixture-a"
    arrays = list(ElmoEmbedder(*fixture_a).embed_sentences(iter(read_lines(folder / "sentences.txt")), 10))
    assert len(arrays) == 30
    with h5py.File(folder / "expected_embeddings.hdf5") as file:
        for i, found in enumerate(arrays):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, file[str(i)][...], atol=5e-6)


def test_a_sentence_of_no_tokens_is_a_constant_of_the_published_size(fixture_a):
    embedder = ElmoEmbedder(*fixture_a)
    alone = embedder.embed_sentence([])
    assert (alone.shape, alone.dtype) == ((3, 0, 1024), np.float64)
    assert embedder.embed_batch([]) == []
    assert embedder.elmo_bilm._elmo_lstm._states is None
    among = list(embedder.embed_sentences(["This is a test".split(), []]))
    assert [array.shape for array in among] == [(3, 4, 32), (3, 0, 1024)]


def test_tensors_of_a_batch(fixture_a):
    layers, mask = ElmoEmbedder(*fixture_a).batch_to_embeddings(SENTENCES)
    assert (layers.shape, layers.dtype) == ((2, 3, 7, 32), torch.float32)
    assert (mask.dtype, mask.tolist()) == (torch.int64, [[1, 1, 1, 0, 0, 0, 0], [1] * 7])
    assert not layers[0, :, 3:].any()


words = st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=5), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def of_fifty():
    return make_checkpoint(make_config(max_characters=50))


@settings(max_examples=15, deadline=None)
@given(batches=st.lists(words, min_size=1, max_size=3))
def test_the_same_vectors_as_the_library_with_state_carried(of_fifty, batches):
    model, embedder = Model(of_fifty), ElmoEmbedder(of_fifty, None)
    rows = max(map(len, batches))
    embedder.embed_batch([["start"]] * rows)  # as many rows as any batch, so that both carry the same ones
    carry = Carry()
    list(model.embed([["start"]] * rows, state=carry))
    for batch in batches:
        found = embedder.embed_batch(batch)
        for a, b in zip(found, model.embed(batch, layers="all", state=carry, batch_size=len(batch)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


# ---------------------------------------------------------------- state


def test_the_same_sentence_again_has_other_vectors(fixture_a):
    embedder = ElmoEmbedder(*fixture_a)
    first, second = (embedder.embed_sentence(SENTENCES[0]) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[2] - second[2]).max() > 1e-2


def test_state_can_be_forgotten_or_stopped_as_users_did(fixture_a):
    elmo = Elmo(*fixture_a, 1, dropout=0.0)
    ids = batch_to_ids(SENTENCES)

    def run():
        return elmo(ids)["elmo_representations"][0]

    first = run()
    assert not torch.equal(run(), first)
    elmo._elmo_lstm._elmo_lstm.reset_states()
    assert torch.equal(run(), first)
    elmo._elmo_lstm._elmo_lstm._states = None
    elmo._modules["_elmo_lstm"]._elmo_lstm.stateful = False
    assert torch.equal(run(), first)
    assert torch.equal(run(), first)


def test_state_has_the_shapes_of_allennlp_and_no_place_in_a_saved_model(fixture_a):
    bilm = _ElmoBiLm(*fixture_a)
    names = set(bilm.state_dict())
    bilm(batch_to_ids(SENTENCES))
    h, c = bilm._elmo_lstm._states
    assert h.shape[:2] == c.shape[:2] == (2, 2)
    assert (h.shape[2], c.shape[2]) == (32, 2 * bilm._elmo_lstm.layers[0].bias.shape[1] // 4)
    bilm._elmo_lstm._states = tuple(state.clone() for state in (h, c))  # as flair's unpickling does
    bilm(batch_to_ids(SENTENCES[:1]))
    torch.testing.assert_close(bilm._elmo_lstm._states[0][:, 1], h[:, 1], atol=0, rtol=0)
    assert set(bilm.state_dict()) == names


# ---------------------------------------------------------------- files

COMMANDS = {
    "all": {},
    "all_batch3": {"batch_size": 3},
    "top": {"output_format": "top"},
    "average": {"output_format": "average"},
    "average_forget": {"output_format": "average", "forget_sentences": True},
    "top_sentence_keys": {"output_format": "top", "use_sentence_keys": True},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_files_as_the_command_wrote_them(oracles, tmp_path, name):
    folder = oracles / "allennlp-elmo-command"
    source = folder / ("sentences_unique.txt" if "keys" in name else "sentences.txt")
    text = open(source, encoding="utf-8")  # noqa: SIM115 - closing it is part of what is tested
    ElmoEmbedder(*two_files(folder)).embed_file(text, str(tmp_path / "output.txt"), **COMMANDS[name])
    assert text.closed
    with h5py.File(tmp_path / "output.txt") as found, h5py.File(folder / f"{name}.hdf5") as expected:
        assert found.keys() == expected.keys()
        for key in expected:
            if key == "sentence_to_index":
                assert json.loads(found[key][0]) == json.loads(expected[key][0])
            else:
                assert found[key].dtype == expected[key].dtype
                np.testing.assert_allclose(found[key], expected[key], atol=1e-5)


def test_the_index_keeps_sentences_as_they_were_written(fixture_a, tmp_path):
    ElmoEmbedder(*fixture_a).embed_file(io.StringIO(" two  spaces \nand one\n"), tmp_path / "out")
    with h5py.File(tmp_path / "out") as file:
        assert json.loads(file["sentence_to_index"][0]) == {"two  spaces": "0", "and one": "1"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("A\n\n\nB\n", {}, "empty lines, the first of them line 2"),
        ("A\nA\n", {"use_sentence_keys": True}, "an earlier sentence has the same key"),
        ("A\n", {"output_format": "most"}, "expected 'all', 'top' or 'average', found 'most'"),
    ],
)
def test_what_the_command_refused_is_a_configuration_error(fixture_a, tmp_path, text, options, message):
    with pytest.raises(ConfigurationError, match=message):
        ElmoEmbedder(*fixture_a).embed_file(io.StringIO(text), tmp_path / "out.hdf5", **options)


def test_a_file_is_there_only_when_it_is_whole(fixture_a, tmp_path):
    (tmp_path / "out.hdf5").write_bytes(b"of before")
    with pytest.raises(ConfigurationError, match="an earlier sentence has the same key"):
        ElmoEmbedder(*fixture_a).embed_file(io.StringIO("A\nA\n"), tmp_path / "out.hdf5", use_sentence_keys=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.hdf5": b"of before"}


# ---------------------------------------------------------------- mixes


def set_mixes(elmo, expected):
    for k in range(2):
        mix = getattr(elmo, f"scalar_mix_{k}")
        for parameter, value in zip(mix.scalar_parameters, expected["scalars"][k], strict=True):
            parameter.data[0] = float(value)
        mix.gamma.data[0] = float(expected["gammas"][k])


@pytest.mark.parametrize("version", ["v09", "v210"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_trained_mixes(mixed, version, keep, norm):
    folder, expected = mixed
    elmo = Elmo(*two_files(folder), 2, do_layer_norm=norm, dropout=0.0, keep_sentence_boundaries=keep)
    set_mixes(elmo, expected)
    output = elmo(batch_to_ids(read_lines(folder / "sentences.txt")))
    name = f"{version}_{'layernorm' if norm else 'plain'}{'_keep' if keep else ''}"
    assert output["mask"].dtype == torch.int64
    np.testing.assert_array_equal(output["mask"], expected[f"{name}_mask"])
    assert len(output["elmo_representations"]) == 2
    for k, found in enumerate(output["elmo_representations"]):
        np.testing.assert_allclose(found.detach(), expected[f"{name}_rep{k}"], atol=5e-6)


def test_mixes_given_to_the_constructor_are_not_trained(mixed):
    folder, expected = mixed
    elmo = Elmo(*two_files(folder), 1, dropout=0.0, scalar_mix_parameters=expected["scalars"][0].tolist())
    (found,) = elmo(batch_to_ids(read_lines(folder / "sentences.txt")))["elmo_representations"]
    np.testing.assert_allclose(found, expected["v09_constructor_mix_rep0"], atol=5e-6)
    assert not any(parameter.requires_grad for parameter in elmo.parameters())


def test_a_module_made_of_its_part_of_a_configuration(mixed):
    folder, _ = mixed
    files = {"options_file": str(folder / "options.json"), "weight_file": str(folder / "weights.hdf5")}
    options = {**files, "num_output_representations": 2, "do_layer_norm": True, "dropout": 0.0}
    module, expected = Elmo.from_params(options), Elmo(*files.values(), 2, do_layer_norm=True, dropout=0.0)
    ids = batch_to_ids(SENTENCES)
    for found, array in zip(module(ids)["elmo_representations"], expected(ids)["elmo_representations"], strict=True):
        torch.testing.assert_close(found, array, rtol=0, atol=0)
    assert module._scalar_mixes == [module.scalar_mix_0, module.scalar_mix_1]
    assert (module._has_cached_vocab, Elmo(*files.values(), 1, vocab_to_cache=["a"])._has_cached_vocab) == (False, True)
    with pytest.raises(ConfigurationError, match="option 'gpu' is not one of Elmo's, options_file"):
        Elmo.from_params({**options, "gpu": 0})
    with pytest.raises(ConfigurationError, match="option 'weight_file' of Elmo is missing"):
        Elmo.from_params({name: options[name] for name in options if name != "weight_file"})


def test_state_flows_between_calls_of_the_module(mixed):
    folder, expected = mixed
    elmo = Elmo(*two_files(folder), 2, dropout=0.0)
    ids = batch_to_ids(read_lines(folder / "sentences.txt"))
    for call, batch in enumerate((ids[:3], ids[3:6]), start=1):
        found = elmo(batch)["elmo_representations"][0].detach()
        np.testing.assert_allclose(found, expected[f"v09_untrained_call{call}"], atol=5e-6)


def test_further_axes_are_kept(mixed):
    folder, expected = mixed
    elmo = Elmo(*two_files(folder), 1, dropout=0.0)
    ids = batch_to_ids(read_lines(folder / "sentences.txt"))[:4].unflatten(0, (2, 2))
    output = elmo(ids)
    np.testing.assert_array_equal(output["mask"], expected["v09_extra_dim_mask"])
    np.testing.assert_allclose(output["elmo_representations"][0].detach(), expected["v09_extra_dim_rep0"], atol=5e-6)
    kept = Elmo(*two_files(folder), 1, keep_sentence_boundaries=True)(ids)
    assert kept["elmo_representations"][0].shape == (2, 2, 93, 12)


def test_no_tokens_at_all(fixture_a):
    output = Elmo(*fixture_a, 1)(batch_to_ids([[], []]))
    assert output["elmo_representations"][0].shape == (2, 0, 32)
    assert output["mask"].shape == (2, 0)


def test_a_network_of_the_users_own(fixture_a):
    class Constant(nn.Module):
        num_layers = 2

        def forward(self, inputs, word_inputs):
            mask = torch.ones(inputs.shape[0], inputs.shape[1] + 2, dtype=torch.int64)
            return {"activations": [torch.full((*mask.shape, 4), value) for value in (1.0, 3.0)], "mask": mask}

    (found,) = Elmo(None, None, 1, dropout=0.0, module=Constant())(batch_to_ids(SENTENCES))["elmo_representations"]
    torch.testing.assert_close(found, torch.full((2, 7, 4), 2.0))
    bilm = _ElmoBiLm(*fixture_a)
    assert Elmo(None, None, 2, module=bilm).get_output_dim() == bilm.get_output_dim() == 32
    for arguments in ((*fixture_a, 1), (None, None, 1)):
        with pytest.raises(ConfigurationError, match="both or neither"):
            Elmo(*arguments, module=bilm if arguments[0] else None)


@pytest.fixture
def saved_tagger(oracles):
    """The ELMo of a tagger that AllenNLP trained and saved, and what it gave."""
    folder = oracles / "simple_tagger_with_elmo"
    with tarfile.open(folder / "model.tar.gz") as archive:
        state = torch.load(io.BytesIO(archive.extractfile("weights.th").read()), weights_only=True)
    prefix = "text_field_embedder.token_embedder_elmo."
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state, batch_to_ids(read_lines(folder / "sentences.txt")), np.load(folder / "expected.npz")


def disturbed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1.0
    return module


def test_a_model_that_allennlp_saved_is_loaded(saved_tagger, fixture_a):
    state, ids, expected = saved_tagger
    model = nn.ModuleDict({"_elmo": disturbed(Elmo(*fixture_a, 1, dropout=0.0))})
    model.load_state_dict(state)
    (mixed,) = model["_elmo"](ids)["elmo_representations"]
    np.testing.assert_allclose(mixed.detach(), expected["elmo"], atol=5e-6)
    bilm = disturbed(_ElmoBiLm(*fixture_a))
    names = [name for name in state if name.startswith("_elmo._elmo_lstm.")]
    bilm.load_state_dict({name.removeprefix("_elmo._elmo_lstm."): state[name] for name in names})
    for k, layer in enumerate(bilm(ids)["activations"]):
        np.testing.assert_allclose(layer, expected["layers"][:, k], atol=5e-6)


def test_a_model_that_was_saved_here_is_loaded(fixture_a):
    first, second = Elmo(*fixture_a, 2), disturbed(Elmo(*fixture_a, 2))
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda elmo: pickle.loads(pickle.dumps(elmo))])
def test_copies_go_their_own_way(fixture_a, saved_tagger, duplicate):
    state, ids, expected = saved_tagger
    elmo = Elmo(*fixture_a, 1, dropout=0.0)
    first = elmo(ids)["elmo_representations"][0]
    twin = duplicate(elmo)
    torch.testing.assert_close(twin(ids)["elmo_representations"], elmo(ids)["elmo_representations"], atol=0, rtol=0)
    disturbed(twin).load_state_dict({name.removeprefix("_elmo."): value for name, value in state.items()})
    twin._elmo_lstm._elmo_lstm.reset_states()
    np.testing.assert_allclose(twin(ids)["elmo_representations"][0].detach(), expected["elmo"], atol=5e-6)
    elmo._elmo_lstm._elmo_lstm.reset_states()
    assert torch.equal(elmo(ids)["elmo_representations"][0], first)


def test_a_saved_model_of_another_shape_is_refused(saved_tagger, oracles):
    state, _, _ = saved_tagger
    model = nn.ModuleDict({"_elmo": Elmo(*two_files(oracles / "alnlp-l2-h2-relu"), 1)})
    with pytest.raises(FormatError, match=r"the saved model: dataset '_elmo_lstm\._token_embedder"):
        model.load_state_dict(state)


# ---------------------------------------------------------------- cached words


def test_cached_words(mixed):
    folder, expected = mixed
    vocabulary = [line[0] for line in read_lines(folder / "cached_vocab.txt")]
    elmo = Elmo(*two_files(folder), 1, dropout=0.0, vocab_to_cache=vocabulary)
    table = elmo._elmo_lstm._word_embedding.embedding[:-2]
    np.testing.assert_allclose(table, expected["v09_cached_embedding_table"], atol=1e-6)
    ids = batch_to_ids(read_lines(folder / "cached_sentences.txt"))
    output = elmo(ids, torch.from_numpy(expected["cached_word_ids"]))
    np.testing.assert_allclose(output["elmo_representations"][0].detach(), expected["v09_cached_rep0"], atol=5e-6)


def test_the_cache_gives_what_the_characters_give(fixture_a):
    vocabulary = ["@@PADDING@@", "@@UNKNOWN@@", *sorted({word for sentence in SENTENCES for word in sentence})]
    numbers = torch.zeros(2, 7, dtype=torch.int64)
    for row, sentence in zip(numbers, SENTENCES, strict=True):
        row[: len(sentence)] = torch.tensor([vocabulary.index(word) for word in sentence])
    ids = batch_to_ids(SENTENCES)
    cached, plain = Elmo(*fixture_a, 1, dropout=0.0, vocab_to_cache=vocabulary), Elmo(*fixture_a, 1, dropout=0.0)
    found, expected = cached(torch.zeros_like(ids), numbers), plain(ids, numbers)
    assert torch.equal(found["mask"], expected["mask"])
    torch.testing.assert_close(*(output["elmo_representations"][0] for output in (found, expected)), atol=1e-6, rtol=0)
    cached._elmo_lstm._elmo_lstm.reset_states()
    wide = cached(ids.unsqueeze(1).expand(-1, 3, -1, -1), numbers.unsqueeze(1).expand(-1, 3, -1))
    for k in range(3):
        torch.testing.assert_close(
            wide["elmo_representations"][0][:, k], found["elmo_representations"][0], atol=1e-6, rtol=0
        )


def test_words_that_are_not_cached_are_read_by_their_characters(fixture_a):
    cached = _ElmoBiLm(*fixture_a, vocab_to_cache=["@@PADDING@@", "here"])
    ids, numbers = batch_to_ids([["This", "is", "new"]]), torch.tensor([[1, 2, 7]])
    expected = _ElmoBiLm(*fixture_a)(ids)["activations"]
    for found, layer in zip(cached(ids, numbers)["activations"], expected, strict=True):
        assert torch.equal(found, layer)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("requires_grad", [True, False])
def test_gradients_of_the_network_where_they_are_asked_for(fixture_a, requires_grad):
    elmo = Elmo(*fixture_a, 1, requires_grad=requires_grad)
    elmo(batch_to_ids([*SENTENCES, ["three"]]))["elmo_representations"][0].sum().backward()
    gradients = {name: parameter.grad for name, parameter in elmo.named_parameters() if "_elmo_lstm" in name}
    assert len(gradients) > 10
    assert all((gradient is not None) == requires_grad for gradient in gradients.values())
    assert all(parameter.grad is not None for parameter in elmo.scalar_mix_0.parameters())


def test_two_steps_of_training(mixed):
    """The state is cut from the graph, so the second step does not run back into the first; it changes the network."""
    folder, _ = mixed
    elmo = Elmo(*two_files(folder), 1, requires_grad=True, dropout=0.0)
    optimiser = torch.optim.SGD(elmo.parameters(), lr=0.05)
    before = {name: parameter.detach().clone() for name, parameter in elmo.named_parameters()}
    losses = []
    for _ in range(3):
        elmo._elmo_lstm._elmo_lstm.reset_states()
        loss = sum(elmo(batch_to_ids(SENTENCES))["elmo_representations"][0].square().mean() for _ in range(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(a > b for a, b in pairwise(losses))
    assert all(not torch.equal(parameter, before[name]) for name, parameter in elmo.named_parameters())


def test_dropout_while_training_only(fixture_a):
    elmo = Elmo(*fixture_a, 2)
    elmo._elmo_lstm._elmo_lstm.stateful = False
    ids = batch_to_ids(SENTENCES)
    dropped = elmo(ids)["elmo_representations"]
    whole = elmo.eval()(ids)["elmo_representations"]
    for found, expected in zip(dropped, whole, strict=True):
        kept = found != 0
        assert 0.2 < kept[1].float().mean() < 0.8
        torch.testing.assert_close(found[kept], 2 * expected[kept])


def test_a_frozen_network_keeps_no_graph(fixture_a):
    output = _ElmoBiLm(*fixture_a)(batch_to_ids(SENTENCES))
    assert not any(layer.requires_grad for layer in output["activations"])


# ---------------------------------------------------------------- ScalarMix alone


def test_scalar_mix_numbers(mixed):
    _, expected = mixed
    tensors, mask = torch.from_numpy(expected["mix_tensors"]), torch.from_numpy(expected["mix_mask"])
    plain = ScalarMix(3, initial_scalar_parameters=[0.3, -2.0, 1.0])
    normed = ScalarMix(3, do_layer_norm=True, initial_scalar_parameters=[0.3, -2.0, 1.0])
    normed.gamma.data[0] = 1.7
    np.testing.assert_allclose(plain(list(tensors)).detach(), expected["v09_mix_plain"], atol=5e-6)
    found = normed(list(tensors), mask).detach()
    np.testing.assert_allclose(found, expected["v09_mix_layernorm_gamma1.7"], atol=5e-6)


def test_scalar_mix_parameters_have_the_names_they_had():
    shapes = {name: tuple(parameter.shape) for name, parameter in ScalarMix(2).state_dict().items()}
    assert shapes == {"gamma": (1,), "scalar_parameters.0": (1,), "scalar_parameters.1": (1,)}
    fixed = ScalarMix(3, initial_scalar_parameters=[1.0, 2.0, 3.0], trainable=False)
    assert [parameter.item() for parameter in fixed.scalar_parameters] == [1.0, 2.0, 3.0]
    assert not any(parameter.requires_grad for parameter in fixed.parameters())


def test_scalar_mix_refuses_what_does_not_fit():
    with pytest.raises(ConfigurationError, match="expected 3 layers to mix, found 5"):
        ScalarMix(3)([torch.zeros(2, 2)] * 5)
    with pytest.raises(ConfigurationError, match="expected 3 scalar parameters, one a tensor, found 2"):
        ScalarMix(3, initial_scalar_parameters=[0.0, 0.0])


# ---------------------------------------------------------------- what AllenNLP could not open


def test_a_model_without_skip_connections(oracles):
    folder = oracles / "alnlp-noskip"
    expected, embedder = np.load(folder / "expected.npz"), ElmoEmbedder(*two_files(folder))
    embedder.elmo_bilm.double()
    for i, found in enumerate(embedder.embed_batch(read_lines(folder / "sentences.txt"))):
        if i != 4:
            np.testing.assert_allclose(found, expected[f"bilm_fresh_{i}"], atol=stated_tolerance(folder))


def test_a_model_that_spells_at_another_length(oracles):
    with pytest.raises(MismatchError, match="spells a word in 30 characters, found ids of 50"):
        ElmoEmbedder(*two_files(oracles / "alnlp-max30")).embed_sentence(["word"])


def test_a_model_without_characters(tmp_path):
    checkpoint = make_word_checkpoint(make_config().lstm, SPECIALS)
    allennlp.write(checkpoint, tmp_path)
    with pytest.raises(MismatchError, match="does not read the bytes of words"):
        Elmo(*two_files(tmp_path), 1)
