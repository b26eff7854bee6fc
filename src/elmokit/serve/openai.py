"""OpenAI's protocol: `POST /v1/embeddings`, `GET /v1/models`.

Field names and bodies: OpenAI's API reference, and the client `openai`, with which it is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictInt, StrictStr
from starlette.responses import Response

from elmokit.serve.encoding import base64_of
from elmokit.serve.fields import Items, expected
from elmokit.serve.hosted import Hosted
from elmokit.serve.refusal import Refusal
from elmokit.serve.service import Served, Service
from elmokit.vectors import unit

Array = NDArray[np.float32]
router = APIRouter(tags=["OpenAI"])

_Tokens = Items[StrictInt]
_TEXTS = expected("a text or a list of texts")


class EmbeddingsRequest(BaseModel):
    """What is to be embedded. Fields of OpenAI that mean nothing here are ignored."""

    input: Annotated[StrictStr | Items[StrictStr] | _Tokens | Items[_Tokens], _TEXTS] = Field(
        description="Raw text: one, or a list. Numbers of tokens are refused: they are of another vocabulary."
    )
    model: StrictStr
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(None, description="Only the model's own width.")
    user: str | None = None


class Embedding(BaseModel):
    """One vector, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or little-endian float32 in base64.")


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """An error as OpenAI words it."""

    error: ErrorBody


class ModelFacts(BaseModel):
    """A model; `elmokit` tells what OpenAI's form has no field for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    elmokit: dict[str, int | bool | str]


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelFacts]


ERRORS: dict[int | str, dict[str, Any]] = {s: {"model": Error} for s in (401, 404, 408, 413, 422, 503, 504)}


@router.post("/v1/embeddings", responses={**ERRORS, 200: {"model": EmbeddingsReply}})
async def embeddings(wanted: EmbeddingsRequest, service: Served) -> Response:
    """Return a vector for each text: the mean over its words, scaled to length 1."""
    hosted = service.model(wanted.model)
    if wanted.dimensions not in (None, hosted.elmo.dim):
        message = f"the vectors of {hosted.name!r} have {hosted.elmo.dim} dimensions and cannot be shortened"
        raise Refusal(422, f"{message}; leave 'dimensions' out", param="dimensions")
    texts = _texts(wanted.input)
    vectors, tokens = await text_vectors(service, hosted, texts)
    found = map(base64_of, vectors) if wanted.encoding_format == "base64" else vectors
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(found)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = {"object": "list", "data": data, "model": hosted.name, "usage": usage}
    return Response(orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@router.get("/v1/models", responses={**ERRORS, 200: {"model": ModelList}})
async def models(service: Served) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [facts(hosted) for hosted in service.models.values()]}


def facts(hosted: Hosted) -> dict[str, Any]:
    """Return what is told of a model."""
    own: dict[str, int | bool | str] = {
        "dim": hosted.elmo.dim,
        "layers": hosted.elmo.n_layers,
        "predicts": hosted.reader is not None,
    }
    if hosted.index is not None:
        own["searches"] = hosted.index.settings.unit
    return {"id": hosted.name, "object": "model", "created": hosted.opened, "owned_by": "elmokit", "elmokit": own}


async def text_vectors(service: Service, hosted: Hosted, texts: Sequence[str]) -> tuple[list[Array], int]:
    """Return the unit vector (D,) of each text, over the words of all its sentences, and how many words these are."""
    split = await service.split(texts)
    for number, sentences in enumerate(split):
        if not sentences:
            raise Refusal(422, f"text {number} has no words; leave it out", param="input")
    flat = [sentence for sentences in split for sentence in sentences]
    means = iter(await service.vectors(hosted, flat, pool="mean"))
    vectors = [_mean([next(means) for _ in sentences], list(map(len, sentences))) for sentences in split]
    return vectors, sum(map(len, flat))


def _texts(given: Any) -> list[str]:
    texts: list[Any] = [given] if isinstance(given, str) else given
    if not texts:
        raise Refusal(422, "the request has no text; give one in 'input'", param="input")
    if not isinstance(texts[0], str):
        message = "numbers of tokens cannot be embedded, because this model has other tokens than OpenAI's"
        raise Refusal(422, f"{message}; send the text itself", param="input")
    return texts


def _mean(means: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Return the mean over all words of sentences, from those of each, scaled to length 1."""
    mean = np.average(means, axis=0, weights=sizes) if len(means) > 1 else means[0]
    scaled: Array = unit(mean).astype(np.float32)
    return scaled
