"""An ELMo inside an archive of AllenNLP: its layers, its mix, and archives that hold something else."""

import io
import tarfile

import numpy as np
import pytest
import torch

from checkpoints import refusal
from elmokit import formats
from elmokit.model import Elmo


@pytest.fixture
def folder(oracles):
    return oracles / "simple_tagger_with_elmo"


@pytest.fixture
def expected(folder):
    return np.load(folder / "expected.npz")


@pytest.fixture
def sentences(folder):
    return [line.split() for line in (folder / "sentences.txt").read_text("utf-8").splitlines()]


def test_its_layers_and_its_mix(folder, expected, sentences):
    elmo = Elmo(formats.read(folder / "model.tar.gz"))
    assert elmo.source == "AllenNLP archive"
    assert elmo.mixes.shape == (1, 3)
    stacks = list(elmo.embed(sentences, layers="all"))
    mixed = list(elmo.embed(sentences, layers=elmo.mixes[0]))
    for i, sentence in enumerate(sentences):
        n = len(sentence)
        np.testing.assert_allclose(stacks[i], expected["layers"][i, :, 1 : n + 1], atol=5e-6)
        np.testing.assert_allclose(mixed[i], expected["elmo"][i, :n], atol=5e-6)


def test_it_is_the_model_that_it_was_made_of(folder, oracles):
    """The archive's ELMo was not trained further: what is read is fixture A, but for the forget bias added there."""
    found = formats.read(folder / "model.tar.gz")
    fixture = formats.read(next((oracles / "allennlp-fixture-a").glob("options.json")).parent)
    assert found.config.lstm == fixture.config.lstm
    assert found.config.char_cnn.filters == fixture.config.char_cnn.filters
    for name, array in fixture.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, atol=1e-7 if name.endswith("bias") else 0, err_msg=name)


def archive(path, state, **files):
    weights = io.BytesIO()
    torch.save(state, weights)
    with tarfile.open(path, "w:gz") as out:
        for name, content in {"config.json": b"{}", "weights.th": weights.getvalue(), **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def test_archives_without_an_elmo(oracles, tmp_path):
    assert "expected the tensors of one ELMo" in refusal(oracles / "bidirectional_lm" / "model.tar.gz")
    key = "x._elmo_lstm._token_embedder._char_embedding_weights"
    state = {key: torch.zeros(262, 4), "y." + key: torch.zeros(262, 4)}
    assert "found 2" in refusal(archive(tmp_path / "two.tar.gz", state))
    del state[key]
    assert "not those of an ELMo of AllenNLP" in refusal(archive(tmp_path / "one.tar.gz", state))


def test_a_tensor_too_many_or_too_few(folder, tmp_path):
    with tarfile.open(folder / "model.tar.gz") as given:
        state = torch.load(io.BytesIO(given.extractfile("weights.th").read()), weights_only=True)
    prefix = "text_field_embedder.token_embedder_elmo._elmo."
    more = {**state, f"{prefix}_elmo_lstm.extra": torch.zeros(1)}
    assert "'_elmo_lstm.extra' (1,) is not part of the network" in refusal(archive(tmp_path / "m.tar.gz", more))
    fewer = {name: tensor for name, tensor in state.items() if not name.endswith("scalar_parameters.2")}
    assert "'scalar_mix_0.scalar_parameters.2' is missing" in refusal(archive(tmp_path / "f.tar.gz", fewer))
    fewer = {name: tensor for name, tensor in state.items() if not name.endswith("char_conv_4.bias")}
    assert "char_conv_4.bias' is missing" in refusal(archive(tmp_path / "c.tar.gz", fewer))


def test_options_inside_the_archive_are_taken(folder, oracles, tmp_path):
    with tarfile.open(folder / "model.tar.gz") as given:
        state = torch.load(io.BytesIO(given.extractfile("weights.th").read()), weights_only=True)
    options = (oracles / "allennlp-fixture-a" / "options.json").read_text().replace('"cell_clip": 3', '"cell_clip": 5')
    path = archive(tmp_path / "m.tar.gz", state, **{"fta/options_file": options.encode()})
    assert formats.read(path).config.lstm.cell_clip == 5.0


def test_options_that_are_not_understood_are_named(folder, oracles, tmp_path):
    """What the tensors say does not take their place: it may be another network."""
    with tarfile.open(folder / "model.tar.gz") as given:
        state = torch.load(io.BytesIO(given.extractfile("weights.th").read()), weights_only=True)
    options = (
        (oracles / "allennlp-fixture-a" / "options.json").read_text().replace('"cell_clip": 3', '"cell_clip": "3"')
    )
    path = archive(tmp_path / "m.tar.gz", state, **{"fta/options_file": options.encode()})
    assert "'lstm.cell_clip'" in refusal(path)


def test_archives_side_by_side_are_named(folder, tmp_path):
    with tarfile.open(folder / "model.tar.gz") as archive:
        for name in ("de", "fr"):
            archive.extractall(tmp_path / name, filter="data")
    assert "holds several models: de/weights.th, fr/weights.th; name the one that is meant" in refusal(tmp_path)
