"""Figures of `rattention.studies.lra`: accuracy, time, memory, convergence and learning curves."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.plots.style import (
    BACKING,
    COLOURS,
    GREY,
    MARKERS,
    VERMILION,
    Size,
    axes_of,
    figure_of,
    halo,
    percent_axis,
    tidy,
)
from rattention.studies.lra.results import mechanism_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rattention.studies.kit.intervals import Interval
    from rattention.studies.lra.results import RunRecord
    from rattention.studies.lra.summary import Cell

ORDER = (
    "gravitational",
    "gravitational_multi_timescale",
    "multi_timescale",
    "rattention",
    "softmax",
    "gated_linear",
    "gated_delta",
    "kda",
)
"""Which mechanism has which of `COLOURS` and `MARKERS`, the same in every figure."""

COSTS = {
    "seconds_per_epoch": ("Seconds per epoch", 1.0),
    "peak_memory_bytes": ("Peak memory (MiB)", 2.0**20),
}
"""What `plot_cost` shows, what its axis calls it, and the unit."""

CURVES = {
    "validation_accuracy": "Validation accuracy",
    "train_accuracy": "Training accuracy",
    "validation_loss": "Validation loss",
}
"""What `curves_figure` shows, and what the axes call it."""

LEGEND_COLUMN = 1.6
"""Inches of the longest name in a legend, with its line."""

RADAR = {
    "test_accuracy": "Accuracy",
    "tokens_per_second": "Speed",
    "peak_memory_bytes": "Memory",
    "epochs_to_90_percent": "Convergence",
}
"""The axes of `plot_radar`."""

LESS_IS_BETTER = ("peak_memory_bytes", "epochs_to_90_percent")


def look(mechanism: str) -> dict[str, Any]:
    """Colour and marker; all that are not in `ORDER` have the same."""
    place = ORDER.index(mechanism) if mechanism in ORDER else len(ORDER)
    return {"color": COLOURS[place], "marker": MARKERS[place]}


def plot_accuracy(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """Mean test accuracy of each mechanism as a bar, its interval over seeds, seeds as points; lines for the
    majority class and for the counts of tokens."""
    ax = axes_of(ax)
    _bars(ax, cells, "test_accuracy", 1.0)
    lines = {"always the majority class": (cells[0].majority, "--"), "counts of tokens": (cells[0].bag, ":")}
    levels = {name: (level, style) for name, (level, style) in lines.items() if level is not None}
    for name, (level, style) in levels.items():
        label = f"{name}: {level:.1%}"
        ax.axhline(level, color=VERMILION, linewidth=1.2, linestyle=style, label=label, zorder=2)
    top = max(*(level for level, _ in levels.values()), *(_end(cell.accuracy) for cell in cells))
    ax.set_ylim(0, min(1.3, top * 1.3))
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= min(1, ax.get_ylim()[1])])
    ax.legend(loc="upper left", frameon=False, fontsize=8.5)
    ax.set_ylabel("Test accuracy")
    percent_axis(ax, None)
    return ax


def plot_cost(cells: Sequence[Cell], number: str, *, ax: Axes | None = None) -> Axes:
    """A name in `COSTS` of each mechanism as a bar, with its interval and seeds."""
    ax = axes_of(ax)
    label, unit = COSTS[number]
    _bars(ax, cells, number, unit)
    ax.set_ylim(bottom=0, top=1.15 * ax.get_ylim()[1])
    ax.set_ylabel(label)
    return ax


def plot_convergence(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """The first epoch with 90 % of a run's best validation accuracy: seeds as points, their mean as a line.

    A star beside the mean is for mechanisms that did not learn: their accuracy never rises, and so is reached
    at once.
    """
    ax = axes_of(ax)
    for row, cell in enumerate(cells):
        values = np.asarray(cell.values("epochs_to_90_percent"))
        places = row + _spread(len(values), 0.22)
        ax.scatter(values, places, s=34, zorder=3, alpha=0.9, linewidth=0, **look(cell.mechanism))
        ax.vlines(values.mean(), row - 0.36, row + 0.36, color=GREY, linewidth=3, zorder=2)
        text = f"{values.mean():.1f}{'*' * cell.failed}"
        beside = {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "center"}
        _write(ax, text, (1.0, row), (4, 0), **beside)
    _rows(ax, cells)
    ax.set_xlim(0, 1.08 * max(max(cell.values("epochs_to_90_percent")) for cell in cells))
    star = "\n(* did not learn)" if any(cell.failed for cell in cells) else ""
    _epochs(ax, f"Epochs to 90 % of the best validation accuracy{star}")
    ax.grid(axis="x", color="#E3E3E3", linewidth=0.7)
    return ax


def plot_improvement(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """Accuracy less that of softmax attention in points, with the interval over paired seeds."""
    ax = axes_of(ax)
    there = [(cell, cell.improvement.points) for cell in cells if cell.improvement is not None]
    ax.axvline(0, color=GREY, linewidth=1.2, linestyle="--")
    for row, (cell, change) in enumerate(there):
        style = {"markersize": 7, "linewidth": 1.6, "capsize": 3, **look(cell.mechanism)}
        ax.errorbar([change.mean], [row], xerr=_distances(change), **style)
        _write(ax, f"{100 * change.mean:+.1f}", (change.mean, row), (0, 7), bbox=BACKING)
    _rows(ax, [cell for cell, _ in there])
    if not there:
        ax.text(0.5, 0.5, "nothing to compare with", ha="center", va="center", transform=ax.transAxes)
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+.3g}" if share else "0")
    ax.set_xlabel("Points of test accuracy over softmax attention")
    return ax


def plot_accuracy_against_time(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """What an epoch costs and what it comes to, with intervals: best is up and to the left."""
    ax = axes_of(ax)
    times = [cell.number("seconds_per_epoch") for cell in cells]
    for cell, time in zip(cells, times, strict=True):
        bars: dict[str, Any] = {"xerr": _distances(time), "yerr": _distances(cell.accuracy), "capsize": 2}
        style = {"markersize": 8, "linewidth": 1, "linestyle": "none", **look(cell.mechanism)}
        ax.errorbar([time.mean], [cell.accuracy.mean], label=cell.label, **bars, **style)
    ax.axhline(cells[0].majority, color=VERMILION, linewidth=1.2, linestyle="--")
    ax.set_xlim(0, 1.06 * max(map(_end, times)))
    ax.set_ylim(top=ax.get_ylim()[1] + 0.03 * np.ptp(ax.get_ylim()))
    ax.set_xlabel("Seconds per epoch")
    ax.set_ylabel("Test accuracy")
    percent_axis(ax, None)
    return ax


def plot_radar(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """Accuracy, speed, memory and convergence on four axes: outside is better.

    Each axis is a share of the best mechanism on it (`radar_shares`), from 0 in the middle to 1. Polar axes
    take the place of `ax` where it is not polar.
    """
    polar: Any = axes_of(ax)
    if polar.name != "polar":
        place, figure = polar.get_subplotspec(), polar.figure
        polar.remove()
        polar = figure.add_subplot(place, projection="polar")
    angles = np.linspace(0, 2 * math.pi, len(RADAR), endpoint=False)
    for cell, shares in zip(cells, radar_shares(cells), strict=True):
        closed = [*shares.values(), next(iter(shares.values()))]
        style = {"label": cell.label, "linewidth": 1.6, "markersize": 5, **look(cell.mechanism)}
        polar.plot([*angles, angles[0]], closed, alpha=0.9, **style)
    polar.set_theta_zero_location("N")
    polar.set_theta_direction(-1)
    polar.set_xticks(angles, list(RADAR.values()), fontsize=9)
    for text, side in zip(polar.get_xticklabels(), ("center", "left", "center", "right"), strict=True):
        text.set_ha(side)
    polar.set_ylim(0, 1.04)
    polar.set_yticks([0.25, 0.5, 0.75, 1.0], [""] * 4)
    for share in (0.5, 1.0):  # labels of ticks would lie behind the lines
        polar.text(math.pi / 4, share, f"{share:g}", fontsize=7.5, color=GREY, zorder=5, path_effects=halo())
    polar.grid(color="#D9D9D9", linewidth=0.7)
    polar.spines["polar"].set_visible(False)
    axes: Axes = polar
    return axes


def radar_shares(cells: Sequence[Cell]) -> list[dict[str, float]]:
    """For each cell what `RADAR` names as a share of the best: mean / highest mean, and where less is better
    (memory, epochs) lowest mean / mean. Convergence is 0 for a mechanism that did not learn."""
    frame = require("pandas").DataFrame([{name: cell.mean(name) for name in RADAR} for cell in cells])
    frame[[*LESS_IS_BETTER]] = 1 / frame[[*LESS_IS_BETTER]].clip(lower=1e-300)
    frame.loc[[cell.failed for cell in cells], "epochs_to_90_percent"] = 0.0
    shares: list[dict[str, float]] = (frame / frame.max().where(frame.max() > 0, 1)).to_dict("records")
    return shares


def plot_curves(runs: Mapping[str, Sequence[RunRecord]], number: str, *, ax: Axes | None = None) -> Axes:
    """A number of each epoch, named in `CURVES`, as a line per mechanism: the mean over seeds, and a band
    from the least to the greatest.

    Mean and band end where the first finished run ends, so that no jump comes from a seed that stops. Runs
    that are not finished are thin dotted lines and in no mean.
    """
    ax = axes_of(ax)
    for mechanism, some in runs.items():
        style, label = look(mechanism), mechanism_label(mechanism)
        lines = [_line(run, number) for run in some if run.result is not None and run.metrics]
        length = min(map(len, lines), default=0)
        if length:
            together, epochs = np.array([line[:length] for line in lines]), np.arange(1, length + 1)
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(epochs, together.min(axis=0), together.max(axis=0), **band)
            marks: dict[str, Any] = {"markersize": 4.5, "markevery": max(1, length // 6)}
            ax.plot(epochs, together.mean(axis=0), label=label, linewidth=1.5, **marks, **style)
        dots: dict[str, Any] = {"linestyle": ":", "linewidth": 1, "markersize": 3, **style}
        for run in some:
            if run.result is None and run.metrics:
                at = [line["epoch"] for line in run.metrics]
                ax.plot(at, _line(run, number), label=f"{label}, not finished", **dots)
    _epochs(ax, "Epoch")
    ax.set_ylabel(CURVES[number])
    if number.endswith("accuracy"):
        percent_axis(ax, None)
    return ax


def _line(run: RunRecord, number: str) -> NDArray[np.float64]:
    """Over the epochs; NaN where a line does not have it."""
    return np.array([line.get(number, np.nan) for line in run.metrics], np.float64)


def curves_figure(tasks: Mapping[str, Mapping[str, Sequence[RunRecord]]], *, title: str = "") -> Figure:
    """All of `CURVES`, a row per task, by its heading."""
    plots = [functools.partial(plot_curves, number=number) for number in CURVES]
    figure = by_task_figure(tasks, *plots, title=title, size=(3.8, 3.1 + 0.4 / len(tasks)), legend=True)
    for validation, training in zip(figure.axes[::3], figure.axes[1::3], strict=True):
        validation.sharey(training)  # they can be compared
        validation.autoscale()
    return figure


def by_task_figure(
    tasks: Mapping[str, Any],
    *plots: Callable[..., Axes],
    title: str = "",
    size: Size = (4.9, 3.4),
    legend: bool = False,
) -> Figure:
    """A panel per task (its heading by name) for a function of this module; for several a row per task.

    `size` is that of a panel in inches; `legend` below all of them.
    """
    rows, columns = (len(tasks), len(plots)) if len(plots) > 1 else (1, len(tasks))
    figure, panels = figure_of(title, rows, columns, (size[0] * columns, size[1] * rows))
    drawn = []
    for ax, ((name, shown), plot) in zip(panels, itertools.product(tasks.items(), plots), strict=True):
        drawn.append(plot(shown, ax=ax))
        drawn[-1].set_title(name, fontsize=10, pad=12 if drawn[-1].name == "polar" else None)
    if legend:
        _legend_below(figure, drawn)
    return figure


def _legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """Each name once, under all panels."""
    named: dict[str, Any] = {}
    for ax in panels:
        handles, names = ax.get_legend_handles_labels()
        named |= dict(zip(names, handles, strict=True))
    columns = max(1, int(figure.get_figwidth() / LEGEND_COLUMN))
    options = {"frameon": False, "fontsize": 8.5, "handlelength": 2.4, "ncols": min(columns, len(named))}
    figure.legend(named.values(), named, loc="outside lower center", **options)


def _bars(ax: Axes, cells: Sequence[Cell], name: str, unit: float) -> None:
    """Bars from 0 with intervals, the seeds' values as points, and means written above all of it."""
    for place, cell in enumerate(cells):
        number, values = cell.number(name), np.asarray(cell.values(name)) / unit
        mean = number.mean / unit
        ax.bar(place, mean, 0.66, color=look(cell.mechanism)["color"], alpha=0.55, zorder=1)
        ends = _distances(number, unit)
        ax.errorbar([place], [mean], yerr=ends, color="black", capsize=4, linewidth=1.3)
        dots: dict[str, Any] = {"color": "white", "edgecolor": "black", "linewidth": 0.8, "zorder": 4}
        ax.scatter(place + _spread(len(values), 0.2), values, s=14, **dots)
        text = f"{mean:.1%}" if name == "test_accuracy" else _three_digits(mean)
        _write(ax, text, (place, max(values.max(), _end(number) / unit)), (0, 6))
    names = [cell.label.replace("-", "-\n").replace(" ", "\n") for cell in cells]
    ax.set_xticks(range(len(cells)), names, fontsize=8)
    tidy(ax)
    ax.tick_params(axis="x", labelsize=8, length=0)
    ax.set_xlim(-0.6, len(cells) - 0.4)


def _write(
    ax: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **options: Any
) -> None:
    """A number beside a point."""
    ax.annotate(text, point, offset, textcoords="offset points", fontsize=8.5, **{"ha": "center"} | options)


def _spread(count: int, width: float) -> NDArray[np.float64]:
    """Beside each other around 0, so that equal seeds do not hide one another."""
    return width * np.linspace(-1, 1, count) if count > 1 else np.zeros(1)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _rows(ax: Axes, cells: Sequence[Cell]) -> None:
    """A row per mechanism, the first on top."""
    ax.set_yticks(range(len(cells)), [cell.label for cell in cells])
    ax.set_ylim(len(cells) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _epochs(ax: Axes, label: str) -> None:
    ax.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel(label)


def _distances(number: Interval, unit: float = 1.0) -> list[list[float]] | None:
    """From the mean to the ends; None of one seed, which has none."""
    if math.isnan(number.low):
        return None
    return [[(number.mean - number.low) / unit], [(number.high - number.mean) / unit]]


def _end(number: Interval) -> float:
    return number.mean if math.isnan(number.high) else number.high
