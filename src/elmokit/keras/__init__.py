"""ELMo as a layer of Keras 3, on TensorFlow, JAX or torch; the first needs nothing of torch, nor does the second.

`ElmoEmbedding` gives one output of the network, `ElmoOutputs` all of them; both take what TF-Hub's module took.
"""

from __future__ import annotations

from elmokit.errors import require

require("keras", extra="keras")

from elmokit.keras.layers import ElmoEmbedding as ElmoEmbedding  # noqa: E402 - a plain error must come first
from elmokit.keras.layers import ElmoOutputs as ElmoOutputs  # noqa: E402

__all__ = ["ElmoEmbedding", "ElmoOutputs"]
