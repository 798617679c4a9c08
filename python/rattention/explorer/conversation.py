"""Turn after turn of a conversation, measured as its context grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rattention.explorer.reading import MEASURED, Reading
from rattention.studies.degradation import Thresholds

FOLLOWED = ("entropy", "local_concentration", "long_range", "retention")
"""The metrics that are shown."""


@dataclass(frozen=True)
class Turn:
    """What was said, and the metrics of the whole conversation once it was read."""

    text: str
    tokens: int
    """Of the conversation so far."""
    metrics: dict[str, float]
    """Means over rows, layers and heads."""
    change: float | None
    """Of the retention score, against the turn before."""

    @classmethod
    def after(cls, text: str, reading: Reading, before: Sequence[Turn]) -> Turn:
        """The turn that ends what was read."""
        means = np.concatenate(reading.means, axis=1).astype(np.float64)
        metrics = {name: float(np.nanmean(means[MEASURED.index(name)])) for name in FOLLOWED}
        change = metrics["retention"] - before[-1].metrics["retention"] if before else None
        return cls(text, len(reading.document), metrics, change)

    def marks(self, limits: Thresholds) -> dict[str, str]:
        """By metric: "good", or "watch" where it is beyond a threshold, "bad" where it falls."""
        marks = {}
        if self.metrics["entropy"] > limits.entropy:
            marks["entropy"] = "good"
        if self.metrics["local_concentration"] > limits.local_concentration:
            marks["local_concentration"] = "watch"
        if self.metrics["long_range"] < limits.long_range:
            marks["long_range"] = "watch"
        if self.change is not None and -self.change > limits.retention_drop:
            marks["retention"] = "bad"
        return marks


def turns_data(turns: Sequence[Turn], limits: Thresholds | None = None) -> list[dict[str, Any]]:
    """As plain data."""
    given = limits or Thresholds()
    return [
        {
            "role": "user",
            "text": turn.text,
            "tokens": turn.tokens,
            "metrics": turn.metrics,
            "change": turn.change,
            "marks": turn.marks(given),
        }
        for turn in turns
    ]
