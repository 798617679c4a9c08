"""The figures of an analysis, by name and with captions, and those of what the models attend to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.plots.maps import label_of, plot_attention_map
from rattention.plots.style import Size, few_ticks, figure_of
from rattention.studies.lra import panels
from rattention.studies.lra.config import task_label
from rattention.studies.lra.results import RunRecord, StudyResults, mechanism_label
from rattention.studies.lra.summary import Cell, by_task, heading, measured_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


METRICS = ("entropy", "local_concentration", "long_range", "retention")
"""Rows of `metrics_by_mechanism_figure`."""

ACROSS = 6
"""The most heads in a row."""


@dataclass(frozen=True)
class Drawn:
    """A figure."""

    name: str
    caption: str
    figure: Figure


def drawn_figures(results: StudyResults, cells: Sequence[Cell]) -> list[Drawn]:
    """All for which there are numbers."""
    drawn = [*_compared(cells)] if cells else []
    if any(run.metrics for run in results.runs):
        tasks = {task_label(task): results.by_mechanism(task) for task in results.tasks()}
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
        "Mean test accuracy with its 95 % interval over seeds; points are seeds; dashed: always the majority "
        "class; dotted: logistic regression on the counts of tokens.",
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
    runs = {name: [run for run in some if run.result] for name, some in results.by_mechanism(task).items()}
    maps = {
        name: seeds[0] for name, some in runs.items() if (seeds := [run.maps for run in some if run.maps])
    }
    label = task_label(task)
    without = ", ".join(mechanism_label(name) for name, some in runs.items() if some and name not in maps)
    if maps:
        yield Drawn(
            f"attention_{task}",
            f"{label}: what the best models attend to in the first test sample, the mean over heads; maps "
            "are pooled, and each has a colour scale of its own (light is more); of RAttention the local "
            "branch." + f" Without maps: {without}." * bool(without),
            mean_maps_figure(maps, title=f"{label}: attention, mean over heads"),
        )
    for mechanism, some in maps.items():
        name = mechanism_label(mechanism)
        yield Drawn(
            f"attention_{task}_{mechanism}",
            f"{label}, {name}: the same by layer and head.",
            head_maps_figure(some, title=f"{label}: {name} by layer and head"),
        )
    measured = {name: [run for run in some if run.attention] for name, some in runs.items()}
    yield from _statistics({name: some for name, some in measured.items() if some}, task)


def _statistics(runs: Mapping[str, Sequence[RunRecord]], task: str) -> Iterator[Drawn]:
    """Metrics by layer and head in the best epoch, without those that no head has."""
    lines = {
        name: [line for run in some for line in run.attention if line["epoch"] == run.numbers["best_epoch"]]
        for name, some in runs.items()
    }
    values = {
        metric: {name: by_layer_and_head(some, metric) for name, some in lines.items() if some}
        for metric in METRICS
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
        metrics_by_mechanism_figure(there, title=title),
    )


def mean_maps_figure(maps: Mapping[str, Mapping[str, NDArray[np.float32]]], *, title: str = "") -> Figure:
    """The mean over the heads of each layer's map ``[heads, rows, keys]``, by mechanism and layer: a row per
    layer and a column per mechanism."""
    layers = list(dict.fromkeys(layer for some in maps.values() for layer in some))
    rows = [
        [
            (f"{mechanism_label(name)}\n" * (layer == layers[0]) + _words(layer), some[layer].mean(axis=0))
            if layer in some
            else None
            for name, some in maps.items()
        ]
        for layer in layers
    ]
    return _grid_of_maps(rows, title, (2.5, 2.5))


def head_maps_figure(maps: Mapping[str, NDArray[np.float32]], *, title: str = "") -> Figure:
    """Every head of a mechanism: layers downwards, heads across."""
    heads = {
        layer: [(f"{_words(layer)}, head {i}", head) for i, head in enumerate(values)]
        for layer, values in maps.items()
    }
    rows = [some[i : i + ACROSS] for some in heads.values() for i in range(0, len(some), ACROSS)]
    return _grid_of_maps(rows, title, (1.9, 2.05))


def _grid_of_maps(
    rows: Sequence[Sequence[tuple[str, NDArray[np.float32]] | None]], title: str, size: Size
) -> Figure:
    """Titles and maps, each with a colour scale of its own up to the 99.5th percentile. Axes are cells of the
    pooled maps, not tokens."""
    columns = max(map(len, rows))
    figure, panels = figure_of(
        title, len(rows), columns, (max(4.6, size[0] * columns), size[1] * len(rows) + 0.5)
    )
    cells = [cell for row in rows for cell in (*row, *[None] * (columns - len(row)))]
    for ax, cell in zip(panels, cells, strict=True):
        if cell is None:
            ax.remove()
            continue
        plot_attention_map(cell[1], colorbar=False, ax=ax).set_title(cell[0], fontsize=8.5)
        ax.set(aspect="auto", xticks=[], yticks=[])
        ax.set_xlabel("Keys (pooled)", fontsize=8.5)
        ax.set_ylabel("Queries (pooled)", fontsize=8.5)
        ax.label_outer()
    image = figure.axes[0].images[0]
    options: dict[str, Any] = {"pad": 0.01, "ticks": (image.norm.vmin, image.norm.vmax)}
    bar = figure.colorbar(image, ax=figure.axes, label="Weight, on each map's own scale", **options)
    bar.ax.set_yticklabels(["0", "most"], fontsize=8)
    return figure


def metrics_by_mechanism_figure(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]], *, title: str = ""
) -> Figure:
    """Arrays ``[layers, heads]`` by metric and mechanism: a row per metric, on one colour scale, and a column
    per mechanism. NaN stays blank."""
    mechanisms = list(dict.fromkeys(name for some in values.values() for name in some))
    size = (max(5.0, 2.45 * len(mechanisms) + 0.9), 1.75 * len(values) + 0.6)
    figure, panels = figure_of(title, len(values), len(mechanisms), size)
    for ax, mechanism in zip(panels, mechanisms, strict=False):
        ax.set_title(mechanism_label(mechanism), fontsize=9)
    for row, (metric, some) in enumerate(values.items()):
        own = panels[row * len(mechanisms) : (row + 1) * len(mechanisms)]
        limits = _limits(some.values())
        for ax, mechanism in zip(own, mechanisms, strict=True):
            if mechanism in some:
                _layers_and_heads(ax, some[mechanism], limits)
            else:
                ax.set_axis_off()
        image = next(ax.images[0] for ax in own if ax.images)
        bar = figure.colorbar(image, ax=own, label=label_of(metric).replace(" ", "\n", 1), pad=0.01)
        bar.ax.tick_params(labelsize=8)
    return figure


def _layers_and_heads(ax: Axes, values: NDArray[np.float64], limits: tuple[float, float]) -> None:
    low, high = limits
    ax.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest", vmin=low, vmax=high)
    ax.set(xlabel="Head", ylabel="Layer")
    ax.set(xticks=few_ticks(values.shape[1]), yticks=few_ticks(values.shape[0]))
    ax.spines[:].set_visible(False)
    ax.label_outer(remove_inner_ticks=True)


def _limits(arrays: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([array.ravel() for array in arrays])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def by_layer_and_head(lines: Sequence[Mapping[str, Any]], metric: str) -> NDArray[np.float64]:
    """``[layers, heads]`` of a metric: the mean over the lines of all runs. NaN where none has a number."""
    frame = require("pandas").DataFrame(lines, columns=["layer", "head", metric]).astype(float)
    means: NDArray[np.float64] = frame.groupby(["layer", "head"])[metric].mean().unstack().to_numpy()
    return means


def _words(layer: str) -> str:
    return layer.replace("layer", "layer ")
