"""What a compressed cache is to keep, what it has held, and what that took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import fields_in_brief
from rattention.compression.budget import Budget
from rattention.compression.strategies import Strategy


@dataclass(eq=False, repr=False)
class LayerUse:
    """One attention layer, after the last pass through it."""

    name: str
    """Name of its module."""
    seen: int = 0
    """Tokens so far, padding among them."""
    held: int = 0
    """Tokens held, of the longest sequence."""
    nbytes: int = 0
    """Bytes held: keys, values, positions, sizes of clusters and remembered queries. Room for tokens to come
    is at most another quarter, or 16 tokens."""
    full_nbytes: int = 0
    """Bytes that keys and values of all tokens seen would take."""
    cuts: int = 0
    seconds: float = 0.0
    """Spent on choosing and cutting."""
    mass_kept: float | None = None
    """At the last cut: the share of the newest row's attention that stayed, mean of sequences and heads."""
    positions: NDArray[np.int32] | None = None
    """``[batch, kv_heads, kept]``: the tokens that the last cut has kept."""

    def __repr__(self) -> str:
        return fields_in_brief(self, ("name", "seen", "held", "cuts", "mass_kept"))


@dataclass
class Compression:
    """What `rattention.compress` does within its block; filled while the model runs."""

    strategy: Strategy
    budget: Budget
    slack: int
    """Tokens beyond the budget that may pile up one by one before the next cut."""
    layers: list[LayerUse] = field(default_factory=list)
    """One per attention layer whose cache grows with the context, in the order of the modules."""

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def full_nbytes(self) -> int:
        """Bytes that keys and values of all tokens would take."""
        return sum(layer.full_nbytes for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Spent on choosing and cutting."""
        return sum(layer.seconds for layer in self.layers)

    def __str__(self) -> str:
        lines = [f"{'layer':<40}{'seen':>8}{'held':>8}{'cuts':>6}{'mass kept':>11}{'saved':>8}"]
        for layer in self.layers:
            mass = "-" if layer.mass_kept is None else f"{layer.mass_kept:.1%}"
            saved = 1 - layer.nbytes / layer.full_nbytes if layer.full_nbytes else 0.0
            lines.append(
                f"{layer.name:<40}{layer.seen:>8}{layer.held:>8}{layer.cuts:>6}{mass:>11}{saved:>8.0%}"
            )
        lines.append(
            f"{self.nbytes / 2**20:.2f} MiB held, {self.full_nbytes / 2**20:.2f} MiB would be everything"
        )
        return "\n".join(lines)
