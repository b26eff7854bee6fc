"""The model in the package: there without a network, small, and a real ELMo."""

import math
from pathlib import Path

import numpy as np
import pytest

import elmokit
from elmokit import formats
from elmokit.head import Softmax
from elmokit.network import BiLM
from elmokit.reading import read_sentences
from elmokit.train.corpus import Rows, corpus_of
from elmokit.train.evaluate import perplexity
from elmokit.train.vocabulary import SPECIALS

if not formats.BUNDLED.is_dir():
    pytest.skip("this checkout holds no bundled model; make train-bundled makes one", allow_module_level=True)

EXAMPLES = Path(__file__).parents[1] / "examples" / "sentences.txt"


@pytest.fixture(scope="module")
def bundled():
    return elmokit.load()


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_it_is_small_and_whole(bundled):
    files = {path.name: path.stat().st_size for path in formats.BUNDLED.iterdir()}
    assert files.keys() >= {"config.json", "model.safetensors", "vocab.txt", "README.md"}
    assert sum(files.values()) <= 28_000_000
    assert bundled.checkpoint().n_parameters <= 14_000_000
    assert len(bundled.vocabulary) == len(bundled.extras["softmax.bias"])
    assert bundled.vocabulary[:3] == ("<S>", "</S>", "<UNK>")


def test_the_card_says_what_a_user_must_know(bundled):
    for heading in ("Data", "Training", "Quality", "Limits", "Licence"):
        assert f"## {heading}" in bundled.card
    assert "CC BY-SA" in bundled.card
    header, *articles = (formats.BUNDLED / "wikipedia.tsv").read_text("utf-8").splitlines()
    assert header == "page\ttitle"
    assert len({int(page) for page, _ in (line.split("\t") for line in articles)}) == len(articles)
    assert f"the {len(articles):,} articles" in bundled.card
    assert "@" not in bundled.card  # no place left to fill in


def test_a_misspelt_word_is_nearest_to_the_word_meant(bundled):
    right, wrong = bundled.embed(
        ["definitely received government language".split(), "definately recieved goverment langauge".split()], layers=0
    )
    for k, vector in enumerate(wrong):
        assert np.argmax([cosine(vector, other) for other in right]) == k


def test_context_changes_a_word_and_warm_starts_work(bundled):
    sentences = ["He sat in a prison cell .".split(), "A blood cell carries oxygen .".split()]
    for state in ("fresh", "warm"):
        first, second = bundled.embed(sentences, layers="all", state=state)
        a, b = first[:, sentences[0].index("cell")], second[:, sentences[1].index("cell")]
        np.testing.assert_allclose(a[0], b[0], atol=1e-5)
        assert cosine(a[-1], b[-1]) < 0.95


def test_the_head_predicts_far_better_than_word_frequencies(shared_data, tmp_path):
    """Exact perplexity on unseen text; the frequencies of these 50,000 words alone give over a thousand."""
    model = formats.read(formats.BUNDLED)
    text = shared_data / "lm" / "openstax" / "valid.txt.xz"
    sentences, rows = list(read_sentences(text)), Rows.of(model.vocabulary, SPECIALS)
    network, head = BiLM.from_arrays(model.config, model.arrays), Softmax.from_arrays(model.arrays)
    found = perplexity(network, head, corpus_of(sentences, tmp_path), rows, model.speller(), max_places=4000)
    targets = [rows.index.get(word, rows.unknown) for sentence in sentences for word in sentence]
    shares = np.exp(model.arrays["softmax.bias"]) / np.exp(model.arrays["softmax.bias"]).sum()
    unigram = math.exp(-np.log(shares[targets]).mean())
    assert found.mean < unigram / 2
    assert found.mean < 115  # 103.5 when it was made, 104.9 on all of this text


def test_bfloat16_does_not_drift(bundled):
    """A token now and then is moved more; the lowest of 42,956 of another text is in docs/benchmarks.md."""
    coarse = elmokit.load(precision="bfloat16")
    sentences = [line.split() for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    pairs = zip(*(model.embed(sentences, layers="all") for model in (bundled, coarse)), strict=True)
    cosines_LM = np.concatenate([cosine(x, y) for x, y in pairs], axis=1)
    assert (cosines_LM.mean(1) > 0.99995).all()
    assert cosines_LM.min() > 0.999


@pytest.mark.parametrize(
    "line", ["! " * 200, "0 " * 100, ". " * 40, "- " * 40, "| " * 60, ("\U0001f98a" * 40 + " ") * 30, "a"]
)
def test_a_sentence_is_the_same_in_any_batch(bundled, line):
    """Lines of one token said again and again amplify rounding: so no product may be computed in another order."""
    others = [["The", "cat", "sat", "."], ["Yes"], *[["word"] * n for n in (3, 50, 210)]]
    alone = next(bundled.embed([line.split()], layers="all"))
    for batch_size in (2, 64):
        together = list(bundled.embed([*others, line.split(), *others], layers="all", batch_size=batch_size))
        np.testing.assert_allclose(together[len(others)], alone, rtol=0, atol=1e-5)
