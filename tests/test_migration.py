"""Scripts written for the old tools run when their imports are changed, and give what the old tools gave.

To add one, add it to `SCRIPTS`: the text as it was, what each import line becomes, its arguments, and a check.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from recorded import read_lines

ALLENNLP_EMBEDDER = '''\
"""Write the mean vector of each layer for every sentence of a file, and all vectors of the first one."""
import sys

import numpy as np
from allennlp.commands.elmo import ElmoEmbedder

options_file, weight_file, text_file, out_file = sys.argv[1:]

elmo = ElmoEmbedder(options_file=options_file, weight_file=weight_file, cuda_device=-1)

with open(text_file, encoding="utf-8") as fin:
    sentences = [line.strip().split() for line in fin]

vectors = []
for embedding in elmo.embed_sentences(sentences, batch_size=3):
    # layers x tokens x dimension
    assert len(embedding) == 3
    if embedding.shape[1] > 0:
        vectors.append(embedding.mean(axis=1))

elmo.elmo_bilm._elmo_lstm.reset_states()
tokens = sentences[0]
first = elmo.embed_sentence(tokens)
assert first.shape[1] == len(tokens)
batch = elmo.embed_batch([tokens, sentences[1]])

np.savez(out_file, means=np.array(vectors), first=first, again=batch[0], second=batch[1])
'''


def check_allennlp_embedder(found, folder):
    expected = np.load(folder / "expected.npz")
    places = [i for i, sentence in enumerate(read_lines(folder / "sentences.txt")) if sentence]
    means = [expected[f"allennlp_carried_{i}"].mean(axis=1) for i in places]
    np.testing.assert_allclose(found["means"], means, atol=6.6e-6)
    np.testing.assert_allclose(found["first"], expected["allennlp_fresh_0"], atol=6.6e-6)
    np.testing.assert_allclose(found["second"], expected["allennlp_fresh_1"], atol=6.6e-6)
    assert np.abs(found["again"] - found["first"]).max() > 1e-3  # the state flows on


TFHUB_TOKENS = '''\
"""The example of the module's page: tokens with lengths."""
import json
import sys

import numpy as np
import tensorflow_hub as hub

module_path, text_file, out_file = sys.argv[1:]

with open(text_file, encoding="utf-8") as fin:
    sentences = [line.split() for line in fin]
max_len = max(len(sentence) for sentence in sentences)
tokens_length = [len(sentence) for sentence in sentences]
tokens_input = [sentence + [""] * (max_len - len(sentence)) for sentence in sentences]

elmo = hub.Module(module_path, trainable=True)
embeddings = elmo(
    inputs={
        "tokens": tokens_input,
        "sequence_len": tokens_length
    },
    signature="tokens",
    as_dict=True)["elmo"]

assert embeddings.shape[:2] == (len(sentences), max_len)
np.savez(out_file, embeddings=embeddings)
'''


def check_tfhub_tokens(found, folder):
    expected = np.load(folder / "expected.npz")
    np.testing.assert_allclose(found["embeddings"], expected["tokens_elmo"], atol=5e-6)


ELMOFORMANYLANGS = '''\
"""Sentence vectors of a tokenised file, and all layers for a closer look."""
import sys

import numpy as np
from elmoformanylangs import Embedder

model_dir, text_file, out_file = sys.argv[1:]

e = Embedder(model_dir, batch_size=64)

with open(text_file, encoding="utf-8") as fin:
    sents = [line.rstrip("\\n").split(" ") for line in fin]

outputs = e.sents2elmo(sents)
sentence_vectors = [np.mean(output, axis=0) for output in outputs]

layers = e.sents2elmo(sents, output_layer=-2)
for sent, layer in zip(sents, layers):
    assert layer.shape[:2] == (3, len(sent))

arrays = {"layers_%d" % i: layer for i, layer in enumerate(layers)}
np.savez(out_file, sentences=np.array(sentence_vectors), **arrays)
'''


def check_elmoformanylangs(found, folder):
    expected = np.load(folder / "expected.npz")
    n = len(read_lines(folder / "sentences.txt"))
    means = [expected[f"layerm1_{i}"].mean(axis=0) for i in range(n)]
    np.testing.assert_allclose(found["sentences"], means, rtol=0, atol=1e-5)
    for i in range(n):  # the state flows on
        np.testing.assert_allclose(found[f"layers_{i}"], expected[f"second_call_layerm2_{i}"], rtol=0, atol=1e-5)


@dataclass(frozen=True)
class Script:
    """`text`: as it was; `imports`: old line -> new line; `entry`: the recorded model; `arguments`: files of it.

    The script's last argument is an NPZ file to write, which `check` gets with the folder of the entry.
    """

    text: str
    imports: dict[str, str]
    entry: str
    arguments: tuple[str, ...]
    check: Callable


SCRIPTS = {
    "AllenNLP, ElmoEmbedder": Script(
        ALLENNLP_EMBEDDER,
        {"from allennlp.commands.elmo import ElmoEmbedder": "from elmokit.compat.allennlp import ElmoEmbedder"},
        "alnlp-hardclip",
        ("options.json", "weights.hdf5", "sentences.txt"),
        check_allennlp_embedder,
    ),
    "TF-Hub, tokens with lengths": Script(
        TFHUB_TOKENS,
        {"import tensorflow_hub as hub": "from elmokit.compat import tfhub as hub"},
        "tfhub",
        ("module", "sentences.txt"),
        check_tfhub_tokens,
    ),
    "ELMoForManyLangs, Embedder": Script(
        ELMOFORMANYLANGS,
        {"from elmoformanylangs import Embedder": "from elmokit.compat.elmoformanylangs import Embedder"},
        "emfl-cnn-char-word",
        (".", "sentences.txt"),
        check_elmoformanylangs,
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_old_script_runs_with_its_imports_changed(oracles, tmp_path, name):
    script = SCRIPTS[name]
    folder, path, out = oracles / script.entry, tmp_path / "script.py", tmp_path / "out.npz"
    lines = script.text.splitlines()
    assert all(lines.count(old) == 1 for old in script.imports)
    path.write_text("\n".join(script.imports.get(line, line) for line in lines), "utf-8")
    command = [sys.executable, "-W", "error", path, *(folder / argument for argument in script.arguments), out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    with np.load(out) as found:
        script.check(dict(found), folder)
