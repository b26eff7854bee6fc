"""Write the reference of the command line from what every command says with --help.

python tools/commands.py > docs/commands.md
"""

from __future__ import annotations

import typer
import typer.core

from elmokit.cli import app

WIDTH = 100
HEAD = """\
# The command line

What every command says with `--help`, written by `python tools/commands.py > docs/commands.md`. A model is a path, a
hub repository `user/name`, a [published name](models.md), or `bundled`. Every text is one tokenised sentence a line
where nothing else is said.

The exit code is 0 when all is done, 1 for an error told in one sentence (`--debug` before the command shows the whole
trace), 2 for wrong usage, 130 when interrupted.
"""


def section(name: str, command: typer.core.TyperCommand | typer.core.TyperGroup) -> str:
    """One command's heading and help, at one width wherever it is written."""
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH)
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join([f"## {name}", "", "```text", *lines, "```", ""])


def render() -> str:
    """The whole page."""
    elmo = typer.main.get_command(app)
    assert isinstance(elmo, typer.core.TyperGroup)
    commands = [section(f"elmo {name}", command) for name, command in elmo.commands.items()]
    return "\n".join([HEAD, section("elmo", elmo), *commands])


if __name__ == "__main__":
    print(render(), end="")
