"""Figures of `rattention.studies.lra`: mechanisms compared in accuracy, time, memory and convergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rattention._extras import require
from rattention.plots.style import (
    BACKING,
    COLOURS,
    GREY,
    MARKERS,
    VERMILION,
    axes_of,
    figure_of,
    halo,
    percent_axis,
    tidy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rattention.studies.lra.summary import Cell

ORDER = ("gravitational", "gravitational_multi_timescale", "multi_timescale", "rattention", "softmax")
"""Which mechanism has which of `COLOURS` and `MARKERS`, the same in every figure."""

COSTS = {
    "seconds_per_epoch": ("Seconds per epoch", 1.0),
    "peak_memory_bytes": ("Peak memory (MiB)", 2.0**20),
}
"""What `plot_cost` shows, what its axis calls it, and the unit."""

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
    """Mean test accuracy of each mechanism as a bar, its interval over seeds, seeds as points, and the
    majority class as a line."""
    ax = axes_of(ax)
    _bars(ax, cells, "test_accuracy", 1.0)
    majority = cells[0].majority
    name = f"always the majority class: {majority:.1%}"
    ax.axhline(majority, color=VERMILION, linewidth=1.2, linestyle="--", label=name, zorder=2)
    top = max([cell.accuracy.mean for cell in cells] + [h for c in cells if _is(h := c.accuracy.high)])
    ax.set_ylim(0, min(1.3, max(top, majority) * 1.3))
    ax.set_xlim(-0.6, len(cells) - 0.4)
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
    ax.set_xlim(-0.6, len(cells) - 0.4)
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
        spread = 0.22 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, row + spread, s=34, zorder=3, alpha=0.9, linewidth=0, **look(cell.mechanism))
        ax.vlines(values.mean(), row - 0.36, row + 0.36, color=GREY, linewidth=3, zorder=2)
        ax.annotate(
            f"{values.mean():.1f}" + ("*" if cell.failed else ""),
            (1.0, row),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    _rows(ax, cells)
    ax.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(0, 1.08 * max(max(cell.values("epochs_to_90_percent")) for cell in cells))
    star = "\n(* did not learn)" if any(cell.failed for cell in cells) else ""
    ax.set_xlabel(f"Epochs to 90 % of the best validation accuracy{star}")
    ax.grid(axis="x", color="#E3E3E3", linewidth=0.7)
    return ax


def plot_improvement(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """Accuracy less that of softmax attention in points, with the interval over paired seeds."""
    ax = axes_of(ax)
    there = [cell for cell in cells if cell.improvement is not None]
    ax.axvline(0, color=GREY, linewidth=1.2, linestyle="--")
    for row, cell in enumerate(there):
        assert cell.improvement is not None
        change = cell.improvement.points
        bars = [[change.mean - change.low], [change.high - change.mean]] if _is(change.low) else None
        style = look(cell.mechanism)
        ax.errorbar([change.mean], [row], xerr=bars, markersize=7, linewidth=1.6, capsize=3, **style)
        ax.annotate(
            f"{100 * change.mean:+.1f}",
            (change.mean, row),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            bbox=BACKING,
        )
    if there:
        _rows(ax, there)
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "nothing to compare with", ha="center", va="center", transform=ax.transAxes)
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+.3g}" if share else "0")
    ax.set_xlabel("Points of test accuracy over softmax attention")
    return ax


def plot_accuracy_against_time(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """What an epoch costs and what it comes to, with intervals: best is up and to the left."""
    ax = axes_of(ax)
    for cell in cells:
        time, accuracy = cell.number("seconds_per_epoch"), cell.accuracy
        ax.errorbar(
            [time.mean],
            [accuracy.mean],
            xerr=_distances(time) if cell.several else None,
            yerr=_distances(accuracy) if cell.several else None,
            label=cell.label,
            markersize=8,
            linewidth=1,
            capsize=2,
            linestyle="none",
            **look(cell.mechanism),
        )
    ax.axhline(cells[0].majority, color=VERMILION, linewidth=1.2, linestyle="--")
    ax.set_xlim(0, 1.06 * max(_end(cell.number("seconds_per_epoch")) for cell in cells))
    ax.set_ylim(top=ax.get_ylim()[1] + 0.03 * np.ptp(ax.get_ylim()))
    ax.set_xlabel("Seconds per epoch")
    ax.set_ylabel("Test accuracy")
    percent_axis(ax, None)
    return ax


def plot_radar(cells: Sequence[Cell], *, ax: Axes | None = None) -> Axes:
    """Accuracy, speed, memory and convergence on four axes: outside is better.

    Each axis is a share of the best mechanism on it (`radar_shares`), from 0 in the middle to 1. `ax` must be
    polar.
    """
    polar: Any = ax
    if ax is None:
        figure = require("matplotlib.figure").Figure(figsize=(4.6, 4.2), layout="constrained")
        polar = figure.add_subplot(projection="polar")
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
    return cast("Axes", polar)


def radar_shares(cells: Sequence[Cell]) -> list[dict[str, float]]:
    """For each cell what `RADAR` names as a share of the best: mean / highest mean, and where less is better
    (memory, epochs) lowest mean / mean. Convergence is 0 for a mechanism that did not learn."""
    best = {name: _best([c for c in cells if _counts(c, name)], name) for name in RADAR}
    return [
        {
            name: _share(cell.number(name).mean, best[name], name) if _counts(cell, name) else 0.0
            for name in RADAR
        }
        for cell in cells
    ]


def by_task_figure(
    tasks: Mapping[str, Sequence[Cell]],
    plot: Any,
    *,
    title: str = "",
    height: float = 3.4,
    legend: bool = False,
) -> Figure:
    """A panel per task (its heading by name), all drawn by one of the functions here; `legend` below them."""
    figure, panels = figure_of(title, 1, len(tasks), (4.9 * len(tasks), height))
    for ax, (name, cells) in zip(panels, tasks.items(), strict=True):
        plot(cells, ax=ax)
        ax.set_title(name, fontsize=10)
    if legend:
        legend_below(figure, panels)
    return figure


def cost_figure(tasks: Mapping[str, Sequence[Cell]], *, title: str = "") -> Figure:
    """Time and memory, a row per task."""
    figure, panels = figure_of(title, len(tasks), 2, (9.8, 3.1 * len(tasks)))
    for row, (name, cells) in enumerate(tasks.items()):
        for ax, number in zip(panels[2 * row :], COSTS, strict=False):
            plot_cost(cells, number, ax=ax)
            ax.set_title(name, fontsize=10)
    return figure


def radar_figure(tasks: Mapping[str, Sequence[Cell]], *, title: str = "") -> Figure:
    """`plot_radar`, a panel per task."""
    size = (4.6 * len(tasks), 4.6)
    figure: Figure = require("matplotlib.figure").Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    panels = []
    for place, (name, cells) in enumerate(tasks.items()):
        ax = figure.add_subplot(1, len(tasks), place + 1, projection="polar")
        plot_radar(cells, ax=ax)
        ax.set_title(name, fontsize=10, pad=12)
        panels.append(ax)
    legend_below(figure, panels)
    return figure


def legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """Each name once, under all panels."""
    named: dict[str, Any] = {}
    for ax in panels:
        handles, names = ax.get_legend_handles_labels()
        for name, handle in zip(names, handles, strict=True):
            named.setdefault(name, handle)
    columns = max(1, int(figure.get_figwidth() / LEGEND_COLUMN))
    options = {"frameon": False, "fontsize": 8.5, "handlelength": 2.4, "ncols": min(columns, len(named))}
    figure.legend(named.values(), named, loc="outside lower center", **options)


def _bars(ax: Axes, cells: Sequence[Cell], name: str, unit: float) -> None:
    """Bars from 0 with intervals, the seeds' values as points, and means written above all of it."""
    for place, cell in enumerate(cells):
        number = cell.number(name)
        values = np.asarray(cell.values(name)) / unit
        ax.bar(place, number.mean / unit, 0.66, color=look(cell.mechanism)["color"], alpha=0.55, zorder=1)
        if cell.several:
            ends = np.asarray(_distances(number)) / unit
            ax.errorbar([place], [number.mean / unit], yerr=ends, color="black", capsize=4, linewidth=1.3)
        spread = 0.2 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(place + spread, values, s=14, color="white", edgecolor="black", linewidth=0.8, zorder=4)
        top = max([values.max(), *([number.high / unit] if cell.several else [])])
        text = f"{number.mean:.1%}" if name == "test_accuracy" else _three_digits(number.mean / unit)
        ax.annotate(text, (place, top), (0, 6), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_xticks(range(len(cells)), [_broken(cell.label) for cell in cells], fontsize=8)
    tidy(ax)
    ax.tick_params(axis="x", labelsize=8, length=0)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _broken(label: str) -> str:
    return label.replace("-", "-\n").replace(" ", "\n")


def _rows(ax: Axes, cells: Sequence[Cell]) -> None:
    """A row per mechanism, the first on top."""
    ax.set_yticks(range(len(cells)), [cell.label for cell in cells])
    ax.set_ylim(len(cells) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _distances(number: Any) -> list[list[float]]:
    return [[number.mean - number.low], [number.high - number.mean]]


def _end(number: Any) -> float:
    return float(number.high if _is(number.high) else number.mean)


def _is(value: float) -> bool:
    return not math.isnan(value)


def _counts(cell: Cell, name: str) -> bool:
    return not (name == "epochs_to_90_percent" and cell.failed)


def _best(cells: Sequence[Cell], name: str) -> float:
    means = [cell.number(name).mean for cell in cells]
    return (min if name in LESS_IS_BETTER else max)(means, default=0.0)


def _share(value: float, best: float, name: str) -> float:
    if name in LESS_IS_BETTER:
        return best / value if value else 1.0
    return value / best if best else 0.0
