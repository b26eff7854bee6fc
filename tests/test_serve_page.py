"""The page in a real browser: type, choose, see the right neighbours; by keyboard, on a phone, without a network."""

import os
import re

import numpy as np
import pytest

from browser import find
from elmokit.serve import Settings
from serving import KEY, make_hosted, served

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = find()
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is here")

SENTENCES = [["the", "cat", "sat", "."], ["it", "purred", "."], ["the", "dog", "sat", "on", "the", "mat", "."]]
TEXT = "\n".join(" ".join(sentence) for sentence in SENTENCES)
WORDS = [word for sentence in SENTENCES for word in sentence]


@pytest.fixture(scope="module")
def tiny():
    return make_hosted()


@pytest.fixture(scope="module")
def address(tiny):
    with served(tiny, make_hosted("headless", vocabulary=None)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, opened; it may ask nobody but its server, and must not complain."""
    context = browser.new_context()
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: problems.append(request.url) if not allowed(request.url, address) else None)
    page.goto(str(address))
    yield page
    context.close()
    assert not problems


def allowed(url, address):
    return url.startswith((str(address), "data:"))


def show(page, text=TEXT):
    page.get_by_label("Sentences").fill(text)
    page.get_by_role("button", name="Show").click()
    playwright.expect(page.locator("#status")).to_contain_text(" words in ")


def nearest(elmo, chosen, layer):
    """The cosines with the word, and the words, as the page should list them."""
    vectors = np.concatenate(list(elmo.embed(SENTENCES, layers=layer)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[chosen]
    order = [n for n in np.argsort(-cosines, kind="stable") if n != chosen][:10]
    return [(WORDS[n], cosines[n]) for n in order]


def listed(page):
    rows = page.locator("#near li").all()
    return [(row.locator("b").inner_text(), float(row.locator(".value").inner_text())) for row in rows]


def assert_near(page, elmo, chosen, layer):
    found, expected = listed(page), nearest(elmo, chosen, layer)
    np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=6e-4)
    assert [w for w, _ in found] == [w for w, _ in expected]


def word(page, n):
    return page.locator(".word").nth(n)


def test_type_click_see_the_nearest(page, tiny):
    show(page)
    assert page.locator(".word").all_inner_texts() == WORDS
    word(page, 8).click()
    assert word(page, 8).get_attribute("aria-pressed") == "true"
    assert page.locator(".word[aria-pressed=true]").count() == 1
    assert_near(page, tiny.elmo, 8, 2)
    use = page.locator("#near li span").nth(1).inner_text()
    assert use.strip() in [" ".join(sentence) for sentence in SENTENCES]


def test_the_slider_goes_through_the_layers(page, tiny):
    show(page)
    slider = page.get_by_role("slider", name="Layer")
    for layer, name in ((0, "0, the spelling"), (1, "1"), (2, "2, the top")):
        slider.fill(str(layer))
        assert page.locator("#layer-name").inner_text() == name
        assert slider.get_attribute("aria-valuetext") == name
        assert_near(page, tiny.elmo, 0, layer)


def test_the_keyboard_is_enough(page, tiny):
    page.get_by_label("Sentences").fill(TEXT)
    page.keyboard.press("Tab")  # the model
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#status")).to_contain_text(" words in ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "the"
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == "."
    assert_near(page, tiny.elmo, 3, 2)
    page.keyboard.press("Tab")  # one word of all is a stop
    assert page.evaluate("document.activeElement.id") == "layer"
    page.keyboard.press("ArrowLeft")
    assert_near(page, tiny.elmo, 3, 1)


def test_substitutes_with_their_probabilities(page, tiny):
    show(page)
    word(page, 1).click()
    expected = tiny.reader.substitutes(SENTENCES[0], 1, 10)
    rows = page.locator("#substitutes li")
    playwright.expect(rows).to_have_count(len(expected))
    playwright.expect(rows.first).to_contain_text(expected[0].word)
    for row, one in zip(rows.all(), expected, strict=True):
        percent, substitute = row.locator("span").all_inner_texts()
        assert substitute == one.word
        assert float(percent.removesuffix(" %")) == pytest.approx(100 * one.probability, rel=0.06)


def test_shading_says_how_unexpected_a_word_is(page, tiny):
    show(page)
    bits = np.concatenate([np.mean(score.surprisal(), axis=0) for score in tiny.reader.score(SENTENCES)])
    for n, value in enumerate(bits):
        button = word(page, n)
        assert button.get_attribute("title").startswith(f"{value:.1f} bits")
        assert button.get_attribute("class") == f"word s{sum(value >= limit for limit in (3, 6, 9, 12))}"
    assert page.locator("#legend").is_visible()


def test_the_map_has_every_word_and_answers_a_click(page, tiny):
    show(page)
    assert page.locator("#map g").count() == len(WORDS)
    assert page.locator("#map g.chosen text").inner_html() == "the (1)"
    assert page.locator("#map g.same").count() == WORDS.count("the")
    page.locator("#map g[data-n='4'] circle").dispatch_event("click")
    assert page.locator("#map g.chosen text").inner_html() == "it (2)"
    assert_near(page, tiny.elmo, 4, 2)


def test_the_map_is_the_plane_of_most_variance(page, tiny):
    """The places on the map are those of principal components, up to scale and mirror."""
    show(page)
    vectors = np.concatenate(list(tiny.elmo.embed(SENTENCES, layers=2))).astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    left, _, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    for axis, name in enumerate(("cx", "cy")):
        places = {
            int(g.get_attribute("data-n")): float(g.locator("circle").get_attribute(name))
            for g in page.locator("#map g").all()
        }
        correlation = np.corrcoef([places[n] for n in range(len(WORDS))], left[:, axis])[0, 1]
        assert abs(correlation) > 0.99


def test_a_model_without_a_head_shows_what_it_can(page):
    page.get_by_label("Model").select_option("headless")
    show(page)
    assert not page.locator("#substitutes-section").is_visible()
    assert not page.locator("#legend").is_visible()
    assert not page.locator("#corpus-section").is_visible()
    assert len(listed(page)) == 10


def test_it_says_what_is_wrong(page):
    page.get_by_label("Sentences").fill("  ")
    page.get_by_role("button", name="Show").click()
    playwright.expect(page.locator("#status")).to_have_text("Type a sentence first.")


def test_text_is_never_markup(page):
    show(page, "the <img src=x onerror=alert(1)> cat <b>sat</b>")
    assert page.locator("main img").count() == 0
    assert "<" in "".join(page.locator(".word").all_inner_texts())


def test_it_asks_for_the_key(browser, tiny):
    with served(tiny, settings=Settings(api_key=KEY)) as address:
        page = browser.new_page()
        page.goto(str(address))
        key = page.get_by_label("API key")
        playwright.expect(key).to_be_focused()
        assert "API key" in page.locator("#status").inner_text()
        key.fill(KEY)
        show(page)
        page.close()


@pytest.mark.parametrize(("width", "height"), [(320, 640), (768, 1024), (1440, 900)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_used_by_all(browser, address, tmp_path, width, height, scheme):
    """Nothing to scroll sideways, and no complaint of axe-core: names, roles, contrast."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(str(address))
    show(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    page.screenshot(
        path=os.environ.get("ELMOKIT_SCREENSHOTS", str(tmp_path)) + f"/{width}-{scheme}.png", full_page=True
    )
    page.close()


def test_the_page_is_small_and_asks_nobody_else():
    from elmokit.serve.page import _FILES

    text = b"".join(_FILES.values()).decode()
    assert len(text) < 40_000
    assert not [url for url in re.findall(r"https?://[^\s\"'`]+", text) if url != "http://www.w3.org/2000/svg"]
