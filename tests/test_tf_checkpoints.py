"""ELMo in TensorFlow's files: checkpoints of bilm-tf and TF-Hub modules, with the numbers that TensorFlow gave."""

from __future__ import annotations

import gzip
import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle_writer import Memory, bundle, damaged_entries, damaged_files, entries_and_shards, refused, within
from checkpoints import SPECIALS, assert_same, make_word_checkpoint, pack
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import check_arrays
from elmokit.errors import FormatError
from elmokit.formats import bilm_tf, tf_hub
from elmokit.formats.files import open_files
from elmokit.formats.rules import to_theirs
from elmokit.formats.tensor_bundle import open_bundle
from elmokit.model import Carry, Elmo
from recorded import read_lines

WORDS = (*SPECIALS, "the", "cat", "sat")


def read_from(path, module):
    with open_files(path) as files:
        assert module.recognises(files)
        return module.read(files)


def refusal(contents, module):
    """The message with which files are refused: one line that names the place."""
    with pytest.raises(FormatError) as caught:
        module.read(Memory(contents))
    message = str(caught.value)
    assert message.startswith("memory")
    assert "\n" not in message
    assert len(message) < 500
    return message


def exact(checkpoint):
    elmo = Elmo(checkpoint)
    elmo.network.double()
    return elmo


# ---------------------------------------------------------------- what bilm-tf computed

CHARACTERS = ["char1", "char2", "char3-noskip-noclip"]
TRAINED = [*CHARACTERS, "word2", "word2-shared-softmax"]


def tolerance(folder):
    """The atol of 5e-6 that the README states, or three times the distance from the exact values, if that is less."""
    measured_line = re.search(r"Measured: .*", (folder / "README.md").read_text("utf-8"))
    found = re.findall(r"\d\.\d+e-\d+", measured_line.group()) if measured_line else ["1"]
    return min(5e-6, 3 * max(map(float, found)))


@pytest.mark.parametrize(("policy", "batch_size"), [("fresh", 16), ("carried", 3)])
@pytest.mark.parametrize("name", TRAINED)
def test_layers_of_a_trained_checkpoint(oracles, name, policy, batch_size):
    folder = oracles / f"tfckpt-{name}"
    checkpoint, sentences = read_from(folder, bilm_tf), read_lines(folder / "sentences.txt")
    expected = np.load(folder / "expected.npz")
    assert f"bilm_fresh_{len(sentences) - 1}" in expected
    for elmo in (Elmo(checkpoint), exact(checkpoint)):
        found = list(elmo.embed(sentences, layers="all", state="carry", batch_size=batch_size))
        for i, array in enumerate(found):
            np.testing.assert_allclose(array, expected[f"bilm_{policy}_{i}"], rtol=0, atol=tolerance(folder))


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_checkpoint_is_its_dump_and_its_head(oracles, name):
    folder = oracles / f"tfckpt-{name}"
    found = read_from(folder, bilm_tf)
    dump = formats.read(folder / "options_inference.json", weights=folder / "weights.hdf5")
    assert found.config == dump.config
    assert found.vocabulary == tuple((folder / "vocab.txt").read_text("utf-8").split())
    raw = np.load(folder / "raw_variables.npz")
    weight = "lm|embedding" if "shared" in name else "lm|softmax|W"
    expected = {**dump.arrays, "softmax.weight": raw[weight], "softmax.bias": raw["lm|softmax|b"]}
    assert found.arrays.keys() == expected.keys()
    for key, array in expected.items():
        assert found.arrays[key].dtype == np.float32
        np.testing.assert_array_equal(found.arrays[key], array, err_msg=key)


def test_a_model_of_one_direction_cannot_be_embedded(oracles):
    with pytest.raises(FormatError, match=r"294\.index is a model of one direction; only bidirectional models can be"):
        read_from(oracles / "tfckpt-char2-forward-only", bilm_tf)


@pytest.mark.parametrize("where", ["v1-saver", "two-shards"])
def test_a_checkpoint_that_newer_tensorflow_wrote_is_the_older_one(oracles, where):
    older = oracles / "tfckpt-char2"
    contents = {path.name: path.read_bytes() for path in (oracles / "tf2-bundle" / where).iterdir()}
    contents |= {name: (older / name).read_bytes() for name in ("options.json", "vocab.txt")}
    if where == "two-shards":
        assert "tensor 'extra/bfloat16'" not in refusal(contents, bilm_tf)
        assert "'extra/bfloat16' (3,) is not part of the network" in refusal(contents, bilm_tf)
    else:
        assert_same(bilm_tf.read(Memory(contents)), read_from(older, bilm_tf))


# ---------------------------------------------------------------- checkpoints made here

OPTIONS = {"bidirectional": True, "dropout": 0.1, "n_tokens_vocab": len(WORDS), "unroll_steps": 20}


def contents_of(checkpoint, *, step=7, tables=None, options=None, with_slots=True, **layout):
    """The files that bilm-tf would have left of a model: name -> bytes."""
    names = dict.fromkeys(["lm/softmax/W", "lm/softmax/b"] if "softmax.bias" in checkpoint.arrays else [], ())
    arrays = to_theirs(bilm_tf.rules(checkpoint.config, names), checkpoint.arrays)
    slots = {f"{name}/Adagrad": np.ones_like(array) for name, array in arrays.items() if with_slots}
    counters = {"global_step": np.float32(step), "train_perplexity": np.float32(9.5)}
    arrays = {**arrays, **slots, **{name: np.array(value) for name, value in counters.items()}, **(tables or {})}
    return {
        "checkpoint": f'model_checkpoint_path: "/other/machine/model.ckpt-{step}"\n'.encode(),
        "options.json": json.dumps(theirs(checkpoint) if options is None else options).encode(),
        "vocab.txt": "".join(f"{word}\n" for word in WORDS).encode(),
        **bundle(arrays, prefix=f"model.ckpt-{step}", **layout),
    }


def theirs(checkpoint):
    """The options that training writes: the network's, with 261 characters, and its own."""
    options = checkpoint.config.model_dump(exclude_none=True)
    if "char_cnn" in options:
        options["char_cnn"]["n_characters"] = 261
    return {**OPTIONS, **options}


@pytest.fixture(scope="module")
def model():
    return make_checkpoint(make_config(dim=6, filters=((1, 3), (2, 4))), vocabulary=WORDS)


@pytest.fixture
def contents(model):
    return contents_of(model)


SHAPES = [
    {},
    {"n_layers": 1},
    {"n_layers": 3, "skip": False, "cell_clip": None, "proj_clip": None},
    {"n_highway": 0, "activation": "tanh"},
    {"dim": 4},
    {"filters": ((1, 1), (2, 3))},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_read_as_it_was(shape):
    model = make_checkpoint(make_config(**shape), vocabulary=WORDS)
    assert_same(bilm_tf.read(Memory(contents_of(model, n_shards=2))), model)


def test_a_model_that_reads_words():
    model = make_word_checkpoint(make_config(dim=6).lstm, WORDS)
    assert_same(bilm_tf.read(Memory(contents_of(model))), model)


def test_names_of_a_single_layer_without_its_number():
    model = make_checkpoint(make_config(n_layers=1, dim=6), vocabulary=WORDS)
    names = dict.fromkeys(["lm/softmax/W", "lm/softmax/b", "lm/RNN_0/rnn/lstm_cell/kernel"], ())
    arrays = to_theirs(bilm_tf.rules(model.config, names), model.arrays)
    assert "lm/RNN_1/rnn/lstm_cell/projection/kernel" in arrays
    assert_same(bilm_tf.read(Memory({**contents_of(model), **bundle(arrays)})), model)


def test_a_table_of_words_in_slices():
    """As partitioned variables are stored."""
    model = make_word_checkpoint(make_config(dim=6).lstm, WORDS)
    contents = contents_of(model, slices={"lm/embedding": [((0, 4), (0, None)), ((4, 2), (0, None))]})
    assert_same(bilm_tf.read(Memory(contents)), model)


def test_without_a_head_there_is_no_vocabulary(model):
    headless = make_checkpoint(model.config)
    assert_same(bilm_tf.read(Memory(contents_of(headless))), headless)


def test_in_an_archive_and_in_a_folder_inside(model, contents, tmp_path):
    inside = {f"checkpoints/small/{name}": content for name, content in contents.items()}
    for members in (contents, inside):
        assert_same(read_from(pack(tmp_path / "model.zip", members), bilm_tf), model)


# ---------------------------------------------------------------- which checkpoint


def two_steps(model, note):
    other = make_checkpoint(model.config, seed=1, vocabulary=WORDS)
    contents = {**contents_of(model, step=900), **contents_of(other, step=1000)}
    return ({**contents, "checkpoint": note} if note is not None else
            {name: content for name, content in contents.items() if name != "checkpoint"}), other  # fmt: skip


@pytest.mark.parametrize(
    "note",
    [
        b'model_checkpoint_path: "model.ckpt-900"',
        b'model_checkpoint_path: "/home/someone/elmo/model.ckpt-900"\nall_model_checkpoint_paths: "model.ckpt-1000"\n',
        b'all_model_checkpoint_paths: "x"\nmodel_checkpoint_path:   "C:\\\\elmo\\\\model.ckpt-900"\r\n',
    ],
)
def test_the_checkpoint_that_its_note_names_wherever_that_was(model, note):
    contents, _ = two_steps(model, note)
    assert_same(bilm_tf.read(Memory(contents)), model)


def inside(folder, contents):
    return {f"{folder}/{name}": content for name, content in contents.items()}


@pytest.mark.parametrize("noted", [["", "old/"], [""], ["old/"], []])
def test_a_later_checkpoint_in_a_folder_inside_is_not_meant(model, contents, noted):
    """Nor its note, nor its vocabulary."""
    other = make_checkpoint(model.config, seed=1, vocabulary=WORDS)
    older = {**contents_of(other, step=900), "vocab.txt": contents["vocab.txt"].replace(b"cat", b"dog")}
    files = {**contents, **inside("old", older)}
    files = {name: files[name] for name in files if not name.endswith("checkpoint") or name[:-10] in noted}
    assert_same(bilm_tf.read(Memory(files)), model)


def test_checkpoints_side_by_side_are_named(contents):
    found = refusal({**inside("de", contents), **inside("fr", contents)}, bilm_tf)
    assert found == "memory holds several models: de/, fr/; name the one that is meant"


@pytest.mark.parametrize(
    "note",
    [None, b"", b"\xff\xfe", b"model_checkpoint_path: ", b'model_checkpoint_path: "/a/model.ckpt-1"', b"a" * (1 << 21)],
)
def test_otherwise_the_checkpoint_of_the_last_step(model, note):
    contents, last = two_steps(model, note)
    assert_same(bilm_tf.read(Memory(contents)), last)


def test_the_checkpoint_that_a_user_names(model, tmp_path):
    contents, last = two_steps(model, b'model_checkpoint_path: "/gone/model.ckpt-900"')
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for step, expected in ((900, model), (1000, last)):
        assert_same(read_from(tmp_path / f"model.ckpt-{step}.index", bilm_tf), expected)


# ---------------------------------------------------------------- options


def test_without_options_nothing_is_guessed(contents):
    del contents["options.json"]
    message = refusal(contents, bilm_tf)
    assert "expected one options.json, found none; where a model clips and whether its layers are added" in message


def test_options_under_another_name(model, contents):
    contents["elmo_small_options.json"] = contents.pop("options.json")
    assert_same(bilm_tf.read(Memory(contents)), model)
    contents["old_options.json"] = contents["elmo_small_options.json"]
    assert "found ['elmo_small_options.json', 'old_options.json'];" in refusal(contents, bilm_tf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bidirectional": False}, "option 'bidirectional' is False, expected true"),
        ({"attention": 8}, "option 'attention' is not understood"),
        ({"lstm": None}, "option 'lstm'"),
        ({"char_cnn": None}, "dataset 'lm/embedding' is missing"),
    ],
)
def test_options_that_do_not_fit(model, change, message):
    assert message in refusal(contents_of(model, options={**theirs(model), **change}), bilm_tf)


# ---------------------------------------------------------------- vocabulary


def test_the_vocabulary_is_the_text_that_has_a_line_a_row(model, contents):
    listed = contents.pop("vocab.txt")
    contents |= {"train.txt": b"the cat sat\n" * len(WORDS), "held.txt": b"the cat\n"}
    assert bilm_tf.read(Memory(contents)).vocabulary is None
    for name, content in {
        "words.txt": listed,
        "vocab-2016-09-10.txt": listed.rstrip(b"\n"),
        "deep/vocab.txt": listed.replace(b"\n", b"\r\n"),
        "vocab.txt.gz": gzip.compress(listed),
        "vocab-maxtermid.txt": listed.replace(b"the\n", b"the\n!!!MAXTERMID\n"),
    }.items():
        assert_same(bilm_tf.read(Memory({**contents, name: content})), model)
    assert_same(bilm_tf.read(Memory({**contents, "vocab.txt": listed, "vocab.txt.gz": gzip.compress(listed)})), model)


@pytest.mark.parametrize(
    "content",
    [b"", b"the\ncat\n", b"\xff\n" * len(WORDS), b"word\n" * (len(WORDS) + 1), b"word\n\n" * len(WORDS)],
)
@pytest.mark.parametrize("name", ["vocab.txt", "vocab.txt.gz"])
def test_a_vocabulary_that_does_not_fit(contents, name, content):
    del contents["vocab.txt"]
    found = refusal({**contents, name: content}, bilm_tf)
    assert f"memory: expected one vocabulary of 6 words, a row each; found ['{name}']" in found


def test_a_vocabulary_that_unpacks_to_more_than_any_has(contents):
    del contents["vocab.txt"]
    bomb = gzip.compress(bytes(1 << 24))
    assert "expected one vocabulary of 6 words" in refusal({**contents, "vocab.txt.gz": bomb}, bilm_tf)


def test_two_vocabularies_that_differ(contents):
    contents["old_vocab.txt"] = contents["vocab.txt"].replace(b"cat", b"dog")
    assert "expected one vocabulary of 6 words, a row each; found" in refusal(contents, bilm_tf)


def test_a_table_that_has_other_rows_than_the_head():
    model = make_word_checkpoint(make_config(dim=6).lstm, WORDS)
    head = {"lm/softmax/W": np.zeros((5, 4), np.float32), "lm/softmax/b": np.zeros(5, np.float32)}
    contents = {**contents_of(model, tables=head), "vocab.txt": b"1\n2\n3\n4\n5\n"}
    assert "expected 6 words, as the word table has rows, found 5" in refusal(contents, bilm_tf)


# ---------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"lm/extra": np.zeros(3)}, "dataset 'lm/extra' (3,) is not part of the network that the options describe"),
        ({"lm/extra/Adagrad": np.zeros(3)}, "dataset 'lm/extra/Adagrad' (3,) is not part of the network"),
        ({"beta1_power": np.zeros(())}, "dataset 'beta1_power' () is not part of the network"),
        ({"lm/char_embed": np.zeros((262, 4), np.float32)}, "'lm/char_embed': expected shape (261, 4), found (262, 4)"),
        (
            {"lm/char_embed": np.zeros((261, 4), np.int32)},
            "'lm/char_embed': expected floating-point numbers, found",
        ),
        ({"lm/softmax/b": np.zeros((6, 1), np.float32)}, "'lm/softmax/b': expected shape (None,), found (6, 1)"),
        ({"lm/softmax/b": np.zeros(7, np.float32)}, "array 'softmax.weight': expected shape (7, 4), found (6, 4)"),
        ({"lm/rnn/multi_rnn_cell/cell_0/lstm_cell/kernel": np.zeros(3)}, "is a model of one direction"),
    ],
)
def test_variables_that_do_not_fit(model, tables, message):
    assert message in refusal(contents_of(model, tables=tables), bilm_tf)


def test_half_a_head(model):
    headless = make_checkpoint(model.config)
    for half, missing in (("W", "bias"), ("b", "weight")):
        tables = {f"lm/softmax/{half}": np.zeros((6, 4) if half == "W" else 6, np.float32)}
        assert f"array 'softmax.{missing}' is missing" in refusal(contents_of(headless, tables=tables), bilm_tf)


def test_other_files_are_not_recognised(contents, hub_contents):
    foreign = bundle({"bert/embeddings": np.zeros(3, np.float32)})
    for files in ({}, {"model.ckpt-7.index": b""}, foreign, {"a.index": b"", "b.data-00000-of-00001": b""}):
        assert not bilm_tf.recognises(Memory(files))
        assert not tf_hub.recognises(Memory(files))
        with pytest.raises(FormatError, match=r"expected|whole"):
            bilm_tf.read(Memory(files))
        with pytest.raises(FormatError, match="expected a module of ELMo"):
            tf_hub.read(Memory(files))
    assert not bilm_tf.recognises(Memory(hub_contents))
    assert not tf_hub.recognises(Memory(contents))


def test_a_broken_index_is_recognised_so_that_its_fault_is_told(contents):
    broken = {**contents, "model.ckpt-7.index": contents["model.ckpt-7.index"][:-1]}
    assert bilm_tf.recognises(Memory(broken))
    assert "'model.ckpt-7.index' is not a whole index of a TensorFlow checkpoint" in refusal(broken, bilm_tf)
    assert not tf_hub.recognises(Memory(broken))


# ---------------------------------------------------------------- TF-Hub modules

OUTPUTS = ("word_emb", "lstm_outputs1", "lstm_outputs2", "elmo")


@pytest.mark.parametrize("where", ["tfhub/module", "tfhub/module.tar.gz", "tfhub-google-names"])
def test_outputs_of_a_module(oracles, where):
    checkpoint = read_from(oracles / where, tf_hub)
    expected = np.load(oracles / "tfhub" / "expected.npz")
    np.testing.assert_array_equal(checkpoint.arrays["mix.weights"], expected["aggregation_weights"][None])
    np.testing.assert_array_equal(checkpoint.arrays["mix.gamma"], expected["aggregation_scaling"][None])
    weights = np.exp(expected["aggregation_weights"])
    weights *= expected["aggregation_scaling"] / weights.sum()
    tokens = read_lines(oracles / "tfhub" / "sentences.txt")
    texts = json.loads((oracles / "tfhub" / "default_inputs.json").read_text("utf-8"))
    for signature, sentences in (("tokens", tokens), ("default", [text.split() for text in texts])):
        for elmo in (Elmo(checkpoint), exact(checkpoint)):
            carry = Carry()
            for run in ("", "secondrun_"):
                found = list(elmo.embed(sentences, layers="all", state=carry, batch_size=16))
                assert len(found) == 9
                for i, (first, one, two) in enumerate(found):
                    mix = np.tensordot(weights, [first, one, two], 1)
                    for name, array in zip(OUTPUTS, (first[:, :5], one, two, mix), strict=True):
                        recorded = expected[f"{signature}_{run}{name}"][i, : len(array)]
                        np.testing.assert_allclose(array, recorded, rtol=0, atol=5e-6, err_msg=name)


def test_the_two_spellings_of_a_module_are_one_model(oracles):
    ours = read_from(oracles / "tfhub" / "module", tf_hub)
    assert_same(read_from(oracles / "tfhub-google-names", tf_hub), ours)
    assert ours.vocabulary is None
    check_arrays({name: array.shape for name, array in ours.arrays.items()}, ours.config, where="")
    (lstm, cnn), names = (ours.config.lstm, ours.config.char_cnn), "n_layers cell_clip proj_clip use_skip_connections"
    assert [getattr(lstm, name) for name in names.split()] == [2, 3.0, 3.0, True]
    assert (cnn.max_characters_per_token, cnn.activation, cnn.n_characters) == (50, "relu", 262)


def make_module(**shape):
    model = make_checkpoint(make_config(max_characters=50, **shape))
    generator = np.random.default_rng(5)
    layers = model.config.lstm.n_layers + 1
    model.arrays["mix.weights"] = generator.normal(size=(1, layers)).astype(np.float32)
    model.arrays["mix.gamma"] = np.array([1.3], np.float32)
    return model


def hub_arrays(model, *, rows=262, gamma_shape=(), names=("aggregation/weights", "aggregation/scaling")):
    network = {name: array for name, array in model.arrays.items() if not name.startswith("mix.")}
    arrays = to_theirs(tf_hub.rules(model.config, {"bilm/char_embed": (261, 4)}), network)
    if rows == 262:
        arrays["bilm/char_embed"] = np.concatenate([np.zeros((1, 4), np.float32), arrays["bilm/char_embed"]])
    values = (model.arrays["mix.weights"][0], model.arrays["mix.gamma"].reshape(gamma_shape))
    return {**arrays, **dict(zip(names, values, strict=True))}


PREFIX = "variables/variables"


@pytest.fixture
def hub_contents():
    return bundle(hub_arrays(make_module(dim=6, filters=((1, 3), (2, 4)))), prefix=PREFIX)


@pytest.mark.parametrize("shape", SHAPES[:2] + SHAPES[4:], ids=str)
@pytest.mark.parametrize("rows", [261, 262])
@pytest.mark.parametrize("gamma_shape", [(), (1,)])
def test_every_shape_of_a_module(shape, rows, gamma_shape):
    model = make_module(**shape)
    contents = bundle(hub_arrays(model, rows=rows, gamma_shape=gamma_shape), prefix=PREFIX, n_shards=2)
    assert_same(tf_hub.read(Memory(contents)), model)


def test_the_graph_tells_tanh_from_relu():
    model = make_module(activation="tanh", n_highway=0)
    contents = bundle(hub_arrays(model), prefix=PREFIX)
    assert tf_hub.read(Memory(contents)).config.char_cnn.activation == "relu"
    contents["saved_model.pb"] = b"\n\rbilm/CNN/Tanh\x12\x04Tanh"
    assert_same(tf_hub.read(Memory(contents)), model)


def test_the_state_of_a_module_is_left_out():
    model = make_module(dim=6)
    state = {name: np.zeros((8, 6), np.float32) for name in ("bilm/Variable", "bilm/Variable_7", "bilm_1/Variable_1")}
    assert_same(tf_hub.read(Memory(bundle({**hub_arrays(model), **state}, prefix=PREFIX))), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bilm/char_embed": np.ones((262, 4), np.float32)}, "the first of 262 rows of 'bilm/char_embed' is not zero"),
        ({"bilm/char_embed": np.ones((300, 4), np.float32)}, "'bilm/char_embed': expected shape (261, 4), found (300"),
        (
            {"bilm/char_embed": np.ones(262, np.float32)},
            "expected a variable 'bilm/char_embed' with 2 axes",
        ),
        ({"bilm/CNN/W_cnn_0": None}, "dataset 'bilm/CNN"),
        (
            {"bilm/CNN/W_cnn_1": np.ones((4, 4), np.float32)},
            "expected a variable 'bilm/CNN/W_cnn_1' with 4 axes",
        ),
        ({"bilm/CNN/W_cnn_1": np.ones((1, 51, 4, 4), np.float32)}, "filter [51, 4]: expected a width of 1 to 50"),
        ({"bilm/CNN_proj/W_proj": None}, "dataset 'bilm/CNN_proj/W_proj' is missing"),
        ({"bilm/RNN_0/RNN/MultiRNNCell/Cell0/rnn/lstm_cell/kernel": None}, "with 2 axes, found none"),
        ({"bilm/RNN_0/RNN/MultiRNNCell/Cell0/rnn/lstm_cell/kernel": np.ones((0, 0), np.float32)}, "projection_dim"),
        ({"bilm/RNN_0/RNN/MultiRNNCell/Cell0/rnn/lstm_cell/kernel": np.ones((9, 24), np.float32)}, "found (9, 24)"),
        ({"bilm/RNN_1/RNN/MultiRNNCell/Cell1/rnn/lstm_cell/bias": None}, "is missing; expected shape (24,)"),
        ({"aggregation/weights": None}, "array 'mix.weights' is missing"),
        ({"aggregation/scaling": None}, "array 'mix.gamma' is missing"),
        ({"aggregation/weights": np.ones(2, np.float32)}, "'aggregation/weights': expected shape (3,), found (2,)"),
        ({"aggregation/scaling": np.ones(2, np.float32)}, "'aggregation/scaling': expected shape (1,), found (2,)"),
        ({"aggregation/elmo_output_ELMo_W": np.ones(3, np.float32)}, "is not part of the network"),
        ({"bilm/Variables": np.ones(3, np.float32)}, "dataset 'bilm/Variables' (3,) is not part of the network"),
    ],
)
def test_modules_that_do_not_fit(change, message):
    arrays = {**hub_arrays(make_module(dim=6, filters=((1, 3), (2, 4)))), **change}
    if change == {"bilm/CNN/W_cnn_0": None}:
        arrays["bilm/CNN/W_cnn_0"] = np.ones((1, 1, 4, 2), np.float32)
    contents = bundle({name: array for name, array in arrays.items() if array is not None}, prefix=PREFIX)
    assert message in refusal(contents, tf_hub)


def test_a_module_without_a_mix_and_two_modules(hub_contents):
    model = make_module(dim=6)
    plain = {name: array for name, array in hub_arrays(model).items() if name.startswith("bilm/")}
    assert "mix.gamma" not in tf_hub.read(Memory(bundle(plain, prefix=PREFIX))).arrays
    two = {f"{top}/{name}": content for top in ("a", "b") for name, content in hub_contents.items()}
    message = "memory holds several models: a/variables/variables.index, b/variables/variables.index; name the one"
    assert message in refusal(two, tf_hub)


def test_an_earlier_module_in_a_folder_inside_is_not_meant():
    """Neither its variables nor its graph."""
    model, other = make_module(dim=6, activation="relu"), make_module(dim=8)
    outer = {**bundle(hub_arrays(model), prefix=PREFIX), "saved_model.pb": b"bilm/CNN/Relu"}
    inner = {**bundle(hub_arrays(other), prefix=PREFIX), "saved_model.pb": b"bilm/CNN/Tanh"}
    files = {**outer, **{f"old/{name}": content for name, content in inner.items()}}
    assert_same(tf_hub.read(Memory(files)), model)
    assert_same(tf_hub.read(Memory({f"new/{name}": content for name, content in outer.items()})), model)


# ---------------------------------------------------------------- damage

SMALL = make_config(n_layers=1, dim=5, projection_dim=4, filters=((1, 2), (2, 3)))


def cases():
    checkpoint = contents_of(make_checkpoint(SMALL, vocabulary=WORDS), with_slots=False, n_shards=2)
    module = hub_arrays(make_module(n_layers=1, dim=5, projection_dim=4, filters=((1, 2), (2, 3))))
    return {
        "bilm-tf": (bilm_tf, checkpoint, "model.ckpt-7"),
        "tf-hub": (tf_hub, {**bundle(module, prefix=PREFIX), "saved_model.pb": b"\0" * 40}, PREFIX),
    }


CASES = cases()


def read_or_refuse(contents, module):
    """Read a model, or raise `FormatError`: None. Takes at most four times the memory of the files."""
    files = Memory(contents)
    assert module.recognises(files) in (True, False)
    # Beside the arrays there are the configuration and the objects of Python for some dozen variables.
    limit = 4 * sum(map(len, contents.values())) + (1 << 19)
    return within(limit, lambda: refused(lambda: module.read(files)))


def damaged_by_chance(name, seed):
    """Whatever byte of any file is damaged: refused, or the arrays are the same."""
    module, contents, _ = CASES[name]
    found = read_or_refuse(damaged_files(contents, random.Random(seed), among=list(contents)), module)
    for key, array in (found.arrays if found else {}).items():
        np.testing.assert_array_equal(array, WHOLE[name].arrays[key])


def damaged_on_purpose(name, seed):
    """The same where the checksums are right: refused, or a whole model."""
    module, contents, prefix = CASES[name]
    others = {key: content for key, content in contents.items() if not key.startswith(f"{prefix}.")}
    if found := read_or_refuse({**others, **damaged_entries(*PARTS[name], random.Random(seed), prefix=prefix)}, module):
        check_arrays({key: array.shape for key, array in found.arrays.items()}, found.config, where=name)


def parts_of(name):
    """The entries and data files of the bundle of a case, stored anew."""
    _, contents, prefix = CASES[name]
    with open_bundle(Memory(contents), f"{prefix}.index") as opened:
        return entries_and_shards({key: opened.read(key) for key in opened.index.shapes})


WHOLE = {name: module.read(Memory(contents)) for name, (module, contents, _) in CASES.items()}
PARTS = {name: parts_of(name) for name in CASES}


@pytest.mark.parametrize("kind", [damaged_by_chance, damaged_on_purpose])
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_damage_is_refused_or_harmless(name, kind, seed):
    kind(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [damaged_by_chance, damaged_on_purpose])
@pytest.mark.parametrize("name", CASES)
def test_ten_thousand_cases_of_damage(name, kind):
    for seed in range(10_000):
        kind(name, seed)
