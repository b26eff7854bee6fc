"""The embed job: whatever happens on the way, the output is whole or absent, and a resumed run gives the same file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from elmokit import job
from elmokit.errors import MismatchError, OutputError, TextError
from elmokit.sinks import partial

ENDINGS = [".hdf5", ".parquet", ".npz"]
INDEX = "sentence_to_index"
unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix")


class Fake:
    """A model whose vectors depend on the sentence, on its neighbours in a window, and on the state carried."""

    dim = 3
    n_layers = 2
    fingerprint = "fake"

    def __init__(self, *, sleep=0.0, interrupt_at=None):
        self.sleep = sleep
        self.interrupt_at = interrupt_at
        self.seen = 0

    def embed(self, sentences, *, layers, pool, state, batch_size):
        window = []
        for sentence in sentences:
            window.append(sentence)
            if len(window) == batch_size:
                yield from self.run(window, layers, pool, state)
                window = []
        yield from self.run(window, layers, pool, state)

    def run(self, window, layers, pool, state):
        carried = carry(state, window)
        for place, sentence in enumerate(window):
            time.sleep(self.sleep)
            self.seen += 1
            if self.seen == self.interrupt_at:
                raise KeyboardInterrupt
            value = np.float32(len(window) + place / 7 + carried)
            array = np.full((2, len(sentence), 3), value) * np.arange(1, 4, dtype=np.float32)
            array = array if layers == "all" else array[0]
            yield array if pool == "none" else array.sum(-2)


def carry(state, window):
    """Add up the tokens of all windows in a state, as an LSTM would add up what it reads."""
    if isinstance(state, str):
        return 0
    import torch

    from elmokit.network import State

    old = state.state.h if state.state else torch.zeros(1, 2, 1, 3)
    state.state = State(old + sum(map(len, window)) / 9, old[..., :1])
    return float(old[0, 0, 0, 0])


def embed(text, out, **options):
    """Run a job with small segments and windows."""
    settings = {"elmo": Fake(), "save_every": 10, "batch_size": 4, "progress": False, **options}
    return job.embed_file(text, out, **settings)


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt", 47)


def write_text(path, lines):
    path.write_text("".join(f"{'wörd ' * (n % 6)}{n % 6 and n % 9}\n" for n in range(lines)), encoding="utf-8")
    return path


def contents(path):
    """All that a reader finds in a file, in order."""
    if path.suffix == ".hdf5":
        with h5py.File(path) as file:
            return [(key, item[()].tobytes() if key != INDEX else item[0], item.shape) for key, item in file.items()]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return [(key, arrays[key].tobytes(), arrays[key].shape) for key in arrays]
    import pyarrow.parquet as pq

    return pq.read_table(path)


def assert_nothing_beside(out):
    assert not out.with_name(out.name + ".partial").exists()


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("save_every", [10, 1000])
def test_a_run_writes_every_line_and_leaves_nothing_beside(ending, save_every, text, tmp_path):
    out = tmp_path / f"x{ending}"
    summary = embed(text, out, save_every=save_every)
    assert (summary.sentences, summary.resumed_sentences) == (47, 0)
    assert summary.tokens == len(text.read_text(encoding="utf-8").split())
    assert len(contents(out)) == 47 + (ending == ".hdf5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt", out.name]


def test_numbers_and_sentences_belong_together(text, tmp_path):
    embed(text, tmp_path / "x.parquet", layers="all")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    assert table["sentence"] == list(range(47))
    assert table["tokens"] == [line.split() for line in text.read_text(encoding="utf-8").splitlines()]
    assert [len(vectors) for vectors in table["layer_1"]] == [len(tokens) for tokens in table["tokens"]]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (5, 3)),
        ({"layers": "all"}, (2, 5, 3)),
        ({"pool": "mean"}, (3,)),
        ({"layers": "all", "pool": "max"}, (2, 3)),
        ({"layers": [0.5, np.float32(0.5)]}, (5, 3)),
    ],
)
def test_options_reach_the_model_and_the_file(options, shape, text, tmp_path):
    embed(text, tmp_path / "x.hdf5", dtype="float16", **options)
    with h5py.File(tmp_path / "x.hdf5") as file:
        assert file["4"].shape == shape
        assert file["4"].dtype == np.float16


def test_sentences_as_keys_over_all_segments(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {n} and/or\n" for n in range(25)))
    embed(text, tmp_path / "x.hdf5", use_sentence_keys=True)
    with h5py.File(tmp_path / "x.hdf5") as file:
        assert file["line 24 and/or"].shape == (3, 3)
        assert INDEX not in file
    with text.open("a") as stream:
        stream.write("line 3 and/or\n")
    with pytest.raises(OutputError, match=r"sentence 25 .* earlier sentence has the same key"):
        embed(text, tmp_path / "y.hdf5", use_sentence_keys=True)


def test_forgotten_sentences_are_not_in_the_file(text, tmp_path):
    embed(text, tmp_path / "x.h5", forget_sentences=True)
    with h5py.File(tmp_path / "x.h5") as file:
        assert len(file) == 47


def test_standard_input(tmp_path, text):
    program = f"{HEADER} t.embed('-', t.Path({str(tmp_path / 'x.npz')!r}))"
    with text.open("rb") as stream:
        subprocess.run([sys.executable, "-c", program], stdin=stream, check=True, timeout=120)
    embed(text, tmp_path / "y.npz")
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_the_bar_is_on_standard_error_and_can_be_left_out(text, tmp_path, capsys):
    embed(text, tmp_path / "x.npz", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "sentences" in shown.err
    embed(text, tmp_path / "y.npz", progress=False)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- what is refused


def test_a_text_without_sentences_leaves_nothing_behind(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(TextError, match=r"empty\.txt holds no sentence"):
        embed(tmp_path / "empty.txt", tmp_path / "x.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_an_error_in_the_first_segment_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    for name in ("x.hdf5", "x.npz", "x.parquet"):
        with pytest.raises(TextError, match=r"bad\.txt, line 2"):
            embed(tmp_path / "bad.txt", tmp_path / name)
    with pytest.raises(TextError):
        embed(tmp_path / "absent.txt", tmp_path / "x.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]


def test_an_output_that_exists_needs_force(text, tmp_path):
    out = tmp_path / "x.npz"
    out.write_text("precious")
    with pytest.raises(OutputError, match=r"x\.npz exists; .* --force"):
        embed(text, out)
    assert out.read_text() == "precious"
    with pytest.raises(KeyboardInterrupt):
        embed(text, out, force=True, elmo=Fake(interrupt_at=46))
    assert out.read_text() == "precious"
    with pytest.raises(OutputError, match="exists"):
        embed(text, out, resume=True)
    assert embed(text, out, resume=True, force=True).resumed_sentences == 40
    assert len(contents(out)) == 47
    assert_nothing_beside(out)


def test_places_where_no_output_can_be(text, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OutputError, match=r"folder\.npz is a directory"):
        embed(text, tmp_path / "folder.npz", force=True)
    with pytest.raises(OutputError, match="nowhere does not exist"):
        embed(text, tmp_path / "nowhere" / "x.npz")
    with pytest.raises(OutputError, match="ending"):
        embed(text, tmp_path / "x.txt")
    (tmp_path / "y.npz.partial").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        embed(text, tmp_path / "y.npz")


@pytest.mark.parametrize("option", ["use_sentence_keys", "forget_sentences"])
def test_options_of_hdf5_are_refused_elsewhere(option, text, tmp_path):
    with pytest.raises(OutputError, match="HDF5"):
        embed(text, tmp_path / "x.npz", **{option: True})


def test_save_every_must_be_positive(text, tmp_path):
    with pytest.raises(MismatchError, match="at least 1, found 0"):
        embed(text, tmp_path / "x.npz", save_every=0)


def test_float16_overflow_names_the_sentence(text, tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "run", lambda *_: iter([np.full((0, 3), 1.0), np.full((2, 3), 1e6)]))
    with pytest.raises(OutputError, match=r"sentence 1 .* value 1e\+06"):
        embed(text, tmp_path / "x.npz", dtype="float16")
    assert_nothing_beside(tmp_path / "x.npz")


@unix
def test_two_processes_on_one_output(text, tmp_path):
    out = tmp_path / "x.npz"
    program = f"{HEADER} t.embed({str(text)!r}, {str(out)!r}, elmo=t.Fake(sleep=0.1), resume=True)"
    with subprocess.Popen([sys.executable, "-c", program]) as first:
        wait_for(lambda: (tmp_path / "x.npz.partial" / "progress.json").exists())
        for options in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(OutputError, match=r"another process is writing .*x\.npz"):
                embed(text, out, **options)
        assert first.wait(60) == 0
    assert len(contents(out)) == 47
    assert_nothing_beside(out)


# ---------------------------------------------------------------- interruption and resume


def interrupt(*_):
    raise KeyboardInterrupt


def interrupted(text, out, at=35, **options):
    with pytest.raises(KeyboardInterrupt):
        embed(text, out, elmo=Fake(interrupt_at=at), **options)
    assert not out.exists()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("options", [{}, {"state": "carry", "layers": "all"}, {"pool": "max", "dtype": "float16"}])
def test_a_resumed_run_equals_an_uninterrupted_one(ending, options, text, tmp_path):
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"x{ending}"
    embed(text, whole, **options)
    for at in (13, 25, 5, 6):
        interrupted(text, out, at, resume=True, **options)
    summary = embed(text, out, resume=True, **options)
    assert summary.resumed_sentences == (36 if "state" in options else 30)
    assert contents(out) == contents(whole)
    assert_nothing_beside(out)


def test_carried_state_goes_on_over_segments_as_over_one(text, tmp_path):
    embed(text, tmp_path / "one.npz", state="carry", save_every=1000)
    embed(text, tmp_path / "many.npz", state="carry", save_every=10)
    assert contents(tmp_path / "one.npz") == contents(tmp_path / "many.npz")


def test_the_folder_of_an_interrupted_run_needs_a_decision(text, tmp_path):
    out = tmp_path / "x.npz"
    interrupted(text, out)
    with pytest.raises(OutputError, match=r"--resume.*--force"):
        embed(text, out)
    assert embed(text, out, force=True).resumed_sentences == 0
    assert_nothing_beside(out)


def test_interrupted_before_the_first_segment_there_is_nothing_to_resume(text, tmp_path):
    out = tmp_path / "x.npz"
    interrupted(text, out, at=9)
    assert_nothing_beside(out)
    assert embed(text, out, resume=True).resumed_sentences == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "top"}, 'had layers = "average", this one has "top"'),
        ({"batch_size": 5}, "had batch_size = 4, this one has 5"),
        ({"dtype": "float16"}, "dtype"),
        ({"tokenize": True}, "tokenize"),
        ({"symbols": True}, "symbols"),
        ({"column": "text"}, "column"),
        ({"save_every": 7}, "save_every"),
        ({"state": "carry"}, "state"),
        ({"pool": "mean"}, "pool"),
    ],
)
def test_to_resume_with_another_option_is_refused(options, message, text, tmp_path):
    interrupted(text, tmp_path / "x.npz")
    with pytest.raises(MismatchError, match=message + ".*--force"):
        embed(text, tmp_path / "x.npz", resume=True, **options)
    assert embed(text, tmp_path / "x.npz", resume=True).resumed_sentences == 30


def test_to_resume_with_another_model_is_refused(text, tmp_path):
    interrupted(text, tmp_path / "x.npz")
    other = Fake()
    other.fingerprint = "other"
    with pytest.raises(MismatchError, match='had model = "fake", this one has "other"'):
        embed(text, tmp_path / "x.npz", resume=True, elmo=other)


def test_to_resume_with_another_text_is_refused(text, tmp_path):
    out = tmp_path / "x.npz"
    interrupted(text, out)
    old = text.read_text(encoding="utf-8")
    for new in (old.replace("1\n", "one\n", 1), "", old[:100]):
        text.write_text(new, encoding="utf-8")
        with pytest.raises(MismatchError, match="first 30 sentences differ"):
            embed(text, out, resume=True)
    text.write_text(old, encoding="utf-8")
    assert embed(text, out, resume=True).resumed_sentences == 30


def test_a_text_that_grew_after_its_end_was_seen_is_refused(text, tmp_path, monkeypatch):
    out = tmp_path / "x.npz"
    with monkeypatch.context() as patch:
        patch.setattr(partial.Partial, "_join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(text, out)
    with text.open("a") as stream:
        stream.write("more\n")
    with pytest.raises(MismatchError, match="has grown"):
        embed(text, out, resume=True)


def test_a_folder_that_lost_a_segment_or_its_sense_is_refused(text, tmp_path):
    out = tmp_path / "x.npz"
    interrupted(text, out)
    folder = tmp_path / "x.npz.partial"
    (folder / "segment-000001.npz").rename(folder / "gone")
    with pytest.raises(MismatchError, match=r"lacks segment-000001\.npz"):
        embed(text, out, resume=True)
    for content in ("{", "[]", '{"settings": {}, "version": 99}'):
        (folder / "progress.json").write_text(content)
        with pytest.raises(MismatchError, match="not of this version"):
            embed(text, out, resume=True)


def test_a_text_error_later_on_keeps_what_is_finished(text, tmp_path):
    good = text.read_bytes()
    text.write_bytes(good.replace(b"\n8\n", b"\n\xff\n"))
    with text.open("ab") as stream:
        stream.write(b"\xff\n")
    with pytest.raises(TextError, match="line 48"):
        embed(text, tmp_path / "x.npz")
    text.write_bytes(good)
    assert embed(text, tmp_path / "x.npz", resume=True).resumed_sentences == 40


# ---------------------------------------------------------------- with a real model


@pytest.mark.parametrize("state", ["fresh", "carry"])
def test_a_resumed_run_of_a_real_model_equals_a_whole_one(state, text, tmp_path, tiny_elmo, monkeypatch):
    options = {"elmo": tiny_elmo, "state": state, "layers": "all"}
    embed(text, tmp_path / "whole.npz", **options)
    with monkeypatch.context() as patch:
        write = partial.Partial.write
        patch.setattr(partial.Partial, "write", lambda *given: interrupt() if given[1] == 29 else write(*given))
        with pytest.raises(KeyboardInterrupt):
            embed(text, tmp_path / "x.npz", **options)
    assert embed(text, tmp_path / "x.npz", resume=True, **options).resumed_sentences in (20, 24)
    assert contents(tmp_path / "x.npz") == contents(tmp_path / "whole.npz")


def test_the_file_holds_what_embed_gives(text, tmp_path, tiny_elmo):
    embed(text, tmp_path / "x.npz", elmo=tiny_elmo, state="carry")
    sentences = [line.split() for line in text.read_text(encoding="utf-8").splitlines()]
    expected = list(tiny_elmo.embed(sentences, state="carry", batch_size=4))
    with np.load(tmp_path / "x.npz") as arrays:
        assert all(np.array_equal(arrays[str(number)], array) for number, array in enumerate(expected))


def test_layers_may_be_what_numpy_makes_of_them(text, tmp_path, tiny_elmo):
    sentences = [line.split() for line in text.read_text(encoding="utf-8").splitlines()]
    for layers in (np.array([0.2, 0.3, 0.5], np.float32), np.int64(1)):
        embed(text, tmp_path / "x.npz", elmo=tiny_elmo, layers=layers, force=True)
        with np.load(tmp_path / "x.npz") as arrays:
            for number, array in enumerate(tiny_elmo.embed(sentences, layers=layers, batch_size=4)):
                np.testing.assert_array_equal(arrays[str(number)], array)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("all", {"layers": "all"}),
        ("all_batch3", {"layers": "all", "batch_size": 3, "save_every": 4}),
        ("average_forget", {"layers": "average", "forget_sentences": True, "save_every": 1000}),
        ("top_sentence_keys", {"layers": "top", "use_sentence_keys": True}),
    ],
)
def test_the_file_is_the_one_that_allennlp_wrote(name, options, oracles, tmp_path):
    from elmokit.model import load

    folder = oracles / "allennlp-elmo-command"
    text = folder / ("sentences_unique.txt" if "keys" in name else "sentences.txt")
    embed(text, tmp_path / "x.hdf5", **{"elmo": load(folder), "state": "carry", "batch_size": 64, **options})
    with h5py.File(tmp_path / "x.hdf5") as ours, h5py.File(folder / f"{name}.hdf5") as theirs:
        assert list(ours) == list(theirs)
        for key, item in theirs.items():
            if key == INDEX:
                assert ours[key][0] == item[0]
            else:
                np.testing.assert_allclose(ours[key][()], item[()], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- killed

HEADER = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_job as t;"


def wait_for(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError


def die_at(step):
    """Have this process killed as it is about to change anything on the disk for the `step`-th time."""
    left = [step]

    def counted(function):
        def wrapper(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    for owner, name in [
        (partial, "sync"),
        (partial.Partial, "_open_sink"),
        (partial.Partial, "write"),
        (Path, "mkdir"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "rmdir"),
        (Path, "write_text"),
    ]:
        setattr(owner, name, counted(getattr(owner, name)))


def kill_everywhere(text, out, whole, options):
    """Kill a run at each of its steps, resume it, and compare; in a process of its own, which a fork copies whole."""
    text, out, whole = Path(text), Path(out), Path(whole)
    os.fsync = lambda _: None  # costs most of the time, and matters only where the machine dies
    expected = contents(whole)
    for step in range(10_000):
        child = os.fork()
        if child == 0:
            die_at(step)
            embed(text, out, **options)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert not out.exists() or contents(out) == expected, step
        if os.waitstatus_to_exitcode(status) == 0:
            print("steps:", step)
            return
        done = out.exists()
        if not done or out.with_name(out.name + ".partial").is_dir():
            resume(text, out, done, options)
        assert contents(out) == expected, step
        assert_nothing_beside(out)
        out.unlink()


def resume(text, out, done, options):
    """Go on; where the output is there and its folder nearly gone, no error but "it exists" is fine."""
    try:
        embed(text, out, resume=True, **options)
    except OutputError as error:
        if not done or "exists" not in str(error):
            raise
        shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)


@unix
@pytest.mark.parametrize(
    ("ending", "options"), [(".hdf5", {}), (".npz", {"state": "carry"}), (".parquet", {"save_every": 100})]
)
def test_killed_at_every_step(ending, options, tmp_path):
    text = write_text(tmp_path / "text.txt", 9)
    options = {"save_every": 4, **options}
    paths = [str(text), str(tmp_path / f"x{ending}"), str(tmp_path / f"whole{ending}")]
    embed(text, paths[2], **options)
    program = f"{HEADER} t.kill_everywhere(*{paths!r}, {options!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("steps:")) > 20


# ---------------------------------------------------------------- no room


def report(text, out, **options):
    """Run a job with long vectors and print its error; in a process of its own, which must end well."""
    random = np.random.default_rng(0)  # so that compression does not help
    Fake.run = lambda self, window, *_: (random.random((2000, 3), np.float32) for _ in window)
    try:
        embed(text, out, **options)
    except OutputError as error:
        print(error)


@unix
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_one_plain_error_and_the_run_can_go_on(ending, small_disk, tmp_path):
    folder, grow = small_disk
    out = folder / f"x{ending}"
    text = write_text(tmp_path / "text.txt", 1000)
    program = f"{HEADER} t.report({str(text)!r}, {str(out)!r}, save_every=50, resume=True)"

    def run():
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stderr == ""
        return done.stdout

    assert re.search("the disk is full; .* sentences are safe .* --resume when there is room", run())
    assert not out.exists()
    assert grow("40m")
    assert "joining the segments takes" in run()
    assert not out.exists()
    assert grow("80m")
    assert run() == ""
    assert len(contents(out)) == 1000 + (ending == ".hdf5")
    assert_nothing_beside(out)
