"""Norm weights with which RAttention begins as the sliding window whose place it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-8
"""That of RAttention's norms, where no other is given."""


@torch.no_grad()
def begin_as_window(local: Tensor, local_norm_weight: Tensor, linear_norm_weight: Tensor) -> None:
    """Set both weights, ``[heads, value_dim]``, by the local branch's outputs on sample tokens, in place.

    A norm takes away how large a row is. The local weights become those that bring normed rows nearest to
    the rows themselves, by least squares for every head and column (1 for a column of zeros); the linear
    weights become 0, and learn from the first step on.

    Parameters
    ----------
    local:
        What the window gives before its norm, ``[batch, heads, length, value_dim]``. ValueError where it is
        empty or not finite.
    """
    if local.numel() == 0 or not local.isfinite().all():
        what = "NaN or infinity in the output of a window" if local.numel() else "no tokens"
        raise ValueError(f"the sample must give norms something to begin with, got {what}")
    rows = local.cpu().double()  # not every device has float64
    normed = nn.functional.rms_norm(rows, rows.shape[3:], eps=EPS)
    power = normed.square().sum((0, 2))
    nearest = (normed * rows).sum((0, 2)) / power
    local_norm_weight.copy_(torch.where(power > 0, nearest, 1.0))
    linear_norm_weight.zero_()
