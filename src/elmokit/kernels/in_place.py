"""The recurrence for embedding on a processor: one direction after the other, no gradients, little memory touched.

A step is one product of [x, h] with the whole kernel, so that the gates are never stored for more than a step, and
everything after it happens in place. The weights are packed once, which counts where few rows are computed. tanh(x) is
2 sigmoid(2 x) - 1, because torch's tanh takes four times as long as its sigmoid; the difference is a rounding at 1. The
cells stay in float32 where the weights are bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from elmokit.kernels.plain import whole_rows
from elmokit.kernels.product import Packed, multiply


def lstmp_in_place(
    x_TZBI: Tensor,
    kernel_ZKG: Tensor,
    bias_ZG: Tensor,
    projection_ZDP: Tensor | None,
    h_ZBP: Tensor,
    c_ZBD: Tensor,
    *,
    rows: Sequence[int],
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    y_TZBP = x_TZBI.new_empty(len(rows), *h_ZBP.shape)
    h_ZBP, c_ZBD = h_ZBP.clone(), c_ZBD.clone()
    for z in range(len(kernel_ZKG)):
        gates = partial(_packed(kernel_ZKG)[z], bias_O=bias_ZG[z])
        project = None if projection_ZDP is None else _packed(projection_ZDP)[z]
        _one_direction(
            x_TZBI[:, z], gates, project, h_ZBP[z], c_ZBD[z], y_TZBP[:, z],
            rows=rows, cell_clip=cell_clip, proj_clip=proj_clip,
        )  # fmt: skip
    return y_TZBP, h_ZBP, c_ZBD


# Packed copies of weights that are alive and do not learn, with the version of the weight that was packed: a change
# makes a new copy. Weights that learn are not packed: optimisers may change them without changing their version.
_PACKED: MutableMapping[Tensor, tuple[tuple[int, int], list[Packed]]] = WeakTensorKeyDictionary()


def forget_packed(weight_ZIO: Tensor) -> None:
    """Let go of the packed copy of a weight that learns; there may be one from before it did."""
    if weight_ZIO.requires_grad:
        _PACKED.pop(weight_ZIO, None)


def _packed(weight_ZIO: Tensor) -> Sequence[Callable[..., Tensor]]:
    """Return the weight of each direction, packed if it does not learn."""
    if weight_ZIO.requires_grad:
        return [partial(multiply, b_IO=weight_IO) for weight_IO in weight_ZIO]
    version = weight_ZIO.data_ptr(), 0 if weight_ZIO.is_inference() else weight_ZIO._version
    known = _PACKED.get(weight_ZIO)
    if known is None or known[0] != version:
        known = _PACKED[weight_ZIO] = version, [Packed(weight_IO) for weight_IO in weight_ZIO]
    return known[1]


def _one_direction(
    x_TBI: Tensor,
    gates: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor] | None,
    h_BP: Tensor,
    c_BD: Tensor,
    y_TBP: Tensor,
    *,
    rows: Sequence[int],
    cell_clip: float | None,
    proj_clip: float | None,
) -> None:
    """Run all steps; write the outputs into `y_TBP`, the last state of every row into `h_BP` and `c_BD`."""
    (B, D), P, I = c_BD.shape, h_BP.shape[1], x_TBI.shape[-1]  # noqa: E741
    most = whole_rows(B)
    xh, c, m = x_TBI.new_zeros(most, I + P), c_BD.new_zeros(most, D), x_TBI.new_empty(most, D)
    xh[:B, I:], c[:B] = h_BP, c_BD
    for t, left in enumerate(rows):
        n = whole_rows(left)
        xh[:left, :I] = x_TBI[t, :left]
        m_nD = _cells(gates(xh[:n]).to(c.dtype), c[:n], m[:n], cell_clip)
        y_nP = project(m_nD) if project else m_nD
        if project and proj_clip is not None:
            y_nP.clamp_(-proj_clip, proj_clip)
        xh[:n, I:] = y_nP
        y_TBP[t, :left] = y_nP[:left]
        ended = slice(rows[t + 1] if t + 1 < len(rows) else 0, left)
        h_BP[ended], c_BD[ended] = y_nP[ended], c[ended]


def _cells(gates_nG: Tensor, c_nD: Tensor, m_nD: Tensor, cell_clip: float | None) -> Tensor:
    """Update the cells in place; return what they give to the projection, in `m_nD`."""
    i, j, f, o = gates_nG.chunk(4, dim=-1)
    j.mul_(2)
    gates_nG.sigmoid_()
    c_nD.mul_(f).sub_(i).addcmul_(i, j, value=2)  # f c + i (2 j - 1)
    if cell_clip is not None:
        c_nD.clamp_(-cell_clip, cell_clip)
    tanh_nD = torch.mul(c_nD, 2, out=i).sigmoid_().mul_(2).sub_(1)
    return m_nD.copy_(tanh_nD.mul_(o)) if m_nD.dtype != c_nD.dtype else torch.mul(tanh_nD, o, out=m_nD)
