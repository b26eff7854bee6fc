"""The documentation keeps its word: quoted code is the code, commands exist as shown, examples run, links lead on."""

import json
import re
import shlex
import tempfile
from pathlib import Path

import pytest
import typer

from elmokit import formats
from elmokit.checkpoint import WEIGHTS, write_native
from elmokit.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
REFERENCE = ROOT / "tests" / "reference.py"
QUOTE = "<!-- tests/reference.py -->\n"  # stands before every quoted piece
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("bash", "sh", "shell", "console")
ELMO = typer.main.get_command(app)


def blocks(page, *languages):
    """The fenced blocks of these languages, without quotes of the reference."""
    text = PAGES[page].read_text("utf-8")
    found = [(match, match[2]) for match in FENCED.finditer(text) if match[1] in languages]
    return [block for match, block in found if not text[: match.start()].endswith(QUOTE)]


def cases(find):
    """One test for each thing that `find` finds on a page."""
    return [pytest.param(item, id=f"{page}-{i}") for page in PAGES for i, item in enumerate(find(page), start=1)]


# ---------------------------------------------------------------- quoted code


def test_how_elmo_works_quotes_the_whole_reference():
    """Piece by piece, in the order of the file, nothing left out and nothing changed."""
    parts = PAGES["docs/how-elmo-works.md"].read_text("utf-8").split(QUOTE)[1:]
    pieces = [FENCED.match(part)[2] for part in parts]
    assert len(pieces) > 1
    assert "\n\n".join(pieces) == REFERENCE.read_text("utf-8")


# ---------------------------------------------------------------- tables


def test_tables_show_the_results(monkeypatch):
    """What benchmarks/table.py would write is what the pages have."""
    benchmarks = ROOT / "benchmarks"
    if not (benchmarks / "results").is_dir():
        pytest.skip("the results of the benchmarks are not beside the tests")
    monkeypatch.syspath_prepend(str(benchmarks))
    import table

    stale = []
    for page, name, make in table.TABLES:
        lines = make(json.loads((benchmarks / "results" / f"{name}.json").read_text("utf-8")))
        text = (ROOT / "docs" / page).read_text("utf-8")
        stale += [f"{page}: {name}"] if table.replace(text, name, lines) != text else []
    assert stale == []


# ---------------------------------------------------------------- commands


def elmo_lines(block):
    """The arguments of every `elmo` on the lines of a block, pipes, comments and continued lines understood."""
    for line in block.replace("\\\n", " ").splitlines():
        if "elmo" not in line:
            continue
        words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        words.whitespace_split = True
        command = []
        for word in [*words, "|"]:
            if set(word) <= set("|&;"):
                if command[:1] == ["elmo"]:
                    yield command[1:]
                command = []
            else:
                command.append(word)


def shown_commands(page):
    return [arguments for block in blocks(page, *SHELLS) for arguments in elmo_lines(block)]


def named_commands(page):
    """The `elmo ...` within sentences and tables: names of commands and options, arguments perhaps left out."""
    prose = FENCED.sub("", PAGES[page].read_text("utf-8"))
    spans = (span.split() for span in re.findall(r"`elmo ([^`]*)`", prose))
    return [words for words in spans if not words[0].isupper()]


def options_of(command):
    names = {name for parameter in command.params for name in parameter.opts}
    return {name for name in names if name.startswith("-")} | {"--help"}


def subcommand(words):
    """The command that is meant and the words after its name; options of `elmo` itself may stand before it."""
    place = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    assert set(words[:place]) <= options_of(ELMO)
    if place == len(words):
        return ELMO, []
    assert words[place] in ELMO.commands
    return ELMO.commands[words[place]], words[place + 1 :]


@pytest.mark.parametrize("arguments", cases(shown_commands))
def test_command_lines_are_accepted(arguments):
    """Nothing is run: the command's own parser takes the arguments, or raises."""
    command, rest = subcommand(arguments)
    if command is not ELMO and "--help" not in rest:
        command.make_context(command.name, rest)


@pytest.mark.parametrize("words", cases(named_commands))
def test_commands_named_in_the_text_exist(words):
    command, rest = subcommand(words)
    assert {word.strip("[],.") for word in rest if word.lstrip("[").startswith("--")} <= options_of(command)


@pytest.mark.parametrize(("name", "page"), [("train", "training"), ("serve", "serving")])
def test_every_option_is_described(name, page):
    """The table of its page and the command have the same options."""
    rows = re.findall(r"^\| `(--[\w-]+)", PAGES[f"docs/{page}.md"].read_text("utf-8"), re.MULTILINE)
    assert set(rows) == options_of(ELMO.commands[name]) - {"--help"}


# ---------------------------------------------------------------- examples and links


@pytest.fixture
def model_in_place(tiny, tmp_path, monkeypatch):
    """Where no model is bundled, `load()` opens a tiny one."""
    if not (formats.BUNDLED / WEIGHTS).is_file():
        write_native(tiny, tmp_path / "en")
        monkeypatch.setattr(formats, "BUNDLED", tmp_path / "en")


@pytest.mark.parametrize("code", cases(lambda page: blocks(page, "python")))
def test_examples_run(code, model_in_place, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # some leave their file to the reader
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def anchors(path):
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_something(page):
    """Files and headings of this repository; pictures and pages elsewhere are not fetched."""
    text = FENCED.sub("", PAGES[page].read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = PAGES[page].parent / name if name else PAGES[page]
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target
