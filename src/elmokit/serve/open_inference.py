"""The Open Inference Protocol, version 2, of KServe and Triton: health, metadata, infer; JSON and binary tensors.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md, and KServe's and Triton's binary
tensor data extension. Inputs are those of `hub_signatures`: `strings`, or `tokens` and `sequence_len`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from starlette.responses import Response

from elmokit.serve.fields import Items
from elmokit.serve.hosted import Hosted
from elmokit.serve.hub_signatures import VERSION, of_strings, of_tokens, output_shapes, outputs
from elmokit.serve.own import ERRORS, Error, reply
from elmokit.serve.refusal import Refusal
from elmokit.serve.service import Served, Service

router = APIRouter(tags=["Open Inference"])

Array = NDArray[np.float32]
_HEADER = "Inference-Header-Content-Length"
_NUMBER = re.compile("[0-9]{1,18}")  # Python refuses to read thousands of digits
_INTEGERS = {"INT32": "<i4", "INT64": "<i8"}


class InputTensor(BaseModel):
    """An input; without `data` it stands behind the JSON, `parameters.binary_data_size` bytes of it."""

    name: Literal["strings", "tokens", "sequence_len"]
    shape: list[StrictInt] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES", "INT32", "INT64"]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class OutputWanted(BaseModel):
    """An output that is asked for."""

    name: StrictStr
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """What to compute: the outputs that are named, or all."""

    id: StrictStr | None = None
    parameters: dict[str, Any] = {}
    inputs: Items[InputTensor] = Field(min_length=1, max_length=2)
    outputs: Items[OutputWanted] = []


class OutputTensor(BaseModel):
    """An output."""

    model_config = ConfigDict(extra="allow")
    name: str
    shape: list[int]
    datatype: Literal["FP32"]
    data: list[float] | None = None


class InferReply(BaseModel):
    """What was computed."""

    model_config = ConfigDict(extra="allow")
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output, -1 for any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model. Of its inputs it takes `strings`, or the other two."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool


class Ready(BaseModel):
    """Whether it computes."""

    ready: bool


_ERRORS = {**ERRORS, 400: {"model": Error}}
_INFER = {**_ERRORS, 200: {"model": InferReply, "content": {"application/octet-stream": {}}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
    }
}


@router.get("/v2/health/live", responses={200: {"model": Live}})
async def live() -> Response:
    """Say that the server runs."""
    return reply({"live": True})


@router.get("/v2/health/ready", responses={200: {"model": Ready}, 503: {"model": Error}})
async def ready(service: Served) -> Response:
    """Say whether the models are there and requests computed; 503 where they are not."""
    service.check_ready()
    return reply({"ready": True})


@router.get("/v2", responses={200: {"model": ServerMetadata}, 401: {"model": Error}})
async def server() -> Response:
    """Describe the server."""
    return reply({"name": "elmokit", "version": version("elmokit"), "extensions": ["binary_tensor_data"]})


@router.get("/v2/models/{name}", responses={**ERRORS, 200: {"model": ModelMetadata}})
@router.get("/v2/models/{name}/versions/{number}", responses={**ERRORS, 200: {"model": ModelMetadata}})
async def metadata(service: Served, name: str, number: str = VERSION) -> Response:
    """Describe a model."""
    hosted = _known(service, name, number)
    inputs = [("strings", "BYTES", [-1]), ("tokens", "BYTES", [-1, -1]), ("sequence_len", "INT32", [-1])]
    found = [(key, "FP32", shape) for key, shape in output_shapes(hosted).items()]
    named = {"name": name, "versions": [VERSION], "platform": "elmokit"}
    return reply({**named, "inputs": _described(inputs), "outputs": _described(found)})


@router.get("/v2/models/{name}/ready", responses={**ERRORS, 200: {"model": Ready}})
@router.get("/v2/models/{name}/versions/{number}/ready", responses={**ERRORS, 200: {"model": Ready}})
async def model_ready(service: Served, name: str, number: str = VERSION) -> Response:
    """Say whether a model computes."""
    _known(service, name, number)
    service.check_ready()
    return reply({"ready": True})


@router.post("/v2/models/{name}/infer", responses=_INFER, openapi_extra=_BODY)
@router.post("/v2/models/{name}/versions/{number}/infer", responses=_INFER, openapi_extra=_BODY)
async def infer(request: Request, service: Served, name: str, number: str = VERSION) -> Response:
    """Return outputs for sentences."""
    hosted = _known(service, name, number)
    wanted, binary = _parsed(await request.body(), request.headers.get(_HEADER))
    sentences, T = _sentences(wanted, binary)
    _check_outputs(wanted, hosted)
    found = await outputs(service, hosted, sentences, T)
    chosen = {one.name: _wants_binary(one, wanted) for one in wanted.outputs} or dict.fromkeys(
        found, wanted.parameters.get("binary_data_output") is True
    )
    own = {"model_name": name, "model_version": VERSION, **({"id": wanted.id} if wanted.id is not None else {})}
    return _reply(own, {key: found[key] for key in chosen}, chosen)


def _known(service: Service, name: str, number: str) -> Hosted:
    hosted = service.model(name)
    if number != VERSION:
        raise Refusal(404, f"the model {name!r} has no version {number!r}; there is {VERSION}")
    return hosted


def _described(tensors: list[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in tensors]


# ---------------------------------------------------------------- what comes in


def _parsed(body: bytes, header: str | None) -> tuple[InferRequest, bytes]:
    """Return the JSON of a request, and the bytes behind it."""
    length = len(body)
    if header is not None:
        if not (_NUMBER.fullmatch(header) and int(header) <= len(body)):
            found = f"expected a number up to the {len(body)} bytes of the body, found {header[:20]!r}"
            raise Refusal(400, f"{_HEADER}: {found}")
        length = int(header)
    try:
        return InferRequest.model_validate_json(body[:length]), body[length:]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(400, f"{where}: {first['msg']}") from None


class _Tensor(NamedTuple):
    shape: list[int]
    values: list[Any]


def _sentences(wanted: InferRequest, binary: bytes) -> tuple[list[list[str]], int]:
    tensors: dict[str, _Tensor] = {}
    for tensor in wanted.inputs:
        values, binary = _values(tensor, binary)
        if min(tensor.shape) < 0 or math.prod(tensor.shape) != len(values):
            raise Refusal(
                400, f"input {tensor.name!r} has {len(values)} values, which do not fit its shape {tensor.shape}"
            )
        tensors[tensor.name] = _Tensor(tensor.shape, values)
    if binary:
        raise Refusal(400, f"{len(binary)} bytes stand behind the last input; say in each how many are its own")
    return _signature(tensors)


def _signature(tensors: Mapping[str, _Tensor]) -> tuple[list[list[str]], int]:
    """Return the sentences and the places of the longest."""
    for name in tensors.keys() - {"tokens"}:
        if math.prod(tensors[name].shape[1:]) != 1:
            raise Refusal(400, f"input {name!r}: expected the shape (B,), found {tensors[name].shape}")
    if set(tensors) == {"strings"}:
        return of_strings(tensors["strings"].values)
    if "tokens" not in tensors or "strings" in tensors or len(tensors["tokens"].shape) != 2:
        expected = "'strings' (B,), or 'tokens' (B, T) and, if they are padded, 'sequence_len' (B,)"
        raise Refusal(400, f"expected the inputs {expected}, found {', '.join(tensors)}")
    (B, T), values = tensors["tokens"]
    if not values:  # else a shape (10**12, 0), which needs no data, would become as many empty rows
        raise Refusal(400, "input 'tokens' holds no token; pad empty sentences with an empty string")
    rows = [values[row * T : row * T + T] for row in range(B)]
    return of_tokens(rows, tensors["sequence_len"].values if "sequence_len" in tensors else [T] * B)


def _values(tensor: InputTensor, binary: bytes) -> tuple[list[Any], bytes]:
    """Return the values of a tensor, flat, and the bytes that are left."""
    if (tensor.datatype == "BYTES") != (tensor.name != "sequence_len"):
        raise Refusal(400, f"input {tensor.name!r} cannot be {tensor.datatype}")
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return _flat(tensor), binary
    if type(size) is not int or not 0 <= size <= len(binary):
        raise Refusal(400, f"input {tensor.name!r}: binary_data_size {json.dumps(size)[:20]} is not within the body")
    own, rest = binary[:size], binary[size:]
    if tensor.datatype == "BYTES":
        return _strings(tensor.name, own), rest
    kind = np.dtype(_INTEGERS[tensor.datatype])
    if size % kind.itemsize:
        raise Refusal(400, f"input {tensor.name!r}: {size} bytes are no whole number of {tensor.datatype}")
    return np.frombuffer(own, kind).tolist(), rest


def _flat(tensor: InputTensor) -> list[Any]:
    """Return the values of JSON, which may be nested as the shape is."""
    values = tensor.data or []
    if values and all(isinstance(row, list) and len(row) == tensor.shape[-1] for row in values):
        values = [value for row in values for value in row]
    kind = str if tensor.datatype == "BYTES" else int
    if not all(type(value) is kind for value in values):
        raise Refusal(400, f"input {tensor.name!r}: expected data of {tensor.datatype}")
    return values


def _strings(name: str, content: bytes) -> list[str]:
    """Return strings that each stand behind their length, four bytes."""
    found, place = [], 0
    while place < len(content):
        length = struct.unpack_from("<I", content, place)[0] if place + 4 <= len(content) else len(content)
        if place + 4 + length > len(content):
            raise Refusal(400, f"input {name!r}: a string is longer than the bytes that are left")
        found.append(content[place + 4 : place + 4 + length].decode("utf-8", "ignore"))
        place += 4 + length
    return found


# ---------------------------------------------------------------- what goes out


def _check_outputs(wanted: InferRequest, hosted: Hosted) -> None:
    known = output_shapes(hosted)
    for one in wanted.outputs:
        if one.name not in known:
            raise Refusal(400, f"there is no output {one.name!r}; there are {', '.join(known)}")


def _wants_binary(one: OutputWanted, wanted: InferRequest) -> bool:
    chosen = one.parameters.get("binary_data", wanted.parameters.get("binary_data_output"))
    return chosen is True


def _reply(own: dict[str, Any], found: Mapping[str, Array], binary: Mapping[str, bool]) -> Response:
    described: list[dict[str, Any]] = []
    tails = []
    for name, array in found.items():
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if binary[name]:
            tails.append(np.ascontiguousarray(array, "<f4").tobytes())
            tensor["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            tensor["data"] = np.ascontiguousarray(array).reshape(-1)
        described.append(tensor)
    head = orjson.dumps({**own, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return Response(head, media_type="application/json")
    return Response(b"".join([head, *tails]), headers={_HEADER: str(len(head))}, media_type="application/octet-stream")
