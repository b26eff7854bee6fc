"""ONNX: the network as one file that onnxruntime runs, without Python if need be. It is written, not read.

The graph computes what `elmokit.network` computes, for batches of any size and length. Sentences come without their
marks, which the graph adds:

    ids     int64 (B, T, C)   symbols of every word, `Speller.spell` plus one: 1 and more, as AllenNLP's `batch_to_ids`
    mask    bool (B, T)       true where a word is; a sentence's words come first
    layers  float32 (L, B, T, 2P), zero where no word is

Metadata of the file: `config`, the options as JSON, and `vocabulary` and `characters`, one symbol a line, where the
model spells by them.

Axes: N words, C symbols of a word, E character width, B sentences, T places, P projection, D cells, G = 4D gates, L
layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import CharCNN, Checkpoint, replace_file, written_folder
from elmokit.errors import MismatchError, require
from elmokit.formats.rules import left_out

onnx = require("onnx", extra="onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL

# Split into so many parts came with version 18 of the operators, which files of version 8 and later may use.
_OPERATORS, _FILE_VERSION = 18, 8
_MOST_BYTES = (1 << 31) - (1 << 20)  # protobuf holds 2 GiB in one message

Value: TypeAlias = str  # the name of a value in a graph


def lost_in(checkpoint: Checkpoint) -> list[str]:
    """Name what a checkpoint holds that this format cannot."""
    return left_out(checkpoint, head=False, vocabulary=checkpoint.config.word_dim > 0)


def write_file(checkpoint: Checkpoint, path: Path) -> None:
    """Write the model; raises `MismatchError` for one of more than 2 GiB."""
    size = checkpoint.n_parameters * 4
    if size > _MOST_BYTES:
        raise MismatchError(f"{path}: a file of ONNX holds 2 GiB, and this model has {size / 2**30:.1f} GiB of weights")
    content = build(checkpoint).SerializeToString()
    with written_folder(path.parent):
        replace_file(path, content)


def build(checkpoint: Checkpoint) -> Any:
    """Return the model as an `onnx.ModelProto`."""
    config, speller = checkpoint.config, checkpoint.speller()
    marks_2C = speller.spell([speller.marks.begin, speller.marks.end]).astype(np.int64)
    network = _Network(checkpoint)
    layers = network.layers(marks_2C)
    inputs = [
        helper.make_tensor_value_info("ids", INT64, ["batch", "places", marks_2C.shape[1]]),
        helper.make_tensor_value_info("mask", BOOL, ["batch", "places"]),
    ]
    outputs = [helper.make_tensor_value_info(layers, FLOAT, [config.n_layers, "batch", "places", config.dim])]
    graph = helper.make_graph(network.nodes, "elmo", inputs, outputs, network.constants)
    operators = [helper.make_opsetid("", _OPERATORS)]
    model = helper.make_model(graph, producer_name="elmokit", ir_version=_FILE_VERSION, opset_imports=operators)
    helper.set_model_props(model, _metadata(checkpoint))
    return model


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    words = checkpoint.vocabulary if checkpoint.config.word_dim else None
    lexicons = {"vocabulary": words, "characters": checkpoint.characters}
    config = {"config": checkpoint.config.model_dump_json(exclude_none=True)}
    return config | {name: "\n".join(symbols) for name, symbols in lexicons.items() if symbols}


class _Graph:
    """Nodes in the order of computing, and constants; every value has a name."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> list[Value]:
        """Add a node; return the names of its outputs."""
        names = [f"{self.prefix}{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Add a node of one output; return its name."""
        return self.add(kind, *inputs, **attributes)[0]

    def constant(self, array: NDArray[Any], name: str | None = None) -> Value:
        """Add a constant; return its name."""
        name = name or f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, *numbers: int) -> Value:
        """Add a constant of whole numbers along one axis."""
        return self.constant(np.array(numbers, np.int64))


class _Network(_Graph):
    """The graph of one model; arrays of the checkpoint keep their names."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.config, self.arrays = checkpoint.config, checkpoint.arrays
        self.batch, self.places = (self.op("Shape", "mask", start=axis, end=axis + 1) for axis in (0, 1))

    def layers(self, marks_2C: NDArray[np.int64]) -> Value:
        """Add the whole network; return the name of its output."""
        x_TBP, inside_TB1 = self._sentences(marks_2C)
        stack = [self.op("Concat", x_TBP, x_TBP, axis=2), *self._run(x_TBP, inside_TB1)]
        zero, one = self.ints(0), self.ints(1)
        padded_LTBP = self.op("Concat", *(self.op("Unsqueeze", layer, zero) for layer in stack), axis=0)
        inner_LTBP = self.op("Slice", padded_LTBP, one, self.ints(-1), one)  # along T, without the marks
        inner_LBTP = self.op("Transpose", inner_LTBP, perm=[0, 2, 1, 3])
        word_BT1 = self.op("Unsqueeze", self.op("Cast", "mask", to=FLOAT), self.ints(2))
        self.nodes.append(helper.make_node("Mul", [inner_LBTP, word_BT1], ["layers"]))
        return "layers"

    # ---------------------------------------------------------------- words

    def _sentences(self, marks_2C: NDArray[np.int64]) -> tuple[Value, Value]:
        """Add word vectors between the marks, (T + 2, B, P), and 1 where a place is in a sentence, 0 elsewhere."""
        words_NC = self.op("Reshape", "ids", self.ints(-1, marks_2C.shape[1]))
        ids_NC = self.op("Max", self.op("Sub", words_NC, self.ints(1)), self.ints(0))  # 0 where no word is: any will do
        vectors_NP = self._encode(self.op("Concat", self.constant(marks_2C), ids_NC, axis=0))
        begin_1P, end_1P, words_NP = (self._rows(vectors_NP, *span) for span in ((0, 1), (1, 2), (2, _END)))
        P = self.config.lstm.projection_dim
        shape_BTP = self.op("Concat", self.batch, self.places, self.ints(P), axis=0)
        words_BTP = self.op("Reshape", words_NP, shape_BTP, allowzero=1)  # there may be no places
        begin_B1P = self.op("Expand", begin_1P, self.op("Concat", self.batch, self.ints(1, P), axis=0))
        one = self.ints(1)
        last_B1 = self.op("Add", self.op("ReduceSum", self.op("Cast", "mask", to=INT64), one), one)
        index_T = self._index()
        x_BTP = self.op("Concat", begin_B1P, words_BTP, begin_B1P, axis=1)
        is_end_BT1 = self.op("Unsqueeze", self.op("Equal", index_T, last_B1), self.ints(2))
        x_TBP = self.op("Transpose", self.op("Where", is_end_BT1, end_1P, x_BTP), perm=[1, 0, 2])
        inside_BT = self.op("Cast", self.op("LessOrEqual", index_T, last_B1), to=FLOAT)
        return x_TBP, self.op("Unsqueeze", self.op("Transpose", inside_BT), self.ints(2))

    def _index(self) -> Value:
        """Add the numbers of the places, marks among them, (T + 2,)."""
        count = self.op("Squeeze", self.op("Add", self.places, self.ints(2)))
        return self.op("Range", self.constant(np.array(0)), count, self.constant(np.array(1)))

    def _rows(self, x: Value, begin: int, end: int) -> Value:
        return self.op("Slice", x, self.ints(begin), self.ints(end), self.ints(0))

    def _encode(self, ids_NC: Value) -> Value:
        """Add the vectors without context, (N, P): a word's row of the table, then what its characters give."""
        config, parts = self.config, []
        if config.word_dim:
            parts.append(
                self.op(
                    "Gather", self._array("embedding"), self.op("Gather", ids_NC, self.constant(np.array(0)), axis=1)
                )
            )
        if config.char_cnn:
            first = 1 if config.word_dim else 0
            chars_NC = self.op("Slice", ids_NC, self.ints(first), self.ints(_END), self.ints(1))
            parts.append(self._from_characters(config.char_cnn, chars_NC))
        x = self.op("Concat", *parts, axis=1)
        return self._affine(x, "projection") if config.projects_words else x

    def _from_characters(self, cnn: CharCNN, ids_NC: Value) -> Value:
        x_NEC = self.op("Transpose", self.op("Gather", self._array("char_embed"), ids_NC), perm=[0, 2, 1])
        maxima = [self._window_maxima(x_NEC, f"cnn.{i}") for i in range(len(cnn.filters))]
        x = self.op("Relu" if cnn.activation == "relu" else "Tanh", self.op("Concat", *maxima, axis=1))
        for k in range(cnn.n_highway):
            gate = self.op("Sigmoid", self._affine(x, f"highway.{k}.carry"))
            new = self.op("Relu", self._affine(x, f"highway.{k}.transform"))
            x = self.op("Add", x, self.op("Mul", gate, self.op("Sub", new, x)))
        return x

    def _window_maxima(self, x_NEC: Value, name: str) -> Value:
        weight = self.constant(self.arrays[f"{name}.weight"].transpose(2, 1, 0), f"{name}.weight")
        windows = self.op("Conv", x_NEC, weight, self._array(f"{name}.bias"))
        return self.op("ReduceMax", windows, self.ints(2), keepdims=0)

    def _array(self, name: str) -> Value:
        return self.constant(self.arrays[name], name)

    def _affine(self, x: Value, name: str) -> Value:
        return self.op("Add", self.op("MatMul", x, self._array(f"{name}.weight")), self._array(f"{name}.bias"))

    # ---------------------------------------------------------------- layers

    def _run(self, x_TBP: Value, inside_TB1: Value) -> list[Value]:
        """Add the layers, (T, B, 2P) each."""
        lstm, streams = self.config.lstm, [x_TBP, x_TBP]
        layers: list[Value] = []
        for k in range(lstm.n_layers):
            if k and lstm.joined:
                streams = [layers[-1], layers[-1]]
            new = [self._recurrence(k, z, stream, inside_TB1) for z, stream in enumerate(streams)]
            skip = k and lstm.use_skip_connections
            streams = [self.op("Add", y, x) for y, x in zip(new, streams, strict=True)] if skip else new
            layers.append(self.op("Concat", *streams, axis=2))
        if not lstm.joined:
            return layers
        weight, bias = self._array("output.weight"), self._array("output.bias")
        ends = (self.op("Add", self.op("MatMul", stream, weight), bias) for stream in streams)
        return [self.op("Concat", *ends, axis=2)]

    def _recurrence(self, layer: int, direction: int, x_TBI: Value, inside_TB1: Value) -> Value:
        """Add one layer in one direction; the backward one scans from the last place to the first."""
        lstm = self.config.lstm
        start = [self._zeros(lstm.state_dim), self._zeros(lstm.dim)]
        body = self._step(layer, direction)
        reverse = {"scan_input_directions": [direction] * 2, "scan_output_directions": [direction]}
        inputs = (*start, x_TBI, inside_TB1)
        return self.add("Scan", *inputs, outputs=3, body=body, num_scan_inputs=2, **reverse)[2]

    def _zeros(self, width: int) -> Value:
        return self.op("ConstantOfShape", self.op("Concat", self.batch, self.ints(width), axis=0))

    def _step(self, layer: int, direction: int) -> Any:
        """Return the graph of a step: an LSTM with projection and clips, its state zero outside of a sentence."""
        lstm, name = self.config.lstm, f"lstm.{layer}.{direction}."
        step = _Graph(name)
        h, c, x, inside = (f"{name}{part}" for part in ("h", "c", "x", "inside"))
        kernel, bias_G = (self.arrays[f"lstm.{layer}.{part}"][direction] for part in ("kernel", "bias"))
        forget_G = np.repeat(np.array([0, 0, 1, 0], np.float32), lstm.dim)
        weights = self.constant(kernel, f"{name}kernel"), self.constant(bias_G + forget_G, f"{name}bias")
        gates_BG = step.op("Gemm", step.op("Concat", x, h, axis=1), *weights)
        i, j, f, o = step.add("Split", gates_BG, outputs=4, axis=1, num_outputs=4)
        added = step.op("Mul", step.op("Sigmoid", i), step.op("Tanh", j))
        cells = self._clipped(step, step.op("Add", step.op("Mul", step.op("Sigmoid", f), c), added), lstm.cell_clip)
        out = step.op("Mul", step.op("Sigmoid", o), step.op("Tanh", cells))
        if self.config.projects_cells:
            projection = self.constant(self.arrays[f"lstm.{layer}.projection"][direction], f"{name}projection")
            out = self._clipped(step, step.op("MatMul", out, projection), lstm.proj_clip)
        state = [step.op("Mul", value, inside) for value in (out, cells)]
        outputs = [_floats(value) for value in (*state, step.op("Identity", state[0]))]
        return helper.make_graph(step.nodes, f"{name}step", [_floats(value) for value in (h, c, x, inside)], outputs)

    def _clipped(self, step: _Graph, x: Value, limit: float | None) -> Value:
        if limit is None:
            return x
        return step.op("Clip", x, *(self.constant(np.array(bound, np.float32)) for bound in (-limit, limit)))


_END = np.iinfo(np.int64).max


def _floats(name: Value) -> Any:
    """Return a value of a step, of a shape that follows from what is scanned."""
    return helper.make_tensor_value_info(name, FLOAT, ["batch", None])
