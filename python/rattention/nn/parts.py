"""What a layer learns besides projections: masses and gravity, timescales, norm weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from rattention.nn.mechanisms import WithGravity, WithTimescales


class Gravity(nn.Module):
    """Masses of every token as seen by every head, and the strength per head; all positive.

    Masses are ``softplus`` of a linear map of the token. The strength is ``exp`` of a parameter that starts
    at the logarithm of the expected power of the distance, so that initial scores are about 1. A learned
    exponent, one per head, is also an ``exp``.
    """

    def __init__(self, options: WithGravity, dim: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        power = 1.0 if options.distance == "euclidean" else 2.0
        expected = 1.0 if options.distance == "cosine" else head_dim ** (power / 2)
        self.distance, self.softening = options.distance, options.softening
        self.query_mass = nn.Linear(dim, heads)
        self.key_mass = nn.Linear(dim, kv_heads)
        self.log_gravity = nn.Parameter(torch.full((heads,), math.log(expected)))
        exponents = torch.full((heads,), math.log(power))
        self.log_exponent = nn.Parameter(exponents) if options.learn_exponent else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[batch, length, dim]`` to masses ``[batch, heads, length]`` and ``[batch, kv_heads, length]``."""
        masses = [nn.functional.softplus(linear(x)).mT for linear in (self.query_mass, self.key_mass)]
        return masses[0], masses[1]

    def rule(self, x: Tensor) -> dict[str, Any]:
        """Arguments of `rattention.torch.gravitational_attention`."""
        own, other = self(x)
        rule = {"query_mass": own, "key_mass": other, "gravity": self.strength(), "eps": self.softening}
        return rule | {"exponent": self.exponent()}

    def positions(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """What distances are between, ``[batch, heads, length, head_dim]``; for cosines two columns more."""
        if self.distance != "cosine":
            return query, key
        return _directions(query, 0), _directions(key, 1)

    def exponent(self) -> Tensor | float | None:
        """Of the distance between positions: ``[heads]`` where it is learned; None is 2."""
        if self.log_exponent is not None:
            return self.log_exponent.exp()
        return 1.0 if self.distance == "euclidean" else None

    def strength(self) -> Tensor:
        """G, ``[heads]``."""
        return self.log_gravity.exp()


def _directions(rows: Tensor, side: int) -> Tensor:
    """Vectors of length sqrt(1/2), whose squared distance is ``1 - cos``. Zero vectors
    point along an extra dimension, one for each side, so their cosine with all others is 0."""
    wide = rows.float()
    length = wide.norm(dim=-1, keepdim=True)
    some = length > 0
    unit = wide / torch.where(some, length, 1.0)
    none = (~some).to(unit.dtype)
    others = [none, torch.zeros_like(none)]
    joined = torch.cat([unit, others[side], others[1 - side]], dim=-1)
    return (math.sqrt(0.5) * joined).to(rows.dtype)


class Timescales(nn.Module):
    """Discounts of several timescales: a weight decays as ``exp(-|i - j| / timescale)``.

    The parameter is the logarithm of the timescale, so that a learned one stays positive. With a gate, each
    token multiplies it by ``exp(tanh(w . x + b))``, that is by 1/e to e, and by 1 at first.
    """

    log_timescale: Tensor

    def __init__(self, options: WithTimescales, heads: int, dim: int) -> None:
        """Each timescale has `heads` heads; `dim` is the width of the tokens."""
        super().__init__()
        logarithms = torch.tensor([math.log(t) for t in options.timescales])
        if options.learn:
            self.log_timescale = nn.Parameter(logarithms)
        else:
            self.register_buffer("log_timescale", logarithms)
        self.heads = heads
        self.gate = nn.Linear(dim, len(logarithms)) if options.adaptive else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def log_discount(self, x: Tensor) -> Tensor:
        """``ln gamma = -1 / timescale``, the heads of a timescale side by side: ``[heads]``, or with a gate
        ``[batch, heads, length]`` for tokens ``[batch, length, dim]``."""
        logarithms = self.log_timescale.float()
        if self.gate is None:
            return -torch.exp(-logarithms).repeat_interleave(self.heads)
        moved = logarithms + self.gate(x).float().tanh()
        return -torch.exp(-moved).mT.repeat_interleave(self.heads, dim=1)


class BranchNorms(nn.Module):
    """Weights of the two norms of RAttention, ``[heads, head_dim]``, 1 at first."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.local_norm_weight = nn.Parameter(torch.ones(heads, head_dim))
        self.linear_norm_weight = nn.Parameter(torch.ones(heads, head_dim))

    def rule(self) -> dict[str, Any]:
        """Arguments of `rattention.torch.rattention`."""
        return {"local_norm_weight": self.local_norm_weight, "linear_norm_weight": self.linear_norm_weight}


class RowNorm(nn.RMSNorm):
    """RMSNorm of each head's rows, in the dtype of its weights and back: rows are narrower under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., head_dim]`` to the same."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)
