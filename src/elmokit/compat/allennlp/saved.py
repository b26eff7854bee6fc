"""Models that AllenNLP trained and saved: their tensors under the names that the modules here have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from elmokit.checkpoint import Config
from elmokit.formats.allennlp_archive import network_arrays

_NETWORK = "_elmo_lstm."  # what AllenNLP's `Elmo` calls the network, whose tensors alone are renamed


def rename(state: dict[str, Any], prefix: str, config: Config) -> None:
    """Replace, in a state that is being loaded, AllenNLP's tensors below `prefix` by ours; leave any other as it is.

    `prefix` is where the network stands in the state. Raises `FormatError` where they do not fit `config`.
    """
    if f"{prefix}_token_embedder._char_embedding_weights" not in state:
        return
    theirs: dict[str, Tensor] = {
        _NETWORK + name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)
    }
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in theirs.items()}
    for name, array in network_arrays(tensors, config, where="the saved model").items():
        state[prefix + _place(name)] = torch.from_numpy(np.ascontiguousarray(array))


def _place(name: str) -> str:
    """Return where an array of a checkpoint stands in `_ElmoBiLm`."""
    if name.startswith("lstm."):
        return f"_elmo_lstm.layers.{name.removeprefix('lstm.')}"
    return f"_token_embedder.encoder.{name}"
