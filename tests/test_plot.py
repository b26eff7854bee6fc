"""Maps: points, places on the plane, neighbours, colours, pictures, tables. The page is in test_page.py."""

import io
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from elmokit import clusters, plot
from elmokit.errors import MismatchError, MissingExtra, OutputError, TextError
from elmokit.labelled import LabelledText
from elmokit.layers import layer_weights
from elmokit.plot import colouring, fonts, nearest, picture, points, projection, style

SENTENCES = [f"the Old bank{' .' * (n % 3)} number{n} is a river{n % 4}".split() for n in range(15)] + [["bank"]]


def map_of(elmo, **options):
    return plot.make_map(elmo, options.pop("text", SENTENCES), **{"method": "pca", "progress": False, **options})


# ---------------------------------------------------------------- points


def test_all_words_are_points():
    found = points.choose(SENTENCES)
    assert found.words() == [word for sentence in SENTENCES for word in sentence]
    assert not found.whole


def test_uses_of_words_are_points_in_upper_and_lower_case():
    found = points.choose(SENTENCES, words=["OLD", "river1"])
    assert set(found.words()) == {"Old", "river1"}
    assert len(found) == 19
    assert found.around(0, 1) == "the Old bank …"


def test_sentences_are_points():
    found = points.choose([["a"], [], ["b", "c"]], whole=True)
    assert (found.whole, found.words()) == (True, ["a", "b c"])


def test_of_too_many_points_some_are_drawn_always_the_same():
    first, again, other = (points.choose(SENTENCES, most=20, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 20
    np.testing.assert_array_equal(first.place_N, again.place_N)
    assert (first.sentence_N != other.sentence_N).any()
    assert (np.diff(first.sentence_N) >= 0).all()


def test_a_word_that_is_not_there_is_told():
    with pytest.raises(TextError, match="no use of 'zebra' or 'gnu'"):
        points.choose(SENTENCES, words=["zebra", "gnu"])
    with pytest.raises(TextError, match="no use of any word"):
        points.choose([[]])
    with pytest.raises(MismatchError, match="choose one"):
        points.choose(SENTENCES, words=["bank"], whole=True)


def test_vectors_are_those_of_embed(tiny_elmo):
    drawn = map_of(tiny_elmo, layers=("average", "top", "1", "0"))
    for name, asked in (("average", "average"), ("top", "top"), ("1", 1), ("0", 0)):
        wanted = np.concatenate(list(tiny_elmo.embed(SENTENCES, layers=asked)))
        np.testing.assert_allclose(drawn.views[name].vectors_ND, wanted, atol=1e-6)


def test_vectors_of_a_drawn_part_are_those_of_their_words(tiny_elmo):
    drawn = map_of(tiny_elmo, most=13, layers=("top",))
    every = list(tiny_elmo.embed(SENTENCES, layers="top"))
    wanted = [every[s][p] for s, p in zip(drawn.points.sentence_N, drawn.points.place_N, strict=True)]
    np.testing.assert_allclose(drawn.views["top"].vectors_ND, wanted, atol=1e-6)


def test_vectors_of_sentences_are_means(tiny_elmo):
    drawn = map_of(tiny_elmo, whole=True, layers=("average",))
    wanted = list(tiny_elmo.embed(SENTENCES, pool="mean"))
    np.testing.assert_allclose(drawn.views["average"].vectors_ND, wanted, atol=1e-6)


def test_layers_have_names(tiny_elmo):
    assert layer_weights(tiny_elmo, "top") == [0, 0, 1]
    with pytest.raises(MismatchError, match="layer '3' is not there; this model has average, top, mix, 0, 1, 2"):
        layer_weights(tiny_elmo, "3")
    with pytest.raises(MismatchError, match="holds 0 trained mixes"):
        layer_weights(tiny_elmo, "mix")


# ---------------------------------------------------------------- the plane


def blobs(n=40, width=12, seed=0):
    """Three groups of directions, far from each other."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return 5 * np.eye(3, width)[labels] + generator.normal(0, 0.3, (n, width)), labels


def neighbours_agree(xy, labels):
    """The share of points whose nearest on the plane is of their group."""
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(1)] == labels).mean()


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_groups_stay_together_and_a_seed_is_kept(method):
    pytest.importorskip({"tsne": "openTSNE", "umap": "umap"}.get(method, "sklearn"))
    vectors, labels = blobs()
    first, again = (projection.project(vectors, method, seed=3) for _ in range(2))
    assert first.method == method
    assert neighbours_agree(first.xy_N2, labels) == 1
    np.testing.assert_array_equal(first.xy_N2, again.xy_N2)


def test_principal_components_tell_their_share():
    generator = np.random.default_rng(0)
    vectors = np.eye(1, 9) * 100 + generator.normal(0, 1, (500, 9)) * np.array([0, 5, 3, 1, 1, 1, 1, 1, 1])
    share = projection.project(vectors, "pca").variance
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.sort(np.linalg.eigvalsh(np.cov(units.T)))[::-1]
    np.testing.assert_allclose(share, values[:2] / values.sum(), rtol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_points_and_equal_ones_have_places(n):
    vectors = np.repeat(np.random.default_rng(0).normal(size=(n, 4)), 3, axis=0)
    plane = projection.project(vectors, "tsne")
    assert plane.method == "pca"
    assert plane.xy_N2.shape == (3 * n, 2)
    assert np.isfinite(plane.xy_N2).all()
    assert len(np.unique(plane.xy_N2, axis=0)) == n


def test_equal_vectors_have_one_place():
    vectors, _ = blobs(30)
    plane = projection.project(np.concatenate([vectors, vectors * 2]), "tsne")
    np.testing.assert_array_equal(plane.xy_N2[:30], plane.xy_N2[30:])


def test_an_unknown_projection_is_told():
    with pytest.raises(MismatchError, match="projection: expected 'tsne', 'umap', 'pca', found 'lda'"):
        projection.project(np.eye(3), "lda")


# ---------------------------------------------------------------- neighbours


@given(
    hn.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=st.floats(-3, 3, width=32)),
    st.integers(1, 8),
)
def test_neighbours_are_the_most_similar(vectors, k):
    found = nearest.nearest(vectors, k)
    units = clusters.unit(vectors.astype(np.float64))
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    k = min(k, len(vectors) - 1)
    assert found.points_NK.shape == (len(vectors), k)
    np.testing.assert_allclose(found.cosines_NK, np.sort(cosines, 1)[:, ::-1][:, :k], atol=1e-5)
    assert not (found.points_NK == np.arange(len(vectors))[:, None]).any()
    assert all(len(set(row)) == k for row in found.points_NK.tolist())


@pytest.mark.slow
def test_approximate_neighbours_are_nearly_all_of_them():
    pytest.importorskip("pynndescent")
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 20))[generator.integers(0, 40, 3000)] + generator.normal(size=(3000, 20))
    vectors[1000:1050] = vectors[1000]  # equal ones, among which a point need not find itself first
    exact, found = nearest.nearest(vectors, 10), nearest.nearest(vectors, 10, exact=100)
    shared = [len({*a} & {*b}) for a, b in zip(exact.points_NK.tolist(), found.points_NK.tolist(), strict=True)]
    assert np.mean(np.delete(shared, np.arange(1000, 1050))) > 9.5
    np.testing.assert_allclose(found.cosines_NK[1000:1050], 1, atol=1e-5)
    assert (np.diff(found.cosines_NK, axis=1) <= 0).all()


# ---------------------------------------------------------------- groups


def test_the_number_of_groups_is_found():
    vectors, labels = blobs(60)
    found = clusters.group(vectors)
    assert found.n == 3
    assert found.silhouette == max(found.silhouettes.values()) > 0.8
    assert {tuple(sorted(set(labels[found.labels_N == k]))) for k in range(3)} == {(0,), (1,), (2,)}


@given(hn.arrays(np.float64, st.tuples(st.integers(1, 25), st.just(3)), elements=st.floats(-2, 2)), st.integers(0, 4))
def test_groups_are_numbered_by_size(vectors, n):
    try:
        found = clusters.group(vectors, n or None)
    except MismatchError as error:
        assert "groups, as many vectors are different" in str(error)  # noqa: PT017
        return
    sizes = Counter(found.labels_N.tolist())
    assert sorted(sizes) == list(range(found.n))
    assert [sizes[k] for k in range(found.n)] == sorted(sizes.values(), reverse=True)
    assert n in (0, found.n)


def test_equal_vectors_are_one_group():
    found = clusters.group(np.ones((9, 3)))
    assert (found.n, found.silhouette) == (1, None)
    with pytest.raises(MismatchError, match="between 1 and 1 groups"):
        clusters.group(np.ones((9, 3)), 2)


def test_points_are_coloured_by_what_the_text_knows(tiny_elmo):
    text = LabelledText(SENTENCES, labels=[f"l{n % 2}" for n in range(16)])
    assert map_of(tiny_elmo, text=text).colouring.names == ["l0", "l1"]
    tagged = LabelledText(SENTENCES, parts_of_speech=[["N" if w == "bank" else "O" for w in s] for s in SENTENCES])
    found = map_of(tiny_elmo, text=tagged).colouring
    assert [found.names[g] for g in found.group_N] == [t for tags in tagged.parts_of_speech for t in tags]
    words = map_of(tiny_elmo, words=["bank", "old"]).colouring
    assert (words.by, words.names) == ("word", ["bank", "old"])
    assert map_of(tiny_elmo, words=["bank"]).colouring.by.startswith("cluster, silhouette 0.")
    assert map_of(tiny_elmo, words=["bank"], clusters=4).colouring.names[-1] == "cluster 4"


def test_labels_of_words_are_theirs(tiny_elmo):
    labels = [[str(p) for p in range(len(s))] for s in SENTENCES]
    drawn = map_of(tiny_elmo, text=LabelledText(SENTENCES, word_labels=labels), words=["bank"])
    assert drawn.colouring.names == ["2", "0"]
    with pytest.raises(TextError, match="the labels are of words, and the points are sentences"):
        map_of(tiny_elmo, text=LabelledText(SENTENCES, word_labels=labels), whole=True, by="label")


def test_all_layers_in_one_map(tiny_elmo):
    drawn = map_of(tiny_elmo, words=["bank"], by="layer")
    assert list(drawn.views) == ["all layers"]
    assert drawn.colouring.names == ["layer 0", "layer 1", "layer 2"]
    assert len(drawn.points) == 3 * 16
    wanted = map_of(tiny_elmo, words=["bank"], layers=("2",)).views["2"].vectors_ND
    np.testing.assert_allclose(drawn.views["all layers"].vectors_ND[32:], wanted, atol=1e-6)


def test_sentences_have_colours_of_their_own_or_stretches():
    few, many = (colouring.by_sentence(points.choose(SENTENCES[:n])) for n in (4, 16))
    assert few.names[0] == "1: the Old bank number0 is"
    assert (len(many.names), many.in_order) == (10, True)
    assert (np.diff(many.group_N) >= 0).all()
    assert many.names[-1] == "16 to 16"


def test_rare_names_become_one():
    names = [f"n{n}" for n in range(40) for _ in range(40 - n)]
    found = colouring.by_names("x", names)
    assert found.names[-1] == "other"
    assert len(found.names) == colouring.MOST_GROUPS
    assert Counter(found.group_N.tolist())[0] == 40


def test_a_name_that_is_other_goes_with_the_rest():
    found = colouring.by_names("label", ["other"] * 9 + [f"name{n}" for n in range(40)])
    assert found.names.count("other") == 1
    assert len(found.names) == colouring.MOST_GROUPS
    assert Counter(found.names[group] for group in found.group_N)["other"] == 9 + 40 - 17


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_a_seed_that_is_none_is_told(tiny_elmo, seed):
    with pytest.raises(MismatchError, match=re.escape(f"found {seed!r}")):
        map_of(tiny_elmo, seed=seed)


def test_what_a_text_lacks_is_told(tiny_elmo):
    with pytest.raises(TextError, match="no labels; name their column with --label"):
        map_of(tiny_elmo, by="label")
    with pytest.raises(TextError, match="sentences have no part of speech"):
        map_of(tiny_elmo, by="pos", whole=True)


def test_parts_of_speech_by_spacy(tiny_elmo, tmp_path):
    """A pipeline with rules of its own in place of a trained one, which is not in the package index."""
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    rules = nlp.add_pipe("attribute_ruler")
    rules.add([[{"LOWER": "bank"}]], {"POS": "NOUN"})
    nlp.to_disk(tmp_path / "rules")
    found = map_of(tiny_elmo, by="pos", pipeline=str(tmp_path / "rules"), most=60)
    tags = [found.colouring.names[g] for g in found.colouring.group_N]
    assert tags == ["NOUN" if word == "bank" else "X" for word in found.points.words()]
    with pytest.raises(MissingExtra, match="python -m spacy download not_there"):
        map_of(tiny_elmo, by="pos", pipeline="not_there")


@given(st.integers(1, colouring.MOST_GROUPS), st.booleans())
def test_no_two_groups_look_alike(n, in_order):
    found = style.looks(plot.Colouring("x", [f"n{i}" for i in range(n)], np.zeros(1, np.int64), in_order))
    assert len(set(found)) == n
    if not in_order:
        assert len({look.shape for look in found}) == min(n, 9)  # what is left when it is printed grey


# ---------------------------------------------------------------- pictures


def grey(colour):
    """The luminance of a colour, 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_groups_of_the_same_shape_differ_in_grey():
    names = [f"n{i}" for i in range(colouring.MOST_GROUPS)]
    found = style.looks(plot.Colouring("x", names, np.zeros(1, np.int64)))
    shades = {
        shape: [grey(one.colour) for one in found if one.shape == shape] for shape in {one.shape for one in found}
    }
    assert all(len(pair) == 2 and abs(pair[0] - pair[1]) > 0.1 for pair in shades.values())


def test_steps_are_readable_in_grey():
    shades = [grey(look.colour) for look in style.looks(plot.Colouring("x", list("abcdef"), np.zeros(1), True))]
    assert (np.diff(shades) > 0.05).all()


def boxes_of(drawn, panel):
    """The boxes of names and of markers, in pixels."""
    renderer = drawn.canvas.get_renderer()
    names = [np.array(name.get_window_extent(renderer).extents) for name in panel.texts]
    dots = []
    for collection in panel.collections:
        at = panel.transData.transform(collection.get_offsets())
        radius = collection.get_sizes().max() ** 0.5 / 2 * drawn.dpi / 72
        dots += [np.array([x - radius, y - radius, x + radius, y + radius]) for x, y in at]
    return names, dots


def cross(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("options", [{"words": ["bank"]}, {"layers": ("top", "1")}, {"whole": True}])
def test_names_hide_no_points_and_no_names(tiny_elmo, options):
    drawn = picture.figure(map_of(tiny_elmo, **options))
    for panel in drawn.axes:
        names, dots = boxes_of(drawn, panel)
        assert len(names) > 2
        assert not any(cross(name, dot) for name in names for dot in dots)
        assert not any(cross(a, b) for i, a in enumerate(names) for b in names[:i])
        frame = panel.get_window_extent().extents
        assert all((n[:2] >= frame[:2]).all() and (n[2:] <= frame[2:]).all() for n in names)


def test_every_point_is_drawn_in_its_colour(tiny_elmo):
    drawn = map_of(tiny_elmo, words=["bank", "old"])
    panel = picture.figure(drawn, labels=0).axes[0]
    assert not panel.texts
    for group, collection in enumerate(panel.collections):
        wanted = drawn.views["average"].plane.xy_N2[drawn.colouring.group_N == group]
        np.testing.assert_allclose(collection.get_offsets(), wanted)


def test_a_picture_has_a_panel_for_each_view_and_a_legend(tiny_elmo):
    drawn = picture.figure(map_of(tiny_elmo, layers=("average", "0", "1", "2"), words=["bank"]))
    titles = [panel.get_title() for panel in drawn.axes if panel.get_title()]
    assert titles[0].startswith("average of the layers, principal components")
    assert titles[1] == "layer 0, all alike"
    assert drawn.legends[0].get_title().get_text().startswith("cluster")


@pytest.mark.parametrize(
    "text",
    [
        "a cup at $ 5 or $ 6 a bank".split(),
        r"bank $x^$ \foo $\nothing{ $".split(),
        ["\x00\x1b[31m", "--", "-->", "<b>", "bank", "\x01"],
        "我 在 bank 工作 नमस्ते הבנק".split(),
        ["bank", "x" * 100_000, "$y_{$"],
    ],
    ids=["dollars", "broken formulas", "control characters", "other scripts", "a long token"],
)
@pytest.mark.parametrize("options", [{"words": ["bank"]}, {"words": ["$"]}, {"by": "sentence"}])
def test_any_text_is_drawn_as_it_is_and_leaves_the_map_room(tiny_elmo, tmp_path, text, options):
    labelled = LabelledText([[*text, "$"], [*text, "$"], ["$", "bank"]], labels=["$a$ $b", "_", text[-1] * 900])
    drawn = map_of(tiny_elmo, text=labelled, **options)
    plot.write(drawn, tmp_path / "a.svg")
    ElementTree.parse(tmp_path / "a.svg")
    made = picture.figure(drawn)
    assert made.axes[0].get_window_extent().width > made.bbox.width / 4
    shown = [entry.get_text() for entry in made.legends[0].get_texts()]
    assert "by" in options or {"$a$ $b", "_"} <= set(shown)
    assert not any(entry.get_parse_math() for entry in [*made.legends[0].get_texts(), *made.axes[0].texts])


def test_fonts_are_sought_for_letters_that_the_usual_one_lacks():
    assert fonts.families(["bank", "río", "банк"]) == ["DejaVu Sans"]
    names = fonts.families(["我"])
    if len(names) == 1:
        pytest.skip("no font here has Chinese letters")
    assert len(names) == 2
    assert fonts.families(["\uffff"]) == ["DejaVu Sans"]  # which is in none


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures_are_written_the_same_each_time(tiny_elmo, tmp_path, ending):
    drawn = map_of(tiny_elmo, words=["bank"])
    for name in "ab":
        plot.write(drawn, tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml"}[ending])
    assert not list(tmp_path.glob("*.tmp"))


def test_a_table_holds_places_and_neighbours(tiny_elmo, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    drawn = map_of(tiny_elmo, words=["bank"], layers=("top", "1"))
    plot.write(drawn, tmp_path / "a.parquet", neighbours=3)
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 16
    assert rows[0]["text"] == " ".join(SENTENCES[0])
    assert rows[0]["group"] == drawn.colouring.names[drawn.colouring.group_N[0]]
    found = nearest.nearest(drawn.views["1"].vectors_ND, 3)
    for n, row in enumerate(rows):
        assert (row["word"], row["place"]) == ("bank", drawn.points.place_N[n])
        np.testing.assert_allclose([row["x_1"], row["y_1"]], drawn.views["1"].plane.xy_N2[n])
        assert row["neighbors_1"]["ids"] == found.points_NK[n].tolist()
        np.testing.assert_allclose(row["neighbors_1"]["distances"], 1 - found.cosines_NK[n], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"), [("a.gif", "found '.gif'"), ("no/a.png", "does not exist"), ("", "found ''")]
)
def test_a_place_that_cannot_be_written_is_told(tiny_elmo, tmp_path, name, message):
    with pytest.raises(OutputError, match=re.escape(message)):
        plot.check_output(tmp_path / name)


def test_a_picture_in_grey_keeps_groups_apart(tiny_elmo):
    """Without colours, each group of words still has a shape of its own."""
    image = pytest.importorskip("PIL.Image")
    drawn = plot.make_map(tiny_elmo, SENTENCES, words=["bank", "old", "is"], by="word", method="pca", progress=False)
    written = io.BytesIO()
    picture.figure(drawn).savefig(written, format="png")
    assert image.open(written).convert("L").getextrema()[0] < 80  # edges are dark
    assert len({look.marker for look in style.looks(drawn.colouring)}) == 3
