"""Matrix products, each by the fastest library that torch carries for the processor at hand.

torch multiplies float32 matrices on x86 with MKL, which does not use the whole width of an AMD processor's vectors.
oneDNN, which torch carries too and takes for convolutions and bfloat16, does, and is twice as fast there; processors of
other makers have not been measured. With two rows or more it also adds up each row in the same order whatever the other
rows are.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")


def product(x: Tensor, weight_IO: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return x @ weight + bias, (..., O), for x (..., I); in the type of autocast where that is on."""
    x, weight_IO, bias_O = in_product_type(x, weight_IO, bias_O)
    x_NI = x.reshape(-1, x.shape[-1])
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight_IO.requires_grad)
    if not _by_onednn(x_NI, weight_IO) or not needs_gradient:
        y_NO = multiply(x_NI, weight_IO, bias_O)
    else:
        y_NO = _Product.apply(x_NI, weight_IO, bias_O)
    return y_NO.view(*x.shape[:-1], -1)


def affine(x: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """Return x @ weight + bias as `product`, with the weight packed where nothing learns."""
    forget_kept([weight_IO])
    if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        return product(x, weight_IO, bias_O)
    return packed(weight_IO)[0](x.reshape(-1, x.shape[-1]), bias_O=bias_O).view(*x.shape[:-1], -1)


def whole_rows(n: int, weight: Tensor | None = None) -> int:
    """Return the multiple that n rows are computed as, so that each comes out the same whatever the others are.

    `weight`: what `multiply` and the like are given; None for torch's own products. Fewer rows than some are added up
    in another order, and round otherwise: by MKL below 4 with one thread and below 8 with two, by oneDNN below 2. So do
    the last values of a block of memory that do not fill the processor's vectors, where sigmoids are concerned; four
    rows of four gates always fill them.
    """
    together = 8 if weight is None or not _by_onednn(weight, weight) else 4
    return -(-n // together) * together


def recurring_rows(n: int) -> int:
    """Return a number of rows that is n or little more, one of eight between a power of two and the next.

    oneDNN makes code for each number of rows that it meets, and keeps it.
    """
    step = max(4, 1 << max(0, n.bit_length() - 4))
    return -(-n // step) * step


def product_type(x: Tensor) -> torch.dtype:
    """Return the type that products with x are computed in: that of autocast where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def in_product_type(x: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Return all of these in the type of autocast where that is on, else as they are; None stays None."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, *others
    dtype = product_type(x)
    return tuple(None if a is None else a.to(dtype) for a in (x, *others))


def multiply(a_NI: Tensor, b_IO: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return a @ b + bias without a graph of gradients where oneDNN computes it; both may be transposed views."""
    if _by_onednn(a_NI, b_IO):
        turned = a_NI.T.is_contiguous() and not a_NI.is_contiguous()
        if turned and bias_O is None and b_IO.is_contiguous() and a_NI.numel() > b_IO.numel():
            return multiply(b_IO.T, a_NI.T).T  # oneDNN copies a first factor that is turned: let it be the smaller one
        return torch.ops.mkldnn._linear_pointwise(_dense(a_NI), _dense(b_IO).T, bias_O, "none", [], "")
    return torch.mm(a_NI, b_IO) if bias_O is None else torch.addmm(bias_O, a_NI, b_IO)


def products(a_ZNI: Tensor, b_ZIO: Tensor) -> Tensor:
    """Return a @ b of each pair, (Z, N, O), as `multiply`."""
    if _by_onednn(a_ZNI, b_ZIO):
        return torch.stack([multiply(a, b) for a, b in zip(a_ZNI, b_ZIO, strict=True)])
    return torch.bmm(a_ZNI, b_ZIO)


class Packed:
    """A weight laid out as oneDNN reads it fastest, for many products of few rows with the same weight.

    Called with x (N, I) it returns x @ weight + bias, (N, O), without a graph of gradients, bitwise as `multiply`. It
    takes as much memory again as the weight; so do the panels of `few_rows`, where a model embeds many and few.
    """

    def __init__(self, weight_IO: Tensor) -> None:
        self.weight_IO, self.packed = weight_IO.detach(), None
        if _by_onednn(weight_IO, weight_IO):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(_dense(self.weight_IO).T, _ROWS_TO_PACK_FOR)

    def __call__(self, x_NI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        if self.packed is None:
            return multiply(x_NI, self.weight_IO, bias_O)
        return torch.ops.mkldnn._linear_pointwise(x_NI, self.packed, bias_O, "none", [], "")


# What was made of weights that are alive and do not learn, by kind, with the versions of the weights it was made of: a
# change makes it anew. Weights that learn have none: optimisers may change them without changing their version.
_KEPT: MutableMapping[Tensor, dict[str, tuple[Any, Any, Any]]] = WeakTensorKeyDictionary()


def kept(weights: Sequence[Tensor], kind: str, make: Callable[[], T]) -> T:
    """Return what `make` makes of weights that do not learn: made once, and again when one of them has changed."""
    versions = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
    of_first = _KEPT.setdefault(weights[0], {})
    known = of_first.get(kind)
    if known is None or known[0] != versions:
        # The values are held as well, so that a weight that is given others cannot have them at the same address.
        known = of_first[kind] = versions, make(), [weight.detach() for weight in weights]
    return known[1]


def forget_kept(weights: Sequence[Tensor]) -> None:
    """Let go of what was made of weights of which one learns; there may be some from before it did."""
    if any(weight.requires_grad for weight in weights):
        _KEPT.pop(weights[0], None)


def packed(weight: Tensor) -> Sequence[Callable[..., Tensor]]:
    """Return for a weight (I, O), or for each of several (Z, I, O), the function from x (N, I) and a bias to x @ weight
    + bias; packed where the weight does not learn."""
    parts = weight.detach().view(-1, *weight.shape[-2:])
    if weight.requires_grad:
        return [partial(multiply, b_IO=weight_IO) for weight_IO in parts]
    return kept([weight], "packed", lambda: [Packed(weight_IO) for weight_IO in parts])


class _Product(torch.autograd.Function):
    """`multiply` with its gradients, which are products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_NI, weight_IO)
        return multiply(x_NI, weight_IO, bias_O)

    @staticmethod
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_IO = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            multiply(dy_NO, weight_IO.T) if needs_x else None,
            multiply(x_NI.T, dy_NO) if needs_weight else None,
            dy_NO.sum(0) if needs_bias else None,
        )


def _dense(a: Tensor) -> Tensor:
    """Return the matrix, copied where neither its rows nor its columns follow one another without a gap.

    oneDNN takes a thousand times as long where the columns do but for a gap.
    """
    return a if a.is_contiguous() or a.T.is_contiguous() else a.contiguous()


def _by_onednn(a_NI: Tensor, b_IO: Tensor) -> bool:
    """Say whether oneDNN computes this product: in a type that an x86 processor computes in, and nothing empty."""
    return (
        a_NI.dtype == b_IO.dtype and a_NI.dtype in _DTYPES and a_NI.device.type == "cpu"
        and a_NI.numel() > 0 and b_IO.numel() > 0
    )  # fmt: skip


def _dtypes() -> set[torch.dtype]:
    """Return the types that oneDNN computes in here. Elsewhere than on x86 it has not been tried."""
    operators = torch.ops.mkldnn  # those that torch's own compiler emits
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return set()
    if not hasattr(operators, "_linear_pointwise") or not hasattr(operators, "_reorder_linear_weight"):
        return set()
    return {torch.float32, torch.bfloat16} if operators._is_mkldnn_bf16_supported() else {torch.float32}


_DTYPES = _dtypes()
# Any number gives a layout that serves all; the values do not depend on it.
_ROWS_TO_PACK_FOR = 64
