"""What one row of attention says: how much of the context it uses, and where that lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rattention._metrics import AttentionMetrics

TOP_SHARE = 0.1
"""`top_mass` is the mass on this share of the visible positions."""
MOST_MASS = 0.9
"""The positions that hold this share of the mass are the *attended* ones."""
SINKS = 4
"""`sink_mass` is the mass on so many first positions."""


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """Numbers of one query row, float64 ``[heads]`` each; weights are shares of 1."""

    context: NDArray[np.int64]
    """Positions that the row sees besides its own."""
    context_mean: NDArray[np.float64]
    """Mean weight over the context."""
    context_std: NDArray[np.float64]
    """Population standard deviation of the weights over the context."""
    entropy: NDArray[np.float64]
    """Of all weights, in nats."""
    relative_entropy: NDArray[np.float64]
    """Entropy over ln of the number of visible positions, its largest value: 1 is even attention. NaN where
    one position alone is visible."""
    recent_distant_ratio: NDArray[np.float64]
    """Mean weight of the nearest quarter of the context over that of the farthest. NaN where the context has
    fewer than two positions."""
    top_mass: NDArray[np.float64]
    """Mass on the tenth of the visible positions, at least one, that has most."""
    needed_share: NDArray[np.float64]
    """Share of the visible positions that it takes to hold 90 % of the mass: the attended positions."""
    clustering: NDArray[np.float64]
    """Mean length of the runs of attended positions, over what it would be were as many positions drawn at
    random; 1 is chance. NaN where they are one run: that is a stretch, and no groups."""
    sink_mass: NDArray[np.float64]
    """Mass on the first four positions of the sequence."""


STATISTICS = tuple(field.name for field in fields(RowStatistics) if field.name != "context")


def row_statistics(
    metrics: AttentionMetrics,
    weights: NDArray[np.float32],
    visible: NDArray[np.bool_],
    heads: Sequence[int],
    row: int,
) -> RowStatistics:
    """Of row `row` in `metrics` of one sequence, whose `weights` and `visible` positions are ``[heads,
    keys]`` of the `heads` chosen."""
    seen = visible.sum(axis=1)
    entropy = metrics.entropy[0, heads, row].astype(np.float64)
    attended = [attended_positions(w, v) for w, v in zip(weights, visible, strict=True)]
    return RowStatistics(
        context=np.maximum(seen - 1, 0),
        context_mean=metrics.context_mean[0, heads, row].astype(np.float64),
        context_std=metrics.context_std[0, heads, row].astype(np.float64),
        entropy=entropy,
        relative_entropy=np.where(seen > 1, entropy / np.log(np.maximum(seen, 2)), np.nan),
        recent_distant_ratio=metrics.recent_distant_ratio[0, heads, row].astype(np.float64),
        top_mass=np.array([top_mass(w, v) for w, v in zip(weights, visible, strict=True)]),
        needed_share=np.array([len(a) / max(n, 1) for a, n in zip(attended, seen, strict=True)]),
        clustering=np.array([clustering(a, n) for a, n in zip(attended, seen, strict=True)]),
        sink_mass=weights[:, :SINKS].sum(axis=1, dtype=np.float64),
    )


def top_mass(weights: NDArray[np.float32], visible: NDArray[np.bool_]) -> float:
    """Mass on the tenth of the visible positions that has most."""
    count = max(1, int(TOP_SHARE * visible.sum()))
    return float(np.sort(weights[visible].astype(np.float64))[-count:].sum())


def attended_positions(weights: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The fewest positions that together hold `MOST_MASS` of the mass, ascending."""
    positions = np.flatnonzero(visible)
    order = positions[np.argsort(-weights[positions], kind="stable")]
    mass = np.cumsum(weights[order], dtype=np.float64)
    if not len(mass) or mass[-1] == 0:
        return positions[:0]
    return np.sort(order[: np.searchsorted(mass, MOST_MASS * mass[-1]) + 1])


def clustering(attended: NDArray[np.int64], visible: int) -> float:
    """Mean length of the runs of `attended` positions over the mean length when as many of `visible` are
    drawn at random, ``1 / (1 - share)`` for long sequences; NaN for fewer than two runs."""
    runs = 1 + np.count_nonzero(np.diff(attended) > 1) if len(attended) else 0
    if runs < 2:
        return float("nan")
    expected = visible / (visible - len(attended) + 1)
    return float(len(attended) / runs / expected)
