"""TensorFlow's checkpoint files: every recorded value bit for bit, and nothing but a `FormatError` for broken ones."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle_writer import (
    BFLOAT16,
    Memory,
    block,
    bundle,
    damaged_bytes,
    damaged_entries,
    damaged_files,
    entries_and_shards,
    entry,
    field,
    files_of,
    footer,
    header,
    refused,
    slice_key,
    stored,
    table,
    varint,
    within,
)
from elmokit.errors import FormatError
from elmokit.formats.crc32c import crc32c
from elmokit.formats.files import open_files
from elmokit.formats.tensor_bundle import _slice_key, find_indexes, open_bundle, read_index

INDEX, DATA = "model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001"


def read_all(files):
    """Name -> array of every tensor of every bundle among the files."""
    arrays = {}
    for index in find_indexes(files):
        with open_bundle(files, index) as opened:
            arrays |= {name: opened.read(name) for name in opened.index.shapes}
    return arrays


def refusal(contents):
    with pytest.raises(FormatError) as caught:
        read_all(Memory(contents))
    message = str(caught.value)
    assert message.startswith("memory: 'model.ckpt-7.index'")
    assert "\n" not in message
    assert len(message) < 400
    return message


# ---------------------------------------------------------------- checksums


def plain_crc32c(data):
    """Bit by bit, as the definition has it."""
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),  # RFC 3720, B.4, and the check value of the catalogue of CRCs
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
     (bytes(range(32)), 0x46DD794E)],
)  # fmt: skip
def test_published_checksums(data, expected):
    assert crc32c(data) == expected


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 9000), seed=st.integers(0, 2**32))
def test_the_checksum_of_any_bytes_is_that_of_the_definition(n, seed):
    data = random.Random(seed).randbytes(n)
    assert crc32c(data) == crc32c(np.frombuffer(data, np.uint8)) == plain_crc32c(data)


@pytest.mark.parametrize("n", [64 * 512 - 1, 64 * 512, 64 * 512 + 1, 64 * 8192, 64 * 8192 + 1, 700_003])
def test_the_checksum_of_many_bytes_follows_from_that_of_parts(n):
    """Appending is linear: the sums of a message, of another and of both together, all equally long, add up."""
    generator = np.random.default_rng(n)
    a, b = generator.integers(0, 256, (2, n), np.uint8)
    assert crc32c(a) ^ crc32c(b) ^ crc32c(a ^ b) == crc32c(np.zeros(n, np.uint8))
    one = np.zeros(n, np.uint8)
    one[-5:] = a[-5:]
    assert crc32c(one) ^ crc32c(np.zeros(n, np.uint8)) == crc32c(bytes(a[-5:])) ^ crc32c(bytes(5))
    one[:] = 0
    one[0] = 1
    assert crc32c(one) != crc32c(np.zeros(n, np.uint8))


def test_a_long_checksum_by_the_definition():
    data = random.Random(0).randbytes(64 * 8192 + 77)
    assert crc32c(data) == plain_crc32c(data)


# ---------------------------------------------------------------- recorded values

TRAINED = ["char1", "char2", "char2-forward-only", "char3-noskip-noclip", "word2", "word2-shared-softmax"]


def assert_bits(found, expected, name):
    assert found.shape == expected.shape, name
    assert found.dtype == expected.dtype, name
    assert found.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("name", TRAINED)
def test_every_variable_of_the_trained_checkpoints(oracles, name):
    folder = oracles / f"tfckpt-{name}"
    with open_files(folder) as files:
        found = read_all(files)
    shapes = json.loads((folder / "variables.json").read_text("utf-8"))
    assert {name: list(array.shape) for name, array in found.items()} == shapes
    expected = np.load(folder / "raw_variables.npz")
    assert len(expected.files) >= 17
    for key in expected.files:
        assert_bits(found[key.replace("|", "/")], expected[key], key)


@pytest.mark.parametrize("name", ["v1-saver", "object-checkpoint", "saved-model", "two-shards", "partitioned"])
def test_every_variable_of_the_newer_bundles(oracles, name):
    folder = oracles / "tf2-bundle"
    record = json.loads((folder / "variables.json").read_text("utf-8"))
    expected = np.load(folder / "expected.npz")
    with open_files(folder / name) as files:
        found = read_all(files)
    assert found
    for key, (shape, dtype) in record["listing"][name].items():
        assert list(found[key].shape) == shape
        if dtype == "string":
            assert all(isinstance(word, bytes) for word in found[key].flat)
            continue
        original = record["object_names"].get(key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"), key)
        assert_bits(found[key], expected[original.replace("/", "|")], key)
    assert found.keys() == record["listing"][name].keys()


def test_strings_of_the_newer_bundles(oracles):
    record = json.loads((oracles / "tf2-bundle" / "variables.json").read_text("utf-8"))
    with open_files(oracles / "tf2-bundle" / "two-shards") as files:
        found = read_all(files)["extra/strings"]
    assert [word.decode() for word in found] == record["strings"]["extra/strings"]


def test_every_variable_of_the_hub_modules(oracles):
    record = json.loads((oracles / "tfhub" / "variables.json").read_text("utf-8"))
    expected = np.load(oracles / "tfhub-google-names" / "expected.npz")
    renamed = {"aggregation|weights": "aggregation/elmo_output_ELMo_W",
               "aggregation|scaling": "aggregation/elmo_output_ELMo_gamma"}  # fmt: skip
    for path in ("module", "module.tar.gz"):
        with open_files(oracles / "tfhub" / path) as files:
            found = read_all(files)
        assert [[name, list(array.shape)] for name, array in sorted(found.items())] == sorted(record)
        for key in expected.files:
            array = found[renamed.get(key, key.replace("|", "/"))]
            assert_bits(array.reshape(expected[key].shape), expected[key], key)
    with open_files(oracles / "tfhub-google-names") as files:
        found = read_all(files)
    assert {name.replace("/", "|") for name in found} == set(expected.files)
    for key in expected.files:
        assert_bits(found[key.replace("|", "/")], expected[key], key)


# ---------------------------------------------------------------- any bundle

NUMBERS = "float32 float64 float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    if (dtype := draw(st.sampled_from([*NUMBERS, "object"]))) == "object":
        array = np.empty(shape, object)
        array.flat = [generator.bytes(generator.integers(0, 200)) for _ in range(array.size)]
        return array
    return generator.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


@settings(max_examples=100, deadline=None)
@given(
    arrays=st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), tensors()),
    n_shards=st.integers(1, 3),
    big=st.booleans(),
    per_block=st.integers(1, 9),
    interval=st.integers(1, 9),
)
def test_what_is_written_is_read(arrays, n_shards, big, per_block, interval):
    found = read_all(Memory(bundle(arrays, n_shards=n_shards, big=big, per_block=per_block, interval=interval)))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].dtype.isnative
        np.testing.assert_array_equal(found[name], array)


@st.composite
def cuts(draw, axis):
    """Start and length of the parts in which an axis is stored."""
    if draw(st.booleans()):
        return [(0, None)]
    ends = sorted({0, axis, *draw(st.lists(st.integers(0, axis), max_size=3))})
    return [(a, b - a) for a, b in pairwise(ends)]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shape=st.tuples(st.integers(1, 50), st.integers(1, 6)), n_shards=st.integers(1, 3))
def test_a_tensor_in_any_slices_is_read_whole(data, shape, n_shards):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows, columns = data.draw(cuts(shape[0])), data.draw(cuts(shape[1]))
    parts = [(row, column) for row in rows for column in columns]
    files = Memory(bundle({"a": array, "lm/W": array.T}, slices={"a": parts}, n_shards=n_shards))
    assert_bits(read_all(files)["a"], array, parts)
    assert read_index(files, INDEX).shapes == {"a": shape, "lm/W": shape[::-1]}


@pytest.mark.parametrize("start", [0, 63, 64, 8191, 8192, 2**20 - 1, 2**20, 2**31])
def test_keys_of_slices_sort_as_their_numbers_do(start):
    keys = [_slice_key("name", ((n, length),)) for n in (start, start + 1) for length in (None, 1, 2**15)]
    assert keys == sorted(set(keys))


def test_a_key_of_a_slice_by_tensorflow(oracles):
    with open_files(oracles / "tf2-bundle" / "partitioned") as files:
        keys = read_index(files, "model.ckpt.index").entries.keys()
    assert keys == {
        b"lm/softmax/W",
        *(slice_key("lm/softmax/W", part) for part in ([(0, 15), (0, 6)], [(15, 14), (0, 6)], [(29, 14), (0, 6)])),
    }


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_floats_become_float32(dtype):
    values = np.array([1.5, -2.0, 0.1], np.float32)
    if dtype == "bfloat16":
        content = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        value = entry(dtype=BFLOAT16, shape=(3,), size=6, checksum=crc32c(content))
        contents = files_of([(b"", header()), (b"a", value)], [content])
        values = np.frombuffer(b"".join(b"\0\0" + content[i : i + 2] for i in (0, 2, 4)), "<f4")
    else:
        contents = bundle({"a": values.astype(dtype)})
        values = values.astype(dtype).astype(np.float32)
    with open_bundle(Memory(contents), INDEX) as opened:
        assert_bits(opened.read_float32("a"), values, dtype)


@pytest.mark.parametrize(
    ("array", "found"), [(np.zeros(3, np.int32), "int32"), (np.array([b"a"], object), "strings")], ids=str
)
def test_what_is_no_float_is_no_weight(array, found):
    with open_bundle(Memory(bundle({"a": array})), INDEX) as opened:
        with pytest.raises(FormatError, match=f"tensor 'a': expected floating-point numbers, found {found}"):
            opened.read_float32("a")
        with pytest.raises(FormatError, match="tensor 'b' is missing"):
            opened.read("b")


def test_an_index_without_data_files_is_not_a_bundle():
    contents = bundle({"a": np.zeros(3)})
    assert find_indexes(Memory(contents)) == [INDEX]
    assert find_indexes(Memory({INDEX: contents[INDEX], "other.data-00000-of-00001": b""})) == []


# ---------------------------------------------------------------- with a purpose


def one(*, content=bytes(12), key=b"a", **claims):
    """A bundle of a float32 tensor of 3 numbers, but for what is claimed instead."""
    value = entry(**{"shape": (3,), "size": 12, "checksum": crc32c(content), **claims})
    return files_of([(b"", header()), (key, value)], [content])


def test_the_bundle_that_the_hostile_ones_are_made_of_is_whole():
    np.testing.assert_array_equal(read_all(Memory(one()))["a"], np.zeros(3))


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"offset": 1}, "tensor 'a' ends at byte 13 of data file 0, which has 12; the file is not whole"),
        ({"offset": 2**63}, "ends at byte 9,223,372,036,854,775,820 of data file 0"),
        ({"size": 10**13, "shape": (10**13 // 4,)}, "tensor 'a' ends at byte 10,000,000,000,000 of data file 0"),
        ({"size": 2**64 - 12}, "ends at byte 18,446,744,073,709,551,604 of"),
        ({"shape": (10**13,)}, "claims 12 bytes, which is not what shape (10000000000000,) of float32 takes"),
        ({"shape": (2**40, 2**40)}, "a tensor claims the shape (1099511627776, 1099511627776)"),
        ({"shape": (0, 2**62, 2**62)}, "a tensor claims the shape (0, 4611686018427387904, 4611686018427387904)"),
        ({"shape": (1,) * 100}, "has more than 16 axes"),
        ({"shape": (3, 0)}, "claims 12 bytes, which is not what shape (3, 0) of float32 takes"),
        ({"shard": 1}, "tensor 'a' is in data file 1, which is not there; put all files of the model here"),
        ({"shard": 2**31}, "is in data file 2147483648, which is not there"),
        ({"checksum": 1}, "tensor 'a' does not have the checksum stored with it"),
        ({"dtype": 20}, "tensor 'a': expected numbers or strings, found TensorFlow's type 20"),
        ({"dtype": 2**60}, "expected numbers or strings, found TensorFlow's type 1152921504606846976"),
        ({"key": b"\xff\xfe"}, "'utf-8' codec can't decode byte 0xff"),
        ({"dtype": 7}, "the lengths of its strings are not those of its bytes"),
        ({"dtype": 7, "content": b"\1\1\1" + bytes(9), "size": 10}, "does not have the checksum stored with it"),
        ({"dtype": 7, "shape": (13,)}, "the lengths of its strings are not those of its bytes"),
        ({"dtype": 7, "shape": (2**40,)}, "1,099,511,627,776 strings in 12 bytes are too many"),
        ({"dtype": 7, "content": b"\xff" * 12}, "the lengths of its strings are not those of its bytes"),
    ],
)
def test_claims_of_an_entry(claims, message):
    contents = one(**claims)
    assert message in within(1 << 18, lambda: refusal(contents))


def test_tensors_that_share_their_bytes_claim_more_than_there_is():
    value = entry(shape=(3,), size=12, checksum=crc32c(bytes(12)))
    contents = files_of([(b"", header()), *((b"a%03d" % i, value) for i in range(100))], [bytes(12)])
    assert "its tensors claim 1,200 bytes, the data files hold 12" in refusal(contents)


@pytest.mark.parametrize(
    ("slices", "shape", "message"),
    [
        ([[(0, 2), (0, None)]], (4, 3), "its slices together are not as large as its shape (4, 3)"),
        ([[(0, 2), (0, None)]] * 2, (4, 3), "its slices overlap"),
        ([[(0, 2), (0, None)], [(1, 2), (0, None)]], (4, 3), "is missing or of another type"),
        ([[(0, 2), (0, None)], [(2, 2), (0, None)]], (10**12, 3), "not as large as its shape (1000000000000, 3)"),
        ([[(0, 2), (0, None)], [(2, 2), (0, None)]], (4, 5), "does not fit its shape (4, 5)"),
        ([[(0, 2), (0, None)], [(2, 2), (0, None)]], (3, 3), "does not fit its shape (3, 3)"),
        ([[(0, 2)]], (4, 3), "expected slices of numbers with 2 axes"),
        ([[(2**63, 2**63), (0, None)]], (4, 3), "is missing or of another type"),
        ([[]], (), "is missing or of another type"),
    ],
)
def test_slices_that_do_not_make_up_their_tensor(slices, shape, message):
    array = np.ones((4, 3), np.float32)
    entries, shards = entries_and_shards({"a": array}, slices={"a": [((0, 2), (0, None)), ((2, 2), (0, None))]})
    assert entries[-1][0] == b"a"
    entries[-1] = b"a", entry(shape=shape, slices=slices)
    assert message in refusal(files_of(entries, shards))


def test_a_slice_that_is_listed_over_and_over():
    """It would be read as often, into as much memory as the index says."""
    array, part = np.ones((4096, 64), np.float32), ((0, 4096), (0, None))
    entries, shards = entries_and_shards({"a": array}, slices={"a": [part]})
    entries[-1] = b"a", entry(shape=(200 * 4096, 64), slices=[part] * 200)
    assert "its slices overlap" in within(1 << 23, lambda: refusal(files_of(entries, shards)))


def index_of(content):
    return {INDEX: content, DATA: bytes(12)}


GOOD = (b"a", entry(shape=(3,), size=12, checksum=crc32c(bytes(12))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its last bytes are not those of a table"),
        (b"text\n" * 100, "its last bytes are not those of a table"),
        (footer((0, 44)), "a block ends at byte 49 of 48"),
        (bytes(5) + footer((0, 0)), "a block does not have the checksum stored with it"),
        (stored(b"") + footer((0, 0)), "a block has 0 bytes"),
        (footer((2**63, 2**63)), "a block ends at byte 18,446,744,073,709,551,621 of 48"),
        (b"\xff" * 40 + footer((0, 0))[-8:], "a number takes more than ten bytes"),
        (table([]), "it does not start with a header"),
        (table([GOOD]), "it does not start with a header"),
        (table([(b"", b""), GOOD]), "it does not start with a header"),
        (table([(b"", header(reader=2)), GOOD]), "it is of version 2, expected 1"),
        (table([(b"", header()), GOOD, GOOD]), "its keys are not sorted"),
        (table([(b"", header()), (b"b", GOOD[1]), GOOD]), "its keys are not sorted"),
        (table([(b"", header()), (b"a" * 1025, GOOD[1])]), "an entry is larger than its block"),
        (table([(b"", header()), (b"a", b"\x13")]), "a message in it is cut off or not understood"),
        (table([(b"", header()), (b"a", b"\x08" + b"\xff" * 10)]), "a number takes more than ten bytes"),
        (table([(b"", header()), (b"a", b"\x08\xff")]), "it ends too early"),
        (table([(b"", header()), (b"a", b"\x12\xff\xff\x03")]), "a message in it is cut off or not understood"),
        (table([(b"", header()), (b"a", field(2, field(3, 1)))]), "has a shape that is not known"),
        (table([(b"", header()), *((b"a%05d" % i, b"") for i in range(10_001))]), "it has more than 10,000 entries"),
        (bytes(1 << 22) + table([]), "expected at most 4,194,304"),
    ],
    ids=range(21),
)
def test_an_index_that_is_none(content, message):
    assert message in refusal(index_of(content))


def one_block(content, *, compression=0, places=None):
    first = stored(content, compression=compression)
    second = stored(block([(b"z", varint(0) + varint(len(content)))] if places is None else places(len(content))))
    return index_of(first + second + footer((len(first), len(second) - 5)))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (one_block(bytes(4), compression=1), "a block is compressed by snappy, expected none; save it again"),
        (one_block(bytes(4), compression=9), "a block is compressed by method 9"),
        (one_block(b"\xff" * 4), "a block is larger than stated"),
        (one_block(b"\x05\x01\x00a" + bytes(8)), "an entry is larger than its block"),
        (one_block(b"\x00\x01\x7fa" + bytes(8)), "an entry is larger than its block"),
        (one_block(b"\x00\xff\xff\xff\xff\x0f\x00a" + bytes(8)), "an entry is larger than its block"),
        (one_block(bytes(4), places=lambda n: [(b"a", b"\0" + varint(n)), (b"b", b"\0" + varint(n))]),
         "its blocks are not one behind the other"),
        (one_block(bytes(4), places=lambda n: [(b"a", b"\xff" * 4)]), "it ends too early"),
        (one_block(bytes(4), places=lambda n: [(b"a", varint(2**40) + varint(n))]), "a block ends at byte 1,099,511"),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_block_that_is_none(contents, message):
    assert message in refusal(contents)


# ---------------------------------------------------------------- by chance


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


ARRAYS = {
    "a/first": numbers(3, 4),
    "a/second": numbers(7),
    "b": numbers(),
    "c/half": numbers(5).astype(np.float16),
    "c/many": numbers(40, 10),
    "c/sliced": numbers(6, 2),
    "d": np.array([b"one", b"", b"three" * 30], object),
    "e": np.arange(9),
}
PARTS = {"c/sliced": [((0, 1), (0, None)), ((1, 5), (0, 2))]}
ENTRIES, SHARDS = entries_and_shards(ARRAYS, n_shards=2, slices=PARTS)
WHOLE = files_of(ENTRIES, SHARDS)


def read_or_refuse(contents):
    """Read everything, or raise `FormatError`: None. Takes at most four times the memory of the files."""
    # Beside the arrays there are the objects of Python for some dozen entries.
    limit = 4 * sum(map(len, contents.values())) + (1 << 18)
    return within(limit, lambda: refused(lambda: read_all(Memory(contents))))


def damaged_by_chance(seed):
    """Whatever bytes of a bundle are damaged, it is refused or read as it was."""
    found = read_or_refuse(damaged_files(WHOLE, random.Random(seed), among=list(WHOLE)))
    for name, array in (found or {}).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def damaged_on_purpose(seed):
    """The same where checksums are right and the index states anything: then other values may be read."""
    read_or_refuse(damaged_entries(ENTRIES, SHARDS, random.Random(seed)))


def made_up(seed):
    """A bundle whose index is nothing but noise between a right header and a right footer."""
    chance = random.Random(seed)
    noise = [(chance.randbytes(chance.randrange(1, 9)), chance.randbytes(chance.randrange(40))) for _ in range(5)]
    noise += [(b"n", damaged_bytes(GOOD[1], chance))]
    read_or_refuse(files_of([(b"", header()), *sorted(noise)], [bytes(12)]))


KINDS = [damaged_by_chance, damaged_on_purpose, made_up]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_damage_is_refused_in_little_memory(kind, seed):
    kind(seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_cases_of_damage(kind):
    for seed in range(10_000):
        kind(seed)
