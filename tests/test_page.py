"""The page of a map in a real browser: offline, hover, click, search, layers, lasso. Skipped where no Chromium is."""

import re

import numpy as np
import pytest

import browser
from elmokit import plot
from elmokit.labelled import LabelledText

pytest.importorskip("bokeh")
pytest.importorskip("sklearn")
sync = pytest.importorskip("playwright.sync_api")
CHROMIUM = browser.find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is here: apt install chromium-headless-shell")

# Words that would be code, mathematics or mark-up in a page that does not take care.
HOSTILE = ["<img", "src=x", "onerror=alert(1)>", "</script>", "$$x^2$$", "&amp;", "bank"]
SENTENCES = [*(f"the old bank number{n} was a river{n % 3} .".split() for n in range(12)), HOSTILE]
LABELS = [*(("money", "<b>river</b>")[n % 2] for n in range(12)), "odd"]


@pytest.fixture(scope="module")
def drawn(tiny_elmo):
    text = LabelledText(SENTENCES, labels=LABELS)
    return plot.make_map(tiny_elmo, text, words=["bank"], layers=("top", "1"), method="pca", progress=False)


@pytest.fixture(scope="module")
def chromium():
    with sync.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield running
        running.close()


def opened(chromium, path):
    """The page, when it is drawn, and the addresses that it has asked for."""
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.set_default_timeout(120_000)  # other tests may run beside it
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("dialog", lambda dialog: page.wrong.append("a dialog") or dialog.dismiss())
    page.goto(path.as_uri())
    page.wait_for_function("window.Bokeh?.documents.length && Bokeh.documents[0].is_idle")
    return page


@pytest.fixture(scope="module")
def one_page(chromium, drawn, tmp_path_factory):
    """Opening takes most of the time, so there is one page for all tests."""
    path = tmp_path_factory.mktemp("page") / "map.html"
    plot.write(drawn, path, neighbours=4)
    page = opened(chromium, path)
    yield page
    page.context.close()


@pytest.fixture
def page(one_page):
    """The page as it was when it was opened."""
    one_page.evaluate(
        """() => {
            const model = (name) => Bokeh.documents[0].get_model_by_name(name)
            location.hash = ""
            model("layer").active = 0
            model("search").value_input = ""
            model("points").selected.indices = []
            model("panel").text = "<p></p>"
            model("chart").reset.emit()
        }"""
    )
    one_page.mouse.move(0, 0)
    one_page.wait_for_function("Bokeh.documents[0].is_idle && !document.querySelector('.bk-Tooltip')")
    yield one_page
    assert one_page.wrong == []


def click(page, x, y):
    """Click on the chart; for Bokeh, two clicks within 0.3 seconds are one double click, wherever they are."""
    page.wait_for_timeout(500)
    page.mouse.click(x, y)


def model(page, name, what):
    return page.evaluate(f"Bokeh.documents[0].get_model_by_name({name!r}).{what}")


def place(page, point):
    """Where a point is on the screen."""
    return page.evaluate(
        """point => {
            const chart = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("chart").id)
            const {x, y} = Bokeh.documents[0].get_model_by_name("points").data
            const box = chart.canvas_view.el.getBoundingClientRect()
            const {x_scale, y_scale} = chart.frame
            return [box.x + x_scale.compute(x[point]), box.y + y_scale.compute(y[point])]
        }""",
        point,
    )


def alone(drawn, view="top"):
    """The point that is furthest from all others, so that the mouse can only mean this one."""
    xy = drawn.views[view].plane.xy_N2
    xy = (xy - xy.min(0)) / np.ptp(xy, axis=0)
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return int(distances.min(1).argmax())


def empty_place(page, drawn):
    """A place on the map, as far from all points as there is one on a grid."""
    dots = np.array([place(page, point) for point in range(len(drawn.points))])
    grid = np.stack(np.meshgrid(*(np.linspace(*side, 30) for side in zip(dots.min(0), dots.max(0), strict=True))), -1)
    distances = np.linalg.norm(grid.reshape(-1, 1, 2) - dots, axis=-1).min(1)
    return grid.reshape(-1, 2)[distances.argmax()].tolist()


def panel(page):
    return page.locator(".bk-Div", has=page.locator("p")).first


def test_nothing_is_fetched(page):
    """Also not for mathematics, which Bokeh would fetch a library for."""
    page.wait_for_timeout(500)
    assert len(page.asked) == 1
    assert page.asked[0].startswith("file://")


def test_the_points_are_drawn_where_they_should_be(page, drawn):
    assert model(page, "chart", "output_backend") == "webgl"
    found = model(page, "points", "data")
    xy = drawn.views["top"].plane.xy_N2
    for name, column in zip("xy", xy.T, strict=True):
        np.testing.assert_array_equal(found[name], column)


def test_pointing_at_a_dot_shows_its_sentence_with_the_word_marked(page, drawn):
    point = alone(drawn)
    page.mouse.move(*place(page, point))
    tooltip = page.locator(".bk-Tooltip div", has=page.locator("mark")).last
    tooltip.wait_for()
    assert tooltip.locator("mark").inner_text() == "bank"
    assert " ".join(SENTENCES[point]) in " ".join(tooltip.inner_text().split())
    assert LABELS[point] in tooltip.inner_text()


def test_a_click_shows_the_nearest_uses_in_the_space_of_the_vectors(page, drawn):
    point = alone(drawn)
    click(page, *place(page, point))
    items = panel(page).locator("ol li")
    items.first.wait_for()
    vectors = drawn.views["top"].vectors_ND
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units[point]
    cosines[point] = -2
    wanted = np.argsort(-cosines)[:4]
    shown = [int(re.search(r"#point-(\d+)", items.nth(i).inner_html())[1]) for i in range(items.count())]
    np.testing.assert_allclose(cosines[shown], cosines[wanted], atol=1e-5)
    for i, other in enumerate(shown):
        text = " ".join(items.nth(i).inner_text().split())
        assert text.startswith(f"{cosines[other]:.2f} {' '.join(SENTENCES[other])}")
        assert items.nth(i).locator("mark").inner_text() == "bank"
    assert set(model(page, "points", "selected.indices")) == {point, *shown}


def test_a_neighbour_can_be_followed_and_nothing_clicked_clears(page, drawn):
    click(page, *place(page, alone(drawn)))
    link = panel(page).locator("ol li a").first
    other = int(link.get_attribute("href").removeprefix("#point-"))
    link.click()
    page.wait_for_function(f"Bokeh.documents[0].get_model_by_name('points').selected.indices[0] === {other}")
    click(page, *empty_place(page, drawn))
    page.wait_for_function("!Bokeh.documents[0].get_model_by_name('points').selected.indices.length")


def test_text_that_looks_like_code_is_text(page):
    page.evaluate("location.hash = '#point-12'")
    first = panel(page).locator("p").first
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('panel').text.includes('onerror')")
    assert " ".join(HOSTILE) in " ".join(first.inner_text().split())
    assert page.locator("img[src='x']").count() == 0
    assert page.asked == page.asked[:1]


@pytest.mark.parametrize(("typed", "where", "wanted"), [("RIVER2", "in sentences", 4), ("bank", "in words", 13)])
def test_search_finds_points(page, typed, where, wanted):
    page.locator("select").select_option(where)
    page.locator("input[type=text]").type(typed)
    page.get_by_text(f"{wanted} found").wait_for()
    found = model(page, "points", "selected.indices")
    assert len(found) == wanted
    if where == "in sentences":
        assert all(typed.lower() in SENTENCES[i] for i in found)
    page.locator("input[type=text]").fill("")
    page.wait_for_function("!Bokeh.documents[0].get_model_by_name('points').selected.indices.length")


def test_search_for_what_is_not_there_shows_none(page):
    page.locator("input[type=text]").fill("zebra")
    page.get_by_text("0 found").wait_for()


def test_the_layer_can_be_switched(page, drawn):
    page.get_by_role("button", name="layer 1").click()
    wanted = drawn.views["1"].plane.xy_N2
    page.wait_for_function(
        f"Math.abs(Bokeh.documents[0].get_model_by_name('points').data.x[0] - {float(wanted[0, 0])}) < 1e-6"
    )
    point = alone(drawn, "1")
    page.wait_for_timeout(300)  # the axes follow
    click(page, *place(page, point))
    panel(page).locator("ol li").first.wait_for()
    assert model(page, "points", "selected.indices[0]") == point


def test_a_lasso_copies_the_sentences_in_it(page):
    page.locator(".bk-ToolButton[title^='Lasso'], .bk-tool-icon-lasso-select").first.click()
    box = page.evaluate(
        """() => {
            const chart = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("chart").id)
            const {x, y} = chart.canvas_view.el.getBoundingClientRect()
            const {left, top, right, bottom} = chart.frame.bbox
            return [x + left + 2, y + top + 2, x + right - 2, y + bottom - 2]
        }"""
    )
    left, top, right, bottom = box
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(*corner, steps=5)
    page.mouse.up()
    page.get_by_text(f"{len(SENTENCES)} points in {len(SENTENCES)} sentences, copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines() == [" ".join(sentence) for sentence in SENTENCES]


def test_a_name_in_the_legend_hides_its_dots(page, drawn):
    assert model(page, "legend", "items.map(item => item.label.value)") == ["<b>river</b>", "money", "odd"]
    page.get_by_text("<b>river</b>", exact=True).click()
    page.get_by_text("<b>river</b> (hidden)").wait_for()
    counts = "renderers.slice(0, 3).map(one => one.view.indices.count)"
    assert model(page, "chart", counts) == [0, 6, 1]
    page.mouse.move(*place(page, 1))  # a dot that is not there any more
    page.wait_for_timeout(300)
    assert page.locator(".bk-Tooltip mark").count() == 0
    page.get_by_text("<b>river</b> (hidden)").click()
    page.get_by_text("<b>river</b>", exact=True).wait_for()
    assert model(page, "chart", counts) == [6, 6, 1]


@pytest.mark.slow
def test_fifty_thousand_points_open_and_move(chromium, tmp_path):
    """How fast is told in docs/seeing.md; here it must only answer, on a machine without a graphics card."""
    generator = np.random.default_rng(0)
    sentences = [[f"word{n}" for n in row] for row in generator.integers(0, 900, (2500, 20))]
    points = plot.Points(sentences, np.repeat(np.arange(2500), 20), np.tile(np.arange(20), 2500))
    vectors = generator.normal(size=(50_000, 2)).astype(np.float32)
    view = plot.View(vectors, plot.Plane(vectors, "pca", (0.5, 0.5)))
    drawn = plot.Map("many", points, plot.Colouring("word", ["a", "b"], np.arange(50_000) % 2), {"top": view})
    (tmp_path / "many.html").write_text(plot.page(drawn, neighbours=1), encoding="utf-8")
    page = opened(chromium, tmp_path / "many.html")
    page.locator("input[type=text]").fill("word12")
    found = sum(word.startswith("word12") for sentence in sentences for word in sentence)
    page.get_by_text(f"{found:,} found").wait_for()
    assert page.wrong == []
    page.context.close()
