"""Filters over the characters of words, and the maximum over places, with gradients that touch little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elmokit.kernels.product import in_product_type, multiply, recurring_rows


def window_maxima(x_UCE: Tensor, weight_KN: Tensor) -> Tensor:
    """Return the maxima (U, N) over all windows of x (U, C, E) of window @ weight; a window is K / E characters.

    Computes in the type of autocast where that is on. The gradient of equal maxima is shared among them, as torch does.
    """
    x_UCE, weight_KN = in_product_type(x_UCE, weight_KN)
    if torch.is_grad_enabled():
        return _WindowMaxima.apply(x_UCE, weight_KN)
    views_UWK = _windows(x_UCE, len(weight_KN))
    U, W, K = views_UWK.shape
    windows_MK = x_UCE.new_empty(recurring_rows(U * W), K)
    windows_MK[: U * W].view(U, W, K).copy_(views_UWK)
    windows_MK[U * W :].zero_()
    return multiply(windows_MK, weight_KN)[: U * W].view(U, W, -1).amax(1)


def _windows(x_UCE: Tensor, K: int) -> Tensor:
    """Return views of all windows, (U, C - K / E + 1, K)."""
    U, C, E = x_UCE.shape
    return x_UCE.contiguous().as_strided((U, C - K // E + 1, K), (C * E, E, 1))


def _values(windows_UWK: Tensor, weight_KN: Tensor) -> Tensor:
    return multiply(windows_UWK.flatten(0, 1), weight_KN).view(*windows_UWK.shape[:2], -1)


class _WindowMaxima(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_UCE: Tensor, weight_KN: Tensor) -> Tensor:
        windows_UWK = _windows(x_UCE, len(weight_KN)).contiguous()
        y_UWN = _values(windows_UWK, weight_KN)
        maxima_UN = y_UWN.amax(1)
        ctx.save_for_backward(windows_UWK, weight_KN, y_UWN, maxima_UN)
        ctx.x_shape = x_UCE.shape
        return maxima_UN

    @staticmethod
    def backward(ctx: Any, dmaxima_UN: Tensor) -> tuple[Tensor, Tensor]:
        windows_UWK, weight_KN, y_UWN, maxima_UN = ctx.saved_tensors
        # One where a value is the maximum, else zero, by arithmetic: comparing into booleans takes five times as long.
        highest_UWN = torch.sub(y_UWN, maxima_UN.unsqueeze(1)).sign_().add_(1)
        dy_UWN = highest_UWN.mul_((dmaxima_UN / highest_UWN.sum(1)).unsqueeze(1))
        dy_MN = dy_UWN.flatten(0, 1)
        dweight_KN = multiply(windows_UWK.flatten(0, 1).T, dy_MN)
        (U, C, E), W = ctx.x_shape, y_UWN.shape[1]
        dwindows_UWkE = multiply(dy_MN, weight_KN.T).view(U, W, -1, E)
        dx_UCE = dwindows_UWkE.new_zeros(U, C, E)
        for k, dcharacter_UWE in enumerate(dwindows_UWkE.unbind(2)):
            dx_UCE[:, k : k + W] += dcharacter_UWE
        return dx_UCE, dweight_KN
