"""The command: what each way of using it gives, and one plain sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import elmokit
from checkpoints import SPECIALS, assert_same, pack
from conftest import make_checkpoint, make_config
from elmokit import formats
from elmokit.checkpoint import Checkpoint, write_native
from elmokit.errors import ElmoError, MismatchError
from elmokit.formats import allennlp
from elmokit.lm import LanguageModel
from elmokit.model import Elmo

TEXT = "The cat sat on the mat .\n\nOne\nThe cat again\n"
SENTENCES = [line.split() for line in TEXT.splitlines()]


@pytest.fixture(scope="module")
def checkpoint():
    made = make_checkpoint(make_config(dim=6), vocabulary=(*SPECIALS, "the"))
    return Checkpoint(made.config, made.arrays, made.vocabulary, card="# A tiny model\n")


@pytest.fixture(scope="module")
def elmo(checkpoint):
    return Elmo(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_native(checkpoint, folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def run(here, run):
    """`run` of all tests, in that folder."""
    return run


@pytest.fixture
def done(run):
    """Run what must succeed; return standard output."""

    def done(*args, stdin=b""):
        code, out, err = run(*args, stdin=stdin)
        assert code == 0, err
        return out

    return done


@pytest.fixture
def refused(run, here):
    """Run what must end with one plain sentence, exit code 1 and nothing new in the folder; return the sentence."""

    def refused(*args, stdin=b""):
        before = sorted(here.rglob("*"))
        code, out, err = run(*args, stdin=stdin)
        assert code == 1
        assert out == ""
        assert "Traceback" not in err
        [sentence] = [line for line in err.splitlines() if line.startswith("elmo: ")]
        assert err.endswith(sentence + "\n")
        assert sorted(here.rglob("*")) == before
        return sentence

    return refused


def read(path):
    """The arrays of an HDF5 or NPZ file in the order of the lines."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return [arrays[str(i)] for i in range(len(arrays))]
    with h5py.File(path) as file:
        return [file[str(i)][()] for i in range(len(file) - ("sentence_to_index" in file))]


def assert_close(found, expected):
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=1e-6)


# ---------------------------------------------------------------- embed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--average"], {"layers": "average"}),
        (["--top"], {"layers": "top"}),
        (["--all"], {"layers": "all"}),
        (["--pool", "mean"], {"pool": "mean"}),
        (["--pool", "max", "--all"], {"pool": "max", "layers": "all"}),
        (["--batch-size", "1"], {}),
        (["--state", "carry", "--batch-size", "2"], {"state": "carry", "batch_size": 2}),
        (["--save-every", "1", "--threads", "1"], {}),
    ],
)
@pytest.mark.parametrize("ending", ["hdf5", "npz"])
def test_embed_writes_what_the_library_gives(done, here, model, elmo, options, expected, ending):
    done("embed", "text.txt", f"out.{ending}", "--model", model, *options)
    assert_close(read(here / f"out.{ending}"), elmo.embed(SENTENCES, **expected))
    assert sorted(path.name for path in here.iterdir()) == [f"out.{ending}", "text.txt"]


def test_embed_to_parquet(done, here, model, elmo):
    parquet = pytest.importorskip("pyarrow.parquet")
    done("embed", "text.txt", "out.parquet", "--model", model)
    table = parquet.read_table(here / "out.parquet")
    assert table["tokens"].to_pylist() == SENTENCES
    assert table["sentence"].to_pylist() == [0, 1, 2, 3]


def test_half_precision(done, here, model, elmo):
    done("embed", "text.txt", "out.hdf5", "--model", model, "--dtype", "float16")
    for found, vectors in zip(read(here / "out.hdf5"), elmo.embed(SENTENCES), strict=True):
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, vectors, atol=2e-3)


def test_coarse_products(done, refused, here, model, elmo):
    done("embed", "text.txt", "out.npz", "--model", model, "--precision", "bfloat16", "--device", "cpu")
    for found, vectors in zip(read(here / "out.npz"), elmo.embed(SENTENCES), strict=True):
        np.testing.assert_allclose(found, vectors, atol=0.05)
    assert "device 'cuda:99' cannot be used" in refused(
        "embed", "text.txt", "no.npz", "--model", model, "--device", "cuda:99"
    )


def test_standard_input_and_raw_text(done, here, model, elmo):
    done("embed", "-", "out.npz", "--model", model, stdin=TEXT.encode())
    assert_close(read(here / "out.npz"), elmo.embed(SENTENCES))
    done("embed", "-", "raw.npz", "--model", model, "--tokenize", stdin=b"The cat sat. It purred!\n\n")
    assert_close(read(here / "raw.npz"), elmo.embed(["The cat sat .".split(), "It purred !".split()]))


def test_symbols_and_columns(done, refused, here, model, elmo):
    sequences = [list("MKV"), list("AC")]
    done("embed", "-", "symbols.npz", "--model", model, "--symbols", stdin=b"MKV\nA C\n")
    assert_close(read(here / "symbols.npz"), elmo.embed(sequences))
    parquet.write_table(pa.table({"id": ["x", "y"], "sequence": ["M K V", "A C"]}), here / "table.parquet")
    assert "columns of strings: id, sequence; name one with --column" in refused(
        "embed", "table.parquet", "table.npz", "--model", model
    )
    done("embed", "table.parquet", "table.npz", "--model", model, "--column", "sequence")
    assert_close(read(here / "table.npz"), elmo.embed(sequences))


def test_sentence_keys_of_allennlp(done, here, model):
    done("embed", "-", "keys.hdf5", "--model", model, "--use-sentence-keys", stdin=b"a b\nc\n")
    done("embed", "-", "numbers.hdf5", "--model", model, "--forget-sentences", stdin=b"a b\nc\n")
    with h5py.File(here / "keys.hdf5") as keys, h5py.File(here / "numbers.hdf5") as numbers:
        assert (sorted(keys), sorted(numbers)) == (["a b", "c"], ["0", "1"])


def test_a_warmed_state(done, refused, here, model, elmo):
    assert "stores no warmed state" in refused("embed", "text.txt", "out.npz", "--model", model, "--state", "warm")
    (here / "first.txt").write_text("warm it up .\nand again .\n")
    done("embed", "text.txt", "out.npz", "--model", model, "--state", "warm", "--warm-up", "first.txt")
    warmed = elmo.warm(["warm it up .".split(), "and again .".split()])
    assert_close(read(here / "out.npz"), warmed.embed(SENTENCES, state="warm"))
    warmed.save(here / "warmed")
    done("embed", "text.txt", "stored.npz", "--model", "warmed", "--state", "warm")
    assert_close(read(here / "stored.npz"), read(here / "out.npz"))


def test_raw_text_is_warmed_up_with_raw_text(done, here, model, elmo):
    (here / "first.txt").write_text("Warm it up. And again.\n")
    options = ("--model", model, "--tokenize", "--state", "warm", "--warm-up", "first.txt")
    done("embed", "-", "out.npz", *options, stdin=b"The cat.\n")
    warmed = elmo.warm(["Warm it up .".split(), "And again .".split()])
    assert_close(read(here / "out.npz"), warmed.embed([["The", "cat", "."]], state="warm"))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_models_of_allennlp(done, here, checkpoint, elmo, kind):
    allennlp.write(checkpoint, here / "theirs")
    pack(here / "theirs.zip", {path.name: path.read_bytes() for path in (here / "theirs").iterdir()})
    done("embed", "text.txt", "out.npz", "--model", "theirs" + ".zip" * (kind == "zip"))
    assert_close(read(here / "out.npz"), elmo.embed(SENTENCES))


STRANGE = [
    "x" * 100_000,
    "a\x00b \x00",
    "\U0001f98a \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\u0301",
    "שלום עולם \u200fימין",
    "<S> the </S> <UNK> <S>",
    "",
    "a\u00a0b\u2028c\x85d",
    "\ufeff",
]


def test_strange_text_gives_defined_vectors(done, here, model, elmo):
    done("embed", "-", "out.hdf5", "--model", model, "--all", stdin="\n".join(STRANGE).encode() + b"\r\n")
    sentences = [line.split() for line in STRANGE]
    found = read(here / "out.hdf5")
    assert [x.shape[1] for x in found] == [1, 2, 3, 3, 5, 0, 4, 1]
    assert_close(found, elmo.embed(sentences, layers="all"))
    assert all(np.isfinite(x).all() for x in found)


def test_a_line_of_50_000_tokens(done, here):
    small = make_config(n_layers=1, dim=2, projection_dim=2, filters=((1, 2),), max_characters=5, n_highway=0)
    write_native(make_checkpoint(small), here / "small")
    done("embed", "-", "out.npz", "--model", "small", stdin=b"a b " * 25_000 + b"\nc\n")
    long, short = read(here / "out.npz")
    assert (long.shape, short.shape) == ((50_000, 4), (1, 4))
    assert np.isfinite(long).all()


# ---------------------------------------------------------------- embed: what is wrong


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        ("absent.txt", None, "absent.txt cannot be read (No such file or directory)"),
        (".", None, ". is a directory, expected a text file"),
        ("bad.txt", b"", "bad.txt holds no sentence; there is nothing to embed"),
        ("bad.txt", b"ok\nok\nna\xefve\n", "bad.txt, line 3, byte 3: expected UTF-8, found byte 0xef"),
        ("bad.txt", "naïve".encode("utf-16"), "bad.txt, line 1, byte 1: expected UTF-8"),
        ("bad.gz", b"not compressed", "bad.gz cannot be read (Not a gzipped file"),
        ("bad.xz", b"\xfd7zXZ\x00", "bad.xz cannot be read ("),
        ("-", b"\xff", "standard input, line 1, byte 1: expected UTF-8"),
        ("-", b"", "holds no sentence"),
    ],
)
def test_texts_that_cannot_be_embedded(refused, here, model, text, content, message):
    if content is not None and text != "-":
        (here / text).write_bytes(content)
    assert message in refused("embed", text, "out.hdf5", "--model", model, stdin=content or b"")


def truncate(folder):
    content = (folder / "weights.hdf5").read_bytes()
    (folder / "weights.hdf5").write_bytes(content[: len(content) // 2])


def reshape(folder):
    with h5py.File(folder / "weights.hdf5", "a") as file:
        del file["CNN_proj/W_proj"]
        file["CNN_proj/W_proj"] = np.zeros((12, 5), np.float32)


def add_option(folder):
    options = json.loads((folder / "options.json").read_text())
    (folder / "options.json").write_text(json.dumps({**options, "layer\nnorm": True}))


@pytest.mark.parametrize("command", ["embed", "info", "convert"])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("absent", None, "there is no model at absent, and no published model 'absent'; run  elmo models"),
        ("a" * 300, None, "there is no model at aaaaa"),
        ("text.txt", None, "text.txt is neither a model folder nor an archive"),
        ("theirs", truncate, "weights.hdf5 is not a whole HDF5 file (truncated file"),
        ("theirs", reshape, "dataset 'CNN_proj/W_proj': expected shape (12, 4), found (12, 5)"),
        ("theirs", add_option, r"option 'layer\nnorm' is not understood (value True)"),
    ],
)
def test_models_that_cannot_be_opened(refused, here, checkpoint, command, name, damage, message):
    allennlp.write(checkpoint, here / "theirs")
    if damage:
        damage(here / "theirs")
    args = {"embed": ["text.txt", "out.npz", "--model", name], "info": [name], "convert": [name, "target"]}
    assert message in refused(command, *args[command])


def test_files_of_a_model_that_are_not_there(refused, here, checkpoint):
    allennlp.write(checkpoint, here / "theirs")
    for option in (["--weights"], ["--vocabulary", "text.txt", "--softmax"]):
        found = refused("info", "theirs/options.json", *option, "absent.hdf5")
        assert "absent.hdf5 cannot be read (No such file or directory); check the path" in found


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out.txt", "out.txt"),
        ("there.npz", "there.npz exists; choose another name, or replace it with --force"),
        ("folder.npz", "folder.npz is a directory"),
        ("absent/out.npz", "the folder absent does not exist; make it first"),
    ],
)
def test_outputs_that_cannot_be_written(refused, here, model, out, message):
    (here / "there.npz").write_bytes(b"precious")
    (here / "folder.npz").mkdir()
    assert message in refused("embed", "text.txt", out, "--model", model)
    assert (here / "there.npz").read_bytes() == b"precious"


def test_force_replaces(done, here, model):
    (here / "out.npz").write_bytes(b"old")
    done("embed", "text.txt", "out.npz", "--model", model, "--force")
    assert len(read(here / "out.npz")) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["embed"], "Missing argument"),
        (["embed", "text.txt", "out.npz", "--all", "--top"], "choose one"),
        (["embed", "text.txt", "out.npz", "--average", "--top"], "choose one"),
        (["embed", "text.txt", "out.npz", "--average", "--mix"], "choose one"),
        (["embed", "text.txt", "out.npz", "--pool", "sum"], "--pool"),
        (["embed", "text.txt", "out.npz", "--batch-size", "0"], "--batch-size"),
        (["embed", "text.txt", "out.npz", "--batch-size", "x"], "--batch-size"),
        (["embed", "text.txt", "out.npz", "--warm-up", "text.txt"], "only --state warm starts from it"),
        (["embed", "text.txt", "out.npz", "--no-such-option"], "--no-such-option"),
        (["convert", "model", "target", "--to", "allennlp", "--dtype", "float16"], "only our own format"),
        (["convert", "model", "target", "--to", "onnx"], "--to"),
        (["train", "--out", "folder"], "name at least one text"),
        (["nonsense"], "nonsense"),
        ([], "Usage"),
    ],
)
def test_wrong_usage_ends_with_2(run, here, args, message):
    code, out, err = run(*args)
    assert code == 2
    assert message in err + out
    assert "Traceback" not in err
    assert [path.name for path in here.iterdir()] == ["text.txt"]


# ---------------------------------------------------------------- info and convert


def test_info_for_people(done, model):
    facts = dict(re.split(r": +", line, maxsplit=1) for line in done("info", model).splitlines())
    assert facts["format"] == "elmokit"
    assert facts["lstm"].startswith("2 layers of 6 cells, projection 4, cell clip 3.0")
    assert facts["vectors"] == "3 layers of width 8"
    assert facts["head"] == "softmax over 4 words"
    assert facts["can"] == "embed, convert, perplexity, score, substitutes"


def test_info_for_programs(done, here, checkpoint, elmo):
    allennlp.write(checkpoint, here / "theirs")
    facts = json.loads(done("info", "theirs", "--json"))
    assert facts["format"] == "AllenNLP / bilm-tf"
    assert facts["head"] == "softmax over 4 words"
    elmo.warm([["a"]]).save(here / "warmed")
    can = ["embed", "convert", "embed --state warm", "perplexity", "score", "substitutes"]
    assert json.loads(done("info", "warmed", "--json"))["can"] == can


def test_info_promises_what_the_model_can_do(done, here, checkpoint, elmo):
    """Words are predicted by a head whose words are known."""
    write_native(replace(checkpoint, arrays=elmo.network.arrays()), here / "headless")
    assert json.loads(done("info", "headless", "--json"))["can"] == ["embed", "convert"]
    with pytest.raises(MismatchError):
        LanguageModel(elmokit.load(here / "headless"))
    allennlp.write(checkpoint, here / "theirs")
    can = json.loads(done("info", "theirs", "--json"))["can"]
    assert ("score" in can) == (elmokit.load(here / "theirs").vocabulary is not None)


def test_convert_there_and_back(run, here, model, checkpoint):
    code, out, err = run("convert", model, "theirs", "--to", "allennlp")
    assert (code, out) == (0, "")
    assert err == "not part of the target, left out: the model card\n"
    assert run("convert", "theirs", "ours") == (0, "", "")
    assert_same(formats.read(here / "ours"), checkpoint)
    assert run("convert", "theirs", "ours.zip") == (0, "", "")
    assert_same(formats.read(here / "ours.zip"), checkpoint)
    assert run("convert", "theirs", "half", "--dtype", "float16") == (0, "", "")
    sizes = [(here / name / "model.safetensors").stat().st_size for name in ("ours", "half")]
    assert sizes[1] < 0.7 * sizes[0]


def test_the_trained_mix_of_a_tfhub_module(oracles, done, refused, model, tmp_path):
    folder = oracles / "tfhub"
    done("embed", folder / "sentences.txt", "out.npz", "--model", folder / "module.tar.gz", "--mix")
    with np.load("out.npz") as found:
        lengths = [len(line.split()) for line in (folder / "sentences.txt").read_text("utf-8").split("\n")]
        for i, expected in enumerate(np.load(folder / "expected.npz")["tokens_elmo"]):
            np.testing.assert_allclose(found[str(i)], expected[: lengths[i]], atol=5e-6)
    assert "holds 0 trained mixes" in refused("embed", "text.txt", "no.npz", "--model", model, "--mix")


def test_convert_does_not_write_over_anything(refused, here, model):
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("years of work")
    for target in ("full", "text.txt"):
        for to in ("elmokit", "allennlp"):
            sentence = refused("convert", model, target, "--to", to)
            assert f"{target} exists and is not an empty folder" in sentence
    assert "cannot be written" in refused("convert", model, "text.txt/below")


def test_an_empty_folder_may_be_the_target(done, here, model):
    (here / "empty").mkdir()
    done("convert", model, "empty")
    assert_same(formats.read(here / "empty"), formats.read(model))


def test_options_of_a_new_model_that_cannot_be_read(refused):
    train = ("train", "text.txt", "--out", "folder", "--options")
    assert "absent.json cannot be read" in refused(*train, "absent.json")
    assert "text.txt: expected JSON" in refused(*train, "text.txt")


# ---------------------------------------------------------------- the whole command


def test_version_and_help(done):
    assert done("--version") == f"{elmokit.__version__}\n"
    for command in ("embed", "info", "convert", "train"):
        assert command in done("--help")
        assert "Usage" in done(command, "--help")


def test_debug_shows_the_trace(run, model):
    with pytest.raises(ElmoError, match=r"absent\.txt cannot be read"):
        run("--debug", "embed", "absent.txt", "out.npz", "--model", model)


def test_an_interruption_before_anything_is_safe(run, here, model, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("elmokit.job.embed_file", interrupt)
    assert run("embed", "text.txt", "out.npz", "--model", model) == (130, "", "interrupted; nothing is saved\n")
    monkeypatch.setattr("elmokit.model.load", interrupt)
    assert run("embed", "text.txt", "out.npz", "--model", model) == (130, "", "interrupted; nothing is saved\n")


def start(*args, **pipes):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "elmokit", *map(str, args)]
    # A test run in the background of a shell ignores Ctrl-C, and what it starts would too.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **pipes, **heed)


def test_letters_that_the_output_lacks_are_spelled_out(here, model, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (here / "text.txt").write_text("naïve 北京\n", "utf-8")
    commands = [["models"], ["models", "--json"], ["substitutes", model, "text.txt", "-k", "1"]]
    commands += [["substitutes", model, "text.txt", "-k", "1", "--json"], ["info", "北京"]]
    found = [start(*command, stdout=subprocess.PIPE).communicate(timeout=120) for command in commands]
    assert b"Bokm\\xe5l" in found[0][0]
    assert any("Bokmål" in entry["title"] for entry in json.loads(found[1][0]))
    assert b"na\\xefve" in found[2][0]
    assert [json.loads(line)["token"] for line in found[3][0].splitlines()] == ["naïve", "北京"]
    assert found[4][1].startswith(b"elmo: there is no model at \\u5317\\u4eac")


def test_a_process_prints_one_sentence_or_with_debug_the_trace(here):
    plain, debug = start("info", "absent"), start("--debug", "info", "absent")
    sentence = b"elmo: there is no model at absent, and no published model 'absent'; run  elmo models  for all names\n"
    assert plain.communicate(timeout=120)[1] == sentence
    assert plain.returncode == 1
    trace = debug.communicate(timeout=120)[1]
    assert trace.startswith(b"Traceback")
    assert b"UnknownModel: there is no model at absent" in trace
    assert debug.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_interrupted_and_continued_it_is_the_same_file(done, refused, here, model):
    """Ctrl-C in the middle: standard input stays open, so that the process is surely not at its end."""
    text = "".join(f"sentence number {i} .\n" for i in range(9))
    (here / "text.txt").write_text(text)
    done("embed", "text.txt", "whole.hdf5", "--model", model, "--save-every", "2")
    process = start("embed", "-", "out.hdf5", "--model", model, "--save-every", "2", stdin=subprocess.PIPE)
    process.stdin.write(text[: text.index("sentence number 6")].encode())
    process.stdin.flush()
    progress, deadline = here / "out.hdf5.partial" / "progress.json", time.monotonic() + 120
    while not (progress.exists() and json.loads(progress.read_text())["sentences"] >= 4):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.endswith(
        "interrupted; what is done is safe in out.hdf5.partial, run the same command with --resume to continue\n"
    )
    assert not (here / "out.hdf5").exists()
    again = ("embed", "text.txt", "out.hdf5", "--model", model, "--save-every", "2")
    assert "out.hdf5.partial holds an interrupted run: continue it with --resume" in refused(*again)
    done(*again, "--resume")
    assert (here / "out.hdf5").read_bytes() == (here / "whole.hdf5").read_bytes()
    assert not (here / "out.hdf5.partial").exists()
