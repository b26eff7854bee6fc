"""`ElmoEmbedding`: what comes out, what learns, and that torch's tools work on it."""

import copy
import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import safetensors.torch
import torch
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from checkpoints import make_word_checkpoint
from conftest import make_checkpoint
from elmokit import kernels
from elmokit.checkpoint import write_native
from elmokit.compat import allennlp
from elmokit.errors import MismatchError, UnknownModel
from elmokit.model import Elmo, load
from elmokit.nn import ElmoEmbedding

SENTENCES = [["The", "cat", "sat", "."], [], ["naïve", "x" * 30]]
ORDINARY = [["The", "cat", "sat", "."], ["It", "purred"], ["yes"]]


def expected(elmo, sentences, **options):
    """The vectors of `embed`, padded."""
    arrays = [torch.from_numpy(array) for array in elmo.embed(sentences, **options)]
    return torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)


def loss_of(embedding, sentences=ORDINARY):
    *outputs, mask = embedding(sentences)
    return sum(output[mask].cos().mean() for output in outputs)


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("trainable", ["none", "mix", "all"])
def test_tokens_strings_and_ids_give_the_vectors_of_embed(tiny_elmo, trainable):
    embedding = ElmoEmbedding(tiny_elmo, trainable=trainable)
    strings = [" ".join(sentence) for sentence in SENTENCES]
    for sentences in (SENTENCES, strings, embedding.ids(SENTENCES)):
        vectors, mask = embedding(sentences)
        assert (vectors.dtype, mask.dtype) == (torch.float32, torch.bool)
        torch.testing.assert_close(vectors, expected(tiny_elmo, SENTENCES), atol=1e-6, rtol=0)
        assert mask.tolist() == [[True] * 4, [False] * 4, [True, True, False, False]]
        assert not vectors[~mask].any()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.text(max_size=8), max_size=6), min_size=1, max_size=5), st.sampled_from(["none", "all"])
)  # fmt: skip
def test_any_sentences(tiny_elmo, sentences, trainable):
    vectors, mask = ElmoEmbedding(tiny_elmo, trainable=trainable)(sentences)
    assert vectors.shape == (len(sentences), max(map(len, sentences)), 8)
    assert mask.sum(1).tolist() == [len(sentence) for sentence in sentences]
    torch.testing.assert_close(vectors, expected(tiny_elmo, sentences), atol=1e-5, rtol=0)


def test_ids_are_those_of_allennlp(tiny_elmo):
    assert torch.equal(ElmoEmbedding(load()).ids(["The cat", ""]), allennlp.batch_to_ids([["The", "cat"], []]))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_outputs_are_those_of_the_module_of_allennlp(tiny, tiny_elmo, layer_norm):
    weights = [0.3, -1.0, 2.0]
    options = {"do_layer_norm": layer_norm, "dropout": 0.0, "scalar_mix_parameters": weights}
    embedding = ElmoEmbedding(tiny_elmo, n_mixes=2, mix_weights=weights, layer_norm=layer_norm)
    theirs = allennlp.Elmo(tiny, None, 2, **options)(embedding.ids(SENTENCES))
    first, second, mask = embedding(SENTENCES)
    torch.testing.assert_close([first, second], theirs["elmo_representations"], atol=1e-5, rtol=0)
    assert torch.equal(mask, theirs["mask"].bool())


def test_one_layer_alone(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo, mix_weights=[-math.inf, -math.inf, 0.0])
    vectors, _ = embedding(SENTENCES)
    torch.testing.assert_close(vectors, expected(tiny_elmo, SENTENCES, layers="top"), atol=1e-6, rtol=0)
    vectors.sum().backward()
    assert embedding.mixes[0].weights.grad.tolist() == [0, 0, 0]


def test_nothing_flows_from_call_to_call(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo, trainable="all")
    before, _ = embedding(SENTENCES)
    embedding([["Something", "else"]] * 3)
    assert torch.equal(embedding(SENTENCES)[0], before)


def test_dropout_is_of_training_only(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo, dropout=0.5)
    vectors, mask = embedding([["word"] * 400])
    assert 0.4 < (vectors[mask] == 0).float().mean() < 0.6
    assert (embedding.eval()([["word"] * 400])[0] != 0).all()


@pytest.mark.parametrize("trainable", ["mix", "all"])
def test_models_without_characters(trainable, tiny):
    elmo = Elmo(make_word_checkpoint(tiny.config.lstm, ["<S>", "</S>", "<UNK>", "cat"]))
    embedding = ElmoEmbedding(elmo, trainable=trainable)
    sentences = [["cat", "dog"], ["cat"]]
    torch.testing.assert_close(embedding(sentences)[0], expected(elmo, sentences), atol=1e-6, rtol=0)
    for refused in (lambda: embedding.ids(sentences), lambda: embedding(torch.ones(1, 1, 1, dtype=torch.int64))):
        with pytest.raises(MismatchError, match="does not spell words in bytes"):
            refused()
    again = next(embedding.to_elmo().embed(sentences))
    np.testing.assert_allclose(again, next(elmo.embed(sentences)), atol=1e-6)


# ---------------------------------------------------------------- what learns


@pytest.mark.parametrize(
    ("trainable", "learning"), [("none", set()), ("mix", {"mixes"}), ("all", {"mixes", "network"})]
)
def test_what_learns(tiny_elmo, trainable, learning):
    embedding = ElmoEmbedding(tiny_elmo, trainable=trainable, n_mixes=2)
    if learning:
        loss_of(embedding).backward()
    grads = {name: parameter.grad for name, parameter in embedding.named_parameters()}
    assert {name.split(".")[0] for name, grad in grads.items() if grad is not None} == learning
    assert all(grad.abs().sum() > 0 for name, grad in grads.items() if name.split(".")[0] in learning)
    assert all(not parameter.requires_grad for parameter in tiny_elmo.network.parameters())


def test_fine_tuning_lowers_the_loss_and_leaves_the_model_it_came_from_alone(tiny):
    elmo = Elmo(tiny)
    before = next(elmo.embed(ORDINARY))
    embedding = ElmoEmbedding(elmo, trainable="all")
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = loss_of(embedding)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    np.testing.assert_array_equal(next(elmo.embed(ORDINARY)), before)


@pytest.mark.parametrize(("trainable", "kernel"), [("all", "lstmp_batched_gradient"), ("mix", "lstmp_in_place")])
def test_the_kernel_is_that_of_training_or_of_embedding(tiny_elmo, monkeypatch, trainable, kernel):
    used = []
    for name in ("lstmp_batched_gradient", "lstmp_in_place", "lstmp_plain"):
        original = getattr(kernels, name)

        def watched(*args, name=name, original=original, **options):
            used.append(name)
            return original(*args, **options)

        monkeypatch.setattr(kernels, name, watched)
    loss_of(ElmoEmbedding(tiny_elmo, trainable=trainable)).backward()
    assert used == [kernel] * 2


def test_a_part_of_the_network_may_learn(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo)
    embedding.network.lstm.requires_grad_()
    loss_of(embedding).backward()
    assert embedding.network.encoder.char_embed.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in embedding.network.lstm.parameters())


def test_the_penalty_pulls_mixes_to_the_average(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo, n_mixes=2, mix_weights=[1.0, -2.0, 0.5])
    assert embedding.penalty(0.1).item() == pytest.approx(0.1 * 2 * 5.25)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        embedding.penalty(1.0).backward()
        optimizer.step()
    assert all(torch.softmax(mix.weights, 0).sub(1 / 3).abs().max() < 1e-3 for mix in embedding.mixes)


# ---------------------------------------------------------------- word vectors


@pytest.fixture
def word2vec():
    vectors = KeyedVectors(3)
    vectors.add_vectors(["cat", "The", "sat"], np.arange(1, 10, dtype=np.float32).reshape(3, 3))
    return vectors


def written(vectors, path, kind):
    """The vectors, written as this kind of file and read as its users read it."""
    vectors.save_word2vec_format(path, binary=kind == "binary", write_header=kind != "GloVe")
    return KeyedVectors.load_word2vec_format(path, binary=kind == "binary", no_header=kind == "GloVe")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gensim leaves GloVe's file open
@pytest.mark.parametrize("kind", ["text", "binary", "GloVe"])
def test_word_vectors_stand_before_those_of_elmo(tiny_elmo, word2vec, tmp_path, kind):
    embedding = ElmoEmbedding(tiny_elmo, words=written(word2vec, tmp_path / "vectors", kind), n_mixes=2)
    for vectors in embedding([["The", "Cat", "purred"], ["sat"]])[:2]:
        assert vectors.shape == (2, 3, embedding.dim) == (2, 3, 11)
        assert vectors[..., :3].tolist() == [[[4, 5, 6], [1, 2, 3], [0, 0, 0]], [[7, 8, 9], [0] * 3, [0] * 3]]
        alone = expected(tiny_elmo, [["The", "Cat", "purred"], ["sat"]])
        torch.testing.assert_close(vectors[..., 3:], alone, atol=1e-6, rtol=0)


def test_word_vectors_learn_when_asked_to(tiny_elmo, word2vec):
    embedding = ElmoEmbedding(tiny_elmo, words=word2vec)
    assert not embedding.words.weight.requires_grad
    embedding.words.requires_grad_()
    embedding(["cat unknown"])[0].sum().backward()
    assert embedding.words.weight.grad.tolist() == [[0] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_word_vectors_need_words(tiny_elmo, word2vec):
    embedding = ElmoEmbedding(tiny_elmo, words=word2vec)
    with pytest.raises(MismatchError, match="give tokens or strings"):
        embedding(embedding.ids(["cat"]))


# ---------------------------------------------------------------- known words


@pytest.fixture
def spelled(tiny_elmo):
    """An embedding, and a list that grows by the number of words whenever some are spelled."""
    embedding, counts = ElmoEmbedding(tiny_elmo), []
    embedding.network.encoder.register_forward_hook(lambda module, args, output: counts.append(len(args[0])))
    return embedding, counts


def test_words_are_spelled_once_while_the_network_is_frozen(spelled):
    embedding, counts = spelled
    first = embedding(ORDINARY)[0]
    assert torch.equal(embedding(ORDINARY)[0], first)
    assert len(counts) == 1
    embedding([["The", "dog"]])
    assert len(counts) == 2
    embedding.network.requires_grad_()
    embedding(ORDINARY)
    assert len(counts) == 3


def test_words_that_were_learnt_in_inference_mode(tiny_elmo):
    """A validation before the first step of training."""
    embedding = ElmoEmbedding(tiny_elmo)
    with torch.inference_mode():
        first = embedding([["The", "dog"]])[0]
    loss_of(embedding).backward()
    assert torch.equal(embedding([["The", "dog"]])[0], first)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}])
@pytest.mark.parametrize("as_ids", [False, True])
def test_words_are_forgotten_when_the_network_has_learned(tiny_elmo, options, as_ids):
    """A fused optimiser changes weights without telling anybody."""
    embedding = ElmoEmbedding(tiny_elmo)
    embedding(ORDINARY)
    embedding.network.requires_grad_()
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.1, **options)
    embedding(embedding.ids(ORDINARY) if as_ids else ORDINARY)[0].square().sum().backward()
    optimizer.step()
    embedding.network.requires_grad_(False)
    torch.testing.assert_close(embedding(ORDINARY)[0], copy.deepcopy(embedding)(ORDINARY)[0], atol=1e-6, rtol=0)


def test_known_words_are_not_pickled(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo)
    size = len(pickle.dumps(embedding))
    embedding([[f"word{n}" for n in range(1000)]])
    assert len(pickle.dumps(embedding)) == size


def test_words_are_forgotten_when_the_weights_change(spelled):
    embedding, _ = spelled
    embedding(ORDINARY)
    other = Elmo(make_checkpoint(seed=5))
    embedding.load_state_dict(ElmoEmbedding(other).state_dict())
    torch.testing.assert_close(embedding(ORDINARY)[0], expected(other, ORDINARY), atol=1e-6, rtol=0)
    with torch.no_grad():
        embedding.network.encoder.char_embed.zero_()
    assert not torch.allclose(embedding(ORDINARY)[0], expected(other, ORDINARY), atol=1e-3)
    doubled = embedding(ORDINARY)[0].double()
    torch.testing.assert_close(embedding.double()(ORDINARY)[0], doubled, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- tools of torch


def another(embedding, trainable="all"):
    return ElmoEmbedding(Elmo(make_checkpoint(seed=7)), trainable=trainable, words=None)


def by_state_dict(embedding, path):
    copied = another(embedding)
    copied.load_state_dict(embedding.state_dict())
    return copied


def by_torch_save(embedding, path):
    torch.save(embedding, path)
    return torch.load(path, weights_only=False)


def by_saved_weights(embedding, path):
    torch.save(embedding.state_dict(), path)
    copied = another(embedding)
    copied.load_state_dict(torch.load(path, weights_only=True))
    return copied


def by_safetensors(embedding, path):
    safetensors.torch.save_model(embedding, str(path))
    copied = another(embedding)
    safetensors.torch.load_model(copied, str(path))
    return copied


WAYS = [
    by_state_dict,
    by_torch_save,
    by_saved_weights,
    by_safetensors,
    lambda embedding, path: pickle.loads(pickle.dumps(embedding)),
    lambda embedding, path: copy.deepcopy(embedding),
]


@pytest.mark.parametrize("way", WAYS, ids=["state_dict", "torch.save", "weights", "safetensors", "pickle", "deepcopy"])
def test_copies_are_the_same_and_apart(tiny_elmo, tmp_path, way):
    embedding = ElmoEmbedding(tiny_elmo, trainable="all", mix_weights=[0.1, 0.5, -0.3])
    before = embedding(ORDINARY)[0]
    copied = way(embedding, tmp_path / "file")
    assert torch.equal(copied(ORDINARY)[0], before)
    loss_of(copied).backward()
    assert all(parameter.grad is not None for parameter in copied.parameters())
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(embedding(ORDINARY)[0], before)


def test_a_trained_model_is_saved_for_embed(tiny_elmo, tmp_path):
    embedding = ElmoEmbedding(tiny_elmo, trainable="all", n_mixes=2)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.5)
    loss_of(embedding).backward()
    optimizer.step()
    embedding.to_elmo().save(tmp_path / "tuned")
    elmo = load(tmp_path / "tuned")
    *outputs, _ = embedding(ORDINARY)
    assert elmo.mixes.shape == (2, 3)
    for output, mix in zip(outputs, elmo.mixes, strict=True):
        torch.testing.assert_close(output, expected(elmo, ORDINARY, layers=mix), atol=1e-5, rtol=0)
    assert not torch.allclose(outputs[0], expected(tiny_elmo, ORDINARY), atol=1e-3)
    torch.testing.assert_close(ElmoEmbedding(tmp_path / "tuned")(ORDINARY)[0], expected(elmo, ORDINARY))
    for a, b in zip(ElmoEmbedding(elmo, n_mixes=2)(ORDINARY), (*outputs, _), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)  # as many mixes as it has begin as they are
    zeros = ElmoEmbedding(elmo, n_mixes=2, mix_weights=[0, 0, 0])
    torch.testing.assert_close(zeros(ORDINARY)[1], expected(elmo, ORDINARY))


def test_the_penalty_of_a_layer_that_is_left_out(tiny_elmo):
    embedding = ElmoEmbedding(tiny_elmo, mix_weights=[-math.inf, 2.0, 0.0])
    assert embedding.penalty(0.5).item() == 2.0


def test_layers_that_are_normalised_are_not_kept_in_a_model(tiny_elmo):
    with pytest.raises(MismatchError, match="mixes with layer_norm cannot be kept in a model"):
        ElmoEmbedding(tiny_elmo, layer_norm=True).to_elmo()


class Classifier(torch.nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding, self.output = embedding, torch.nn.Linear(embedding.dim, 2)

    def forward(self, sentences):
        vectors, mask = self.embedding(sentences)
        return self.output(vectors.sum(1) / mask.sum(1, keepdim=True))


def check_compiled(elmo, **options):
    model = Classifier(ElmoEmbedding(elmo, trainable="all"))
    compiled = torch.compile(model, **options)
    for sentences in (ORDINARY, [["another", "shape"]]):
        model.zero_grad()
        plain = model(sentences)
        plain.square().sum().backward()
        grads = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        found = compiled(sentences)
        found.square().sum().backward()
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close([p.grad for p in model.parameters()], grads, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own compiler looks at it
def test_compiled_model(tiny_elmo):
    """The embedding runs as it is between what torch compiles."""
    check_compiled(tiny_elmo, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler needs g++")
@pytest.mark.filterwarnings("default")  # of torch's own compiler
def test_compiled_model_by_inductor(tiny_elmo):
    check_compiled(tiny_elmo)


def check_compiled_network(elmo, **options):
    """`BiLM.run` is called by who feeds the recurrence with vectors of his own."""
    network = copy.deepcopy(elmo.network).requires_grad_()
    x_TZBP = torch.randn(5, 2, 3, network.config.lstm.projection_dim, generator=torch.Generator().manual_seed(0))

    def gradients(run):
        network.zero_grad()
        layers, _ = run(x_TZBP, network.zero_state(3), rows=[3, 3, 2, 2, 1])
        sum(layer[0].square().sum() for layer in layers).backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    torch.testing.assert_close(gradients(torch.compile(network.run, **options)), gradients(network.run))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_compiled_network(tiny_elmo):
    check_compiled_network(tiny_elmo, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler needs g++")
@pytest.mark.filterwarnings("default")
def test_compiled_network_by_inductor(tiny_elmo):
    check_compiled_network(tiny_elmo)


@pytest.mark.parametrize("trainable", ["mix", "all"])
def test_autocast(trainable):
    """bfloat16 keeps about three digits; what was learned under it is not kept for float32."""
    embedding = ElmoEmbedding(trainable=trainable)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = embedding(ORDINARY)[0]
        loss = loss_of(embedding)
    loss.backward()
    exact = embedding(ORDINARY)[0]
    torch.testing.assert_close(exact, expected(load(), ORDINARY), atol=1e-5, rtol=0)
    assert 0 < (rounded.float() - exact).norm() / exact.norm() < 0.02
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in embedding.parameters() if p.requires_grad
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("trainable", ["mix", "all"])
def test_a_network_of_another_precision(tiny_elmo, trainable, dtype):
    embedding = ElmoEmbedding(tiny_elmo, trainable=trainable).to(dtype)
    vectors, mask = embedding(ORDINARY)
    assert vectors.dtype == dtype
    right = expected(tiny_elmo, ORDINARY)
    assert (vectors.float() - right).norm() / right.norm() < {torch.float64: 1e-6}.get(dtype, 0.02)
    vectors[mask].cos().mean().backward()
    learning = [parameter for parameter in embedding.parameters() if parameter.requires_grad]
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() and p.grad.any() for p in learning)


@pytest.mark.parametrize("trainable", ["mix", "all"])
def test_gradient_checkpointing(tiny_elmo, trainable):
    results = []
    for run in (lambda e, s: e(s), lambda e, s: checkpoint(e, s, use_reentrant=False)):
        embedding = ElmoEmbedding(tiny_elmo, trainable=trainable, dropout=0.3)
        torch.manual_seed(0)
        vectors, _ = run(embedding, ORDINARY)
        vectors.cos().sum().backward()
        results.append([vectors, *(p.grad for p in embedding.parameters() if p.requires_grad)])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


def test_two_processes_have_the_gradient_of_both(tiny, tmp_path):
    write_native(tiny, tmp_path / "model")
    worker = Path(__file__).parent / "ddp_worker.py"
    processes = [
        subprocess.Popen([sys.executable, worker, str(rank), tmp_path / "model", tmp_path]) for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    embedding = ElmoEmbedding(tmp_path / "model", trainable="all")
    vectors, _ = embedding([["first", "rows"], ["of", "the", "batch"], ["the"], ["others", "here"]])
    (vectors.square().sum() / 2 + embedding.penalty(0.1)).backward()
    right = {name: parameter.grad for name, parameter in embedding.named_parameters()}
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), right, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": True}, "trainable: expected 'none', 'mix', 'all', found True"),
        ({"n_mixes": 0}, "n_mixes must be at least 1, found 0"),
        ({"mix_weights": [0.0]}, "expected 3 mix weights, one a layer, found 1"),
        ({"mix_weights": [-math.inf] * 3}, "mix weights: expected numbers"),
        ({"mix_weights": [0.0, math.nan, 0.0]}, "mix weights: expected numbers"),
        ({"words": "glove.txt"}, "found str; of a trained model give its `wv`, of a file load_word2vec_format"),
    ],
)
def test_options_that_do_not_fit(tiny_elmo, options, message):
    with pytest.raises(MismatchError, match=message):
        ElmoEmbedding(tiny_elmo, **options)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("The cat", "expected a list of sentences, found the string 'The cat'"),
        ([], "expected at least one sentence, found none"),
        (torch.zeros(2, 3), "character ids of shape .sentences, tokens, 20. int64, found .2, 3. float32"),
        (torch.zeros(1, 2, 50, dtype=torch.int64), "found .1, 2, 50. int64"),
        (torch.full((1, 2, 20), 300), "expected 1 to 261 in every word, found 300"),
        (torch.ones(1, 2, 20, dtype=torch.bool), "found .1, 2, 20. bool"),
        (torch.ones(1, 2, 20, dtype=torch.complex64), "found .1, 2, 20. complex64"),
        (np.ones((1, 2, 20), np.int64), r"expected a list of tokens, found array\("),
        (["The cat", None], "sentence 1: expected a list of tokens, found None .NoneType."),
        (pandas.Series(["The cat", math.nan], index=[7, 3]), "sentence 1: .* found nan"),
        (pandas.DataFrame({"a": ["The cat"]}), "expected a list of sentences, or one column of a frame, found"),
        ({"The cat", "one"}, "expected a list of sentences, or one column of a frame, found"),
        ({"The cat": 1}, "expected a list of sentences, or one column of a frame, found"),
        ([["The", None]], "expected tokens as strings, found None .NoneType. at place 1"),
        ([["The"], [b"cat"]], "expected tokens as strings, found b'cat' .bytes. at place 0"),
    ],
)
def test_input_that_does_not_fit(tiny_elmo, sentences, message):
    for trainable in ("mix", "all"):
        with pytest.raises(MismatchError, match=message):
            ElmoEmbedding(tiny_elmo, trainable=trainable)(sentences)


def test_a_model_that_is_not_there():
    with pytest.raises(UnknownModel):
        ElmoEmbedding("no-such-model")
