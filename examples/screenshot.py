"""Take a picture of the page of a map, with the first point of a word clicked.

python examples/screenshot.py PAGE.html OUT.png WORD     needs playwright and a Chromium
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

MODEL = "Bokeh.documents[0].get_model_by_name"
page_file, out, word = sys.argv[1:]
with sync_playwright() as playwright:
    path = next((found for name in ("chromium-headless-shell", "chromium") if (found := shutil.which(name))), None)
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1200, "height": 640})
    page.set_default_timeout(120_000)
    page.goto(Path(page_file).resolve().as_uri())
    page.wait_for_function("window.Bokeh?.documents.length && Bokeh.documents[0].is_idle")
    page.evaluate(
        f"""word => {{
            const {{sentence, place}} = {MODEL}("points").data
            const texts = {MODEL}("texts").data.text
            const point = sentence.findIndex((s, i) => texts[s].split(" ")[place[i]] === word)
            location.hash = "#point-" + point
        }}""",
        word,
    )
    page.wait_for_timeout(3000)
    page.screenshot(path=out)
    browser.close()
