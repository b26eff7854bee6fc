"""TensorFlow Serving's REST protocol: predict, status, metadata of `/v1/models/NAME`, with its errors.

Source: tensorflow/serving, g3doc/api_rest.md, util/json_tensor.cc and model_servers/http_rest_api_handler.cc.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Described
from starlette.responses import Response

from elmokit.serve.hosted import Hosted
from elmokit.serve.hub_signatures import VERSION, of_strings, of_tokens, output_shapes, outputs
from elmokit.serve.openai import facts
from elmokit.serve.own import ERRORS, Error, reply
from elmokit.serve.refusal import Refusal
from elmokit.serve.service import Served, Service


async def _check_address(request: Request) -> None:
    """Refuse what it takes for no address of a model: another method of a verb, a version that is no number."""
    name, number = request.path_params["name"], request.path_params.get("number", VERSION)
    if name.endswith((":predict", ":classify", ":regress")) or not (number.isascii() and number.isdigit()):
        raise Refusal(400, f"Malformed request: {request.method} {request.url.path}")


router = APIRouter(tags=["TensorFlow Serving"], dependencies=[Depends(_check_address)])

# TensorFlow calls the signature that is meant without a name so; here it is that of strings.
_UNNAMED = "serving_default"
_TYPES = {list: "Array", dict: "Object", int: "Number", float: "Number", type(None): "Null"}
_INPUTS: dict[str, tuple[str, ...]] = {
    "default": ("strings",),
    _UNNAMED: ("strings",),
    "tokens": ("tokens", "sequence_len"),
}


class PredictRequest(BaseModel):
    """`instances` (rows) or `inputs` (columns) of a signature. It is read as JSON whatever the content type says."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}]})
    signature_name: Literal["", "default", "serving_default", "tokens"] = "serving_default"
    instances: list[Any] | None = None
    inputs: dict[str, Any] | list[Any] | None = None


class Predictions(BaseModel):
    """Rows or columns of outputs, as the request was."""

    predictions: list[dict[str, Any]] | None = None
    outputs: dict[str, Any] | None = None


class VersionStatus(BaseModel):
    """State of a version."""

    version: str
    state: str
    status: dict[str, str]


class Status(BaseModel):
    """State of a model; beside it what OpenAI's and KServe's clients read at the same address."""

    model_version_status: list[VersionStatus]
    id: str | None = None
    name: str | None = None
    ready: bool | None = None


class Metadata(BaseModel):
    """Inputs and outputs of the signatures."""

    model_spec: dict[str, str]
    metadata: dict[str, Any]


_ERRORS = {**ERRORS, 400: {"model": Error}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}}},
    }
}
Version = Annotated[str, Described(description="Only 1 is there.")]


@router.post("/v1/models/{name}:predict", responses={**_ERRORS, 200: {"model": Predictions}}, openapi_extra=_BODY)
async def predict(name: str, request: Request, service: Served) -> Response:
    """Return all outputs of a signature."""
    return await _predict(service, name, VERSION, await request.body())


@router.post(
    "/v1/models/{name}/versions/{number}:predict",
    responses={**_ERRORS, 200: {"model": Predictions}},
    openapi_extra=_BODY,
)
async def predict_version(name: str, number: Version, request: Request, service: Served) -> Response:
    """Return all outputs of a signature."""
    return await _predict(service, name, number, await request.body())


@router.get("/v1/models/{name}", responses={**_ERRORS, 200: {"model": Status}})
async def status(name: str, service: Served) -> Response:
    """Return the state of a model, and its facts as clients of OpenAI and of KServe's first protocol read them."""
    if name not in service.models:
        raise Refusal(404, f"Could not find any versions of model {name}")
    return reply({**facts(service.models[name]), "name": name, "ready": service.ready, **_status()})


@router.get("/v1/models/{name}/versions/{number}", responses={**_ERRORS, 200: {"model": Status}})
async def version_status(name: str, number: Version, service: Served) -> Response:
    """Return the state of a version of a model."""
    if name not in service.models or number != VERSION:
        raise Refusal(404, f"Could not find version {number} of model {name}")
    return reply(_status())


@router.get("/v1/models/{name}/metadata", responses={**_ERRORS, 200: {"model": Metadata}})
async def metadata(name: str, service: Served) -> Response:
    """Return the inputs and outputs of the signatures."""
    return _metadata(_servable(service, name, VERSION))


@router.get("/v1/models/{name}/versions/{number}/metadata", responses={**_ERRORS, 200: {"model": Metadata}})
async def version_metadata(name: str, number: Version, service: Served) -> Response:
    """Return the inputs and outputs of the signatures of a version."""
    return _metadata(_servable(service, name, number))


def _servable(service: Service, name: str, number: str) -> Hosted:
    if name not in service.models:
        raise Refusal(404, f"Servable not found for request: Latest({name})")
    if number != VERSION:
        raise Refusal(404, f"Servable not found for request: Specific({name}, {number})")
    return service.models[name]


# ---------------------------------------------------------------- predict


async def _predict(service: Service, name: str, number: str, body: bytes) -> Response:
    hosted = _servable(service, name, number)
    wanted = _parsed(body)
    signature = _signature(wanted)
    by_row = "instances" in wanted
    names = _INPUTS[signature]
    columns = _columns(wanted["instances"], names) if by_row else _named(wanted["inputs"], names)
    sentences, T = _sentences(columns, names)
    found = await outputs(service, hosted, sentences, T)
    if by_row:
        rows = [{key: array[row] for key, array in found.items()} for row in range(len(sentences))]
        return reply({"predictions": _contiguous(rows)})
    return reply({"outputs": {key: np.ascontiguousarray(array) for key, array in found.items()}})


def _parsed(body: bytes) -> dict[str, Any]:
    if not body:
        raise Refusal(400, "JSON Parse error: The document is empty")
    try:
        wanted = json.loads(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise Refusal(400, f"JSON Parse error: {error.msg}. at offset: {error.pos}") from None
    except (ValueError, RecursionError):  # what is no UTF-8, a number of thousands of digits, a list in a list in ...
        raise Refusal(400, "JSON Parse error: Invalid encoding, number or nesting. at offset: 0") from None
    if not isinstance(wanted, dict):
        raise Refusal(400, "JSON Value: is not object")
    if "instances" in wanted and "inputs" in wanted:
        found = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise Refusal(400, f"JSON Value: {found}")
    if "instances" not in wanted and "inputs" not in wanted:
        raise Refusal(400, "Missing 'inputs' or 'instances' key")
    return wanted


def _signature(wanted: Mapping[str, Any]) -> str:
    signature = wanted.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refusal(400, "'signature_name' key must be a string value.")
    if (signature or _UNNAMED) not in _INPUTS:
        raise Refusal(400, f'Serving signature name: "{signature}" not found in signature def')
    return signature or _UNNAMED


def _columns(instances: Any, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return name -> values of rows, which are bare values where there is but one input."""
    if not isinstance(instances, list):
        raise Refusal(400, "Excepting 'instances' to be an list/array")  # their words
    if not instances:
        raise Refusal(400, "No values in 'instances' list; expecting at least one")
    if len(names) == 1 and not isinstance(instances[0], dict):
        return {names[0]: instances}
    if len(names) == 1 and set(instances[0]) == {"b64"}:
        return {names[0]: instances}
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, row in enumerate(instances):
        if not isinstance(row, dict):
            expected = "expecting list of objects as multiple input tensors required as per tensorinfo_map"
            raise Refusal(400, f"instances is a plain list, but {expected}")
        if set(row) != set(names):
            missing = sorted(set(names) - set(row)) or sorted(set(row) - set(names))
            raise Refusal(
                400, f"Failed to process element: {number} of 'instances' list. Error: input {missing[0]} does not fit"
            )
        for name in names:
            columns[name].append(row[name])
    return columns


def _named(inputs: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return name -> values of columns; where there is but one input, they may stand without its name."""
    if len(names) == 1 and not isinstance(inputs, dict):
        return {names[0]: inputs}
    if not isinstance(inputs, dict):
        raise Refusal(400, "inputs is a plain value/list, but expecting an object as multiple input tensors required")
    for name in names:
        if name not in inputs:
            raise Refusal(400, f"Missing named input: {name} in 'inputs' object.")
    return inputs


def _sentences(columns: Mapping[str, Any], names: tuple[str, ...]) -> tuple[list[list[str]], int]:
    values = columns[names[0]]
    if len(names) == 1 and not isinstance(values, list):
        raise Refusal(400, "JSON Value: strings is not a list of strings")
    if len(names) == 1:
        return of_strings([_string(value) for value in values])
    lengths = columns[names[1]]
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise Refusal(400, "JSON Value: tokens is not a list of lists of strings")
    if not isinstance(lengths, list) or not all(type(n) is int for n in lengths):
        raise Refusal(400, "JSON Value: sequence_len is not a list of type: int32")
    return of_tokens([[_string(token) for token in row] for row in values], lengths)


def _string(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True).decode("utf-8", "ignore")
        except (binascii.Error, ValueError):
            raise Refusal(400, "JSON Value: Unable to base64 decode") from None
    if not isinstance(value, str):
        found = "" if isinstance(value, list | dict) else f"{json.dumps(value)[:40]} "
        kind = _TYPES.get(type(value), str(value))  # True and False are types there
        raise Refusal(400, f"JSON Value: {found}Type: {kind} is not of expected type: string")
    return value


def _contiguous(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: np.ascontiguousarray(value) for key, value in row.items()} for row in rows]


# ---------------------------------------------------------------- status, metadata


def _status() -> dict[str, Any]:
    fine = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": fine}]}


def _metadata(hosted: Hosted) -> Response:
    strings = {"strings": _tensor("DT_STRING", [-1], "strings")}
    tokens = {
        "tokens": _tensor("DT_STRING", [-1, -1], "tokens"),
        "sequence_len": _tensor("DT_INT32", [-1], "sequence_len"),
    }
    found = {name: _tensor("DT_FLOAT", shape, name) for name, shape in output_shapes(hosted).items()}
    signatures = {
        name: {
            "inputs": tokens if name == "tokens" else strings,
            "outputs": found,
            "method_name": "tensorflow/serving/predict",
        }
        for name in _INPUTS
    }
    kind = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    return reply(
        {
            "model_spec": {"name": hosted.name, "signature_name": "", "version": VERSION},
            "metadata": {"signature_def": {"@type": kind, "signature_def": signatures}},
        }
    )


def _tensor(dtype: str, shape: list[int], name: str) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}
