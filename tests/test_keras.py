"""The layers of Keras, in a process for each backend: Keras takes one when it is imported and keeps it."""

import json
import lzma
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from elmokit import formats
from elmokit.model import Elmo

TESTS = Path(__file__).parent
EXAMPLE = TESTS.parent / "examples" / "keras_imdb.py"
# Where `make test` puts TensorFlow, apart from packages that want other versions of what it needs.
TENSORFLOW = Path(sys.prefix) / "tensorflow"
missing = pytest.mark.skipif(not find_spec("tensorflow") and not TENSORFLOW.is_dir(), reason="no TensorFlow here")
BACKENDS = ["torch", "jax", pytest.param("tensorflow", marks=missing)]

# Without torch: importing, opening the bundled model, and computing.
WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch was imported")
sys.meta_path.insert(0, NoTorch())
import numpy as np
from elmokit.keras import ElmoEmbedding
elmo = ElmoEmbedding(output="elmo")
np.save(sys.argv[1], elmo(elmo.prepare(["The cat sat .", "It purred ."])))
"""


def run(backend, *command):
    """Run Python with this backend to its end; return what it printed."""
    before = [str(TENSORFLOW)] if backend == "tensorflow" else []
    path = os.pathsep.join([*before, *filter(None, sys.path)])
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    settings |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling is what takes the time
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_each_backend(backend):
    """See `keras_checks.py`."""
    run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(TESTS / "keras_checks.py"))


def test_torch_is_not_needed(tmp_path):
    run("jax", "-c", WITHOUT_TORCH, str(tmp_path / "found.npy"))
    found = np.load(tmp_path / "found.npy")
    elmo = Elmo(formats.read(formats.BUNDLED))
    for sentence, vectors in zip([["The", "cat", "sat", "."], ["It", "purred", "."]], found, strict=True):
        (expected,) = elmo.embed([sentence])
        np.testing.assert_allclose(vectors[: len(sentence)], expected, atol=1e-5)


SAVED_AND_OPENED = """
import sys
import keras
import numpy as np
from elmokit.keras import ElmoEmbedding
path, given = sys.argv[1:]
if given == "save":
    elmo = ElmoEmbedding(name="elmo")
    words = keras.Input((None, elmo.words.width), dtype=elmo.words.dtype)
    keras.Model(words, keras.layers.Dense(2)(elmo(words))).save(path)
model = keras.models.load_model(path)
words = model.get_layer("elmo").prepare(["The cat sat .", "It purred"])
print(model.predict(words, verbose=0).tolist())
"""


def test_a_model_saved_on_one_backend_opens_on_another(tmp_path):
    saved = run("torch", "-c", SAVED_AND_OPENED, str(tmp_path / "model.keras"), "save")
    opened = run("jax", "-c", SAVED_AND_OPENED, str(tmp_path / "model.keras"), "open")
    np.testing.assert_allclose(json.loads(opened), json.loads(saved), atol=1e-5)


def test_a_missing_package_is_named():
    program = "import sys; sys.modules['keras'] = None; from elmokit.errors import MissingExtra\n"
    program += "try:\n    import elmokit.keras\nexcept MissingExtra as error:\n    print(error)"
    assert "pip install 'elmokit[keras]'" in run("torch", "-c", program)


def test_a_missing_backend_is_named():
    program = "import sys; sys.modules['tensorflow'] = None; from elmokit.errors import MissingExtra\n"
    program += "try:\n    import elmokit.keras\nexcept MissingExtra as error:\n    print(error)"
    told = run("tensorflow", "-c", program)
    assert "the package 'keras', which cannot be imported (No module named 'tensorflow" in told
    assert "and the backend that KERAS_BACKEND names: torch, jax or tensorflow" in told
    told = run("jax", "-c", program.replace("elmokit.keras\n", "elmokit.keras.strings\n"))
    assert told.startswith("strings in a model need TensorFlow: ")


def run_example(backend, reviews, count):
    printed = run(backend, str(EXAMPLE), str(reviews), "--reviews", str(count), "--epochs", "1")
    accuracy = re.search(rf"accuracy on {count // 10} other reviews: (0\.\d+|1\.0+)$", printed.strip())
    assert accuracy, printed
    return float(accuracy[1])


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the examples are not beside the tests")
def test_the_example_runs(tmp_path):
    reviews = [{"text": f"a {word} film", "label": label} for word, label in (("good", "pos"), ("bad", "neg"))]
    with lzma.open(tmp_path / "reviews.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(review) + "\n" for review in reviews * 20)
    run_example("torch", tmp_path / "reviews.jsonl.xz", 20)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tutorial_learns_from_reviews_of_films(shared_data, backend):
    reviews = shared_data / "tasks" / "imdb" / "train.jsonl.xz"
    if not reviews.is_file():
        pytest.skip(f"the reviews are not here ({reviews})")
    assert run_example(backend, reviews, 1000) > 0.55
