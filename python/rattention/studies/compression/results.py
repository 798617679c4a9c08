"""Trials, and what they say together: means with confidence intervals over seeds, and of times medians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rattention._files import json_ready
from rattention.compression.past import Budget
from rattention.studies.kit.intervals import CONFIDENCE, Interval, interval

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
class Measured:
    """One run of a task."""

    quality: float
    """The task's result, in its own unit."""
    seconds: float
    """Of the whole run, with all that compressing takes."""
    compressing: float = 0.0
    """Seconds of it spent on choosing and cutting."""
    nbytes: int = 0
    """Bytes held of the past."""
    mass: float | None = None
    """Share of the newest row's attention that was kept."""
    against_full: dict[str, float] | None = None
    """How the outputs differ from those of the full run with this seed."""


@dataclass(frozen=True)
class Preview:
    """What a strategy would keep of one sequence."""

    positions: dict[str, list[int]]
    """By layer and head, or for all of them together: the tokens that stay."""
    tokens: int
    """Of the sequence."""
    mass: float
    """Share of the newest row's attention that is kept."""
    nbytes: int
    """Bytes of what is kept; of histories transitions."""
    full_nbytes: int


@dataclass(frozen=True)
class Trial:
    """One strategy at one budget with one seed, and the full runs that it is compared with."""

    strategy: str
    budget: Budget
    seed: int
    turns: tuple[tuple[Measured, Measured], ...]
    """A full and a compressed run each, one after the other; they differ in their times alone."""

    @property
    def full(self) -> Measured:
        """The first full run."""
        return self.turns[0][0]

    @property
    def compressed(self) -> Measured:
        """The first compressed run."""
        return self.turns[0][1]


@dataclass(frozen=True)
class Spread:
    """The median of all turns with all seeds, and the quartiles: a single disturbed run could shift a mean
    arbitrarily far."""

    median: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """The median."""
        return self.median


@dataclass(frozen=True)
class Cell:
    """One strategy at one budget, over all seeds."""

    strategy: str
    budget: Budget
    seeds: int
    numbers: dict[str, Interval | Spread]
    """By name: ``quality``; ``share`` of the full run's quality with the same seed, 1 being as good;
    ``bytes_share``, ``mass``, and what the task measures against the full outputs. Of the times, as `Spread`:
    ``seconds`` with all that compressing takes, ``speed_up``, the full run's over these, and ``compressing``
    as a share of the full run's."""
    turns: int
    """In how many turns times were taken."""

    def pace(self) -> str:
        """In words: whether compression makes the model faster; nothing where no times were taken."""
        speed = self.numbers.get("speed_up")
        if speed is None:
            return ""
        count = f"{self.turns} turn{'s' if self.turns > 1 else ''}"
        measured = f"median of {count}, quartiles {speed.low:.2f} and {speed.high:.2f}"
        if speed.low <= 1 <= speed.high:
            return f"neither clearly faster nor slower: {speed.middle:.2f} times as fast ({measured})"
        verdict = "slower" if speed.middle < 1 else "faster"
        return f"{verdict}: {speed.middle:.2f} times as fast as uncompressed ({measured})"


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
        return interval([*{trial.seed: trial.full.quality for trial in self.trials}.values()])

    def cells(self) -> list[Cell]:
        """By strategy and budget, in the order in which they were asked for."""
        groups: dict[tuple[str, Budget], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault((trial.strategy, trial.budget), []).append(trial)
        return [
            Cell(name, budget, len(t), self._numbers(t), sum(len(trial.turns) for trial in t))
            for (name, budget), t in groups.items()
        ]

    def best(self, budget: Budget) -> Cell:
        """The strategy with the largest share of the full quality at `budget`; ValueError without trials."""
        there = [cell for cell in self.cells() if cell.budget == budget]
        if not there:
            raise ValueError(f"budget {budget} was not measured")
        return max(there, key=lambda cell: cell.numbers["share"].middle)

    def leads(self, budget: Budget) -> dict[str, Interval]:
        """By how much the share of the best strategy at `budget` exceeds that of each other one, paired by
        seed: with one seed the bounds are NaN. Not corrected for the number of comparisons."""
        shares: dict[str, dict[int, float]] = {}
        for trial in self.trials:
            if trial.budget == budget:
                share = self._beside_full(trial)["share"]
                shares.setdefault(trial.strategy, {})[trial.seed] = math.nan if share is None else share
        best = shares.pop(self.best(budget).strategy)
        return {
            name: interval([best[seed] - share for seed, share in own.items() if seed in best])
            for name, own in shares.items()
        }

    def verdict(self, budget: Budget) -> str:
        """In words: whether the best strategy keeps `ENOUGH` of the quality at `budget`, which others it is
        ahead of, and what it does to the time."""
        cell = self.best(budget)
        pace = cell.pace()
        parts = (
            self._kept(cell, budget),
            self._ahead(budget),
            pace and f"Including the time to choose, it is {pace}",
        )
        return ". ".join(part for part in parts if part)

    def _ahead(self, budget: Budget) -> str:
        leads = self.leads(budget)
        ahead, level = (
            ", ".join(
                f"{name!r} ({100 * lead.mean:+.0f} points, {100 * lead.low:.0f} to {100 * lead.high:.0f})"
                for name, lead in leads.items()
                if (lead.low > 0) == clearly and not math.isnan(lead.low)
            )
            for clearly in (True, False)
        )
        told = [f"it is ahead of {ahead}"] * bool(ahead) + [f"no lead is shown over {level}"] * bool(level)
        return f"Paired by seed, {'; '.join(told)}" if told else ""

    def _kept(self, cell: Cell, budget: Budget) -> str:
        share = _spelled(cell.numbers["share"])
        kept = f"at budget {budget:g} {cell.strategy!r} keeps {share} of the full model's quality"
        if cell.numbers["share"].middle >= ENOUGH:
            below = cell.numbers["share"].low < ENOUGH
            unsure = f", but its interval extends below {ENOUGH:.0%}" * below
            return f"{kept} ({self.quality}), at least {ENOUGH:.0%}{unsure}"
        mass = cell.numbers.get("mass")
        why = "" if mass is None else f" although it keeps {mass.middle:.0%} of the query's attention"
        return f"{kept} ({self.quality}), less than {ENOUGH:.0%}{why}: the model needs what is dropped"

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
                | {"turns": [[full.seconds, ours.seconds] for full, ours in t.turns]}
                for t in self.trials
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Validation:
        """What `as_data` was made of; times may have been left out of it."""
        trials = tuple(
            Trial(t["strategy"], t["budget"], t["seed"], _turns(t["full"], t["compressed"], t.get("turns")))
            for t in data["trials"]
        )
        constant = None if data["constant"] is None else Constant(**data["constant"])
        return cls(data["task"], data["quality"], data["higher_is_better"], trials, constant)

    def _numbers(self, trials: Sequence[Trial]) -> dict[str, Interval | Spread]:
        runs, turns = [t.compressed for t in trials], [turn for t in trials for turn in t.turns]
        kept = [{"mass": run.mass, **(run.against_full or {})} for run in runs]
        return _means([self._beside_full(t) for t in trials]) | _times(turns) | _means(kept)

    def _beside_full(self, trial: Trial) -> dict[str, float | None]:
        ours, full = trial.compressed, trial.full
        good, bad = (ours, full) if self.higher_is_better else (full, ours)
        return {
            "quality": ours.quality,
            "share": good.quality / bad.quality if bad.quality else math.nan,
            "bytes_share": ours.nbytes / full.nbytes if full.nbytes else math.nan,
        }


def _means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Interval | Spread]:
    """By name, over the rows that have a number of that name."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [n for row in rows if (n := row.get(name)) is not None] for name in names}
    return {name: interval(column) for name, column in columns.items() if column}


def _turns(
    full: Mapping[str, Any], compressed: Mapping[str, Any], seconds: Sequence[Sequence[float]] | None
) -> tuple[tuple[Measured, Measured], ...]:
    whole, ours = (Measured(**({"seconds": math.nan} | dict(run))) for run in (full, compressed))
    seconds = seconds or [(whole.seconds, ours.seconds)]
    return tuple((replace(whole, seconds=one), replace(ours, seconds=other)) for one, other in seconds)


def _times(turns: Sequence[tuple[Measured, Measured]]) -> dict[str, Spread]:
    """Nothing where some were not taken."""
    if any(math.isnan(run.seconds) for turn in turns for run in turn):
        return {}
    columns = {
        "seconds": [ours.seconds for _, ours in turns],
        "speed_up": [full.seconds / ours.seconds for full, ours in turns],
        "compressing": [ours.compressing / full.seconds for full, ours in turns],
    }
    return {name: Spread(*np.quantile(n, (0.5, 0.25, 0.75)).tolist()) for name, n in columns.items()}


def _spelled(share: Interval | Spread) -> str:
    if math.isnan(share.low):
        return f"{share.middle:.1%}"
    return f"{share.middle:.1%} ({CONFIDENCE:.0%} interval {share.low:.1%} to {share.high:.1%})"
