"""What the page calls metrics and strategies, and what it says about them."""

from __future__ import annotations

from typing import NamedTuple

METRICS = {
    "entropy": ("Entropy", "nats", "how evenly a row's weights are spread"),
    "local_concentration": ("Local concentration", "", "share of the weight at most 5 positions away"),
    "long_range": ("Long range", "", "share of the weight more than 50 positions away"),
    "retention": ("Retention", "", "how evenly and how far attention reaches, from 0 to 1"),
    "context_mean": ("Mean weight", "", "mean weight over the context"),
    "context_std": ("Deviation", "", "standard deviation of the weights over the context"),
    "recent_distant_ratio": ("Recent / distant", "", "mean weight of the nearest quarter over the farthest"),
    "max_weight": ("Largest weight", "", "the largest weight of a row"),
}
"""By their names in `rattention.AttentionMetrics`: label, unit, help."""


class StrategyLabel(NamedTuple):
    """How a strategy is called, and what it keeps."""

    label: str
    help: str


STRATEGIES = {
    "recency": StrategyLabel("Newest", "the newest tokens"),
    "sinks": StrategyLabel("Sinks and newest", "the first four tokens and the newest"),
    "uniform": StrategyLabel("Evenly spaced", "tokens at equal distances"),
    "received": StrategyLabel("Most received", "tokens that receive most attention from all rows"),
    "query": StrategyLabel("Most from newest", "tokens that receive most attention from the newest row"),
    "recent+received": StrategyLabel("Newest and most received", "half newest, half most received"),
    "recent+query": StrategyLabel("Newest and most from newest", "half newest, half by the newest row"),
}
"""By their names in `rattention.compression.STRATEGIES`."""
