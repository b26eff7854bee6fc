"""The sinks alone: what is written is read back equal, in AllenNLP's layout, however it was put together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmokit.errors import MismatchError, MissingExtra, OutputError
from elmokit.sinks import Spec, choose, hdf5, npz

SHARED = Path(os.environ.get("ELMOKIT_SHARED", Path(__file__).parents[2] / "shared"))
ORACLE = SHARED / "oracles" / "allennlp-elmo-command"
ENDINGS = [".hdf5", ".parquet", ".npz"]


def write(path, spec, rows, *, start=0):
    """Write rows of (tokens, array), numbered from `start`."""
    sink = choose(path)(path, spec)
    for number, (tokens, array) in enumerate(rows, start):
        sink.write(number, tokens, array)
    sink.close()
    return path


def join(path, spec, parts):
    sink = choose(path)(path, spec)
    for part in parts:
        sink.add_file(part)
    sink.close()
    return path


def read(path, spec):
    """Return {number: array} of a file of any format."""
    if path.suffix == ".hdf5":
        with h5py.File(path) as file:
            return {int(key): file[key][()] for key in file if key != "sentence_to_index"}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {int(key): arrays[key] for key in arrays}
    return read_parquet(path, spec)


def read_parquet(path, spec):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(path)
    names = [name for name in table.column_names if name not in ("sentence", "tokens")]
    result = {}
    for row, number in enumerate(table["sentence"].to_pylist()):
        layers = [np.array(table[name][row].as_py(), spec.dtype).reshape(shape_TD(spec)) for name in names]
        result[number] = layers[0] if spec.layers is None else np.stack(layers)
    return result


def shape_TD(spec):
    return (spec.width,) if spec.pooled else (-1, spec.width)


def array_for(spec, tokens, seed):
    shape = [*([] if spec.layers is None else [spec.layers]), *([] if spec.pooled else [len(tokens)]), spec.width]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_equal_arrays(found, expected):
    assert list(found) == list(expected) or sorted(found) == sorted(expected)
    for number, array in expected.items():
        assert found[number].dtype == array.dtype
        assert found[number].shape == array.shape
        assert found[number].tobytes() == array.tobytes()


specs = st.builds(
    Spec,
    width=st.integers(1, 5),
    layers=st.none() | st.integers(1, 3),
    pooled=st.booleans(),
    dtype=st.sampled_from(["float32", "float16"]),
)
sentences = st.lists(st.text(min_size=1, max_size=8), max_size=5)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=40, deadline=None)
@given(spec=specs, texts=st.lists(sentences, min_size=1, max_size=8), cut=st.integers(0, 8), seed=st.integers(0, 99))
def test_written_whole_or_joined_it_reads_back_equal(ending, spec, texts, cut, seed):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    rows = [(tokens, array_for(spec, tokens, seed + number)) for number, tokens in enumerate(texts)]
    expected = {number: array.astype(spec.dtype) for number, (_, array) in enumerate(rows)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = write(folder / f"whole{ending}", spec, rows)
        parts = [write(folder / f"a{ending}", spec, rows[:cut])] if cut else []
        parts += [write(folder / f"b{ending}", spec, rows[cut:], start=cut)] if rows[cut:] else []
        joined = join(folder / f"joined{ending}", spec, parts)
        assert_equal_arrays(read(whole, spec), expected)
        assert_equal_arrays(read(joined, spec), expected)
        assert tokens_in(whole) == tokens_in(joined) == expected_tokens(ending, texts)


def tokens_in(path):
    """What the file says of the tokens, in its own way."""
    if path.suffix == ".hdf5":
        with h5py.File(path) as file:
            return file["sentence_to_index"][0]
    if path.suffix == ".npz":
        return None
    import pyarrow.parquet as pq

    return pq.read_table(path)["tokens"].to_pylist()


def expected_tokens(ending, texts):
    index = json.dumps({" ".join(tokens): str(number) for number, tokens in enumerate(texts)}).encode()
    return {".hdf5": index, ".parquet": texts, ".npz": None}[ending]


@pytest.mark.parametrize("ending", [".hdf5", ".npz"])
def test_equal_input_gives_an_equal_file(ending, tmp_path):
    rows = [([str(i)] * (i % 4), np.full((i % 4, 3), i, np.float32)) for i in range(50)]
    one = write(tmp_path / f"one{ending}", Spec(width=3), rows)
    two = write(tmp_path / f"two{ending}", Spec(width=3), rows)
    assert one.read_bytes() == two.read_bytes()


# ---------------------------------------------------------------- choice and checks


@pytest.mark.parametrize("name", ["x", "x.txt", "x.npy", "x.hdf5.gz"])
def test_an_unknown_ending_names_the_three(name):
    with pytest.raises(OutputError, match=r"\.hdf5 \(or \.h5\), \.parquet, \.npz"):
        choose(name)


def test_endings_are_read_in_any_case():
    assert choose("a.H5") is choose("a.hdf5") is hdf5.Hdf5Sink
    assert choose("a.NPZ") is npz.NpzSink


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"elmokit\[arrow\]"):
        choose("a.parquet")


def test_only_two_dtypes():
    with pytest.raises(OutputError, match="float32 or float16, not as 'float64'"):
        Spec(width=2, dtype="float64")


@pytest.mark.parametrize("ending", ENDINGS)
def test_float16_overflow_is_an_error_with_sentence_value_and_next_step(ending, tmp_path):
    path = tmp_path / f"x{ending}"
    sink = choose(path)(path, Spec(width=2, dtype="float16"))
    sink.write(0, ["a"], np.float32([[65504, -1]]))
    with pytest.raises(OutputError, match=r"sentence 1 .* value -70000, .*--dtype float32"):
        sink.write(1, ["b"], np.float32([[1, -70000]]))
    sink.abandon()


def test_infinity_that_the_model_gave_is_no_overflow():
    array = np.float32([[np.inf, np.nan]])
    for dtype in ("float32", "float16"):
        with pytest.raises(OutputError, match="are not all numbers"):
            Spec(width=2, dtype=dtype).fit(array, number=0)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (Spec(width=4), (3, 5)),
        (Spec(width=4), (4,)),
        (Spec(width=4, layers=3), (2, 1, 4)),
        (Spec(width=4, layers=3, pooled=True), (3, 1, 4)),
    ],
)
def test_an_array_of_another_shape_is_refused(spec, shape):
    with pytest.raises(MismatchError, match=r"array of sentence 7 has shape .*, this output holds \("):
        spec.fit(np.zeros(shape, np.float32), number=7)


# ---------------------------------------------------------------- HDF5


@pytest.mark.skipif(not ORACLE.is_dir(), reason="needs the files that `allennlp elmo` wrote, in ../shared")
@pytest.mark.parametrize(
    ("name", "layers", "options"),
    [
        ("all", 3, {}),
        ("top", None, {}),
        ("average", None, {}),
        ("average_forget", None, {"forget_sentences": True}),
        ("top_sentence_keys", None, {"sentence_keys": True}),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_the_layout_is_that_of_allennlp(name, layers, options, joined, tmp_path):
    text = ORACLE / ("sentences_unique.txt" if "keys" in name else "sentences.txt")
    spec = Spec(width=12, layers=layers, **options)
    rows = [(tokens, array_for(spec, tokens, 0)) for tokens in map(str.split, text.read_text("utf-8").splitlines())]
    if joined:
        parts = [
            write(tmp_path / f"{cut}.hdf5", spec, rows[cut : cut + 4], start=cut) for cut in range(0, len(rows), 4)
        ]
        path = join(tmp_path / "x.hdf5", spec, parts)
    else:
        path = write(tmp_path / "x.hdf5", spec, rows)
    with h5py.File(path) as ours, h5py.File(ORACLE / f"{name}.hdf5") as theirs:
        assert layout(ours) == layout(theirs)
        if not options:
            assert ours["sentence_to_index"][0] == theirs["sentence_to_index"][0]


def layout(file):
    assert not dict(file.attrs)
    return {
        key: (item.shape, item.dtype, item.chunks, item.compression, dict(item.attrs)) for key, item in file.items()
    }


def test_hdf5_is_of_the_oldest_version_and_ends_where_it_says(tmp_path):
    path = write(tmp_path / "x.hdf5", Spec(width=3), [(["a"], np.zeros((1, 3), np.float32))])
    head = path.read_bytes()[:48]
    assert head[8] == 0
    assert int.from_bytes(head[40:48], "little") == path.stat().st_size < 10_000


@pytest.mark.parametrize(
    ("spec", "shape"),
    [(Spec(width=4), (0, 4)), (Spec(width=4, layers=3), (3, 0, 4)), (Spec(width=4, pooled=True), (4,))],
)
def test_an_empty_line_keeps_its_number(spec, shape, tmp_path):
    rows = [(tokens, array_for(spec, tokens, 0)) for tokens in ([], ["a"], [])]
    parts = [write(tmp_path / f"{n}.hdf5", spec, rows[n : n + 1], start=n) for n in range(3)]
    with h5py.File(join(tmp_path / "x.hdf5", spec, parts)) as file:
        assert file["0"].shape == file["2"].shape == shape
        assert json.loads(file["sentence_to_index"][0]) == {"": "2", "a": "1"}


def test_a_sentence_as_a_key_finds_its_array_also_with_slashes(tmp_path):
    spec = Spec(width=1, sentence_keys=True)
    texts = [
        "and/or",
        "and/if",
        "1\\/2",
        "a / b",
        "and / or",
        "sentence_to_index",
        "x" * 300_000,
        "é 北京",
        "..",
        "/x",
        "y/",
    ]
    rows = [(text.split(), np.full((len(text.split()), 1), number, np.float32)) for number, text in enumerate(texts)]
    parts = [write(tmp_path / f"{n}.hdf5", spec, rows[n : n + 4], start=n) for n in range(0, len(rows), 4)]
    whole = write(tmp_path / "whole.hdf5", spec, rows)
    for path in (whole, join(tmp_path / "joined.hdf5", spec, parts)):
        with h5py.File(path) as file:
            assert [file[text][0, 0] for text in texts] == list(range(len(texts)))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a b", "c", "a b"], r'sentence 2 .*, "a b", .* earlier sentence has the same key'),
        (["a", ""], "sentence 1 .* empty line"),
        (["."], "sentence 0 .* lone"),
        (["/"], "sentence 0 .* lone"),
        (["a\0b"], "NUL"),
        (["a/b", "a//b"], "earlier sentence has the same key"),
        (["a", "a/b"], "inside the array"),
        (["a/b/c", "a/b"], "hold it"),
        (["x" * 1000, "x" * 1000], r'"x{57}\.\.\."'),
    ],
)
def test_a_sentence_that_cannot_be_a_key_is_one_plain_error(texts, message, tmp_path):
    spec = Spec(width=1, sentence_keys=True)
    with pytest.raises(OutputError, match=message) as caught:
        write(tmp_path / "x.hdf5", spec, [(text.split(), np.zeros((len(text.split()), 1))) for text in texts])
    assert "leave out --use-sentence-keys" in str(caught.value)


def test_the_index_of_duplicates_over_many_parts(tmp_path):
    texts = [["a"], ["b"], ["a"], [], ["c"], ["b"], ["a"], ["d"], [], ["c"]]
    rows = [(tokens, np.zeros((len(tokens), 1), np.float32)) for tokens in texts]
    parts = [write(tmp_path / f"{n}.hdf5", Spec(width=1), rows[n : n + 3], start=n) for n in range(0, 10, 3)]
    path = join(tmp_path / "x.hdf5", Spec(width=1), parts)
    assert tokens_in(path) == b'{"a": "6", "b": "5", "": "8", "c": "9", "d": "7"}'


def test_an_index_that_hdf5_cannot_hold_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "JSON_LIMIT", 5)
    with pytest.raises(OutputError, match="HDF5 holds at most 5: leave it out"):
        write(tmp_path / "x.hdf5", Spec(width=1), [(["a"], np.zeros((1, 1)))])


def test_without_a_way_to_take_space_hdf5_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    spec = Spec(width=3)
    path = write(tmp_path / "x.hdf5", spec, [(["a"], np.ones((1, 3), np.float32))])
    assert_equal_arrays(read(path, spec), {0: np.ones((1, 3), np.float32)})


# ---------------------------------------------------------------- Parquet


def test_parquet_types_notes_and_row_groups(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from elmokit.sinks import parquet

    monkeypatch.setattr(parquet, "GROUP_BYTES", 100)
    spec = Spec(width=4, layers=2, dtype="float16", notes={"model": "abc", "options": "{}"})
    rows = [(tokens, array_for(spec, tokens, 1)) for tokens in (["a", "b"], [], ["c"] * 30, ["d"])]
    parts = [write(tmp_path / f"{n}.parquet", spec, rows[n : n + 2], start=n) for n in (0, 2)]
    file = pq.ParquetFile(join(tmp_path / "x.parquet", spec, parts))
    vectors = pa.list_(pa.list_(pa.float16(), 4))
    assert {field.name: field.type for field in file.schema_arrow} == {
        "sentence": pa.int64(),
        "tokens": pa.list_(pa.string()),
        "layer_0": vectors,
        "layer_1": vectors,
    }
    assert file.schema_arrow.metadata == {b"elmokit.model": b"abc", b"elmokit.options": b"{}"}
    assert file.num_row_groups == 3
    assert file.read()["sentence"].to_pylist() == [0, 1, 2, 3]


# ---------------------------------------------------------------- NPZ


def test_npz_joined_is_the_same_file_as_written_at_once(tmp_path):
    spec = Spec(width=3)
    rows = [(["x"] * n, array_for(spec, ["x"] * n, n)) for n in range(20)]
    parts = [write(tmp_path / f"{n}.npz", spec, rows[n : n + 7], start=n) for n in range(0, 20, 7)]
    joined = join(tmp_path / "joined.npz", spec, parts)
    assert joined.read_bytes() == write(tmp_path / "whole.npz", spec, rows).read_bytes()
    with zipfile.ZipFile(joined) as file:
        assert file.testzip() is None


def test_npz_with_the_record_that_many_arrays_need(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MANY", 5)
    spec = Spec(width=3)
    rows = [(["x"] * n, array_for(spec, ["x"] * n, n)) for n in range(20)]
    path = write(tmp_path / "x.npz", spec, rows)
    assert_equal_arrays(read(path, spec), dict(enumerate(array for _, array in rows)))


@pytest.mark.slow
def test_npz_of_more_than_65535_arrays(tmp_path):
    spec = Spec(width=1, pooled=True)
    part = write(tmp_path / "part.npz", spec, (([], np.float32([n])) for n in range(33_000)))
    later = write(tmp_path / "later.npz", spec, (([], np.float32([n])) for n in range(33_000, 66_000)), start=33_000)
    with np.load(join(tmp_path / "x.npz", spec, [part, later])) as arrays:
        assert len(arrays) == 66_000
        assert [arrays[str(n)][0] for n in (0, 32_999, 33_000, 65_999)] == [0, 32_999, 33_000, 65_999]


def test_npz_of_more_than_4_gigabytes(tmp_path):
    spec = Spec(width=1, pooled=True)
    path = tmp_path / "x.npz"
    sink = npz.NpzSink(path, spec)
    sink.write(0, [], np.float32([7]))
    sink._zip._file.seek(5 << 30)  # a hole, which takes no room
    sink.write(1, [], np.float32([8]))
    sink.close()
    with np.load(path) as arrays:
        assert (arrays["0"][0], arrays["1"][0]) == (7, 8)


def test_npz_member_of_more_than_4_gigabytes(monkeypatch, tmp_path):
    monkeypatch.setattr(npz, "BIG", 500)  # any size is then written in 64 bits, which a reader takes from any file
    spec = Spec(width=200)
    rows = [(["a"], array_for(spec, ["a"], 3)), (["b"], array_for(spec, ["b"], 4))]
    monkeypatch.setattr(npz, "min", lambda value, _: 2**32 - 1 if value >= 500 else value, raising=False)
    path = write(tmp_path / "x.npz", spec, rows)
    assert_equal_arrays(read(path, spec), {0: rows[0][1], 1: rows[1][1]})


# ---------------------------------------------------------------- no room


def fill(path, limit):
    """Write into a file that may not grow beyond `limit` bytes until an OSError comes; in a process of its own."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    random = np.random.default_rng(0)
    sink = None
    try:
        sink = choose(path)(Path(path), Spec(width=64))
        for number in range(6_000):
            sink.write(number, ["word"] * 5, random.random((5, 64), np.float32))
        sink.close()
    except OSError as error:
        print(type(error).__name__, error.errno)
    if sink:
        sink.abandon()
        sink.abandon()


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes are limited on Unix only")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("limit", [0, 3_000, 5_500_000])
def test_no_room_is_an_oserror_and_the_process_lives(ending, limit, tmp_path):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_sinks as t; "
    program += f"t.fill({str(tmp_path / f'x{ending}')!r}, {limit})"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OSError 27\n", "")
