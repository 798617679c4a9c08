"""When a number deserves a remark."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rattention.studies.degradation.contexts import ContextMetrics


@dataclass(frozen=True)
class Thresholds:
    """Where the marks begin. They are rules of thumb for BERT-sized contexts, not laws."""

    entropy: float = 2.0
    """Mean entropy above this many nats is a good spread."""
    local_concentration: float = 0.8
    """More than this share of the weight on near neighbours is a strong local bias."""
    long_range: float = 0.02
    """Less than this share of the weight on distant tokens is poor long-range attention."""
    retention_drop: float = 0.0
    """Retention falling by more than this against the previous context is degradation."""

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be compared with."""
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"threshold {field.name} must be finite, got {getattr(self, field.name)}")

    def marks(self, context: ContextMetrics) -> tuple[str, ...]:
        """Names of what is remarkable about a context: a subset of `MARKS`, in that order."""
        fell = -(context.retention_change or 0.0)
        found = {
            "good_spread": context.entropy > self.entropy,
            "strong_local_bias": context.local_concentration > self.local_concentration,
            "poor_long_range": context.long_range < self.long_range,
            "degradation": fell > self.retention_drop,
        }
        return tuple(name for name in MARKS if found[name])


MARKS = ("good_spread", "strong_local_bias", "poor_long_range", "degradation")
"""Every mark `Thresholds.marks` can give."""
