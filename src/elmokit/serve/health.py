"""`/health` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from elmokit.serve.metrics import CONTENT_TYPE
from elmokit.serve.own import ERRORS, Error, reply
from elmokit.serve.service import Served

router = APIRouter(tags=["watch"])


class Health(BaseModel):
    """Whether requests are answered, and with which models."""

    status: str
    models: list[str]


@router.get("/health", responses={200: {"model": Health}, 503: {"model": Error}})
async def health(service: Served) -> Response:
    """Say whether requests are computed; 503 where they are not."""
    service.check_ready()
    return reply({"status": "ok", "models": list(service.models)})


@router.get("/metrics", response_class=Response, responses={401: ERRORS[401], 200: {"content": {"text/plain": {}}}})
async def metrics(service: Served) -> Response:
    """Return counts and times in Prometheus' text format."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
