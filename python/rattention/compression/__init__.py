"""Fewer tokens to attend to: strategies that choose them, and `compress`, which applies them to a model.

    >>> import numpy as np
    >>> from rattention.compression import Past, Recency, TopK, resolve_budget
    >>> past = Past(np.ones((1, 8, 4), np.float32), measure=lambda by: np.arange(8.0)[None])
    >>> Recency(sinks=1).keep(past, resolve_budget(0.5, 8)).indices
    array([[0, 5, 6, 7]])
    >>> (Recency() + TopK(by="query")).keep(past, 4).indices
    array([[4, 5, 6, 7]])

`STRATEGIES` names them; their sources are in `rattention.compression.strategies`.
"""

from __future__ import annotations

from rattention.compression.compressing import Compression, LayerUse, compress
from rattention.compression.past import Kept, Past, most_kept, resolve_budget
from rattention.compression.strategies import (
    STRATEGIES,
    Clusters,
    Combined,
    Recency,
    Strategy,
    TopK,
    Uniform,
    require_strategy,
)

__all__ = [
    "STRATEGIES",
    "Clusters",
    "Combined",
    "Compression",
    "Kept",
    "LayerUse",
    "Past",
    "Recency",
    "Strategy",
    "TopK",
    "Uniform",
    "compress",
    "most_kept",
    "require_strategy",
    "resolve_budget",
]
