"""Numbers that a model has lost: the kernels refuse gates of NaN, Transformers' loops go on with them."""

from __future__ import annotations

import math

from torch import Tensor


def known_gates(log_gate: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Gates without NaN, and NaN in `written` instead, the factor of what a token writes: all that reads the
    state from there on is NaN all the same.

    Both are ``[batch, tokens, heads]``, or their axes in another order; gates may have one more, of channels.
    """
    lost = log_gate.isnan()
    if log_gate.dim() > written.dim():
        lost = lost.any(dim=-1)
    return log_gate.nan_to_num(0.0, math.inf, -math.inf), written.masked_fill(lost, math.nan)
