"""`Watch`: a number for every request, in its reply and its line of the log; counts for Prometheus."""

from __future__ import annotations

import json
import logging
import re
import time
from secrets import token_hex
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elmokit.serve.guard import response_of
from elmokit.serve.metrics import Metrics
from elmokit.serve.refusal import Refusal

log = logging.getLogger("elmokit.serve")
# A request's number may be the client's own, if it can do no harm in a log.
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Watch:
    """Middleware, the outermost."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it went."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 499  # as in nginx: the client went away first
        number = _number(scope)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = number
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, noting)
        except Exception:
            log.exception("failed", extra={"request": number})
            if status == 499:
                message = f"the server failed to answer; its log says more under {number}"
                await response_of(scope["path"], Refusal(500, message))(scope, receive, noting)
            status = 500
        finally:
            self.metrics.in_flight.dec()
            self._note(scope, number, status, time.perf_counter() - start)
        return None

    def _note(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # as declared: a name for each of few
        self.metrics.answered(route, status, seconds)
        known = {"request": number, "method": scope["method"], "path": scope["path"], "status": status}
        client = (scope.get("client") or ("", 0))[0]
        log.info("answered", extra={**known, "ms": round(seconds * 1000, 2), "client": client})


def _number(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _ID.fullmatch(given) else token_hex(8)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    _FIELDS = ("request", "method", "path", "status", "ms", "client", "models", "address")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in self._FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
