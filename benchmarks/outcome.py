"""What a case measured: figures with their goals, and the timings they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Literal

MEBI = 1 << 20
DISTURBANCE = "cores that other programs kept busy"
"""A detail of an outcome: above a few hundredths, do not trust its timings."""


@dataclass(frozen=True)
class Goal:
    """A limit a figure has to keep."""

    sign: Literal[">=", "<="]
    limit: float

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit


def at_least(limit: float) -> Goal:
    return Goal(">=", limit)


def at_most(limit: float) -> Goal:
    return Goal("<=", limit)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    For a ratio of times `value` is the ratio of the medians and `pairwise` the median of the ratios within
    one round, which a machine that slows down half-way does not disturb; a goal is met when both keep it.
    Other figures have no `pairwise`.
    """

    against: str
    value: float
    unit: Literal["x", "%", "MiB", "s"]
    goal: Goal | None = None
    pairwise: float | None = None
    ours: float | None = None
    theirs: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return all(self.goal.met_by(v) for v in (self.value, self.pairwise) if v is not None)


@dataclass(frozen=True)
class Samples:
    """What one contestant took, round by round: seconds, or GFLOP/s for the FMA peak."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(frozen=True)
class Outcome:
    """All that came out of one case."""

    figures: list[Figure]
    samples: dict[str, Samples] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    """Largest relative difference between our answer and this contestant's."""
    missing: dict[str, str] = field(default_factory=dict)
    """Peers that took no part, and why."""
    details: dict[str, float] = field(default_factory=dict)
    """Other numbers worth keeping."""


def ratio(over: Samples, under: Samples) -> tuple[float, float]:
    """The ratio of the medians, and the median of the ratios within a round."""
    pairs = [a / b for a, b in zip(over.values, under.values, strict=True)]
    return over.median / under.median, median(pairs)
