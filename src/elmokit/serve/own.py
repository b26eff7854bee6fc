"""Our own protocol: vectors of tokens, substitutes, perplexity. Tokens go in, or raw text that is split here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter
from pydantic import BaseModel, Field, FiniteFloat, StrictInt, StrictStr, model_validator
from starlette.responses import Response

from elmokit.lm import Scores, exp_of_loss
from elmokit.serve import encoding
from elmokit.serve.fields import Items, Strict, expected
from elmokit.serve.service import Served, Service

router = APIRouter(tags=["elmokit"])


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {s: {"model": Error} for s in (401, 403, 404, 408, 413, 422, 503, 504)}


class Wanted(Strict):
    """Sentences, or texts that are split into sentences and tokens (syntok)."""

    model: StrictStr | None = Field(None, description="A name of /v1/models; without it the first of them.")
    sentences: Items[Items[StrictStr]] | None = Field(None, description="Tokenised.")
    texts: Items[StrictStr] | None = Field(None, description="Raw: each may hold several sentences.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Wanted:
        if (self.sentences is None) == (self.texts is None):
            raise ValueError("expected either 'sentences' or 'texts'")
        return self


_LAYERS = expected("'average', 'top', 'all', the number of a layer, or a list with a finite weight for each")


class EmbedWanted(Wanted):
    """What to embed, and how. `layers` and `pool` are those of `Elmo.embed`."""

    layers: Annotated[Literal["average", "top", "all"] | StrictInt | Items[FiniteFloat], _LAYERS] = "average"
    pool: Literal["none", "mean", "max"] = "none"
    format: Literal["json", "base64", "npz", "arrow"] = Field(
        "json", description="base64: JSON with little-endian float32 in base64 and its shape in place of numbers."
    )


class SentenceVectors(BaseModel):
    """A sentence: the number of its text, its tokens and its vectors, as numbers or in base64."""

    text: int
    tokens: list[str]
    vectors: list[Any] | str
    shape: list[int]


class EmbedReply(BaseModel):
    """The sentences in their order."""

    model: str
    dim: int
    sentences: list[SentenceVectors]


class PlaceWanted(Strict):
    """A place in a tokenised sentence."""

    model: StrictStr | None = None
    sentence: Annotated[Items[StrictStr], Field(min_length=1)]
    place: Annotated[int, Field(ge=0, strict=True)] = Field(description="From 0.")
    k: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10


class SubstituteFound(BaseModel):
    """A word and its probability by both directions together, and by each."""

    word: str
    probability: float
    forward: float
    backward: float


class SubstitutesReply(BaseModel):
    """The likeliest first."""

    model: str
    substitutes: list[SubstituteFound]


class SentenceScores(BaseModel):
    """A sentence: how unexpected each token is, in bits, from either side; its perplexities with its end marks."""

    text: int
    tokens: list[str]
    forward: list[float]
    backward: list[float]
    unknown: int
    perplexity: dict[str, float | None]


class PerplexityReply(BaseModel):
    """The sentences, and the perplexities of all together."""

    model: str
    sentences: list[SentenceScores]
    perplexity: dict[str, float | None]


class SearchWanted(Strict):
    """A tokenised sentence, and the place of the word if uses of words are searched."""

    model: StrictStr | None = None
    sentence: Annotated[Items[StrictStr], Field(min_length=1)]
    place: Annotated[int, Field(ge=0, strict=True)] | None = None
    k: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10


class Found(BaseModel):
    """A row of the index: its cosine, and where it stands; place and word are those of a use."""

    score: float
    source: str
    line: int
    text: str
    place: int | None
    word: str | None
    fields: dict[str, Any]


class SearchReply(BaseModel):
    """The nearest first."""

    model: str
    found: list[Found]


class SensesWanted(Wanted):
    """A word in sentences, to be grouped into `n` senses, or as many as fit best. `layer`: as of `elmo senses`."""

    word: Annotated[StrictStr, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=20, strict=True)] | None = None
    layer: StrictStr = "average"


class SensesReply(BaseModel):
    """The senses, the largest first; each with its uses, the most typical first, and the nearest words."""

    word: str
    uses: int
    silhouette: float | None
    silhouettes: dict[str, float]
    senses: list[dict[str, Any]]


_EMBED: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"model": EmbedReply, "content": {encoding.NPZ: {}, encoding.ARROW: {}}},
}


@router.post("/embed", responses=_EMBED)
async def embed(wanted: EmbedWanted, service: Served) -> Response:
    """Return a vector for each token, or, pooled, for each sentence."""
    hosted = service.model(wanted.model)
    texts, sentences = await sentences_of(service, wanted)
    vectors = await service.vectors(hosted, sentences, layers=wanted.layers, pool=wanted.pool)
    if wanted.format == "npz":
        return Response(encoding.npz(vectors), media_type=encoding.NPZ)
    if wanted.format == "arrow":
        table = encoding.arrow(sentences, vectors, hosted.elmo, layers=wanted.layers, pool=wanted.pool)
        return Response(table, media_type=encoding.ARROW)
    as_numbers = encoding.base64_of if wanted.format == "base64" else np.ascontiguousarray
    found = [
        {"text": text, "tokens": tokens, "vectors": as_numbers(v), "shape": v.shape}
        for text, tokens, v in zip(texts, sentences, vectors, strict=True)
    ]
    return reply({"model": hosted.name, "dim": hosted.elmo.dim, "sentences": found})


@router.post("/substitutes", responses={**ERRORS, 200: {"model": SubstitutesReply}})
async def substitutes(wanted: PlaceWanted, service: Served) -> Response:
    """Return the words that fit a place best; the word that stands there is not read."""
    hosted = service.model(wanted.model)
    found = await service.substitutes(hosted, wanted.sentence, wanted.place, wanted.k)
    return reply({"model": hosted.name, "substitutes": found})


@router.post("/perplexity", responses={**ERRORS, 200: {"model": PerplexityReply}})
async def perplexities(wanted: Wanted, service: Served) -> Response:
    """Return how unexpected each token is, and the exact perplexities."""
    hosted = service.model(wanted.model)
    texts, sentences = await sentences_of(service, wanted)
    scores = await service.scores(hosted, sentences)
    found = [_scores(text, score) for text, score in zip(texts, scores, strict=True)]
    return reply({"model": hosted.name, "sentences": found, "perplexity": _perplexities(scores)})


@router.post("/search", responses={**ERRORS, 200: {"model": SearchReply}})
async def search(wanted: SearchWanted, service: Served) -> Response:
    """Return what is nearest in the index that is searched with the model."""
    hosted = service.model(wanted.model)
    hits = await service.search(hosted, wanted.sentence, wanted.place, wanted.k)
    found = [
        {
            **{name: getattr(hit, name) for name in ("score", "source", "line", "text", "fields")},
            "place": hit.place if hit.place >= 0 else None,
            "word": hit.word or None,
        }
        for hit in hits
    ]
    return reply({"model": hosted.name, "found": found})


@router.post("/senses", responses={**ERRORS, 200: {"model": SensesReply}, 501: {"model": Error}})
async def senses(wanted: SensesWanted, service: Served) -> Response:
    """Return the senses of a word: its uses in groups."""
    hosted = service.model(wanted.model)
    _, sentences = await sentences_of(service, wanted)
    return reply(await service.senses(hosted, sentences, wanted.word, n=wanted.n, layer=wanted.layer))


async def sentences_of(service: Service, wanted: Wanted) -> tuple[list[int], list[list[str]]]:
    """Return the sentences that are meant, and the number of the text of each: its own where it came as tokens."""
    if wanted.texts is None:
        sentences = wanted.sentences or []
        return list(range(len(sentences))), sentences
    split = await service.split(wanted.texts)
    numbered = [(number, sentence) for number, sentences in enumerate(split) for sentence in sentences]
    return [number for number, _ in numbered], [sentence for _, sentence in numbered]


def reply(content: dict[str, Any]) -> Response:
    """Return JSON, arrays of NumPy and all."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _scores(text: int, score: Scores) -> dict[str, Any]:
    forward, backward = score.surprisal()
    own = {"text": text, "tokens": score.tokens, "forward": forward, "backward": backward.copy()}
    return {**own, "unknown": score.unknown, "perplexity": _perplexities([score])}


def _perplexities(scores: Sequence[Scores]) -> dict[str, float | None]:
    forward = [float(log) for score in scores for log in score.forward]
    backward = [float(log) for score in scores for log in score.backward]
    return {
        "forward": _perplexity(forward),
        "backward": _perplexity(backward),
        "mean": _perplexity([*forward, *backward]),
    }


def _perplexity(logs: Sequence[float]) -> float | None:
    """Return exp of the mean loss of log-probabilities (nats); None for none, or where it is beyond all numbers."""
    found = exp_of_loss(-sum(logs) / len(logs)) if len(logs) else math.nan
    return found if math.isfinite(found) else None
