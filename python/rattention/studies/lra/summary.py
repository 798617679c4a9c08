"""Runs with several seeds as numbers: what a table has a row for."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention._files import json_ready
from rattention.studies.kit.intervals import CONFIDENCE, Interval, interval
from rattention.studies.lra.results import RunRecord, StudyResults, mechanism_label
from rattention.studies.lra.settings import BASELINE
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
        results: list[Any] = [run.result for run in self.runs]
        return [float(r["parameters"]["total"] if name == "parameters" else r[name]) for r in results]

    def number(self, name: str) -> Interval:
        """Its mean and interval over seeds, kept within what the number can be: accuracy within 0 and 1, all
        others above 0."""
        raw, most = interval(self.values(name)), 1.0 if name == "test_accuracy" else math.inf
        return Interval(raw.mean, *np.clip((raw.low, raw.high), 0.0, most).tolist())

    def mean(self, name: str) -> float:
        """Its mean over seeds."""
        return self.number(name).mean

    @cached_property
    def accuracy(self) -> Interval:
        """On the test split."""
        return self.number("test_accuracy")

    @property
    def majority(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return self.values("majority_accuracy")[0]

    @property
    def failed(self) -> bool:
        """Whether the mean accuracy is not above that of the majority class: it did not learn."""
        return self.accuracy.mean <= self.majority

    @property
    def chance_margin(self) -> float:
        """How far above `majority` the accuracy of a model that always gives the majority class could be by
        the choice of test samples alone (Wilson's 95 % interval); 0 where their number is not known."""
        samples = (self.runs[0].result or {}).get("samples")
        if not isinstance(samples, dict) or not (count := samples.get("test", 0)):
            return 0.0
        test = require("scipy.stats").binomtest(round(self.majority * count), count)
        return float(test.proportion_ci(CONFIDENCE, "wilson").high - self.majority)

    @cached_property
    def improvement(self) -> Difference | None:
        """Accuracy less the baseline's; None without one."""
        return None if self.baseline is None else difference(self, self.baseline)

    def ratio(self, name: str) -> float | None:
        """A mean over the baseline's; None without one."""
        base = 0.0 if self.baseline is None else self.baseline.mean(name)
        return self.mean(name) / base if base else None


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


def summarize(results: StudyResults) -> list[Cell]:
    """A cell for each task and mechanism that has finished runs, in the order of tables."""
    cells: list[Cell] = []
    for (task, mechanism), runs in itertools.groupby(results.finished(), lambda r: (r.task, r.mechanism)):
        before = (cell for cell in cells if (cell.task, cell.mechanism) == (task, BASELINE))  # comes first
        cells.append(Cell(task, mechanism, tuple(runs), next(before, None)))
    return cells


def by_task(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The same, task by task; those of a task stand together."""
    return {task: list(some) for task, some in itertools.groupby(cells, lambda cell: cell.task)}


def learned(cell: Cell) -> bool | None:
    """Whether a mechanism beat the majority class: True where the interval over seeds, or the only seed, and
    the mean less `Cell.chance_margin` are above it; False where the mean is not; None where neither is
    shown."""
    if cell.failed:
        return False
    mean, low = cell.accuracy.mean, cell.accuracy.low
    return None if low <= cell.majority or mean - cell.chance_margin <= cell.majority else True


def rows_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The numbers of the tables, plainly; None where there is no number."""
    return [json_ready(_row(cell)) for cell in cells]


def _row(cell: Cell) -> dict[str, Any]:
    improvement = cell.improvement or Difference(Interval(math.nan, math.nan, math.nan), 0)
    costs = ("epochs_to_90_percent", "seconds_per_epoch", "tokens_per_second", "peak_memory_bytes")
    return {
        "task": cell.task,
        "mechanism": cell.mechanism,
        "seeds": len(cell.seeds),
        **_bounds("test_accuracy", cell.accuracy),
        "majority_accuracy": cell.majority,
        **_bounds("over_softmax", improvement.points),
        "paired_seeds": None if cell.improvement is None else improvement.pairs,
        "epochs": cell.mean("epochs"),
        **{key: part for name in costs for key, part in _bounds(name, cell.number(name)).items()},
        "parameters": round(cell.mean("parameters")),
    }


def _bounds(name: str, number: Interval) -> dict[str, float]:
    return {name: number.mean, f"{name}_low": number.low, f"{name}_high": number.high}


def measured_samples(runs: Iterable[RunRecord]) -> str:
    """In how many samples attention was measured, and how long they are; nothing where no run says so."""
    line = next((line for run in runs for line in run.attention if "samples" in line), None)
    if line is None:
        return ""
    count, shortest, longest = (int(line[name]) for name in ("samples", "shortest", "longest"))
    tokens = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    return f"the longest {count} validation samples, of {tokens} tokens"


def heading(task: str, cells: Sequence[Cell]) -> str:
    """A task and what naming its most frequent class gives."""
    return f"{task_label(task)} (majority class {cells[0].majority:.1%})"
