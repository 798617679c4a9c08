"""Runs with several seeds as numbers, and these as tables, with the published ones beside them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention._files import json_ready
from rattention.studies.kit.intervals import CONFIDENCE, Interval, interval
from rattention.studies.kit.settings import is_number
from rattention.studies.lra.config import TASKS, task_label
from rattention.studies.lra.results import RunRecord, StudyResults, mechanism_label
from rattention.studies.lra.settings import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


NOTE = (
    f"Means over seeds with {CONFIDENCE:.0%} intervals (Student's t, over seeds only: data and test samples "
    "are the same for all; accuracies cut at 0 and 100 %). With one seed there is no interval. Over "
    "softmax: accuracy less that of softmax attention with the same seed, in points. Epochs "
    "to 90 %: the first epoch whose validation accuracy is at least 90 % of the run's best; *: "
    "it did not learn, and what never rises is reached at once. Peak memory: resident, of the process."
)
"""What the columns mean."""

PUBLISHED = {
    "Transformer": {"listops": 36.37, "text": 64.27},
    "Local attention": {"listops": 15.82, "text": 52.98},
    "Sparse Transformer": {"listops": 17.07, "text": 63.58},
    "Longformer": {"listops": 35.63, "text": 62.85},
    "Linformer": {"listops": 35.70, "text": 53.94},
    "Reformer": {"listops": 37.27, "text": 56.10},
    "Sinkhorn Transformer": {"listops": 33.67, "text": 61.20},
    "Synthesizer": {"listops": 36.99, "text": 61.68},
    "BigBird": {"listops": 36.05, "text": 64.02},
    "Linear Transformer": {"listops": 16.13, "text": 65.90},
    "Performer": {"listops": 18.01, "text": 65.40},
}
"""Test accuracy in percent by model and task: the published comparison."""

PUBLISHED_NOTE = (
    "As context only: these models had other sizes and settings and ran on other hardware, and an "
    "early data pipeline of the benchmark lost the brackets of ListOps; the sources do not say whether these "
    "numbers come from it. They cannot be compared with the numbers of this study. Source: Tay et al., Long "
    "Range Arena: A Benchmark for Efficient Transformers, ICLR 2021 (arXiv:2011.04006), Table 1, as in the "
    "README of google-research/long-range-arena (8 November 2020)."
)


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
        numbers = [run.numbers[name] for run in self.runs]
        return [float(x["total"] if name == "parameters" else x) for x in numbers]

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
    def bag(self) -> float | None:
        """Accuracy of logistic regression on the counts of tokens (`rattention.studies.lra.bag`); None where
        the result has none."""
        accuracy: float | None = self.runs[0].numbers.get("bag_accuracy")
        return accuracy if is_number(accuracy) else None

    @property
    def failed(self) -> bool:
        """Whether the mean accuracy is not above that of the majority class: it did not learn."""
        return self.accuracy.mean <= self.majority

    def exceeds(self, level: float) -> bool:
        """Whether it is shown to be above `level`: the interval over seeds (or the only seed), and the mean
        less `chance_margin`."""
        mean, low = self.accuracy.mean, self.accuracy.low
        return not (low <= level or mean - self.chance_margin(level) <= level)

    def chance_margin(self, level: float) -> float:
        """How far above `level` an accuracy could be by the choice of test samples alone (Wilson's 95 %
        interval); 0 where their number is not known."""
        samples = self.runs[0].numbers.get("samples")
        if not isinstance(samples, dict) or not (count := samples.get("test", 0)):
            return 0.0
        test = require("scipy.stats").binomtest(round(level * count), count)
        return float(test.proportion_ci(CONFIDENCE, "wilson").high - level)

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
    for (task, mechanism), runs in itertools.groupby(results.finished(), attrgetter("task", "mechanism")):
        before = (cell for cell in cells if (cell.task, cell.mechanism) == (task, BASELINE))  # comes first
        cells.append(Cell(task, mechanism, tuple(runs), next(before, None)))
    return cells


def by_task(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The same, task by task; those of a task stand together."""
    return {task: list(some) for task, some in itertools.groupby(cells, attrgetter("task"))}


def learned(cell: Cell) -> bool | None:
    """Whether a mechanism beat the majority class: True where it is shown to exceed it, False where the mean
    is not above it, None where neither is shown."""
    if cell.failed:
        return False
    return True if cell.exceeds(cell.majority) else None


def rows_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The numbers of the tables, plainly; None where there is no number."""
    return [json_ready(_row(cell)) for cell in cells]


def _row(cell: Cell) -> dict[str, Any]:
    over = Interval(*[math.nan] * 3) if cell.improvement is None else cell.improvement.points
    costs = ("epochs_to_90_percent", "seconds_per_epoch", "tokens_per_second", "peak_memory_bytes")
    return {
        "task": cell.task,
        "mechanism": cell.mechanism,
        "seeds": len(cell.seeds),
        **_bounds("test_accuracy", cell.accuracy),
        "majority_accuracy": cell.majority,
        "bag_accuracy": cell.bag,
        **_bounds("over_softmax", over),
        "paired_seeds": cell.improvement and cell.improvement.pairs,
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
    """A task and what naming its most frequent class gives, and what the counts of tokens do."""
    bag = "" if (own := cells[0].bag) is None else f", counts of tokens {own:.1%}"
    return f"{task_label(task)} (majority class {cells[0].majority:.1%}{bag})"


def published_rows() -> list[list[str]]:
    """`PUBLISHED` as text, its header first."""
    header = ["Model", *(f"{TASKS[task].label} (%)" for task in PUBLISHED["Transformer"])]
    return [header, *([model, *(f"{x:.2f}" for x in own.values())] for model, own in PUBLISHED.items())]


def row(cell: Cell) -> dict[str, str]:
    """The texts of a row by column."""
    mean = cell.mean
    return {
        "Mechanism": cell.label,
        "Seeds": str(len(cell.seeds)),
        "Test accuracy": percent(cell.accuracy),
        "Over softmax (points)": "–" if cell.improvement is None else points(cell.improvement.points),
        "Epochs to 90 %": f"{mean('epochs_to_90_percent'):.1f}{'*' * cell.failed}",
        "s / epoch": f"{mean('seconds_per_epoch'):,.1f}",
        "Tokens / s": f"{mean('tokens_per_second'):,.0f}",
        "Peak memory": mebibytes(mean("peak_memory_bytes")),
        "Parameters": f"{mean('parameters'):,.0f}",
    }


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """A table as text, its header first."""
    texts = [row(cell) for cell in cells]
    return [[*texts[0]], *([*text.values()] for text in texts)]


def percent(number: Interval, form: str = "{:.1%}") -> str:
    """A share with its interval, where it has one."""
    mean, low, high = (form.format(part) for part in (number.mean, number.low, number.high))
    return mean if math.isnan(number.low) else f"{mean} ({low} to {high})"


def points(number: Interval) -> str:
    """A difference of shares in points of a hundred."""
    return percent(Interval(100 * number.mean, 100 * number.low, 100 * number.high), "{:+.1f}")


def mebibytes(count: float) -> str:
    """Memory as people read it."""
    return f"{count / 2**20:,.0f} MiB"


def markdown(results: StudyResults, cells: Sequence[Cell]) -> str:
    """The summary: a table for each task, what is missing, and the published numbers."""
    parts = ["# Long Range Arena: summary"]
    for task, some in by_task(cells).items():
        parts += [f"## {heading(task, some)}", _markdown_table(rows(some)), *attention(some)]
    parts.append(NOTE if cells else "No run is finished yet.")
    if results.unfinished():
        parts += ["## Not finished, and not in the numbers", bullets(unfinished_lines(results))]
    if results.warnings:
        parts += ["## Warnings", bullets(results.warnings)]
    parts += ["## Published accuracies", _markdown_table(published_rows()), PUBLISHED_NOTE]
    return "\n\n".join(parts) + "\n"


def attention(cells: Sequence[Cell]) -> list[str]:
    """On what the statistics of attention rest."""
    samples = measured_samples(run for cell in cells for run in cell.runs)
    return [f"Attention was measured in {samples}."] if samples else []


def unfinished_lines(results: StudyResults) -> list[str]:
    """Each unfinished run, and how far it is."""
    return [f"{run.name}: {len(run.metrics)} epochs so far" for run in results.unfinished()]


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def latex(cells: Sequence[Cell]) -> str:
    """A table for each task, for the package booktabs."""
    if not cells:
        return "% No run is finished yet.\n"
    tables = [_latex_table(heading(task, some), some) for task, some in by_task(cells).items()]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _latex_table(caption: str, cells: Sequence[Cell]) -> str:
    text = f"{caption}. {NOTE}"
    for character in "%_&#$":
        text = text.replace(character, f"\\{character}")
    frame = require("pandas").DataFrame(map(row, cells))
    form = f"l{'r' * (frame.shape[1] - 1)}"
    table: str = frame.to_latex(index=False, escape=True, column_format=form, caption=text)
    return table.replace("–", "--")
