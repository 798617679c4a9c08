"""Figures of `rattention.studies.compression`: quality against budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.plots.style import COLOURS, GREY, MARKERS, axes_of, figure_of, percent_axis
from rattention.studies.compression.results import Cell, Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERS = {
    "share": "Share of the full quality",
    "mass": "Attention mass kept",
    "kl": "KL from the full predictions (nats)",
    "top1_agreement": "Same first choice as full",
    "output_error": "Relative output error",
    "speed_up": "Speed-up (times, median and quartiles)",
}
"""What `plot_budgets` can show, and what axes call it."""

LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "handlelength": 2.4}
SHARES = ("share", "mass", "top1_agreement")


def plot_budgets(
    validation: Validation, number: str = "share", *, legend: bool = True, ax: Axes | None = None
) -> Axes:
    """A line per strategy over the budgets, with the confidence interval over seeds as bars.

    `number` is a name in `NUMBERS`. Lines cross too often to be labelled where they end: `legend` names them
    beside the axes; the dashed ones are strategies that keep the newest tokens first. Layers of constant size
    (RAttention's) are a star where their bytes are, and full quality is a dashed line. Points are moved apart
    a little where bars would cover one another.
    """
    ax = axes_of(ax)
    cells = [cell for cell in validation.cells() if number in cell.numbers]
    if number not in NUMBERS or not cells:
        raise ValueError(f"number must be one of {', '.join(NUMBERS)} that was measured, got {number!r}")
    names = list(dict.fromkeys(cell.strategy for cell in cells))
    for place, name in enumerate(names):
        line = [cell for cell in cells if cell.strategy == name]
        _plot_strategy(ax, line, number, 1 + 0.012 * (place - (len(names) - 1) / 2), _look(name, names))
    _axes_of_budgets(ax, cells, number)
    if number == "share":
        _plot_full(ax, validation)
        _limit_shares(ax, cells)
    if number == "speed_up":
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--")
    if legend:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), **LEGEND)
    return ax


def compression_figure(validation: Validation, *, title: str = "") -> Figure:
    """Quality against budget, and beside it what else was measured."""
    there = {name for cell in validation.cells() for name in cell.numbers}
    numbers = [name for name in NUMBERS if name in there]
    rows = -(-len(numbers) // 2)
    figure, panels = figure_of(title, rows, 2, (10.6, 3.5 * rows))
    for ax, number in zip(panels, numbers, strict=False):
        plot_budgets(validation, number, legend=False, ax=ax)
    handles, names = panels[0].get_legend_handles_labels()
    if len(numbers) < len(panels):
        panels[-1].set_axis_off()
        panels[-1].legend(handles, names, loc="center left", **LEGEND)
    else:
        figure.legend(handles, names, loc="outside right upper", **LEGEND)
    return figure


def _plot_strategy(ax: Axes, line: Sequence[Cell], number: str, aside: float, look: dict[str, Any]) -> None:
    """A line with bars, its budgets multiplied by `aside`."""
    line = sorted(line, key=lambda cell: cell.budget)
    numbers = [cell.numbers[number] for cell in line]
    bars = np.array([[n.middle - n.low, n.high - n.middle] for n in numbers]).T
    ax.errorbar(
        [cell.budget * aside for cell in line],
        [n.middle for n in numbers],
        yerr=np.nan_to_num(bars),
        label=line[0].strategy,
        markersize=4.5,
        linewidth=1.3,
        elinewidth=0.8,
        capsize=1.5,
        **look,
    )


def _look(name: str, names: Sequence[str]) -> dict[str, Any]:
    """A colour and a marker; ``recent+x`` is like ``x``, but dashed."""
    base = name.removeprefix("recent+")
    place = list(dict.fromkeys(n.removeprefix("recent+") for n in names)).index(base) % len(COLOURS)
    dashes = {"linestyle": "--", "markerfacecolor": "white"} if base != name else {"linestyle": "-"}
    return {"color": COLOURS[place], "marker": MARKERS[place], **dashes}


def _axes_of_budgets(ax: Axes, cells: Sequence[Cell], number: str) -> None:
    budgets = sorted({cell.budget for cell in cells})
    shares = all(isinstance(budget, float) for budget in budgets)
    ax.set_xscale("log", base=2)
    ax.set_xticks(budgets, [f"{budget:.3g}" for budget in budgets])
    ax.xaxis.set_minor_locator(require("matplotlib.ticker").NullLocator())
    ax.set_xlabel("Budget (share of the tokens)" if shares else "Budget (tokens)")
    ax.set_xlim(budgets[0] / 1.2, budgets[-1] * 1.2)
    ax.set_ylabel(NUMBERS[number])
    if number in SHARES:
        percent_axis(ax, decimals=None)
    if number != "share":
        low, high = ax.get_ylim()
        room = 0.04 * (high - min(low, 0))  # half a marker above the largest
        ax.set_ylim(low if number == "top1_agreement" else 0, high + room)


def _limit_shares(ax: Axes, cells: Sequence[Cell]) -> None:
    """Room for all means; the bars of few seeds may be cut, as they would leave no room for anything else."""
    shares = [cell.numbers["share"] for cell in cells]
    lows, means, highs = np.array([[n.low, n.middle, n.high] for n in shares]).T
    most = max(1.0, means.max())
    low = max(0.0, np.fmin(lows, means).min() - 0.05 * most)
    high = min(1.5 * most, np.fmax(highs, most).max() + 0.05 * most)
    ax.set_ylim(low, high)


def _plot_full(ax: Axes, validation: Validation) -> None:
    ax.axhline(1, color=GREY, linewidth=1, linestyle="--")
    constant = validation.constant
    if constant is not None:
        share = constant.nbytes / constant.full_nbytes
        label = f"{constant.label}:\n{share:.0%} of the bytes"
        ax.plot([share], [1], "*", markersize=12, color=GREY, label=label, zorder=0)
