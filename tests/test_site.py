"""The documentation site builds without a warning, has every page in its menu, and asks for nothing from elsewhere."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import commands
import elmokit
import figures
import pages

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "mkdocs.yml").read_text("utf-8")
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
FENCED_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_reference_of_the_command_line_is_current():
    """`python tools/commands.py > docs/commands.md` writes it anew."""
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == commands.render()


@pytest.mark.parametrize("name", figures.PICTURES)
def test_drawn_pictures_are_current(name):
    """`python tools/figures.py` draws them anew."""
    assert (figures.IMAGES / name).read_text("utf-8") == figures.PICTURES[name]()


@pytest.mark.parametrize("page", DOCS)
def test_every_page_is_in_the_menu_once(page):
    menu = re.findall(r"(\S+\.md)$", CONFIG.partition("nav:")[2], re.MULTILINE)
    assert menu.count(page) == 1


def imported_in_examples():
    """module.name for all that the pages for users import from elmokit."""
    for page in {*DOCS} - {"docs/extending.md"}:
        for code in FENCED_PYTHON.findall((ROOT / page).read_text("utf-8")):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("elmokit"):
                    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_the_pages_import_is_in_the_api():
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    listed += [f"elmokit.{name.split('.')[1]}.{name.split('.')[-1]}" for name in listed]  # where a package gives it
    modules = {name.rpartition(".")[0] for name in listed}
    whole = tuple(f"{name}." for name in listed)  # modules that are listed as such
    assert [
        name for name in imported_in_examples() if name not in {*listed, *modules} and not name.startswith(whole)
    ] == []


def test_public_names_are_in_the_api():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    errors = {name for name in elmokit.__all__ if name in dir(elmokit.errors)}
    assert "::: elmokit.errors\n" in text
    for name in {*elmokit.__all__} - errors - {"__version__"}:
        assert re.search(rf"^::: elmokit\.\w+\.{name}$", text, re.MULTILINE), name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    for package in ("zensical", "mkdocstrings_handlers"):
        if not find_spec(package):
            pytest.skip(f"the site is built with {package}: pip install 'elmokit[docs]'")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    pages.copy(ROOT, folder / "build" / "pages")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def test_every_page_is_built(site):
    for page in DOCS:
        assert (site / page).with_suffix(".html").is_file(), page


def test_no_page_asks_for_anything_from_elsewhere(site):
    loads = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="?(https?:)?//|<link\b[^>]*\bhref="?https?://""")
    for page in site.rglob("*.html"):
        found = loads.search(page.read_text("utf-8"))
        assert not found, (page, found)


def test_no_mark_of_a_docstring_is_taken_for_html(site):
    """<S> and <UNK> stand between backquotes, or else a reader does not see them."""
    text = (site / "docs" / "api.html").read_text("utf-8").lower()
    assert "<code>&lt;unk&gt;</code>" in text
    assert not re.search(r"</?(unk|bow|eow|bos|eos|pad|oov)>|<s>|</s>", text)


def test_a_broken_link_is_an_error(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("[nowhere](docs/nothing.md)", "utf-8")
    with pytest.raises(FileNotFoundError, match=r"nothing\.md"):
        pages.copy(tmp_path, tmp_path / "out")
