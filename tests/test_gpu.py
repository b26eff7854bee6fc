"""What is computed on a GPU is what a processor computes: embedding, the language model, senses, a layer, training.

python -m pytest -m gpu tests/test_gpu.py
"""

import numpy as np
import pytest
import torch

from conftest import make_checkpoint, make_config
from elmokit.lm import LanguageModel
from elmokit.model import Elmo
from elmokit.nn import ElmoEmbedding
from elmokit.senses import find_senses
from elmokit.train import run
from test_train import make_settings, make_text

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = "cuda"
SENTENCES = [["the", "cat", "sat", "on", "the", "mat"], ["it"], [], ["a", "strange", "word"] * 20]
WORDS = ("<S>", "</S>", "<UNK>", "the", "cat", "sat")


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint(make_config(dim=64, projection_dim=16), vocabulary=WORDS)


@pytest.fixture(scope="module")
def both(checkpoint):
    return [Elmo(checkpoint, device=device).warm([["the", "cat"]]) for device in ("cpu", DEVICE)]


def agree(both, **options):
    for a, b in zip(*(model.embed(SENTENCES, **options) for model in both), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


@pytest.mark.parametrize("state", ["fresh", "warm", "carry"])
def test_all_layers_from_every_state(both, state):
    agree(both, layers="all", state=state)


@pytest.mark.parametrize("layers", ["top", "average", 1, [0.2, 0.3, 0.5]])
@pytest.mark.parametrize("pool", ["none", "mean", "max"])
def test_layers_and_pools(both, layers, pool):
    agree(both, layers=layers, pool=pool)


def test_bfloat16(checkpoint, both):
    coarse = Elmo(checkpoint, device=DEVICE, precision="bfloat16")
    for a, b in zip(*(model.embed(SENTENCES[:1]) for model in (both[0], coarse)), strict=True):
        assert ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min() > 0.999


@pytest.mark.parametrize("state", ["fresh", "warm"])
def test_the_language_model(both, state):
    for a, b in zip(*(LanguageModel(model).score(SENTENCES, state=state) for model in both), strict=True):
        np.testing.assert_allclose(b.forward, a.forward, atol=1e-4)
        np.testing.assert_allclose(b.backward, a.backward, atol=1e-4)


def test_cached_words_stay_there(both):
    cached = both[1].cached(["the", "cat"])
    assert cached.network.device.type == both[1].network.device.type
    np.testing.assert_allclose(*(next(model.embed([["the", "cat"]])) for model in (cached, both[0])), atol=1e-5)


def test_senses(both):
    uses = [["the", "cat", *more] for more in (["sat"], ["sat", "it"], ["on", "it"], ["on"], ["ran"], ["ran", "on"])]
    first, second = (find_senses(model, uses, "cat", n=2) for model in both)
    assert [len(sense.uses) for sense in first.senses] == [len(sense.uses) for sense in second.senses]


def test_gradients_of_a_layer(both):
    found = []
    for model in both:
        layer = ElmoEmbedding(model, trainable="all").to(model.network.device)
        vectors, _ = layer(SENTENCES)
        vectors.square().sum().backward()
        found.append([parameter.grad.cpu() for parameter in layer.parameters()])
    torch.testing.assert_close(found[1], found[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_training_learns_as_on_a_processor(tmp_path, precision, close):
    (tmp_path / "text.txt").write_text(make_text(600))
    here, there = (
        run.train(
            make_settings(tmp_path / "text.txt", device=device, recipe={"precision": precision, "dropout": 0.0}),
            tmp_path / device,
            progress=False,
        )
        for device in ("cpu", DEVICE)
    )
    assert there.finished
    assert abs(there.perplexity / here.perplexity - 1) < close
