"""Means over seeds with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with Student's confidence interval; NaN bounds for one seed."""

    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """The mean."""
        return self.mean


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's interval of independent numbers."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, math.nan, math.nan)
    quantile = require("scipy.stats").t.ppf((1 + CONFIDENCE) / 2, array.size - 1)
    half = float(quantile * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(mean, mean - half, mean + half)
