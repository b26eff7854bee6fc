"""ELMo as a layer of Keras 3, on TensorFlow, JAX or torch; the first needs nothing of torch, nor does the second.

`ElmoEmbedding` gives one output of the network, `ElmoOutputs` all of them; both take what TF-Hub's module took.
"""

from __future__ import annotations

from elmokit.errors import MissingExtra, require

try:
    require("keras", extra="keras")
except MissingExtra as error:
    if getattr(error.__cause__, "name", None) == "keras":
        raise
    raise MissingExtra(f"{error}, and the backend that KERAS_BACKEND names: torch, jax or tensorflow") from error

from elmokit.keras.layers import ElmoEmbedding as ElmoEmbedding
from elmokit.keras.layers import ElmoOutputs as ElmoOutputs

__all__ = ["ElmoEmbedding", "ElmoOutputs"]
