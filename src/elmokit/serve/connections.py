"""Connections that do not wait, read or keep for ever what their client does not end or does not take.

uvicorn has a time limit between two requests, but none for the headers of one, so that whoever sends a byte now and
then ("slow loris") could hold connections without end; none for the length of headers; and none for how long a reply
waits for its client. The time and the length of a body are `Guard`'s to limit.

Nor are offers to speak another protocol taken up. Java's client makes one, of HTTP/2, with every request, and httptools
takes such a request for one without a body.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes that may come of a request's headers, or of what stands between or behind the pieces of its body.
_MOST = 1 << 16
_OFFER = b"\r\nupgrade:"
_UPGRADE = re.compile(_OFFER, re.IGNORECASE)


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a time limit from the connection, or the first byte of a request, to its headers.

    `reply_timeout`: seconds in which a client must take some of a reply that waits for it.
    """

    def __init__(self, *arguments: Any, header_timeout: float, reply_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timeout, self._reply_timeout = header_timeout, reply_timeout
        self._deadline: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes of replies that waited at the last look
        self._held = b""  # the beginning of what may be an offer of another protocol
        self._in_body = False
        self._advanced = False  # whether what came last began a request, ended its headers or brought some of its body
        self._between = 0  # bytes since then

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clocks."""
        super().connection_made(transport)
        self._start()
        self._look = self.loop.call_later(self._reply_timeout, self._look_at_reply)

    def data_received(self, data: bytes) -> None:
        """Read on, if it is not without end."""
        self._advanced = False
        super().data_received(data if self._in_body else self._without_upgrade(data))
        self._between = 0 if self._advanced else self._between + len(data)
        if self._between > _MOST:
            self.transport.close()
        if self._deadline is None and not self._in_body and getattr(self.cycle, "response_complete", True):
            self._start()  # any byte stops uvicorn's clock of what is idle, the end of a line before a request too

    def on_message_begin(self) -> None:
        """Start the clock of the next request."""
        super().on_message_begin()
        self._advanced = True
        self._start()

    def on_headers_complete(self) -> None:
        """Stop the clock."""
        self._advanced = self._in_body = True
        self._unsent = 0  # replies of one length may all leave the same number of bytes
        self._stop()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that the request goes on."""
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that headers come next."""
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _without_upgrade(self, data: bytes) -> bytes:
        """Give the header with an offer of another protocol another name, as long as its own: no length may change."""
        headers, end, rest = (self._held + data).partition(b"\r\n\r\n")
        self._held = b"" if end else _begun_upgrade(headers)
        return _UPGRADE.sub(b"\r\nIgnored:", headers.removesuffix(self._held)) + end + rest

    def _start(self) -> None:
        self._stop()
        self._deadline = self.loop.call_later(self._header_timeout, self._end)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        if getattr(self.cycle, "response_complete", True):
            self.transport.close()
        else:  # the request before it is being answered; until then the rest may not even be read
            self._start()

    def _look_at_reply(self) -> None:
        """Cut off a client that has taken nothing since the last look of a reply that waits for it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            self.transport.abort()
        self._unsent = unsent
        self._look = self.loop.call_later(self._reply_timeout, self._look_at_reply)


def _begun_upgrade(headers: bytes) -> bytes:
    """Return the end of what has come of the headers, if the name of that header begins with it."""
    lengths = range(len(_OFFER) - 1, 0, -1)
    return next((headers[-n:] for n in lengths if headers[-n:].lower() == _OFFER[:n]), b"")
