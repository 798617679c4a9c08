"""Figures of what a model learns in its context, in the style of `rattention.plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rattention.plots.style import BLUE, COLOURS, GREY, VERMILION, axes_of, figure_of, label_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rattention.studies.dark_room.evaluation import Comparison

GREEN = COLOURS[2]


def plot_returns(result: Comparison, *, ax: Axes | None = None) -> Axes:
    """The mean return of each episode, with the middle half of the goals behind it, and what it is up to."""
    ax = axes_of(ax)
    episodes = np.arange(1, result.returns.shape[1] + 1)
    mean = result.returns.mean(axis=0)
    low, high = np.quantile(result.returns, (0.25, 0.75), axis=0)
    ax.fill_between(episodes, low, high, color=BLUE, alpha=0.15, linewidth=0)
    source = result.source.mean(axis=0)[: len(episodes)]
    ax.plot(episodes[: len(source)], source, color=GREEN, linewidth=1.4)
    ax.plot(episodes, mean, color=BLUE, linewidth=1.8)
    levels = [float(result.oracle.mean()), float(result.random.mean())]
    for level, colour in zip(levels, (VERMILION, GREY), strict=True):
        ax.plot(episodes[[0, -1]], [level, level], color=colour, linestyle="--", linewidth=1)
    ax.set_xlim(0, len(episodes) * 1.3)
    ax.set_ylim(0, max(levels[0], high.max()) * 1.08)
    _axis_ends(ax, 0, len(episodes))
    ax.set_xlabel("Episode, all in one context")
    ax.set_ylabel("Return, mean over goals")
    ends = {"oracle": levels[0], "teacher": source[-1], "model": mean[-1], "random": levels[1]}
    texts = [f"{name} {end:.1f}" for name, end in ends.items()]
    label_lines(ax, len(episodes), [*ends.values()], texts, [VERMILION, GREEN, BLUE, GREY])
    return ax


def plot_goals(result: Comparison, *, ax: Axes | None = None) -> Axes:
    """Every goal, the nearest first: first episode, last episodes, and what the oracle gets."""
    ax = axes_of(ax)
    order = np.argsort(-result.oracle, kind="stable")
    places = np.arange(len(order))
    first, last, oracle = (values[order] for values in (result.first(), result.last(), result.oracle))
    ax.vlines(places, first, last, color=BLUE, alpha=0.35, linewidth=2)
    ax.plot(places, oracle, color=VERMILION, marker="_", markersize=10, linestyle="none", markeredgewidth=2)
    ax.plot(places, first, color=GREY, marker="o", markersize=4, linestyle="none")
    ax.plot(places, last, color=BLUE, marker="o", markersize=5, linestyle="none")
    names = [f"{row}, {column}" for row, column in result.room.places(result.goals[order])]
    ax.set_xticks(places, names, rotation=90, fontsize=7.5)
    ax.set_xlim(-0.7, len(order) * 1.34)
    ax.set_ylim(-1.6, None)
    low, high = ax.get_xlim()
    _axis_ends(ax, low, places[-1] + 0.02 * (high - low), ticks=False)
    ax.set_xlabel("Goal (row, column), nearest first")
    ax.set_ylabel("Return")
    ends = [oracle[-1], first[-1], last[-1]]  # of two at one height the first is put below
    texts = ["oracle", "model, first\nepisode", "model, last\nepisodes"]
    label_lines(ax, len(order) - 1, ends, texts, [VERMILION, GREY, BLUE])
    return ax


def returns_figure(result: Comparison, *, title: str = "") -> Figure:
    """Learning in context, and every goal; the title by default says how many."""
    attempts = f", {result.attempts} attempts each" if result.attempts > 1 else ""
    title = title or f"Learning in context: {len(result.goals)} goals{attempts}"
    figure, panels = figure_of(title, 1, 2, (10.4, 3.8))
    plot_returns(result, ax=panels[0])
    plot_goals(result, ax=panels[1])
    return figure


def _axis_ends(ax: Axes, low: float, high: float, *, ticks: bool = True) -> None:
    """Where the data end, so that no axis runs under labels beside it."""
    ax.spines["bottom"].set_bounds(low, high)
    if ticks:
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
