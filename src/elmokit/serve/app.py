"""The application: routes, the middlewares around them, errors as one plain sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from elmokit.serve import health, open_inference, openai, own, page, tensorflow
from elmokit.serve.document import document
from elmokit.serve.guard import Guard, response_of
from elmokit.serve.hosted import Hosted
from elmokit.serve.refusal import Refusal
from elmokit.serve.service import Service
from elmokit.serve.settings import Settings
from elmokit.serve.watch import Watch

# What needs no key: whether the server is well, and the page, which asks its user for the key.
OPEN_PATHS = ("/health", "/v2/health/", "/", "/page/")


def make_app(models: Sequence[Hosted], settings: Settings) -> FastAPI:
    """Return the application that serves these models; it computes from its startup to its shutdown."""
    service = Service(models, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="elmokit",
        version=version("elmokit"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send clients to the host that they name themselves
    )
    app.state.service = service
    described = cache(lambda: document(app, list(service.models)))
    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to change it
    for protocol in (own, openai, tensorflow, open_inference, health, page):
        app.include_router(protocol.router)
    for error in (Refusal, RequestValidationError, HTTPException):
        app.add_exception_handler(error, _refused)
    app.add_middleware(Guard, settings=settings, open_paths=OPEN_PATHS)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_headers=["*"], allow_methods=["*"]
        )
    app.add_middleware(Watch, metrics=service.metrics)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    return response_of(request.url.path, _as_refusal(request, error))


def _as_refusal(request: Request, error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException) and request.url.path.startswith("/v1/models/"):
        return Refusal(400, f"Malformed request: {request.method} {request.url.path}")  # as TensorFlow Serving does
    if isinstance(error, HTTPException) and error.status_code == 404:
        return Refusal(404, f"there is nothing at {request.url.path}; /openapi.json lists what there is")
    if isinstance(error, HTTPException) and error.status_code == 405:
        return Refusal(405, f"{request.method} is not for {request.url.path}", headers=error.headers)
    return Refusal(422, "the body of the request cannot be read; send JSON in UTF-8")


def _invalid(error: RequestValidationError) -> Refusal:
    first, *others = error.errors()
    if isinstance(error.body, bytes):  # it was not read as JSON, because nothing said that it is
        return Refusal(422, 'the body is read as JSON only if it is called so; send "Content-Type: application/json"')
    if first["type"] == "json_invalid":
        found = f"{first['ctx']['error']} at character {first['loc'][-1]}"
        return Refusal(422, f"the body of the request is no JSON: {found}")
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    more = f" (and {len(others)} more)" if others else ""
    found = first["msg"].removeprefix("Value error, ")
    return Refusal(422, f"{where or 'the body'}: {found}{more}", param=where or None)
