"""What compression of a cache has held, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rattention.compression.budget import Budget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rattention.compression.held import Held
    from rattention.compression.strategies import Strategy


@dataclass
class LayerUse:
    """One attention layer, after the last pass through it."""

    name: str
    """Of its module."""
    seen: int = 0
    """Tokens so far, padding among them."""
    held: int = 0
    """Tokens held, of the longest sequence."""
    nbytes: int = 0
    """Bytes held: keys, values, positions, sizes of clusters and remembered queries."""
    full_nbytes: int = 0
    """Bytes that keys and values of all tokens seen would take."""
    cuts: int = 0
    seconds: float = 0.0
    """Spent on choosing and cutting."""
    mass_kept: float | None = None
    """At the last cut: the share of the newest row's attention that stayed, mean of sequences and heads."""
    positions: NDArray[np.int32] | None = None
    """``[batch, kv_heads, kept]``: the tokens that the last cut has kept."""

    def after_pass(self, held: Held, seconds: float) -> None:
        """Take down what is held now."""
        self.seen, self.held, self.nbytes = held.seen, held.key.shape[2], held.nbytes
        one = (held.key[:, :, :1].nbytes + held.value[:, :, :1].nbytes) if self.held else 0
        self.full_nbytes = one * held.seen
        self.seconds += seconds

    def after_cut(self, positions: NDArray[np.int32], mass: float) -> None:
        """Take down what a cut has kept."""
        self.cuts += 1
        self.positions, self.mass_kept = positions, mass


@dataclass
class Compression:
    """What `rattention.compress` does within its block; filled while the model runs."""

    strategy: Strategy
    budget: Budget
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
        """A table."""
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
