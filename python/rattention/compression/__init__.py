"""Fewer tokens to attend to: strategies that choose them, and where they are applied.

    >>> import numpy as np
    >>> from rattention.compression import Past, Recency, TopK, resolve_budget
    >>> past = Past(np.ones((1, 8, 4), np.float32), measure=lambda by: np.arange(8.0)[None])
    >>> Recency(sinks=1).keep(past, resolve_budget(0.5, 8)).indices
    array([[0, 5, 6, 7]])
    >>> (Recency() + TopK(by="query")).keep(past, 4).indices
    array([[4, 5, 6, 7]])

`STRATEGIES` names them. `rattention.compress` applies one to the key/value caches of a model while it runs.
"""

from __future__ import annotations

from rattention.compression.budget import most_kept, resolve_budget
from rattention.compression.clusters import Clusters
from rattention.compression.past import Kept, Past
from rattention.compression.strategies import Combined, Recency, Strategy, TopK, Uniform
from rattention.compression.table import STRATEGIES, require_strategy

__all__ = [
    "STRATEGIES",
    "Clusters",
    "Combined",
    "Kept",
    "Past",
    "Recency",
    "Strategy",
    "TopK",
    "Uniform",
    "most_kept",
    "require_strategy",
    "resolve_budget",
]
