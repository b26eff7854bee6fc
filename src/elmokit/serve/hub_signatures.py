"""The inputs and outputs of TF-Hub's ELMo module, which TensorFlow Serving and Open Inference both ask for here.

Signature "default" takes `strings`, parted at spaces; "tokens" takes `tokens`, padded with "", and `sequence_len`. The
outputs are those of `compat.tfhub`, but that every sentence starts from zeros: the exported module let the state of one
request flow into the next, so that an answer depended on who had asked before. Without a trained mix `elmo` is the mean
of the layers.

Axes: B sentences, T places of the longest, P width of a direction, D = 2P.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from elmokit.compat.tfhub import outputs_of
from elmokit.serve.hosted import Hosted
from elmokit.serve.refusal import Refusal
from elmokit.serve.service import Sentences, Service

Array = NDArray[np.float32]
VERSION = "1"


def output_shapes(hosted: Hosted) -> dict[str, list[int]]:
    """Return name -> shape of the outputs, -1 for B and T."""
    elmo = hosted.elmo
    named = {f"lstm_outputs{k}": [-1, -1, elmo.dim] for k in range(1, elmo.n_layers)}
    return {"word_emb": [-1, -1, elmo.dim // 2], **named, "elmo": [-1, -1, elmo.dim], "default": [-1, elmo.dim]}


def of_strings(strings: Sequence[str]) -> tuple[list[list[str]], int]:
    """Return the sentences and T of signature "default"."""
    sentences = [[word for word in line.split(" ") if word] for line in strings]
    return sentences, max(map(len, sentences), default=0)


def of_tokens(tokens: Sequence[Sequence[str]], lengths: Sequence[int]) -> tuple[list[list[str]], int]:
    """Return the sentences and T of signature "tokens"."""
    T = len(tokens[0]) if tokens else 0
    if any(len(row) != T for row in tokens):
        raise Refusal(400, "the rows of 'tokens' have different lengths; pad them with empty strings")
    if len(lengths) != len(tokens) or not all(0 <= n <= T for n in lengths):
        wrong = ", ".join(str(n)[:20] for n in lengths if not 0 <= n <= T)
        found = f"{len(lengths)} for {len(tokens)} rows" if len(lengths) != len(tokens) else wrong[:200]
        raise Refusal(400, f"expected a sequence_len from 0 to {T} for each row of 'tokens', found {found}")
    return [list(row[:n]) for row, n in zip(tokens, lengths, strict=True)], T


async def outputs(service: Service, hosted: Hosted, sentences: Sentences, T: int) -> dict[str, Array]:
    """Return name -> array of all outputs."""
    if not sentences:
        raise Refusal(400, "the request holds no sentence")
    values = len(sentences) * T * hosted.elmo.dim * (hosted.elmo.n_layers + 1)
    if values > service.settings.limits.values:
        most = service.settings.limits.values
        raise Refusal(
            422, f"the reply would hold {values} numbers, padding included, at most {most} are sent; send less at once"
        )
    mixes = hosted.elmo.mixes
    shares_L = mixes[0] if len(mixes) else np.full(hosted.elmo.n_layers, 1 / hosted.elmo.n_layers, np.float32)
    stacks = await service.vectors(hosted, sentences, layers="all")
    return await to_thread.run_sync(outputs_of, hosted.elmo, shares_L, stacks, T)
