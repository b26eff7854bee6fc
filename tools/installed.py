"""Try an installed elmokit in an environment that holds nothing else.

    python tools/installed.py              the base install: embed from Python and from the command line, and find that
                                           everything that needs an extra names the command that installs it
    python tools/installed.py EXTRA...     with these extras: do what each is for

Run it with the Python of that environment; it raises where something is not as it should be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import elmokit
from elmokit import formats
from elmokit.job import embed_file
from elmokit.reading import read_sentences

os.environ.setdefault("KERAS_BACKEND", "torch")
SENTENCES = [["The", "cat", "sat", "."], ["It", "purred", "."]]


def check(true: bool, what: str) -> None:
    if not true:
        raise SystemExit(f"elmokit {elmokit.__version__}: {what}")


# ---------------------------------------------------------------- the base install


def base(elmo: elmokit.Elmo, folder: Path) -> None:
    """Embed in Python and on the command line, save, open again."""
    vectors = list(elmo.embed(SENTENCES, layers="all"))
    shapes = [(elmo.n_layers, len(sentence), elmo.dim) for sentence in SENTENCES]
    check([v.shape for v in vectors] == shapes, "vectors have the wrong shape")
    for ending in ("hdf5", "npz"):
        out = folder / f"vectors.{ending}"
        command("embed", text(folder), out)
        check(out.stat().st_size > 0, f"elmo embed wrote no {ending}")
    elmo.save(folder / "saved")
    check(elmokit.load(folder / "saved").fingerprint == elmo.fingerprint, "saved and opened it is another model")
    check(str(elmo.dim) in command("info", "bundled"), "elmo info does not say how wide the vectors are")


def text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(map(" ".join, SENTENCES)) + "\n", "utf-8")
    return path


def command(*arguments: str | Path) -> str:
    """What `elmo ARGUMENTS` prints."""
    words = [sys.executable, "-m", "elmokit", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"elmo {arguments[0]} failed: {done.stderr}")
    return done.stdout


# ---------------------------------------------------------------- what each extra is for


def arrow(elmo: elmokit.Elmo, folder: Path) -> None:
    embed_file(text(folder), folder / "vectors.parquet", elmo=elmo, progress=False)
    check([*read_sentences(folder / "vectors.parquet", column="tokens")] == SENTENCES, "Parquet gives other tokens")


def keras(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.keras import ElmoEmbedding

    layer = ElmoEmbedding(output="elmo")
    check(layer(layer.prepare(SENTENCES)).shape == (2, 4, elmo.dim), "the layer of Keras gives another shape")


def onnx(elmo: elmokit.Elmo, folder: Path) -> None:
    formats.write(elmo.checkpoint(), folder / "model.onnx", to="onnx")


def ray(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.ray_job import embed_texts

    embed_texts([str(text(folder))], folder / "parts", elmo=elmo, address="local", progress=False)
    check(any((folder / "parts").glob("part-*.parquet")), "Ray wrote no part")


def sentence_transformers(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.sentence_transformers import Elmo

    features = Elmo(elmo).preprocess(["The cat sat."])
    check(features["input_ids"].shape[0] == 1, "sentence-transformers gets another batch")


def sklearn(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.sklearn import ElmoVectorizer

    check(ElmoVectorizer(model=elmo).fit_transform(["cats purr", "dogs bark"]).shape == (2, elmo.dim), "another shape")


def spacy(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.spacy import ElmoComponent  # first, so that elmokit says what is missing

    check(callable(ElmoComponent), "there is no component for spaCy")
    import spacy as framework

    nlp = framework.blank("en")
    nlp.add_pipe("elmo")
    check(nlp("The cat sat").tensor.shape == (3, elmo.dim), "a document of spaCy has another shape")


def train(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.train.report import Board, draw_curve

    board = Board(folder / "events")
    board.add(1, loss=2.0)
    board.close()
    check(any((folder / "events").iterdir()), "there are no event files")
    log = folder / "log.jsonl"
    log.write_text('{"places": 10, "loss": 3.0}\n{"places": 20, "loss": 2.0}\n', "utf-8")
    draw_curve(log, folder / "curve.svg")
    check((folder / "curve.svg").read_text("utf-8").startswith("<svg"), "there is no curve")


def plot(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit import plot
    from elmokit.labelled import LabelledText

    text = LabelledText([["a", "cell", str(n)] for n in range(12)])
    drawn = plot.make_map(elmo, text, words=["cell"], method="pca", progress=False)
    for ending in plot.ENDINGS:
        plot.write(drawn, folder / f"map{ending}")


def search(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.search import Index

    with Index.create(str(folder / "index"), elmo) as index:
        index.update("text", SENTENCES)
        check(index.count() == len(SENTENCES), "the index holds other rows")


def postgres(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.search import Index

    try:
        Index.create("postgresql://nobody@127.0.0.1:9/nothing", elmo)
    except elmokit.MissingExtra:
        raise
    except elmokit.ElmoError as error:  # no server is there, and that is what it says
        check("cannot be reached" in str(error), f"without a server: {error}")


def serve(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.serve import Hosted, Settings, make_app

    check(callable(make_app([Hosted("bundled", elmo)], Settings())), "there is no application to serve")


def tracing(elmo: elmokit.Elmo, folder: Path) -> None:
    from elmokit.serve.tracing import traced

    check(callable(traced(lambda *_: None)), "there is no application that is traced")


def gensim(elmo: elmokit.Elmo, folder: Path) -> None:
    import numpy as np
    from gensim.models import KeyedVectors

    from elmokit.nn import ElmoEmbedding

    words = KeyedVectors(vector_size=2)
    words.add_vectors(["cat"], np.ones((1, 2), np.float32))
    vectors, _ = ElmoEmbedding(elmo, words=words)(SENTENCES)
    check(vectors.shape == (2, 4, elmo.dim + 2), "with word vectors there is another shape")


# An extra, and what needs it. `gensim` is named here for the check with it: only its users import it, elmokit does not.
USES: dict[str, Callable[[elmokit.Elmo, Path], None]] = {
    "arrow": arrow,
    "gensim": gensim,
    "keras": keras,
    "onnx": onnx,
    "plot": plot,
    "postgres": postgres,
    "ray": ray,
    "search": search,
    "sentence-transformers": sentence_transformers,
    "serve": serve,
    "sklearn": sklearn,
    "spacy": spacy,
    "tracing": tracing,
    "train": train,
}


# What is missing first where nothing is there: traces are of the server.
NAMED = {"tracing": "serve"}


def missing(extra: str, elmo: elmokit.Elmo, folder: Path) -> None:
    """Without the extra its use is refused, by a sentence with the command."""
    try:
        USES[extra](elmo, folder)
    except elmokit.MissingExtra as error:
        wanted = f"pip install 'elmokit[{NAMED.get(extra, extra)}]'"
        check(wanted in str(error), f"without {extra}: {error}")
    else:
        check(False, f"{extra} is not missing; is this the base install?")


def main(extras: list[str]) -> None:
    warnings.simplefilter("default")
    elmo = elmokit.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not extras:
            base(elmo, folder)
        for extra in extras or [extra for extra in USES if extra != "gensim"]:
            part = folder / extra
            part.mkdir()
            if extras:
                USES[extra](elmo, part)
                print(f"{extra}: does its work")
            else:
                missing(extra, elmo, part)
                print(f"{extra}: is named where it is missing")


if __name__ == "__main__":
    main(sys.argv[1:])
