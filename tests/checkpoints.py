"""What the tests of checkpoint files share: comparing models, catching refusals, making folders and archives."""

import gzip
import io
import tarfile
import zipfile

import h5py
import numpy as np
import pytest

from elmokit import formats
from elmokit.checkpoint import CharCNN, Checkpoint, Config, Embedding, network_shapes
from elmokit.config import WordEmbed
from elmokit.errors import FormatError
from elmokit.formats import allennlp

SPECIALS = ("<S>", "</S>", "<UNK>")


def assert_same(found, expected):
    """The same model, bit for bit."""
    assert found.config == expected.config
    assert found.vocabulary == expected.vocabulary
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype == np.float32, name
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def refusal(path, *, error=FormatError):
    """The message with which a model is refused: one line that names the place."""
    with pytest.raises(error) as caught:
        formats.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


def rewritten(checkpoint, folder):
    """The model, written in AllenNLP's format and read back."""
    allennlp.write(checkpoint, folder)
    return formats.read(folder)


def make_word_checkpoint(lstm, words):
    """A model without characters: a row of a table for each word."""
    config = Config(lstm=lstm)
    shapes = {"embedding": (len(words), lstm.projection_dim), **network_shapes(config)}
    generator = np.random.default_rng(len(words))
    arrays = {name: generator.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    return Checkpoint(config, arrays, tuple(words))


def make_lexicon_checkpoint(lstm, words, *, table=True, joined=False):
    """A model that spells in code points, with or without a table of words, as ELMoForManyLangs has them."""
    characters = ("<bow>", "<eow>", *SPECIALS, *"Thecatson", "日", "<pad>")
    cnn = CharCNN(
        embedding=Embedding(dim=3),
        filters=[(1, 4), (2, 5)],
        activation="relu",
        n_highway=1,
        spelling="code points",
        n_characters=len(characters),
        max_characters_per_token=12,
    )
    lstm = lstm.model_copy(update={"joined": joined, "use_skip_connections": not joined})
    config = Config(lstm=lstm, char_cnn=cnn, word_embed=WordEmbed(dim=6) if table else None, always_project=True)
    shapes = network_shapes(config) | ({"embedding": (len(words), 6)} if table else {})
    generator = np.random.default_rng(3)
    arrays = {name: generator.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    return Checkpoint(config, arrays, words if table else None, characters=characters)


def read_datasets(path):
    """Name -> array of every dataset of an HDF5 file."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return arrays


def pack(path, members, *, compression=zipfile.ZIP_DEFLATED):
    """Write a zip of name -> bytes; return its path."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path, members, *, opener=gzip.open):
    """Write a tar of name -> bytes, or of `TarInfo`s ready made."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info is not data:
                info.size = len(data)
            archive.addfile(info, None if info is data else io.BytesIO(data))
    with opener(path, "wb") as file:
        file.write(content.getvalue())
    return path
