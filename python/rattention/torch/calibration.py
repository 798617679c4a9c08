"""Norm weights with which RAttention begins as the sliding window whose place it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def begin_as_window(local: Tensor, local_norm_weight: Tensor, linear_norm_weight: Tensor) -> None:
    """Set both weights, ``[heads, value_dim]``, by the local branch's outputs on sample tokens, in place.

    A norm takes away how large a row is. The local weights become those that bring normed rows nearest to
    the rows themselves, by least squares for every head and column; the linear weights become 0, and learn
    from the first step on.

    Parameters
    ----------
    local:
        What the window gives before its norm, ``[batch, heads, length, value_dim]``.
    """
    rows = local.float()
    normed = nn.functional.rms_norm(rows, rows.shape[3:], eps=torch.finfo(torch.float32).tiny)
    power = normed.square().sum((0, 2))
    nearest = (normed * rows).sum((0, 2)) / power
    local_norm_weight.copy_(torch.where(power > 0, nearest, 1.0))
    linear_norm_weight.zero_()
