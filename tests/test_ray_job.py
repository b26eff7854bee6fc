"""The embed job on Ray: rows are those of one machine, and whatever is killed, none is lost and none comes twice."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from elmokit.checkpoint import write_native
from elmokit.errors import MismatchError, MissingExtra, OutputError, TextError
from elmokit.job import embed_file
from elmokit.model import Elmo
from elmokit.sinks import parts

pytest.importorskip("ray", reason="Ray is not installed: pip install 'elmokit[ray]'")
from elmokit import ray_job

SENTENCES = 47


def write_text(path, lines=SENTENCES, *, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{'wörd ' * (n % 6)}{path.stem} {n % 9}\n" for n in range(lines))
    return str(path)


@pytest.fixture
def texts(tmp_path):
    return [write_text(tmp_path / "a.txt"), write_text(tmp_path / "b.txt.gz", 20, opener=gzip.open)]


@pytest.fixture
def embed(monkeypatch, tiny_elmo):
    """The job with a stand-in for Ray: one worker that takes one row after the other, in this process."""

    def rows(read, worker, *, texts, workers, device):
        worker = worker()
        return (worker(row) for text in range(texts) for row in read({"text": text}))

    monkeypatch.setattr(ray_job, "_connected", lambda address: nullcontext())
    monkeypatch.setattr(ray_job, "_room", lambda device, threads: 1)
    monkeypatch.setattr(ray_job, "_rows", rows)

    def embed(texts, out, **options):
        return ray_job.embed_texts(texts, out, **{"elmo": tiny_elmo, "save_every": 10, "progress": False, **options})

    return embed


def assert_same_rows(out, texts, *, elmo, **options):
    """The rows of each text are those that one machine writes."""
    table = parquet.read_table(out)
    for text in texts:
        single = out.parent / "single.parquet"
        embed_file(text, single, elmo=elmo, force=True, progress=False, **options)
        found = table.filter(pc.equal(table["text"], text)).drop_columns("text")
        assert found.equals(parquet.read_table(single))
    assert len(table) == sum(pc.value_counts(table["text"]).field("counts").to_pylist())
    assert set(table["text"].to_pylist()) == set(texts)


# ---------------------------------------------------------------- without Ray


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": "all", "dtype": "float16"},
        {"layers": [0.5, 0.25, 0.25], "pool": "mean", "batch_size": 3},
        {"layers": "top", "pool": "max", "save_every": 1000},
        {"symbols": True},
        {"tokenize": True},
    ],
)
def test_rows_are_those_of_one_machine(embed, texts, tmp_path, tiny_elmo, options):
    summary = embed(texts, tmp_path / "out", **options)
    assert_same_rows(tmp_path / "out", texts, elmo=tiny_elmo, **{"save_every": 10, **options})
    assert summary.sentences == len(parquet.read_table(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt.gz", "out", "single.parquet"]


def test_every_form_of_text_that_is_read_is_read_here_too(embed, tmp_path, tiny_elmo):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.fasta").write_text(">one\nMKV\nLA\n>two\nAC\n")
    parquet.write_table(pa.table({"id": ["x", "y"], "sentence": ["M K V", "A C"]}), folder / "b.parquet")
    (folder / "c.txt").write_text("")
    summary = embed(str(folder), tmp_path / "out")
    assert (summary.sentences, summary.tokens) == (4, 12)
    names = [str(folder / "a.fasta"), str(folder / "b.parquet")]
    assert_same_rows(tmp_path / "out", names, elmo=tiny_elmo, save_every=10)


def test_the_model_is_the_same_at_the_workers(embed, texts, tmp_path, tiny):
    warmed = Elmo(tiny, precision="bfloat16").warm([["warm", "it", "up"]])
    embed(texts, tmp_path / "out", elmo=warmed, state="warm")
    assert_same_rows(tmp_path / "out", texts, elmo=warmed, state="warm", save_every=10)


def test_what_is_there_is_not_computed_again(embed, texts, tmp_path, monkeypatch):
    write, seen = parts.Parts.write, []

    def stop(self, block, arrays):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append((block.text, block.number))
        write(self, block, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(texts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial").glob("part-*")}
    assert len(before) == 3
    with pytest.raises(OutputError, match=r"--resume.*--force"):
        embed(texts, tmp_path / "out")
    summary = embed(texts, tmp_path / "out", resume=True)
    assert (summary.resumed_sentences, summary.sentences) == (30, 67)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    with pytest.raises(OutputError, match="exists"):
        embed(texts, tmp_path / "out", resume=True)
    assert embed(texts, tmp_path / "out", force=True).resumed_sentences == 0


@pytest.fixture
def interrupted(embed, texts, tmp_path, monkeypatch):
    """An output that lacks the part of its last block."""
    with monkeypatch.context() as patch:
        patch.setattr(ray_job, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            embed(texts, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "top"}, 'had layers = "average", this one has "top"'),
        ({"save_every": 20}, "had save_every = 10"),
        ({"dtype": "float16"}, "had dtype"),
        ({"symbols": True}, "had symbols"),
    ],
)
def test_other_settings_are_refused(embed, interrupted, texts, options, message):
    with pytest.raises(MismatchError, match=message + ".*--force"):
        embed(texts, interrupted, resume=True, **options)
    with pytest.raises(MismatchError, match="had texts"):
        embed(texts[:1], interrupted, resume=True)
    assert embed(texts, interrupted, resume=True).resumed_sentences == 67


def test_another_model_or_version_is_refused(embed, interrupted, texts, tiny_elmo):
    with pytest.raises(MismatchError, match="had model"):
        embed(texts, interrupted, resume=True, elmo=tiny_elmo.warm([["a"]]))
    settings = interrupted.with_name("out.partial") / parts.SETTINGS
    for content in ("{", "[]", '{"version": 99}'):
        settings.write_text(content)
        with pytest.raises(MismatchError, match="not of this version"):
            embed(texts, interrupted, resume=True)


@pytest.mark.parametrize("lines", [46, 40, 48, 0])
def test_another_text_is_refused(embed, interrupted, texts, lines):
    write_text(Path(texts[0]), lines)
    with pytest.raises(MismatchError, match="not that of the interrupted run"):
        embed(texts, interrupted, resume=True)


def test_a_part_that_was_lost_after_it_was_written_is_noticed(embed, texts, tmp_path, monkeypatch):
    write = parts.Parts.write
    monkeypatch.setattr(parts.Parts, "write", lambda *given: given[1].number == 1 or write(*given))
    with pytest.raises(OutputError, match=r"lacks part-00000-000001\.parquet.*--resume"):
        embed(texts, tmp_path / "out")


def test_what_does_not_go_is_refused_in_one_sentence(embed, texts, tmp_path):
    out = tmp_path / "out"
    for options, error, message in [
        ({"state": "carry"}, MismatchError, "no state is carried"),
        ({"device": "cuda:1"}, MismatchError, "Ray chooses the GPU"),
        ({"address": "ray://head:10001"}, MismatchError, "address auto"),
        ({"save_every": 0}, MismatchError, "at least 1"),
        ({"texts": ["-"]}, TextError, "standard input"),
        ({"texts": [str(tmp_path / "none.txt")]}, TextError, "no such file"),
        ({"out": tmp_path / "no" / "out"}, OutputError, "does not exist"),
        ({"out": tmp_path}, OutputError, "no folder of parts"),
        ({"out": tmp_path, "force": True}, OutputError, "no folder of parts"),
        ({"column": "x"}, TextError, "has no column 'x'"),
    ]:
        with pytest.raises(error, match=message) as caught:
            embed(**{"texts": texts, "out": out, **options})
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt.gz"]
    Path(texts[0]).write_bytes(b"\xff\n")
    with pytest.raises(TextError, match="expected UTF-8"):
        embed(texts[0], out)
    Path(texts[0]).write_text("")
    with pytest.raises(TextError, match="no sentence"):
        embed(texts[0], out)


def test_workers_fit_the_cluster_and_share_its_gpus(monkeypatch):
    monkeypatch.setattr(ray_job.ray, "cluster_resources", lambda: {"CPU": 7.0, "GPU": 4.0})
    assert (ray_job._room("cpu", 2), ray_job._room("cpu", 9), ray_job._room("cuda", 2)) == (3, 1, 4)
    assert [ray_job._share(workers) for workers in (1, 4, 5, 8, 12)] == [1, 1, 1 / 2, 1 / 2, 1 / 3]
    monkeypatch.setattr(ray_job.ray, "cluster_resources", lambda: {"CPU": 7.0})
    with pytest.raises(MismatchError, match="no machine of the cluster has a GPU"):
        ray_job._room("cuda", 1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_where_no_cluster_answers_is_told_at_once(texts, tmp_path, tiny_elmo, address):
    with pytest.raises(OutputError, match=f"no Ray cluster answers at {address}.*ray start --head"):
        ray_job.embed_texts(texts, tmp_path / "out", elmo=tiny_elmo, address=address)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt.gz"]


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "elmokit.ray_job")
    with pytest.raises(MissingExtra, match=r"elmokit\[ray\]"):
        import elmokit.ray_job  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.txt", "b.txt", "out.npz"], "several texts are for --ray"),
        (["a.txt", "out.npz", "--workers", "2"], "workers are for --ray"),
        (["a.txt", "out.hdf5", "--ray", "local"], "folder of Parquet"),
        (["a.txt", "out", "--ray", "local", "--use-sentence-keys"], "for HDF5"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(arguments, message):
    from typer.testing import CliRunner

    from elmokit.cli import app

    done = CliRunner().invoke(app, ["embed", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


# ---------------------------------------------------------------- on a cluster

BLOCKS, SIZE = 40, 2


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_native(tiny, folder)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A head that computes nothing, and two machines with room for one worker each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    little = {"include_dashboard": False, "object_store_memory": 100 << 20}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **little})
    found.machines = [found.add_node(num_cpus=1, **little) for _ in range(2)]
    yield found
    found.shutdown()


@pytest.fixture
def slow_texts(tmp_path):
    """Texts whose blocks take a tenth of a second each: a sentence of hundreds of words in each."""
    names = []
    for name in ("a.txt", "b.txt"):
        lines = [f"{name} {block} " * 300 + f"\n{name} short\n" for block in range(BLOCKS // 2)]
        (tmp_path / name).write_text("".join(lines))
        names.append(str(tmp_path / name))
    return names


@pytest.fixture
def start(cluster, model):
    """Start the command on the cluster; it is gone after the test."""
    begun = []

    def run(texts, out, *options):
        arguments = ["embed", *texts, out, "--ray", cluster.address, "--model", model, "--pool", "mean", *options]
        command = [sys.executable, "-m", "elmokit", *arguments, "--save-every", SIZE, "--workers", 2]
        begun.append(subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def finished(out):
    return sorted(path.name for path in out.with_name("out.partial").glob("part-*"))


def wait(process, out, machines, *, parts):
    """Wait until that many parts are there and each machine has its worker; return the workers' process ids."""
    for _ in range(15_000):
        workers = [workers_of(machine) for machine in machines]
        if len(finished(out)) >= parts and all(workers):
            return [worker[0] for worker in workers]
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise TimeoutError


def workers_of(machine):
    """The processes of one machine that hold a model; Ray gives them names, and its raylet starts them."""
    [raylet] = machine.all_processes["raylet"]
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == raylet.process.pid and b"_Worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def assert_whole(process, out, texts, tiny_elmo):
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert_same_rows(out, texts, elmo=tiny_elmo, pool="mean", save_every=SIZE)
    assert len(list(out.glob("part-*"))) == BLOCKS
    assert not [
        path.name for path in out.iterdir() if not path.name.startswith("part-") and path.name != parts.SETTINGS
    ]
    assert not out.with_name("out.partial").exists()


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of Ray in /proc")


@linux
def test_a_killed_worker_and_a_killed_machine_lose_and_duplicate_nothing(
    cluster, start, slow_texts, tmp_path, tiny_elmo
):
    out = tmp_path / "out"
    process = start(slow_texts, out)
    killed, _ = wait(process, out, cluster.machines, parts=3)
    os.kill(killed, signal.SIGKILL)
    wait(process, out, cluster.machines[1:], parts=len(finished(out)) + 3)
    assert killed not in workers_of(cluster.machines[0])
    cluster.remove_node(cluster.machines.pop(), allow_graceful=False)
    assert len(finished(out)) < BLOCKS
    assert_whole(process, out, slow_texts, tiny_elmo)


@linux
@pytest.mark.slow
def test_a_killed_command_goes_on_with_resume(cluster, start, slow_texts, tmp_path, tiny_elmo):
    out = tmp_path / "out"
    process = start(slow_texts, out, "--resume")
    wait(process, out, cluster.machines, parts=3)
    process.kill()
    process.communicate()
    assert 3 <= len(finished(out)) < BLOCKS
    before = {name: (out.with_name("out.partial") / name).stat().st_mtime_ns for name in finished(out)}
    assert_whole(start(slow_texts, out, "--resume"), out, slow_texts, tiny_elmo)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
