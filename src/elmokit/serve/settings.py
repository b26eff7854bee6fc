"""What a server may be told: where it listens, what it accepts, how long it waits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from elmokit.errors import MismatchError


@dataclass(frozen=True)
class Limits:
    """The largest request that is taken; beyond it the reply is 413 (the body) or 422, with a plain sentence."""

    body: int = 8 << 20  # bytes
    sentences: int = 2048
    tokens: int = 1000  # of a sentence
    request_tokens: int = 32_768  # of a request
    characters: int = 200  # of a token
    values: int = 1 << 24  # numbers of a reply


@dataclass(frozen=True)
class Settings:
    """Where a server listens, and how it treats requests.

    `api_key`: what a client must present as "Authorization: Bearer KEY"; None for no key. `cors_origins`: pages of
    other origins that may call it. `batch_tokens`: tokens computed together. `queue_tokens`: tokens that may wait
    before requests are refused with 503. Times are in seconds: `timeout` of a request, `body_timeout` of its arrival,
    `header_timeout` of its headers, `reply_timeout` in which a client must take some of its reply, `drain` for what is
    under way when the server is stopped.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    batch_tokens: int = 8192
    queue_tokens: int = 131_072
    timeout: float = 60.0
    body_timeout: float = 20.0
    header_timeout: float = 10.0
    reply_timeout: float = 300.0  # the system's own buffers hide progress of a megabyte or two
    drain: float = 30.0
    tracing: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raise `MismatchError` where the queue could never take a request that the limits allow."""
        if self.queue_tokens < self.limits.request_tokens:
            raise MismatchError(
                f"the queue holds {self.queue_tokens} tokens, fewer than one request may have "
                f"({self.limits.request_tokens}); make the queue larger or the request smaller"
            )
        if self.api_key is not None and not re.fullmatch("[!-~]+", self.api_key):
            found = "a space, the end of a line or a letter beyond ASCII" if self.api_key else "nothing"
            raise MismatchError(f"the API key holds {found}; give one of ASCII letters, digits and signs")
