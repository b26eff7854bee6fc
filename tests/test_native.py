"""Our own folder: what is written is read back equal, and what is wrong with one is told in one plain sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from checkpoints import SPECIALS, assert_same, refusal
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import Checkpoint, Config, write_native
from elmokit.errors import OutputError
from elmokit.formats import allennlp
from elmokit.model import Elmo


def test_the_native_folder_there_and_back(tmp_path):
    made = make_checkpoint(vocabulary=(*SPECIALS, "naïve", "北京"))
    checkpoint = Checkpoint(made.config, made.arrays, made.vocabulary, card="# A model\nDonnées: ⓒ\n")
    write_native(checkpoint, tmp_path / "one")
    again = formats.read(tmp_path / "one")
    assert_same(checkpoint, again)
    assert again.card == checkpoint.card
    assert again.source == "elmokit"
    write_native(again, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "README.md",
    }


def test_float16_rounds_and_nothing_else(tmp_path):
    checkpoint = make_checkpoint()
    write_native(checkpoint, tmp_path, dtype="float16")
    half = {name: array.astype(np.float16).astype(np.float32) for name, array in checkpoint.arrays.items()}
    assert_same(Checkpoint(checkpoint.config, half), formats.read(tmp_path))
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * sum(a.nbytes for a in half.values()) + 4000


def test_a_warmed_state_there_and_back(tmp_path):
    warmed = Elmo(make_checkpoint()).warm([["a", "b"]])
    warmed.save(tmp_path)
    again = Elmo(formats.read(tmp_path))
    for one, two in zip(warmed.embed([["c"]], state="warm"), again.embed([["c"]], state="warm"), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture
def native(tmp_path):
    write_native(make_checkpoint(make_config(n_layers=1), vocabulary=(*SPECIALS, "a")), tmp_path / "native")
    return tmp_path / "native"


def with_arrays(change):
    def make(folder):
        arrays = formats.read(folder).arrays
        change(arrays)
        save_file(arrays, folder / "model.safetensors")

    return make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_arrays(lambda a: a.pop("char_embed")), "array 'char_embed' is missing; expected shape (261, 4)"),
        (with_arrays(lambda a: a.update(x=np.zeros(2, "f4"))), "array 'x' (2,) is not part of the network"),
        (with_arrays(lambda a: a.update({"x\ny": np.zeros(2, "f4")})), r"array 'x\ny' (2,) is not part of"),
        (
            with_arrays(lambda a: a.update({"cnn.0.bias": np.zeros((3, 1), "f4")})),
            "array 'cnn.0.bias': expected shape (3,), found (3, 1)",
        ),
        (
            with_arrays(lambda a: a.update({"cnn.0.bias": np.zeros(3, "i4")})),
            "array 'cnn.0.bias': expected F16, F32 or F64, found I32",
        ),
        (with_arrays(lambda a: a.pop("softmax.weight")), "array 'softmax.weight' is missing; expected shape (4, 4)"),
        (with_arrays(lambda a: a.pop("softmax.bias")), "array 'softmax.bias' is missing"),
        (
            with_arrays(lambda a: a.update({"softmax.bias": np.ones((), "f4")})),
            "array 'softmax.bias': expected shape (0,), found ()",
        ),
        (with_arrays(lambda a: a.update({"warm.h": np.zeros((1, 2, 4), "f4")})), "array 'warm.c' is missing"),
        (with_arrays(lambda a: a.update({"embedding": np.ones((), "f4")})), "array 'embedding' () is not part"),
        (lambda p: (p / "vocab.txt").write_text("a\n"), "expected 4 words, as the softmax head has rows, found 1"),
        (lambda p: (p / "vocab.txt").write_bytes(b"\xff\n"), "vocab.txt: expected a vocabulary in UTF-8"),
        (lambda p: (p / "config.json").write_text("{"), "config.json: expected JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "config.json: expected a JSON object, found list"),
        (lambda p: (p / "model.safetensors").write_bytes(b""), "is not a whole safetensors file"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 100), "is not a whole safetensors file"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\x80\x02}q\x00."), "is not a whole safetensors file"),
    ],
)
def test_native_folders_with_something_wrong(native, change, message):
    change(native)
    assert message in refusal(native)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_truncated_safetensors(native, part):
    content = (native / "model.safetensors").read_bytes()
    (native / "model.safetensors").write_bytes(content[: int(part * len(content))])
    assert "model.safetensors is not a whole safetensors file" in refusal(native)


def test_safetensors_that_claim_terabytes(native):
    header = {"char_embed": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    content = json.dumps(header).encode()
    (native / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert "is not a whole safetensors file" in refusal(native)


def test_numbers_that_numpy_lacks(native):
    arrays = {name: torch.from_numpy(array).bfloat16() for name, array in formats.read(native).arrays.items()}
    save_tensors(arrays, native / "model.safetensors")
    assert "expected F16, F32 or F64, found BF16" in refusal(native)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_size", 4, "option 'hidden_size' is not understood (value 4)"),
        ("model_type", "bert", "option 'model_type' is 'bert', expected 'elmo'"),
        ("elmokit_version", 2, "option 'elmokit_version' is 2, expected 1"),
    ],
)
def test_options_of_the_native_folder(native, name, value, message):
    options = json.loads((native / "config.json").read_text())
    (native / "config.json").write_text(json.dumps({**options, name: value}))
    assert message in refusal(native)


def test_options_that_came_later_are_written_only_where_they_are_set():
    config = make_config()
    plain = json.loads(config.model_dump_json())
    assert plain.keys() == {"lstm", "char_cnn"}
    assert "joined" not in plain["lstm"]
    assert "spelling" not in plain["char_cnn"]
    assert config.later_options == []


def test_a_model_that_spells_in_code_points_there_and_back(tmp_path):
    """White space and line ends other than LF may be among the characters."""
    characters = (*SPECIALS, "<bow>", "<eow>", "a", " ", "\u3000", "\u2028", "\x85", "北", "<pad>")
    options = make_config().model_dump()
    options["char_cnn"] |= {"spelling": "code points", "n_characters": len(characters)}
    made = make_checkpoint(Config.model_validate(options))
    checkpoint = replace(made, characters=characters)
    write_native(checkpoint, tmp_path / "one")
    again = formats.read(tmp_path / "one")
    assert_same(again, checkpoint)
    assert again.characters == characters
    text = [["a", "北 b"], ["\u2028\x85"]]
    for one, two in zip(Elmo(checkpoint).embed(text), Elmo(again).embed(text), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        ("lstm", {"joined": True}, "option 'lstm': layers that are joined have no skip connections"),
        ("char_cnn", {"spelling": "syllables"}, "option 'char_cnn.spelling': input should be 'UTF-8 bytes' or 'code p"),
        (
            "char_cnn",
            {"spelling": "code points", "n_characters": 10**9},
            "option 'char_cnn.n_characters': input should",
        ),
        (
            "char_cnn",
            {"spelling": "code points", "n_characters": 9},
            "'char_embed': expected shape (9, 4), found (261, 4)",
        ),
        ("word_embed", {"dim": 0}, "option 'word_embed.dim': input should be greater than or equal to 1"),
        ("word_embed", {"dim": 4}, "array 'embedding' is missing; expected shape (0, 4)"),
        (None, {"marks": ["<bos>", "<eos>"]}, "option 'marks': list should have at least 3 items"),
        (None, {"always_project": 1}, "option 'always_project': input should be a valid boolean"),
    ],
)
def test_later_options_with_something_wrong(native, part, options, message):
    content = json.loads((native / "config.json").read_text())
    (content.setdefault(part, {}) if part else content).update(options)
    (native / "config.json").write_text(json.dumps(content))
    assert message in refusal(native)


def test_a_card_that_is_not_utf_8(native):
    (native / "README.md").write_bytes(b"caf\xe9")
    assert formats.read(native).card == "caf\ufffd"


def test_what_an_earlier_model_left_is_removed(tmp_path):
    first = make_checkpoint(vocabulary=(*SPECIALS, "a"))
    write_native(replace(first, card="# The first", characters=("a",)), tmp_path)
    assert {"README.md", "chars.txt", "vocab.txt"} < {path.name for path in tmp_path.iterdir()}
    (tmp_path / "notes.txt").write_text("mine")
    write_native(make_checkpoint(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "notes.txt"]
    assert_same(formats.read(tmp_path), make_checkpoint())


def test_a_file_of_somebodys_own_stays(tmp_path):
    (tmp_path / "README.md").write_text("my project")
    write_native(make_checkpoint(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "my project"


def test_a_folder_that_cannot_be_rewritten(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (write_native, allennlp.write):
        for target in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(OutputError, match="cannot be written"):
                write(make_checkpoint(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_allennlp_format_cannot_hold():
    made = make_checkpoint(vocabulary=(*SPECIALS, "a"))
    assert allennlp.lost_in(make_checkpoint()) == []
    assert allennlp.lost_in(Checkpoint(made.config, made.arrays, made.vocabulary, card="# card")) == ["the model card"]
    headless = {name: array for name, array in made.arrays.items() if not name.startswith("softmax.")}
    assert allennlp.lost_in(Checkpoint(made.config, headless, made.vocabulary)) == ["the vocabulary"]
    assert allennlp.lost_in(Elmo(make_checkpoint()).warm([["a"]]).checkpoint()) == ["the warmed state"]
