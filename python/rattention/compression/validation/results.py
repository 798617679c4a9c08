"""Trials, and what they say together: means with confidence intervals over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention.files import json_ready
from rattention.intervals import CONFIDENCE, Interval, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattention.compression.budget import Budget
    from rattention.compression.validation.tasks import Measured

ENOUGH = 0.95
"""The share of the full model's quality that counts as kept."""


@dataclass(frozen=True)
class Constant:
    """The model's own layers of constant size, RAttention's: nothing compresses them."""

    label: str
    nbytes: int
    """Bytes of all of the model's caches."""
    full_nbytes: int
    """Bytes if every layer kept all keys and values."""


@dataclass(frozen=True)
class Trial:
    """One strategy at one budget with one seed, and the full run that it is compared with."""

    strategy: str
    budget: Budget
    seed: int
    full: Measured
    compressed: Measured


@dataclass(frozen=True)
class Cell:
    """One strategy at one budget, over all seeds."""

    strategy: str
    budget: Budget
    seeds: int
    numbers: dict[str, Interval]
    """By name: ``quality``; ``share`` of the full run's quality with the same seed, 1 being as good;
    ``seconds``, ``speed_up`` over the full run, ``compressing`` as a share of the time of the full run,
    ``bytes_share``, ``mass``, and what the task measures against the full outputs."""


@dataclass(frozen=True)
class Validation:
    """All trials of one task."""

    task: str
    quality: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    constant: Constant | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds."""
        return tuple(dict.fromkeys(trial.seed for trial in self.trials))

    def full_quality(self) -> Interval:
        """Of the full runs."""
        by_seed = {trial.seed: trial.full.quality for trial in self.trials}
        return interval([*by_seed.values()])

    def cells(self) -> list[Cell]:
        """By strategy and budget, in the order in which they were asked for."""
        groups: dict[tuple[str, Budget], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault((trial.strategy, trial.budget), []).append(trial)
        return [Cell(name, budget, len(t), self._numbers(t)) for (name, budget), t in groups.items()]

    def best(self, budget: Budget) -> Cell:
        """The strategy with the largest share of the full quality at `budget`; ValueError without trials."""
        there = [cell for cell in self.cells() if cell.budget == budget]
        if not there:
            raise ValueError(f"budget {budget} was not measured")
        return max(there, key=lambda cell: cell.numbers["share"].mean)

    def verdict(self, budget: Budget) -> str:
        """In words: whether the best strategy keeps `ENOUGH` of the quality at `budget`."""
        cell = self.best(budget)
        share = _spelled(cell.numbers["share"])
        kept = f"at budget {budget:g} {cell.strategy!r} keeps {share} of the full model's quality"
        if cell.numbers["share"].mean >= ENOUGH:
            unsure = ", on average: the interval has less, too" if cell.numbers["share"].low < ENOUGH else ""
            return f"{kept}, the {self.quality}: at least the {ENOUGH:.0%} that were asked for{unsure}"
        mass = cell.numbers.get("mass")
        why = "" if mass is None else f" although it keeps {mass.mean:.0%} of the query's attention"
        return f"{kept}, the {self.quality}, less than {ENOUGH:.0%}{why}: the model needs what is dropped"

    def as_data(self) -> dict[str, Any]:
        """Everything as plain numbers; None for what is not finite."""
        return {
            "task": self.task,
            "quality": self.quality,
            "higher_is_better": self.higher_is_better,
            "confidence": CONFIDENCE,
            "seeds": list(self.seeds),
            "full_quality": json_ready(vars(self.full_quality())),
            "constant": None if self.constant is None else vars(self.constant),
            "cells": [
                {"strategy": c.strategy, "budget": c.budget, "seeds": c.seeds}
                | {name: json_ready(vars(number)) for name, number in c.numbers.items()}
                for c in self.cells()
            ],
            "trials": [
                {"strategy": t.strategy, "budget": t.budget, "seed": t.seed}
                | {"full": json_ready(vars(t.full)), "compressed": json_ready(vars(t.compressed))}
                for t in self.trials
            ],
        }

    def _numbers(self, trials: Sequence[Trial]) -> dict[str, Interval]:
        columns: dict[str, Callable[[Trial], float]] = {
            "quality": lambda t: t.compressed.quality,
            "share": self._share,
            "seconds": lambda t: t.compressed.seconds,
            "speed_up": lambda t: t.full.seconds / t.compressed.seconds,
            "compressing": lambda t: t.compressed.compressing / t.full.total,
            "bytes_share": lambda t: t.compressed.nbytes / t.full.nbytes if t.full.nbytes else math.nan,
        }
        numbers = {name: interval([value(t) for t in trials]) for name, value in columns.items()}
        masses = [t.compressed.mass for t in trials if t.compressed.mass is not None]
        if masses:
            numbers["mass"] = interval(masses)
        for name in trials[0].compressed.against_full or {}:
            numbers[name] = interval([(t.compressed.against_full or {})[name] for t in trials])
        return numbers

    def _share(self, trial: Trial) -> float:
        ours, full = trial.compressed.quality, trial.full.quality
        if not self.higher_is_better:
            ours, full = full, ours
        return ours / full if full else math.nan


def _spelled(share: Interval) -> str:
    if math.isnan(share.low):
        return f"{share.mean:.1%}"
    return f"{share.mean:.1%} ({CONFIDENCE:.0%} interval {share.low:.1%} to {share.high:.1%})"
