"""The input module of sentence-transformers: it encodes, learns, is measured, saved and loaded."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling

from checkpoints import make_word_checkpoint
from elmokit import load
from elmokit.errors import MismatchError
from elmokit.model import Elmo as Model
from elmokit.sentence_transformers import Elmo

TEXTS = ["The cat sat.", "", "It purred! And then it slept."]
TOKENS = [["The", "cat", "sat", "."], [], ["It", "purred", "!", "And", "then", "it", "slept", "."]]
PAIRS = {
    "sentence1": ["a cat sat", "the dog ran", "a cat purred", "dogs bark", "my cat", "one dog"],
    "sentence2": ["cats sit", "a dog runs", "a dog barked", "cats purr", "your cat", "a dog"],
    "score": [1.0, 1.0, 0.0, 0.0, 1.0, 1.0],
}


def make(elmo, *, pooling="mean", **options):
    module = Elmo(elmo, **options)
    pipeline = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), pooling)], device="cpu")
    return pipeline.eval()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_texts_are_encoded(tiny_elmo, pooling):
    found = make(tiny_elmo, pooling=pooling).encode([TEXTS[0], TEXTS[2]], show_progress_bar=False)
    right = list(tiny_elmo.embed([TOKENS[0], TOKENS[2]], pool=pooling))
    np.testing.assert_allclose(found, right, atol=1e-6)


def test_an_empty_text_is_zeros(tiny_elmo):
    found = make(tiny_elmo).encode(TEXTS, show_progress_bar=False)
    assert not found[1].any()
    assert not make(tiny_elmo).encode([""], show_progress_bar=False).any()


@pytest.mark.parametrize("pooling", ["max", "cls", "lasttoken", "mean_sqrt_len_tokens", "weightedmean"])
def test_an_empty_text_is_zeros_however_it_is_pooled(tiny_elmo, pooling):
    found = make(tiny_elmo, pooling=pooling).encode(["", " ", "cat"], show_progress_bar=False)
    assert not found[:2].any()
    alone = make(tiny_elmo, pooling=pooling).encode("cat", show_progress_bar=False)
    np.testing.assert_allclose(found[2], alone, atol=1e-6)


def test_vectors_of_tokens(tiny_elmo):
    found = make(tiny_elmo).encode(TEXTS, output_value="token_embeddings", show_progress_bar=False)
    for vectors, right in zip(found, tiny_elmo.embed(TOKENS), strict=True):
        np.testing.assert_allclose(vectors[: len(right)], right, atol=1e-6)


def test_prompts_and_texts_that_are_split_already(tiny_elmo):
    pipeline = make(tiny_elmo, tokenize=False)
    found = pipeline.encode(["purred ."], prompt="It ", show_progress_bar=False)
    np.testing.assert_allclose(found, list(tiny_elmo.embed([["It", "purred", "."]], pool="mean")), atol=1e-6)


def evaluator():
    return EmbeddingSimilarityEvaluator(PAIRS["sentence1"], PAIRS["sentence2"], PAIRS["score"], show_progress_bar=False)


def train(pipeline, folder, *, steps=20):
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=3, learning_rate=0.02, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, seed=1, logging_strategy="no",
    )  # fmt: skip
    SentenceTransformerTrainer(
        pipeline, arguments, train_dataset=Dataset.from_dict(PAIRS), loss=CosineSimilarityLoss(pipeline)
    ).train()


@pytest.mark.filterwarnings("ignore")  # of sentence-transformers' trainer and what is under it
@pytest.mark.parametrize(("trainable", "learning"), [("all", True), ("mix", False)])
def test_it_learns_and_is_measured_and_saved(tiny_elmo, tmp_path, trainable, learning):
    pipeline = make(tiny_elmo, trainable=trainable)
    before = evaluator()(pipeline)["spearman_cosine"]
    start = {name: parameter.detach().clone() for name, parameter in pipeline.named_parameters()}
    train(pipeline, tmp_path / "run")
    changed = {name.split(".")[2] for name, p in pipeline.named_parameters() if not torch.equal(p, start[name])}
    assert changed == ({"mixes", "network"} if learning else {"mixes"})
    if learning:
        assert evaluator()(pipeline)["spearman_cosine"] > before
    pipeline.eval().save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    right = pipeline.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(again.encode(TEXTS, show_progress_bar=False), right, atol=1e-6)
    assert again[0].get_config_dict() == {"trainable": trainable, "tokenize": True}
    assert len(list(load(tmp_path / "saved" / "0_Elmo").embed(TOKENS))) == 3


def test_refusals(tiny_elmo, tiny):
    with pytest.raises(MismatchError, match="text 0: expected a string, found"):
        Elmo(tiny_elmo).preprocess([("a", "b")])
    with pytest.raises(MismatchError, match="does not spell words in bytes"):
        Elmo(Model(make_word_checkpoint(tiny.config.lstm, ["<S>", "</S>", "<UNK>"])))
    with pytest.raises(MismatchError, match="trainable: expected"):
        Elmo(tiny_elmo, trainable="yes")
