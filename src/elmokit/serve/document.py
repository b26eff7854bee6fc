"""The server's OpenAPI document: what FastAPI knows, names of models, and bodies that are read raw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from elmokit.serve.hub_signatures import VERSION
from elmokit.serve.open_inference import InferRequest
from elmokit.serve.tensorflow import PredictRequest

_REF = "#/components/schemas/{model}"


def document(app: FastAPI, names: Sequence[str]) -> dict[str, Any]:
    """Return the document of the application's routes as FastAPI makes it, completed."""
    found = FastAPI.openapi(app)
    _, bodies = models_json_schema([(PredictRequest, "validation"), (InferRequest, "validation")], ref_template=_REF)
    schemas = found["components"]["schemas"]
    schemas.update(bodies["$defs"])
    allowed = {"name": [*names], "number": [VERSION]}
    for operation in (operation for path in found["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"]["enum"] = allowed[parameter["name"]]
    for schema in schemas.values():
        if model := schema.get("properties", {}).get("model"):
            next(iter(model.get("anyOf", [model])))["enum"] = [*names]
    return found
