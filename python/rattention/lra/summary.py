"""Runs with several seeds as numbers: what a table has a row for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.intervals import Interval, interval
from rattention.lra.results import RunRecord, StudyResults, mechanism_name, task_name

if TYPE_CHECKING:
    from collections.abc import Sequence

BASELINE = "conventional"

SHARES = ("test_accuracy", "best_validation_accuracy")

MATCHED_WITHIN = 0.1
"""Largest difference in parameters to the baseline with which models still count as equally large."""

TWO_SIDED = 1.96
"""Standard errors on each side of a share in a 95 % interval."""


@dataclass(frozen=True)
class Cell:
    """All finished runs of one mechanism on one task; at least one."""

    task: str
    mechanism: str
    runs: tuple[RunRecord, ...]
    baseline: Cell | None = None
    """Conventional attention on the same task; None for itself and where there is none."""

    @property
    def label(self) -> str:
        """The mechanism as people read it."""
        return mechanism_name(self.mechanism)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the runs."""
        return tuple(run.seed for run in self.runs)

    def values(self, name: str) -> list[float]:
        """A number of ``result.json``, or ``parameters``, of each run."""
        return [_value(run, name) for run in self.runs]

    def number(self, name: str) -> Interval:
        """Its mean and interval over seeds, kept within what the number can be: shares within 0 and 1, all
        others above 0."""
        raw = interval(self.values(name))
        if not self.several:
            return raw
        return Interval(raw.mean, max(0.0, raw.low), min(1.0 if name in SHARES else math.inf, raw.high))

    @property
    def several(self) -> bool:
        """Whether there are at least two seeds, and so an interval."""
        return len(self.runs) > 1

    @cached_property
    def accuracy(self) -> Interval:
        """On the test split."""
        return self.number("test_accuracy")

    @property
    def majority(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return _value(self.runs[0], "majority_accuracy")

    @property
    def failed(self) -> bool:
        """Whether the mean accuracy is not above that of the majority class: it did not learn."""
        return self.accuracy.mean <= self.majority

    @property
    def chance_margin(self) -> float:
        """How far the accuracy of a model that always names the majority class could be from `majority` by
        the choice of test samples alone (95 %); 0 where their number is not known."""
        samples = (self.runs[0].result or {}).get("samples")
        count = samples.get("test", 0) if isinstance(samples, dict) else 0
        return TWO_SIDED * math.sqrt(self.majority * (1 - self.majority) / count) if count else 0.0

    @cached_property
    def improvement(self) -> Interval | None:
        """Accuracy over the baseline's, less 1: of each seed that both have, then their mean and interval.

        Where they have no seed in common that of the means, without an interval. None without a baseline or
        where its accuracy is 0.
        """
        if self.baseline is None:
            return None
        pairs = self._pairs("test_accuracy")
        if any(theirs == 0 for _, theirs in pairs) or self.baseline.accuracy.mean == 0:
            return None
        if pairs:
            return interval([ours / theirs - 1 for ours, theirs in pairs])
        return Interval(self.accuracy.mean / self.baseline.accuracy.mean - 1, math.nan, math.nan)

    @property
    def paired_seeds(self) -> int:
        """How many seeds this and the baseline have in common."""
        return len(self._pairs("test_accuracy"))

    def ratio(self, name: str) -> float | None:
        """A mean over the baseline's; None without one."""
        if self.baseline is None or self.baseline.number(name).mean == 0:
            return None
        return self.number(name).mean / self.baseline.number(name).mean

    def _pairs(self, name: str) -> list[tuple[float, float]]:
        theirs = {} if self.baseline is None else {run.seed: run for run in self.baseline.runs}
        return [
            (_value(run, name), _value(theirs[run.seed], name)) for run in self.runs if run.seed in theirs
        ]


def _value(run: RunRecord, name: str) -> float:
    result: Any = run.result
    return float(result["parameters"]["total"] if name == "parameters" else result[name])


def summarize(results: StudyResults) -> list[Cell]:
    """A cell for each task and mechanism that has finished runs, in the order of tables."""
    cells: dict[tuple[str, str], list[RunRecord]] = {}
    for run in results.finished():
        cells.setdefault((run.task, run.mechanism), []).append(run)
    bases = {
        task: Cell(task, mechanism, tuple(runs))
        for (task, mechanism), runs in cells.items()
        if mechanism == BASELINE
    }
    return [
        bases[task] if mechanism == BASELINE else Cell(task, mechanism, tuple(runs), bases.get(task))
        for (task, mechanism), runs in cells.items()
    ]


def by_task(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The same, task by task."""
    tasks: dict[str, list[Cell]] = {}
    for cell in cells:
        tasks.setdefault(cell.task, []).append(cell)
    return tasks


def apart(one: Cell, other: Cell) -> bool:
    """Whether the accuracies of two cells differ beyond their seeds: both have several, and neither their
    intervals nor the ranges of their seeds overlap."""
    if not (one.several and other.several):
        return False
    ours, theirs = one.values("test_accuracy"), other.values("test_accuracy")
    ranges = min(ours) > max(theirs) or min(theirs) > max(ours)
    intervals = one.accuracy.low > other.accuracy.high or other.accuracy.low > one.accuracy.high
    return ranges and intervals


def learned(cell: Cell) -> bool | None:
    """Whether a mechanism beat the majority class: True where the interval over seeds, or the only seed, and
    the mean less `Cell.chance_margin` are above it; False where the mean is not; None where neither is
    shown."""
    if cell.failed:
        return False
    lowest = cell.accuracy.low if cell.several else cell.accuracy.mean
    shown = lowest > cell.majority and cell.accuracy.mean - cell.chance_margin > cell.majority
    return True if shown else None


def rows_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The numbers of the tables, plainly; None where there is no number."""
    return [_row(cell) for cell in cells]


def _row(cell: Cell) -> dict[str, Any]:
    improvement = cell.improvement
    return {
        "task": cell.task,
        "mechanism": cell.mechanism,
        "seeds": len(cell.seeds),
        **_bounds("test_accuracy", cell.accuracy),
        "majority_accuracy": cell.majority,
        **_bounds("relative_improvement", improvement),
        "paired_seeds": cell.paired_seeds if improvement is not None else None,
        "epochs": cell.number("epochs").mean,
        **_bounds("epochs_to_90_percent", cell.number("epochs_to_90_percent")),
        **_bounds("seconds_per_epoch", cell.number("seconds_per_epoch")),
        **_bounds("tokens_per_second", cell.number("tokens_per_second")),
        **_bounds("peak_memory_bytes", cell.number("peak_memory_bytes")),
        "parameters": round(cell.number("parameters").mean),
    }


def _bounds(name: str, number: Interval | None) -> dict[str, float | None]:
    parts = (None, None, None) if number is None else (number.mean, number.low, number.high)
    ends = ("", "_low", "_high")
    return {name + end: _known(part) for end, part in zip(ends, parts, strict=True)}


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value


def heading(task: str, cells: Sequence[Cell]) -> str:
    """A task and what naming its most frequent class gives."""
    return f"{task_name(task)} (majority class {cells[0].majority:.1%})"
