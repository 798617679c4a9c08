"""The figures of an analysis, by name and with captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rattention.plots.maps import label_of
from rattention.studies.lra import attention_panels, panels
from rattention.studies.lra.curve_panels import curves_figure
from rattention.studies.lra.results import mechanism_label
from rattention.studies.lra.summary import Cell, by_task, heading, measured_samples
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rattention.studies.lra.results import RunRecord, StudyResults


@dataclass(frozen=True)
class Drawn:
    """A figure."""

    name: str
    """Of its file."""
    caption: str
    figure: Figure


def drawn_figures(results: StudyResults, cells: Sequence[Cell]) -> list[Drawn]:
    """All for which there are numbers."""
    drawn = [*_compared(cells)] if cells else []
    if any(run.metrics for run in results.runs):
        drawn.append(_curves(results))
    for task in results.tasks():
        drawn += _attention(results, task)
    return drawn


def _compared(cells: Sequence[Cell]) -> Iterator[Drawn]:
    tasks = {heading(task, some): some for task, some in by_task(cells).items()}
    short = {task_label(task): some for task, some in by_task(cells).items()}
    panel = panels.by_task_figure
    yield Drawn(
        "accuracy",
        "Mean test accuracy with its 95 % interval over seeds; points are seeds, the dashed line is always "
        "the majority class.",
        panel(short, panels.plot_accuracy),
    )
    if any(cell.improvement is not None for cell in cells):
        yield Drawn(
            "improvement",
            "Test accuracy less that of softmax attention with the same seed, in points: mean and 95 % "
            "interval over seeds. Where the interval includes 0, no difference is shown.",
            panel(short, panels.plot_improvement, title="Improvement over softmax attention", height=3),
        )
    yield Drawn(
        "convergence",
        "First epoch with 90 % of the run's own best validation accuracy: seeds, and their mean as a line; a "
        "star: did not learn, so that its accuracy never rises and is reached at once.",
        panel(short, panels.plot_convergence, title="Convergence", height=3),
    )
    yield Drawn(
        "cost",
        "Seconds of training per epoch and peak resident memory of the process: means, 95 % intervals and "
        "seeds.",
        panels.cost_figure(short, title="Time and memory"),
    )
    yield Drawn(
        "accuracy_time",
        "Test accuracy against seconds per epoch, with 95 % intervals; dashed: always the majority class.",
        panel(tasks, panels.plot_accuracy_against_time, title="Accuracy and time", legend=True, height=3.7),
    )
    yield Drawn(
        "radar",
        "Each axis is a share of the best mechanism on it: mean accuracy and tokens per second over the "
        "highest mean, lowest mean over mean for peak memory and epochs to 90 % of the best (0 where it did "
        "not learn). Outside is better; areas mean nothing.",
        panels.radar_figure(short, title="Shares of the best on each axis"),
    )


def _curves(results: StudyResults) -> Drawn:
    tasks = {
        task_label(task): {name: results.of(task, name) for name in results.mechanisms(task)}
        for task in results.tasks()
    }
    return Drawn(
        "curves",
        "Learning curves: mean over seeds and band from the least to the greatest, up to where the first "
        "seed stops; dotted: runs that are not finished.",
        curves_figure(tasks, _labels(results), title="Learning curves"),
    )


def _attention(results: StudyResults, task: str) -> Iterator[Drawn]:
    """Maps of the first finished seed, and metrics over seeds."""
    runs = {name: [run for run in results.of(task, name) if run.result] for name in results.mechanisms(task)}
    maps = {name: run.maps for name, some in runs.items() if (run := _first_with_maps(some))}
    labels, name = _labels(results), task_label(task)
    if maps:
        yield Drawn(
            f"attention_{task}",
            f"{name}: what the best models attend to in the first test sample, the mean over heads; maps are "
            "pooled, and each has a colour scale of its own (light is more); of RAttention the local branch.",
            attention_panels.mean_maps_figure(maps, labels, title=f"{name}: attention, mean over heads"),
        )
    for mechanism, some in maps.items():
        yield Drawn(
            f"attention_{task}_{mechanism}",
            f"{name}, {labels[mechanism]}: the same by layer and head.",
            attention_panels.head_maps_figure(some, title=f"{name}: {labels[mechanism]} by layer and head"),
        )
    yield from _statistics(runs, task, labels)


def _statistics(
    runs: Mapping[str, Sequence[RunRecord]], task: str, labels: Mapping[str, str]
) -> Iterator[Drawn]:
    """Metrics by layer and head, without those that no head has."""
    measured = _metrics(runs)
    values = {metric: some for metric, some in measured.items() if _any_number(some)}
    if not values:
        return
    missing = ", ".join(label_of(metric) for metric in measured if metric not in values)
    every = [run for some in runs.values() for run in some if run.attention]
    seeds = len({run.seed for run in every})
    over = f"mean over {seeds} seeds" if seeds > 1 else f"seed {every[0].seed}"
    samples = measured_samples(every)
    name = task_label(task)
    title = f"{name}: attention by layer and head" + (f" in {samples}" if samples else "")
    yield Drawn(
        f"attention_metrics_{task}",
        f"{name}: attention metrics by layer and head in the best epoch, {over}; one colour scale per row; "
        f"of RAttention the local branch.{f' Measured in {samples}.' if samples else ''}"
        + (f" Left out, as no head sees keys so far away: {missing}." if missing else ""),
        attention_panels.metrics_by_mechanism_figure(values, labels, title=title),
    )


def _any_number(values: Mapping[str, NDArray[np.float64]]) -> bool:
    return any(bool(np.isfinite(array).any()) for array in values.values())


def _first_with_maps(runs: Sequence[RunRecord]) -> RunRecord | None:
    return next((run for run in runs if run.maps), None)


def _metrics(runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Arrays ``[layers, heads]`` by metric and mechanism."""
    lines = {name: [some for run in own if (some := _best_epoch(run))] for name, own in runs.items()}
    there = {name: some for name, some in lines.items() if some}
    of = attention_panels.by_layer_and_head
    return {m: {name: of(some, m) for name, some in there.items()} for m in attention_panels.METRICS if there}


def _best_epoch(run: RunRecord) -> list[Mapping[str, object]]:
    best = (run.result or {})["best_epoch"]
    return [line for line in run.attention if line["epoch"] == best]


def _labels(results: StudyResults) -> dict[str, str]:
    return {run.mechanism: mechanism_label(run.mechanism) for run in results.runs}
