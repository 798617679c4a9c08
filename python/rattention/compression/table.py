"""Every strategy by name; the command line, the validation and the tests go through this table."""

from __future__ import annotations

from typing import Any

from rattention.compression.clusters import Clusters
from rattention.compression.strategies import SINKS, Recency, Strategy, TopK, Uniform

STRATEGIES: dict[str, Strategy] = {
    "recency": Recency(),
    "sinks": Recency(sinks=SINKS),
    "uniform": Uniform(),
    "received": TopK(by="received"),
    "query": TopK(by="query"),
    "clusters": Clusters(),
    "representatives": Clusters(by="representative"),
    "recent+received": Recency() + TopK(by="received"),
    "recent+query": Recency() + TopK(by="query"),
    "recent+clusters": Recency() + Clusters(),
}
"""Strategies with their usual settings."""


def require_strategy(strategy: Any) -> Strategy:
    """`strategy`, or that of a name in `STRATEGIES`; ValueError for other names, TypeError for others."""
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a Strategy or a name, got {type(strategy).__name__}")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    return STRATEGIES[strategy]
