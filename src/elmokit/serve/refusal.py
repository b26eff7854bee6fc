"""`Refusal`: why a request is not answered, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Characters of a message; more is a request that is quoted.
_LONGEST = 1000


class Refusal(Exception):
    """A reply that is an error. `param`: the field at fault; `code`: the word that OpenAI's clients look for."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, _text(message), param and _text(param), code
        self.headers = dict(headers or {})


def body_of(path: str, refusal: Refusal) -> dict[str, Any]:
    """Return the body of a refusal in the form that clients of `path` read: OpenAI's, or {"error": sentence}."""
    if path.rstrip("/") not in ("/v1/embeddings", "/v1/models"):
        return {"error": refusal.message}
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}


def _text(found: str) -> str:
    """Return what may quote a request as text that can be sent, and read."""
    shown = found if len(found) <= _LONGEST else f"{found[:_LONGEST]} ..."
    return shown.encode("utf-8", "backslashreplace").decode()
