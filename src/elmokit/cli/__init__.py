"""The command `elmo`: a module for each group of commands, each loading what it needs when it runs."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from typer import Option

from elmokit.cli import embed, lm, models, plot, search, serve, train
from elmokit.cli.options import notice
from elmokit.errors import ElmoError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        print(installed("elmokit"))
        raise typer.Exit


@app.callback()
def elmo(
    debug: Annotated[bool, Option("--debug", help="show the whole trace of an error")] = False,  # read in main()
    version: Annotated[
        bool, Option("--version", help="print the version and stop", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """ELMo: vectors of words in context.

    Data goes to standard output, notices and progress to standard error. Exit codes: 0 done, 1 an error told in one
    sentence, 2 wrong usage, 130 interrupted.
    """


for _command in (
    embed.embed,
    models.info,
    models.convert,
    models.models,
    models.fetch,
    train.train,
    lm.perplexity,
    lm.score,
    lm.substitutes,
    search.index,
    search.search,
    serve.serve,
    plot.plot,
    plot.senses,
):
    app.command()(_command)


def main() -> None:
    """Run the command line; what goes wrong here or in the file system is one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # letters that a terminal or a pipe lacks are spelled out
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ElmoError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        notice("elmo: " + str(error).replace("\n", " "))
        sys.exit(1)
