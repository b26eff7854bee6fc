"""`elmo serve`."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from elmokit.cli.options import MODEL, Device, Precision, load_model
from elmokit.errors import MismatchError

if TYPE_CHECKING:
    from elmokit.model import Elmo
    from elmokit.search import Index

_BUNDLED = "bundled"
_NAME = re.compile(r"[\w.-]+", re.ASCII)
# What a file of a model ends in; published names have dots of their own, as in original-5.5b.
_ENDING = re.compile(r"(\.(zip|tar|tgz|gz|bz2|xz|hdf5|json|index))+$", re.IGNORECASE)


def serve(
    models: Annotated[
        list[str] | None,
        Argument(
            metavar="[MODEL...]",
            envvar="ELMO_MODELS",
            help=f"each {MODEL}, or NAME=MODEL to say how clients call it; without one the bundled model, 'bundled'",
        ),
    ] = None,
    index: Annotated[
        str | None,
        Option(envvar="ELMO_INDEX", metavar="DB", help="an index to search, of one of the models; see  elmo index"),
    ] = None,
    index_name: Annotated[str, Option(envvar="ELMO_INDEX_NAME", help="of the index, where DB holds several")] = "elmo",
    host: Annotated[str, Option(envvar="ELMO_HOST", help="address to listen on; 0.0.0.0 for all")] = "127.0.0.1",
    port: Annotated[int, Option(envvar="ELMO_PORT", min=0, max=65535, help="0 for any that is free")] = 8000,
    api_key: Annotated[
        str | None, Option(envvar="ELMO_API_KEY", help="clients must send it; better given in the variable")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        Option(envvar="ELMO_CORS_ORIGINS", help="pages of this origin may call the server; repeatable"),
    ] = None,
    batch_tokens: Annotated[int, Option(envvar="ELMO_BATCH_TOKENS", min=1, help="tokens computed together")] = 8192,
    queue_tokens: Annotated[
        int, Option(envvar="ELMO_QUEUE_TOKENS", min=1, help="tokens that may wait; beyond them the reply is 503")
    ] = 131_072,
    timeout: Annotated[float, Option(envvar="ELMO_TIMEOUT", min=0.001, help="seconds for a request")] = 60.0,
    drain: Annotated[
        float, Option(envvar="ELMO_DRAIN", min=0, help="seconds for what is under way when the server is stopped")
    ] = 30.0,
    max_body: Annotated[int, Option(envvar="ELMO_MAX_BODY", min=1, help="bytes of a request")] = 8 << 20,
    max_sentences: Annotated[int, Option(envvar="ELMO_MAX_SENTENCES", min=1, help="of a request")] = 2048,
    max_tokens: Annotated[int, Option(envvar="ELMO_MAX_TOKENS", min=1, help="of a sentence")] = 1000,
    max_request_tokens: Annotated[int, Option(envvar="ELMO_MAX_REQUEST_TOKENS", min=1, help="of a request")] = 32_768,
    max_characters: Annotated[int, Option(envvar="ELMO_MAX_CHARACTERS", min=1, help="of a token")] = 200,
    max_values: Annotated[int, Option(envvar="ELMO_MAX_VALUES", min=1, help="numbers of a reply")] = 1 << 24,
    tracing: Annotated[
        bool, Option("--tracing", envvar="ELMO_TRACING", help="send traces as the OTEL_* variables say")
    ] = False,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Annotated[int | None, Option(envvar="ELMO_THREADS", min=1, max=1024, help="processor threads")] = None,
) -> None:
    """Answer requests for vectors over HTTP, and show a page, until stopped."""
    from elmokit import serve as server

    limits = server.Limits(
        body=max_body,
        sentences=max_sentences,
        tokens=max_tokens,
        request_tokens=max_request_tokens,
        characters=max_characters,
        values=max_values,
    )
    settings = server.Settings(
        host=host,
        port=port,
        # Typer takes an empty variable for none, and a key that somebody forgot to fill in must not open the server.
        api_key=os.environ.get("ELMO_API_KEY") if api_key is None else api_key,
        cors_origins=tuple(cors_origin or ()),
        batch_tokens=batch_tokens,
        queue_tokens=queue_tokens,
        timeout=timeout,
        drain=drain,
        tracing=tracing,
        limits=limits,
    )
    elmos = {
        name: load_model(source, None, None, threads, device=device, precision=precision)
        for name, source in _named(models or [_BUNDLED]).items()
    }
    found = _open_index(index, index_name, elmos) if index else {}
    hosted = [server.Hosted(name, elmo, index=found.get(name)) for name, elmo in elmos.items()]
    log = _log_to_stderr(server.JsonLines())
    told = {"models": [one.name for one in hosted]}
    server.run(hosted, settings, ready=lambda address: log.info("serving", extra={**told, "address": address}))


def _named(models: list[str]) -> dict[str, str | None]:
    """Return name -> what to open, None for the bundled model, of arguments NAME=MODEL or MODEL."""
    named: dict[str, str | None] = {}
    for model in models:
        name, source = model.split("=", 1) if "=" in model else (_ENDING.sub("", Path(model).name), model)
        if not _NAME.fullmatch(name):
            expected = "letters, digits, '.', '_' and '-'"
            raise MismatchError(f"a model cannot be called {name!r}, expected {expected}; say NAME={source}")
        if name in named:
            raise MismatchError(f"two models are called {name!r}; give one another name, as in  NAME={source}")
        named[name] = None if source == _BUNDLED else source
    return named


def _open_index(address: str, index_name: str, elmos: dict[str, Elmo]) -> dict[str, Index]:
    """Return the index under the name of the model that it was made with."""
    from elmokit.search import Index, settings_of

    there = settings_of(address, name=index_name)
    made_with = [name for name, elmo in elmos.items() if there and elmo.fingerprint == there.model]
    if there and not made_with:
        raise MismatchError(f"the index {address} was made with none of these models; serve the one it was made with")
    name = made_with[0] if made_with else next(iter(elmos))  # where no index is, opening it says so
    return {name: Index.open(address, elmos[name], name=index_name)}


def _log_to_stderr(formatter: logging.Formatter) -> logging.Logger:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return logging.getLogger("elmokit.serve")
