"""Connections that do not wait for ever: a client that never ends its headers is closed.

uvicorn has a time limit between two requests, but none for the headers of one, so that whoever sends a byte now and
then ("slow loris") could hold connections without end. The time of the body is `Guard`'s to limit.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a time limit from the connection, or the first byte of a request, to its headers."""

    def __init__(self, *arguments: Any, header_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timeout = header_timeout
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def on_message_begin(self) -> None:
        """Start the clock of the next request."""
        super().on_message_begin()
        self._start()

    def on_headers_complete(self) -> None:
        """Stop the clock."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._stop()
        self._deadline = self.loop.call_later(self._header_timeout, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
