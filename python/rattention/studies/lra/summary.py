"""Runs with several seeds as numbers: what a table has a row for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.studies.kit.intervals import CONFIDENCE, Interval, interval
from rattention.studies.lra.results import RunRecord, StudyResults, mechanism_label
from rattention.studies.lra.settings import BASELINE
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHARES = ("test_accuracy", "best_validation_accuracy")


@dataclass(frozen=True)
class Cell:
    """All finished runs of one mechanism on one task; at least one."""

    task: str
    mechanism: str
    runs: tuple[RunRecord, ...]
    baseline: Cell | None = None
    """Softmax attention on the same task; None for itself and where there is none."""

    @property
    def label(self) -> str:
        """The mechanism as people read it."""
        return mechanism_label(self.mechanism)

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
        """How far above `majority` the accuracy of a model that always gives the majority class could be by
        the choice of test samples alone (Wilson's 95 % interval); 0 where their number is not known."""
        samples = (self.runs[0].result or {}).get("samples")
        count = samples.get("test", 0) if isinstance(samples, dict) else 0
        if not count:
            return 0.0
        test = require("scipy.stats").binomtest(round(self.majority * count), count)
        return float(test.proportion_ci(CONFIDENCE, "wilson").high - self.majority)

    @cached_property
    def improvement(self) -> Difference | None:
        """Accuracy less the baseline's; None without one."""
        return None if self.baseline is None else difference(self, self.baseline)

    def ratio(self, name: str) -> float | None:
        """A mean over the baseline's; None without one."""
        if self.baseline is None or self.baseline.number(name).mean == 0:
            return None
        return self.number(name).mean / self.baseline.number(name).mean


@dataclass(frozen=True)
class Difference:
    """Between the test accuracies of two cells, 0.01 being a point."""

    points: Interval
    """Student's interval of the differences, as a paired t-test has it; without bounds for less than two."""
    pairs: int
    """Seeds that both have."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.points.low > 0 or self.points.high < 0


def difference(one: Cell, other: Cell) -> Difference:
    """Accuracy of one less that of the other, seed by seed; that of the means where they share no seed."""
    theirs = dict(zip(other.seeds, other.values("test_accuracy"), strict=True))
    ours = zip(one.seeds, one.values("test_accuracy"), strict=True)
    pairs = [accuracy - theirs[seed] for seed, accuracy in ours if seed in theirs]
    return Difference(interval(pairs or [one.accuracy.mean - other.accuracy.mean]), len(pairs))


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
        **_bounds("over_softmax", None if improvement is None else improvement.points),
        "paired_seeds": None if improvement is None else improvement.pairs,
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


def measured_samples(runs: Iterable[RunRecord]) -> str:
    """In how many samples attention was measured, and how long they are; nothing where no run says so."""
    lines = (line for run in runs for line in run.attention)
    return next((_samples(line) for line in lines if "samples" in line), "")


def _samples(line: Mapping[str, Any]) -> str:
    count, shortest, longest = (int(line[name]) for name in ("samples", "shortest", "longest"))
    tokens = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    return f"the longest {count} validation samples, of {tokens} tokens"


def heading(task: str, cells: Sequence[Cell]) -> str:
    """A task and what naming its most frequent class gives."""
    return f"{task_label(task)} (majority class {cells[0].majority:.1%})"
