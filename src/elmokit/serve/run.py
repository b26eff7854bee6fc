"""`run`: a server from its first to its last request."""

from __future__ import annotations

import gc
import math
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from elmokit.errors import OutputError
from elmokit.serve.app import make_app
from elmokit.serve.connections import ImpatientProtocol
from elmokit.serve.hosted import Hosted
from elmokit.serve.settings import Settings

# Seconds that a connection may be idle between two requests.
_KEEP_ALIVE = 60


def run(models: Sequence[Hosted], settings: Settings, *, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve models until SIGINT or SIGTERM; what was taken by then is finished, within `settings.drain` seconds.

    `ready` is called with the server's address once it listens. To be called in the main thread. Raises `OutputError`
    where the address cannot be had.
    """
    listener = _listen(settings)
    _allow_connections()
    config = configured(make_app(models, settings), settings)
    # uvicorn ends by raising the signal that stopped it once more; here, that is a good end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _forget_what_stays()
    ready(_address(listener))
    uvicorn.Server(config).run(sockets=[listener])


def configured(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve the application."""
    if settings.tracing:
        from elmokit.serve.tracing import traced

        app = traced(app)
    waits = {"header_timeout": settings.header_timeout, "reply_timeout": settings.reply_timeout}
    return uvicorn.Config(
        app,
        http=partial(ImpatientProtocol, **waits),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain),
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"{settings.host} port {settings.port} cannot be had ({reason}); choose another port"
        ) from None


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _forget_what_stays() -> None:
    """Keep the garbage collector from walking through all that is loaded, again and again, while requests wait."""
    gc.collect()
    gc.freeze()


def _allow_connections() -> None:
    """Allow as many open connections as the system lets this process have."""
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
