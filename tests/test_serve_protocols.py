"""Other people's clients against the server: OpenAI's, requests as of TensorFlow Serving, Triton's, KServe's."""

import asyncio
import base64
import json

import numpy as np
import openai
import pytest

from conftest import make_checkpoint, make_config
from elmokit.compat.tfhub import outputs_of
from elmokit.model import Elmo
from elmokit.reading import Splitter
from elmokit.serve import Hosted
from serving import make_hosted, post, send, served

TEXTS = ["The cat sat. It purred!", "a dog", "mat"]
STRINGS = ["the cat sat .", " it  purred ", "mat"]
TOKENS = [["the", "cat", "sat", "."], ["it", "purred", "", ""], ["mat", "", "", ""]]
LENGTHS = [4, 2, 1]


@pytest.fixture(scope="module")
def tiny():
    return make_hosted()


@pytest.fixture(scope="module")
def mixed():
    """A model that came with a trained mix, as TF-Hub's does."""
    checkpoint = make_checkpoint(make_config(), seed=4)
    mix = {"mix.weights": np.array([[0.3, -0.2, 0.9]], np.float32), "mix.gamma": np.array([1.5], np.float32)}
    checkpoint.arrays.update(mix)
    return Hosted("mixed", Elmo(checkpoint))


@pytest.fixture(scope="module")
def address(tiny, mixed):
    with served(tiny, mixed) as address:
        yield address


# ---------------------------------------------------------------- OpenAI


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
        yield client


def unit_vector(elmo, text):
    words = np.concatenate(list(elmo.embed(Splitter(tokenize=True)([text]))))
    mean = words.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_openai_embeds_a_list(client, tiny, form):
    """Without a format the client asks for base64 and decodes it itself."""
    options = {} if form is None else {"encoding_format": form}
    reply = client.embeddings.create(model="tiny", input=TEXTS, **options)
    assert [item.index for item in reply.data] == [0, 1, 2]
    assert reply.model == "tiny"
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == 10
    for item, text in zip(reply.data, TEXTS, strict=True):
        vector = item.embedding
        if form == "base64":
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        np.testing.assert_allclose(vector, unit_vector(tiny.elmo, text), rtol=0, atol=1e-6)


def test_openai_embeds_a_string(client, tiny):
    [item] = client.embeddings.create(model="tiny", input=TEXTS[0], encoding_format="float").data
    np.testing.assert_allclose(item.embedding, unit_vector(tiny.elmo, TEXTS[0]), rtol=0, atol=1e-6)


def test_openai_dimensions_are_the_models_own(client, tiny):
    reply = client.embeddings.create(model="tiny", input="cat", dimensions=tiny.elmo.dim)
    assert len(reply.data[0].embedding) == tiny.elmo.dim
    with pytest.raises(openai.UnprocessableEntityError, match="cannot be shortened") as refused:
        client.embeddings.create(model="tiny", input="cat", dimensions=2)
    assert refused.value.param == "dimensions"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "has no text"),
        (["cat", " "], "text 1 has no words"),
        ([1, 2], "numbers of tokens"),
        ([[1], [2]], "numbers of"),
    ],
)
def test_openai_refuses_what_cannot_be_embedded(client, given, message):
    with pytest.raises(openai.UnprocessableEntityError, match=message) as refused:
        client.embeddings.create(model="tiny", input=given)
    assert refused.value.body["type"] == "invalid_request_error"


def test_openai_lists_models(client, tiny):
    listed = client.models.list().data
    assert [model.id for model in listed] == ["tiny", "mixed"]
    assert [model.elmokit["predicts"] for model in listed] == [True, False]
    assert client.models.retrieve("tiny").owned_by == "elmokit"


def test_openai_names_the_models_there_are(client):
    with pytest.raises(openai.NotFoundError, match="there is tiny, mixed") as refused:
        client.embeddings.create(model="text-embedding-3-small", input="cat")
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("third")


# ---------------------------------------------------------------- TensorFlow Serving


def expected_outputs(elmo):
    stacks = list(elmo.embed([row[:n] for row, n in zip(TOKENS, LENGTHS, strict=True)], layers="all"))
    shares = elmo.mixes[0] if len(elmo.mixes) else np.full(elmo.n_layers, 1 / elmo.n_layers, np.float32)
    return outputs_of(elmo, shares, stacks, 4)


ROWS = {
    "default": {"instances": STRINGS},
    "serving_default": {"instances": [{"strings": line} for line in STRINGS]},
    "": {"instances": [{"b64": base64.b64encode(line.encode()).decode()} for line in STRINGS]},
    "tokens": {"instances": [{"tokens": t, "sequence_len": n} for t, n in zip(TOKENS, LENGTHS, strict=True)]},
}
COLUMNS = {
    "default": {"inputs": STRINGS},
    "": {"inputs": {"strings": STRINGS}},
    "tokens": {"inputs": {"tokens": TOKENS, "sequence_len": LENGTHS}},
}


@pytest.mark.parametrize("model", ["tiny", "mixed"])
@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize("signature", ROWS)
def test_tensorflow_rows(address, tiny, mixed, model, version, signature):
    wanted = {"signature_name": signature, **ROWS[signature]}
    reply = post(address, f"/v1/models/{model}{version}:predict", wanted)
    assert reply.status_code == 200, reply.text
    predictions = reply.json()["predictions"]
    for name, array in expected_outputs({"tiny": tiny, "mixed": mixed}[model].elmo).items():
        found = np.array([row[name] for row in predictions], np.float32)
        np.testing.assert_allclose(found, array, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("signature", COLUMNS)
def test_tensorflow_columns(address, mixed, signature):
    # As an old client sends it: requests.post(url, data=json.dumps(...)), which names no content type.
    body = json.dumps({"signature_name": signature, **COLUMNS[signature]}).encode()
    outputs = send("POST", f"{address}/v1/models/mixed:predict", content=body).json()["outputs"]
    expected = expected_outputs(mixed.elmo)
    assert outputs.keys() == expected.keys() == {"word_emb", "lstm_outputs1", "lstm_outputs2", "elmo", "default"}
    for name, array in expected.items():
        np.testing.assert_allclose(np.array(outputs[name], np.float32), array, rtol=0, atol=2e-6, err_msg=name)


def test_tensorflow_status(address):
    for path in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
        [version] = send("GET", address + path).json()["model_version_status"]
        assert version == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("half", 404, "Could not find any versions of model half"),
        ("half/versions/1", 404, "Could not find version 1 of model half"),
        ("tiny/versions/2", 404, "Could not find version 2 of model tiny"),
        ("tiny/versions/x", 400, "Malformed request: GET /v1/models/tiny/versions/x"),
        ("tiny:predict", 400, "Malformed request: GET /v1/models/tiny:predict"),
        ("half/metadata", 404, "Servable not found for request: Latest(half)"),
        ("tiny/versions/2/metadata", 404, "Servable not found for request: Specific(tiny, 2)"),
    ],
)
def test_tensorflow_knows_what_is_not_there(address, path, status, message):
    reply = send("GET", f"{address}/v1/models/{path}")
    assert (reply.status_code, reply.json()) == (status, {"error": message})


def test_a_status_for_kserves_first_protocol(address):
    status = send("GET", f"{address}/v1/models/tiny").json()
    assert (status["name"], status["ready"]) == ("tiny", True)


def test_tensorflow_metadata(address, tiny):
    found = send("GET", f"{address}/v1/models/tiny/metadata").json()
    assert found == send("GET", f"{address}/v1/models/tiny/versions/1/metadata").json()
    assert found["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"default", "serving_default", "tokens"}
    assert set(signatures["tokens"]["inputs"]) == {"tokens", "sequence_len"}
    dims = signatures["default"]["outputs"]["elmo"]["tensor_shape"]["dim"]
    assert [dim["size"] for dim in dims] == ["-1", "-1", str(tiny.elmo.dim)]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("half:predict", "{}", 404, "Servable not found for request: Latest(half)"),
        ("tiny/versions/2:predict", "{}", 404, "Servable not found for request: Specific(tiny, 2)"),
        ("tiny:predict", "", 400, "JSON Parse error: The document is empty"),
        ("tiny:predict", "{", 400, "JSON Parse error: "),
        ("tiny:predict", '{"instances": [' + "9" * 5000 + "]}", 400, "JSON Parse error: "),
        ("tiny:predict", b"\xff", 400, "JSON Parse error: "),
        ("tiny:predict", "[" * 100_000, 400, "JSON Parse error: "),
        ("tiny:predict", "[]", 400, "is not object"),
        ("tiny:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("tiny:predict", '{"instances": ["a"], "inputs": ["a"]}', 400, "expecting only one of 'inputs' or 'instances'"),
        ("tiny:predict", '{"instances": ["a"], "signature_name": 3}', 400,
         "'signature_name' key must be a string value."),
        ("tiny:predict", '{"instances": ["a"], "signature_name": null}', 400,
         "'signature_name' key must be a string value."),
        ("tiny:predict", '{"instances": ["a"], "signature_name": "x"}', 400,
         'Serving signature name: "x" not found in signature def'),
        ("tiny:predict", '{"instances": "a"}', 400, "Excepting 'instances' to be an list/array"),
        ("tiny:predict", '{"instances": []}', 400, "No values in 'instances'"),
        ("tiny:predict", '{"inputs": "a"}', 400, "strings is not a list"),
        ("tiny:predict", '{"instances": ["a"], "signature_name": "\\ud800"}', 400, "not found in signature def"),
        ("tiny:predict", '{"instances": [1]}', 400, "JSON Value: 1 Type: Number is not of expected type: string"),
        ("tiny:predict", '{"instances": [true]}', 400, "JSON Value: true Type: True is not of expected type: string"),
        ("tiny:predict", '{"instances": [null]}', 400, "JSON Value: null Type: Null is not of expected type: string"),
        ("tiny:predict", '{"instances": [["a"]]}', 400, "JSON Value: Type: Array is not of expected type: string"),
        ("tiny:predict", '{"instances": [{"b64": "?"}]}', 400, "Unable to base64 decode"),
        ("tiny:predict", '{"instances": [["a"]], "signature_name": "tokens"}', 400,
         "instances is a plain list, but expecting list of objects as multiple input tensors required"),
        ("tiny:predict", '{"instances": [{"tokens": ["a"]}], "signature_name": "tokens"}', 400,
         "Failed to process element: 0 of 'instances' list. Error: "),
        ("tiny:predict", '{"inputs": {"tokens": [["a"]]}, "signature_name": "tokens"}', 400,
         "Missing named input: sequence_len in 'inputs' object."),
        ("tiny:predict", '{"inputs": {"tokens": [["a"], []], "sequence_len": [1, 0]}, "signature_name": "tokens"}', 400,
         "different lengths"),
        ("tiny:predict", '{"inputs": {"tokens": [["a"]], "sequence_len": [2]}, "signature_name": "tokens"}', 400,
         "expected a sequence_len from 0 to 1 for each row of 'tokens', found 2"),
        ("tiny:predict", '{"inputs": {"tokens": [["a"]], "sequence_len": []}, "signature_name": "tokens"}', 400,
         "expected a sequence_len from 0 to 1 for each row of 'tokens', found 0 for 1 rows"),
        ("tiny/versions/x:predict", "{}", 400, "Malformed request: POST /v1/models/tiny/versions/x:predict"),
        ("tiny:classify", "{}", 400, "Malformed request: POST /v1/models/tiny:classify"),
    ],
)  # fmt: skip
def test_tensorflow_errors(address, path, body, status, message):
    reply = send("POST", f"{address}/v1/models/{path}", content=body)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert message in reply.json()["error"]


# ---------------------------------------------------------------- Open Inference


@pytest.fixture(scope="module")
def triton(address):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient has wheels for Linux only")
    with http.InferenceServerClient(address.removeprefix("http://")) as client:
        yield http, client


def tensors(http, signature, *, binary):
    strings = http.InferInput("strings", [3], "BYTES")
    strings.set_data_from_numpy(np.array(STRINGS, object), binary_data=binary)
    tokens = http.InferInput("tokens", [3, 4], "BYTES")
    tokens.set_data_from_numpy(np.array(TOKENS, object), binary_data=binary)
    lengths = http.InferInput("sequence_len", [3], "INT32")
    lengths.set_data_from_numpy(np.array(LENGTHS, np.int32), binary_data=binary)
    return [strings] if signature == "default" else [tokens, lengths]


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("question", [True, False])
@pytest.mark.parametrize("signature", ["default", "tokens"])
def test_tritons_client(triton, mixed, signature, question, answer):
    """Tensors binary or as JSON, in either direction."""
    http, client = triton
    names = ["elmo", "default", "word_emb"]
    wanted = [http.InferRequestedOutput(name, binary_data=answer) for name in names]
    inputs = tensors(http, signature, binary=question)
    found = client.infer("mixed", inputs, outputs=wanted, request_id="r1")
    assert found.get_response()["id"] == "r1"
    assert [tensor["name"] for tensor in found.get_response()["outputs"]] == names
    for name in names:
        np.testing.assert_allclose(found.as_numpy(name), expected_outputs(mixed.elmo)[name], rtol=0, atol=2e-6)


def test_triton_gets_all_outputs_when_it_names_none(triton, tiny):
    http, client = triton
    found = client.infer("tiny", tensors(http, "tokens", binary=True), model_version="1")
    for name, array in expected_outputs(tiny.elmo).items():
        np.testing.assert_allclose(found.as_numpy(name), array, rtol=0, atol=2e-6, err_msg=name)


def test_triton_asks_how_it_is(triton, tiny):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("third")
    assert not client.is_model_ready("tiny", "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = client.get_model_metadata("tiny")
    assert {"name": "elmo", "datatype": "FP32", "shape": [-1, -1, tiny.elmo.dim]} in found["outputs"]


def test_triton_is_told_what_is_wrong(triton):
    http, client = triton
    with pytest.raises(Exception, match="there is no output 'nothing'"):
        client.infer("tiny", tensors(http, "default", binary=True), outputs=[http.InferRequestedOutput("nothing")])


@pytest.fixture(scope="module")
def kserve():
    """KServe's package; it wants older versions of protobuf and pandas, so it has an environment of its own."""
    return pytest.importorskip("kserve", reason="kserve is not installed: pip install kserve, where nothing is pinned")


def with_kserve(kserve, protocol, talk):
    """Return what comes of talking by KServe's client."""

    async def main():
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol)) as client:
            return await talk(client)

    return asyncio.run(main())


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("question", [True, False])
@pytest.mark.parametrize("signature", ["default", "tokens"])
def test_kserves_client(kserve, address, mixed, signature, question, answer):
    """Tensors binary or as JSON, in either direction."""
    content = {"strings": np.array(STRINGS, object)}
    if signature == "tokens":
        content = {"tokens": np.array(TOKENS, object), "sequence_len": np.array(LENGTHS, np.int32)}
    inputs = []
    for name, values in content.items():
        kind = "BYTES" if values.dtype == object else "INT32"
        inputs.append(kserve.InferInput(name, list(values.shape), kind))
        inputs[-1].set_data_from_numpy(values, binary_data=question)
    wanted = kserve.InferRequest("mixed", inputs, request_id="r1", parameters={"binary_data_output": answer})
    reply = with_kserve(kserve, "v2", lambda client: client.infer(str(address), wanted, model_name="mixed"))
    expected = expected_outputs(mixed.elmo)
    assert (reply.id, reply.model_name) == ("r1", "mixed")
    assert {output.name for output in reply.outputs} == set(expected)
    for output in reply.outputs:
        np.testing.assert_allclose(output.as_numpy(), expected[output.name], rtol=0, atol=2e-6, err_msg=output.name)


def test_kserve_asks_how_it_is(kserve, address):
    async def talk(client):
        base = str(address)
        server = [await client.is_server_live(base), await client.is_server_ready(base)]
        return [*server, *[await client.is_model_ready(base, name) for name in ("tiny", "third")]]

    assert with_kserve(kserve, "v2", talk) == [True, True, True, False]


def test_kserves_first_protocol_is_that_of_tensorflow_serving(kserve, address):
    async def talk(client):
        reply = await client.infer(str(address), {"instances": STRINGS}, model_name="tiny")
        return len(reply["predictions"]), await client.is_model_ready(str(address), "tiny")

    assert with_kserve(kserve, "v1", talk) == (3, True)


def test_kserve_is_told_what_is_wrong(kserve, address):
    wanted = kserve.InferRequest("third", [kserve.InferInput("strings", [1], "BYTES", data=["a"])])
    with pytest.raises(Exception, match="no model is called 'third' here; there is tiny, mixed"):
        with_kserve(kserve, "v2", lambda client: client.infer(str(address), wanted, model_name="third"))


def tensor(name="strings", shape=(1,), datatype="BYTES", **more):
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "inputs"),
        ([tensor("other", data=["a"])], "inputs.0.name"),
        ([tensor(shape=[2], data=["a"])], "do not fit its shape"),
        ([tensor(shape=[-1], data=["a"])], "do not fit its shape"),
        ([tensor(data=[3])], "expected data of BYTES"),
        ([tensor(datatype="INT32", data=[3])], "cannot be INT32"),
        ([tensor(parameters={"binary_data_size": 9})], "is not within the body"),
        ([tensor(parameters={"binary_data_size": True})], "is not within the body"),
        ([tensor("tokens", [1], data=["a"])], "expected the inputs"),
        ([tensor(shape=[2, 2], data=["a", "b", "c", "d"])], "input 'strings': expected the shape (B,), found [2, 2]"),
        ([tensor("tokens", [2, 2], data=[["a"], ["b", "c", "d"]])], "expected data of BYTES"),
        (
            [tensor("tokens", [1, 1], data=["a"]), tensor("sequence_len", [1], "INT64", data=[7])],
            "expected a sequence_len",
        ),
        ([tensor(shape=[0], data=[])], "no sentence"),
        ([tensor("tokens", [20_000, 0], data=[])], "input 'tokens' holds no token"),
        ([tensor("tokens", [0, 5], data=[])], "input 'tokens' holds no token"),
        ([tensor("tokens", [2, 2**63], data=[])], "do not fit its shape"),  # 0 in 64 bits
        ([tensor("tokens", [1, 10**30], data=["a"])], "do not fit its shape"),
    ],
)
def test_open_inference_errors(address, inputs, message):
    reply = post(address, "/v2/models/tiny/infer", {"inputs": inputs})
    assert (reply.status_code, list(reply.json())) == (400, ["error"])
    assert message in reply.json()["error"]


@pytest.mark.parametrize(
    "strings",
    [tensor(shape=[2], data=["a b", "c"]), tensor(shape=[2, 1], data=[["a b"], ["c"]])],
    ids=["flat", "column"],
)
def test_open_inference_takes_data_as_its_shape_is(address, strings):
    """Flat, or nested; batches of one string each are common with Triton."""
    reply = post(address, "/v2/models/tiny/infer", {"inputs": [strings], "outputs": [{"name": "elmo"}]})
    [output] = reply.json()["outputs"]
    assert output["shape"][:2] == [2, 2]


@pytest.mark.parametrize(
    ("length", "tail", "message"),
    [
        ("x", b"", "Inference-Header-Content-Length"),
        ("99999", b"", "Inference-Header-Content-Length"),
        ("9" * 5000, b"", "Inference-Header-Content-Length"),
        (None, b"\x05\0\0\0abc", "longer than the bytes that are left"),
        (None, b"\x01\0\0", "longer than the bytes that are left"),
        (None, b"\x01\0\0\0a\x01\0\0\0b", "do not fit its shape"),
    ],
)
def test_open_inference_damaged_tensors(address, length, tail, message):
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": len(tail)})]}).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    reply = send("POST", f"{address}/v2/models/tiny/infer", content=head + tail, headers=headers)
    assert reply.status_code == 400
    assert message in reply.json()["error"]
