"""`Guard`: what is done for every request before anything else of it is looked at, and what ends it.

Key, size and time of arrival are checked before anything is parsed; a client that goes away, or a request that takes
too long, is cancelled, and with it its place in the queue.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elmokit.errors import shown
from elmokit.serve.refusal import Refusal, body_of
from elmokit.serve.settings import Settings

_NUMBER = re.compile("[0-9]{1,20}")  # what is longer begins with zeros: its bytes are counted as they come

_PORT = re.compile(":[0-9]*$")

# So many bodies of the largest size may be under way at once; small ones are taken all the same.
_BODIES = 32
_SMALL = 1 << 16


class Guard:
    """Middleware. `open_paths`: what needs no key; "/a/" stands for all below it, "/" for itself."""

    def __init__(self, app: ASGIApp, settings: Settings, *, open_paths: Sequence[str]) -> None:
        self.app, self.settings = app, settings
        self._open = frozenset(open_paths)
        self._open_below = tuple(path for path in open_paths if path.endswith("/") and path != "/")
        self._held = 0  # bytes of the bodies of all requests under way
        self._key = f"Bearer {settings.api_key}".encode() if settings.api_key else None
        self._for_this_machine = self._key is None and _is_this_machine(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False
        body: list[bytes] = []

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            self._check_host(scope)
            self._check_key(scope)
            if await self._read(scope, receive, body):
                body[:] = [b"".join(body)]
                await self._answer(scope, body[0], receive, noting)
        except Refusal as refusal:
            if begun:  # half an answer cannot be taken back
                raise ConnectionAbortedError(refusal.message) from None
            await response_of(scope["path"], refusal)(scope, receive, send)
        finally:
            self._held -= sum(map(len, body))
        return None

    def _check_host(self, scope: Scope) -> None:
        """Refuse a page of another site whose name was made to lead here (DNS rebinding), where no key keeps it out."""
        if not self._for_this_machine:
            return
        name = _PORT.sub("", Headers(scope=scope).get("host", "localhost"))
        if not _is_this_machine(name.strip("[]")):
            raise Refusal(
                403,
                f"without an API key this server answers to names of its own machine, such as localhost, found "
                f"{shown(name)}; start it with a key to reach it by another name",
            )

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["path"] in self._open or scope["path"].startswith(self._open_below):
            return
        given = Headers(scope=scope).get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, self._key):
            raise Refusal(
                401,
                'this server asks for its API key; send it as "Authorization: Bearer KEY"',
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer", "Connection": "close"},  # its body was not read
            )

    async def _read(self, scope: Scope, receive: Receive, body: list[bytes]) -> bool:
        """Put together the body; return whether it came to its end, or the client went away."""
        most = self.settings.limits.body
        stated = Headers(scope=scope).get("content-length", "0")
        if _NUMBER.fullmatch(stated) and int(stated) > most:
            raise _too_large(most)
        try:
            return await asyncio.wait_for(self._take(receive, body), self.settings.body_timeout)
        except asyncio.TimeoutError:
            raise Refusal(408, "the request did not arrive in time", headers={"Connection": "close"}) from None

    async def _take(self, receive: Receive, body: list[bytes]) -> bool:
        """Add the parts of a body to those that have come, as long as there is room."""
        most, size = self.settings.limits.body, 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            body.append(part)
            size, self._held = size + len(part), self._held + len(part)
            if size > most:
                raise _too_large(most)
            if size > min(_SMALL, most // 2) and self._held > _BODIES * most:
                headers = {"Retry-After": "1", "Connection": "close"}
                raise Refusal(503, "the server is busy with requests that are large; try again in 1 s", headers=headers)
            if not message.get("more_body"):
                return True

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application until it is done, the client has gone, or time is up."""
        work = asyncio.ensure_future(self.app(scope, _replay(body), send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((work, gone), timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                return None
            raise Refusal(504, f"the answer took longer than {self.settings.timeout:g} s; ask for less at once")
        finally:
            for task in (work, gone):
                if not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


def response_of(path: str, refusal: Refusal) -> Response:
    """Return a refusal as clients of `path` read it."""
    content = orjson.dumps(body_of(path, refusal))
    return Response(content, refusal.status, refusal.headers, media_type="application/json")


def _is_this_machine(name: str) -> bool:
    """Say whether a name or an address is that of the machine itself."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _too_large(most: int) -> Refusal:
    message = f"the body of the request is larger than {most} bytes, which is the most that is taken; send it in parts"
    return Refusal(413, message, headers={"Connection": "close"})


def _replay(body: bytes) -> Receive:
    """Give a body that was read to who reads it next; after it, nothing ever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return receive


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
