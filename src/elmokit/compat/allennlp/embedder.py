"""Sentences to arrays and files: what was in `allennlp.commands.elmo`.

Axes: B sentences, T tokens, D width of a vector, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elmokit.compat.allennlp.elmo import Source, _ElmoBiLm, batch_to_ids, remove_sentence_boundaries
from elmokit.errors import MismatchError, TextError
from elmokit.sinks.hdf5 import whole_file
from elmokit.sinks.spec import Array, Spec

_PUBLISHED = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo/2x4096_512_2048cnn_2xhighway/"
DEFAULT_OPTIONS_FILE = _PUBLISHED + "elmo_2x4096_512_2048cnn_2xhighway_options.json"
DEFAULT_WEIGHT_FILE = _PUBLISHED + "elmo_2x4096_512_2048cnn_2xhighway_weights.hdf5"
DEFAULT_BATCH_SIZE = 64


class ElmoEmbedder:
    """Sentences in, NumPy arrays of all layers out; the state flows from call to call.

    Without `weight_file`, `options_file` is a model of any format, or its default, the published one.
    """

    def __init__(
        self,
        options_file: Source = DEFAULT_OPTIONS_FILE,
        weight_file: str | Path | None = None,
        cuda_device: int = -1,
    ) -> None:
        if weight_file is None and options_file == DEFAULT_OPTIONS_FILE:
            weight_file = DEFAULT_WEIGHT_FILE
        self.elmo_bilm = _ElmoBiLm(options_file, weight_file)
        self.cuda_device = cuda_device
        if cuda_device >= 0:
            self.elmo_bilm.cuda(cuda_device)

    def batch_to_embeddings(self, batch: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return the layers (B, L, T, D) of a batch and its mask (B, T) int64."""
        with torch.no_grad():
            output = self.elmo_bilm(batch_to_ids(batch))
            pairs = [remove_sentence_boundaries(layer, output["mask"]) for layer in output["activations"]]
            return torch.stack([layer for layer, _ in pairs], dim=1), pairs[0][1]

    def embed_sentence(self, sentence: Sequence[str]) -> NDArray[Any]:
        """Return the layers (L, T, D) float32 of one sentence; for no tokens see `empty_embedding`."""
        return self.embed_batch([sentence])[0]

    def embed_batch(self, batch: Sequence[Sequence[str]]) -> list[NDArray[Any]]:
        """Return the layers (L, T, D) float32 of each sentence of one batch; for no tokens see `empty_embedding`."""
        if not any(map(len, batch)):  # AllenNLP does not run the network then, so the state stays as it is
            return [empty_embedding() for _ in batch]
        layers, mask = self.batch_to_embeddings(batch)
        lengths = mask.sum(1).tolist()
        pairs = zip(layers.cpu().numpy(), lengths, strict=True)
        return [array[:, :length] if length else empty_embedding() for array, length in pairs]

    def embed_sentences(
        self, sentences: Iterable[Sequence[str]], batch_size: int = DEFAULT_BATCH_SIZE
    ) -> Iterator[NDArray[Any]]:
        """Yield the layers of each sentence, `batch_size` sentences at a time."""
        remaining = iter(sentences)
        while batch := list(islice(remaining, batch_size)):
            yield from self.embed_batch(batch)

    def embed_file(
        self,
        input_file: IO[str],
        output_file_path: str | Path,
        output_format: str = "all",
        batch_size: int = DEFAULT_BATCH_SIZE,
        forget_sentences: bool = False,
        use_sentence_keys: bool = False,
    ) -> None:
        """Write the vectors of a text, one tokenised sentence a line, to HDF5; `input_file` is closed.

        `output_format`: "all" (L, T, D), "top" or "average" (T, D). Raises `TextError` for empty lines, `OutputError`
        where two sentences would have one key.
        """
        with input_file:
            lines = [line.strip() for line in input_file]
        if empty := [number for number, line in enumerate(lines) if not line]:
            raise TextError(f"the text has empty lines, the first of them line {empty[0] + 1}; take them out")
        select = _FORMATS.get(output_format)
        if select is None:
            raise MismatchError(f"output_format: expected 'all', 'top' or 'average', found {output_format!r}")
        layers = self.elmo_bilm.num_layers if output_format == "all" else None
        width = self.elmo_bilm.get_output_dim()
        spec = Spec(width, layers, sentence_keys=use_sentence_keys, forget_sentences=forget_sentences)
        with whole_file(Path(output_file_path), spec) as sink:
            for number, array in enumerate(self.embed_sentences(map(str.split, lines), batch_size)):
                sink.write(number, [lines[number]], select(array))


_FORMATS: dict[str, Callable[[Array], Array]] = {
    "all": lambda array: array,
    "top": lambda array: array[-1],
    "average": lambda array: array.mean(0),
}


def empty_embedding() -> NDArray[np.float64]:
    """Return what AllenNLP gives for a sentence of no tokens, whatever the model: zeros (3, 0, 1024) float64."""
    return np.zeros((3, 0, 1024))
