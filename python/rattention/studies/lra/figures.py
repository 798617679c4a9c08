"""The figures of an analysis, by name and with captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rattention.plots.maps import label_of
from rattention.studies.lra import attention_panels, panels
from rattention.studies.lra.results import RunRecord, StudyResults, mechanism_label
from rattention.studies.lra.summary import Cell, by_task, heading, measured_samples
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure


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
        tasks = {
            task_label(task): {name: results.of(task, name) for name in results.mechanisms(task)}
            for task in results.tasks()
        }
        caption = (
            "Learning curves: mean over seeds and band from the least to the greatest, up to where the first "
            "seed stops; dotted: runs that are not finished."
        )
        drawn.append(Drawn("curves", caption, panels.curves_figure(tasks, title="Learning curves")))
    for task in results.tasks():
        drawn += _attention(results, task)
    return drawn


def _compared(cells: Sequence[Cell]) -> Iterator[Drawn]:
    tasks = {task_label(task): some for task, some in by_task(cells).items()}
    figure = partial(panels.by_task_figure, tasks)
    yield Drawn(
        "accuracy",
        "Mean test accuracy with its 95 % interval over seeds; points are seeds, the dashed line is always "
        "the majority class.",
        figure(panels.plot_accuracy),
    )
    if any(cell.improvement is not None for cell in cells):
        yield Drawn(
            "improvement",
            "Test accuracy less that of softmax attention with the same seed, in points: mean and 95 % "
            "interval over seeds. Where the interval includes 0, no difference is shown.",
            figure(panels.plot_improvement, title="Improvement over softmax attention", size=(4.9, 3)),
        )
    yield Drawn(
        "convergence",
        "First epoch with 90 % of the run's own best validation accuracy: seeds, and their mean as a line; a "
        "star: did not learn, so that its accuracy never rises and is reached at once.",
        figure(panels.plot_convergence, title="Convergence", size=(4.9, 3)),
    )
    costs = [partial(panels.plot_cost, number=number) for number in panels.COSTS]
    yield Drawn(
        "cost",
        "Seconds of training per epoch and peak resident memory of the process: means, 95 % intervals and "
        "seeds.",
        figure(*costs, title="Time and memory", size=(4.9, 3.1)),
    )
    yield Drawn(
        "accuracy_time",
        "Test accuracy against seconds per epoch, with 95 % intervals; dashed: always the majority class.",
        panels.by_task_figure(
            {heading(task, some): some for task, some in by_task(cells).items()},
            panels.plot_accuracy_against_time,
            title="Accuracy and time",
            size=(4.9, 3.7),
            legend=True,
        ),
    )
    yield Drawn(
        "radar",
        "Each axis is a share of the best mechanism on it: mean accuracy and tokens per second over the "
        "highest mean, lowest mean over mean for peak memory and epochs to 90 % of the best (0 where it did "
        "not learn). Outside is better; areas mean nothing.",
        figure(panels.plot_radar, title="Shares of the best on each axis", size=(4.6, 4.6), legend=True),
    )


def _attention(results: StudyResults, task: str) -> Iterator[Drawn]:
    """Maps of the first finished seed, and metrics over seeds."""
    runs = {name: [run for run in results.of(task, name) if run.result] for name in results.mechanisms(task)}
    maps = {
        name: seeds[0] for name, some in runs.items() if (seeds := [run.maps for run in some if run.maps])
    }
    label = task_label(task)
    if maps:
        yield Drawn(
            f"attention_{task}",
            f"{label}: what the best models attend to in the first test sample, the mean over heads; maps "
            "are pooled, and each has a colour scale of its own (light is more); of RAttention the local "
            "branch.",
            attention_panels.mean_maps_figure(maps, title=f"{label}: attention, mean over heads"),
        )
    for mechanism, some in maps.items():
        name = mechanism_label(mechanism)
        yield Drawn(
            f"attention_{task}_{mechanism}",
            f"{label}, {name}: the same by layer and head.",
            attention_panels.head_maps_figure(some, title=f"{label}: {name} by layer and head"),
        )
    measured = {name: [run for run in some if run.attention] for name, some in runs.items()}
    yield from _statistics({name: some for name, some in measured.items() if some}, task)


def _statistics(runs: Mapping[str, Sequence[RunRecord]], task: str) -> Iterator[Drawn]:
    """Metrics by layer and head in the best epoch, without those that no head has."""
    lines = {name: [line for run in some for line in _best_epoch(run)] for name, some in runs.items()}
    values = {
        metric: {
            name: attention_panels.by_layer_and_head(some, metric) for name, some in lines.items() if some
        }
        for metric in attention_panels.METRICS
    }
    there = {m: some for m, some in values.items() if any(np.isfinite(v).any() for v in some.values())}
    if not there:
        return
    missing = ", ".join(label_of(metric) for metric in values if metric not in there)
    every = [run for some in runs.values() for run in some]
    seeds = {run.seed for run in every}
    over = f"mean over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {every[0].seed}"
    samples, label = measured_samples(every), task_label(task)
    title = f"{label}: attention by layer and head" + f" in {samples}" * bool(samples)
    yield Drawn(
        f"attention_metrics_{task}",
        f"{label}: attention metrics by layer and head in the best epoch, {over}; one colour scale per row; "
        "of RAttention the local branch."
        + f" Measured in {samples}." * bool(samples)
        + f" Left out, as no head sees keys so far away: {missing}." * bool(missing),
        attention_panels.metrics_by_mechanism_figure(there, title=title),
    )


def _best_epoch(run: RunRecord) -> list[Mapping[str, object]]:
    best = (run.result or {})["best_epoch"]
    return [line for line in run.attention if line["epoch"] == best]
