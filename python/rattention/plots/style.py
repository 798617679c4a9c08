"""What all figures look like: colours, panels, axes and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6B6B6B"

COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C564B", "#999933")
MARKERS = "osD^vPX<>"
"""Lines that are told apart by colour have a marker of their own as well."""

BACKING = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.8}
"""Behind numbers that stand on bars and lines of their own."""

FEW_TICKS = 3
"""An axis with fewer ticks than this says nothing of its scale."""

SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), *((x, y) for x in (1, -1, 2, -2) for y in (1, -1)))
NEAR = tuple((away * x, away * y) for away in (10, 16, 24, 34, 46) for x, y in SIDES)
"""Where a label may stand beside its point, in points, the best place first."""

MOVED = 0.015
"""A label that stands this share of the axes' height beside the end of its line is joined to it."""

MOST_POINTS = 400
"""More points than this on a line would hide one another."""

MOST_DECADES = 5
"""Over more powers of ten than this there is no room between them."""

MOST_LABELS = 9
"""More labels beside lines than this would run into each other."""


Size = tuple[float, float]
"""Of a figure, width and height in inches."""


def figure_of(title: str, rows: int, columns: int, size: Size) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row, under a title."""
    figure = require("matplotlib.figure").Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure, [tidy(ax) for ax in figure.subplots(rows, columns, squeeze=False).flat]


def axes_of(ax: Axes | None) -> Axes:
    """`ax`, or those of a new figure."""
    if ax is not None:
        return ax
    return tidy(require("matplotlib.figure").Figure(figsize=(5, 3.4), layout="constrained").add_subplot())


def tidy(ax: Axes) -> Axes:
    """`ax` without its top and right spines, with small tick labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8.5)
    ax.margins(x=0.08)
    return ax


def length_axis(ax: Axes, tokens: Sequence[int], room: float = 1.12) -> None:
    """Contexts along x, with some room for labels."""
    ax.set_xlabel("Context (tokens)")
    ax.set_xlim(0, max(tokens) * room)


def percent_axis(ax: Axes, decimals: int | None = 0) -> None:
    """Shares along y as percentages."""
    ax.yaxis.set_major_formatter(require("matplotlib.ticker").PercentFormatter(1, decimals))


def log_axis(ax: Axes, *, percent: bool = False) -> None:
    """Powers of ten along y with 2 and 5 between them; a plain log axis would write 2 x 10^-2."""
    ticker = require("matplotlib.ticker")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    between = (1.0, 2.0, 5.0) if high < 10**MOST_DECADES * low else (1.0,)
    locator = ticker.LogLocator(subs=between)
    if np.count_nonzero([low <= tick <= high for tick in locator.tick_values(low, high)]) < FEW_TICKS:
        locator = ticker.MaxNLocator(nbins=4)  # less than a decade is nearly linear
    ax.yaxis.set_major_locator(locator)
    text = (lambda share, _: f"{100 * share:g}%") if percent else (lambda number, _: f"{number:g}")
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(text))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def halo() -> list[Any]:
    """A white rim around letters, so that lines may pass behind them and are not cut."""
    return [require("matplotlib.patheffects").withStroke(linewidth=2.2, foreground="white")]


def rule(ax: Axes, value: float, meaning: str, *, beside: bool = False) -> None:
    """A line at `value` that says what it means: above its right end, or beside the axes."""
    ax.axhline(value, color=VERMILION, linewidth=1, linestyle=":")
    ax.annotate(
        f"{meaning}{chr(10) if beside else ' '}{value:g}",
        (1, value),
        (3, 0) if beside else (0, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left" if beside else "right",
        va="center" if beside else "bottom",
        color=VERMILION,
        fontsize=8,
        path_effects=halo(),
    )


def label_point(ax: Axes, text: str, point: tuple[float, float], others: NDArray[np.float64]) -> None:
    """A ring around a point, and joined to it a label where it covers none of `others` ``[points, 2]``, or as
    few as it can; needs the final limits of the axes."""
    ax.plot(*point, "o", markersize=9, markerfacecolor="none", markeredgecolor="black", markeredgewidth=0.9)
    figure: Any = ax.figure
    figure.draw_without_rendering()
    crowd = np.vstack([others, [point]])
    pixels = ax.transData.transform(crowd)
    label = ax.annotate(
        text,
        point,
        NEAR[0],
        textcoords="offset points",
        fontsize=8,
        path_effects=halo(),
        arrowprops={"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4},
        zorder=5,
    )

    letters: Any = require("matplotlib.text").Text.get_window_extent

    def covered(place: tuple[float, float]) -> float:
        _put(label, place)
        label.get_window_extent()  # with the line; it puts the letters where they belong
        box = letters(label)
        (x0, y0), (x1, y1) = ax.bbox.min, ax.bbox.max
        outside = box.x0 < x0 or box.x1 > x1 or box.y0 < y0 or box.y1 > y1
        hidden = outside or any(box.overlaps(letters(text)) for text in ax.texts if text is not label)
        return float(1000 * hidden + sum(box.padded(3).contains(x, y) for x, y in pixels))

    _put(label, min(NEAR, key=covered))


def _put(label: Any, place: tuple[float, float]) -> None:
    x, y = place
    label.xyann = place
    label.set_ha("center" if x == 0 else "left" if x > 0 else "right")
    label.set_va("center" if y == 0 else "bottom" if y > 0 else "top")


def label_ends(ax: Axes, x: Sequence[int], y: Sequence[float], form: str) -> None:
    """The first and the last number of a line."""
    for i, side in ((0, "right"), (len(x) - 1, "center"))[: len(x)]:
        ax.annotate(
            form.format(y[i]),
            (x[i], y[i]),
            (3 if side == "right" else 0, 6),
            textcoords="offset points",
            ha=side,
            fontsize=8.5,
            color=BLUE,
        )


def label_lines(
    ax: Axes, x: float, y: ArrayLike, texts: Sequence[str], colours: Any, *, left: bool = False
) -> None:
    """Labels beside the ends of lines, moved apart where they would overlap, and off the axis below: a thin
    line joins those that had to give way to their ends. Needs the final axes' limits."""
    ends = np.column_stack([np.full(len(texts), x), np.asarray(y)])
    heights = ax.transAxes.inverted().transform(ax.transData.transform(ends))
    placed = _apart(heights[:, 1], gap=0.068 * max(text.count("\n") + 1 for text in texts))
    side = -0.03 if left else 0.03
    leader = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 1, "relpos": (left, 0.5)}
    for end, height, (at, was), text, colour in zip(ends, placed, heights, texts, colours, strict=True):
        ax.annotate(
            text,
            end,
            (at + side, height),
            textcoords="axes fraction",
            ha="right" if left else "left",
            va="center",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
            arrowprops=leader | {"color": colour} if abs(height - was) > MOVED else None,
        )


def layer_colours(count: int) -> NDArray[np.float64]:
    """From dark to light, one per line; short of the yellow that print loses."""
    colours = require("matplotlib").colormaps["viridis"](np.linspace(0, 0.75, count))
    return np.asarray(colours)


def over_stretches(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lines ``[lines, positions]`` as at most `MOST_POINTS` points: where each stretch begins, and means."""
    length = values.shape[1]
    starts = np.arange(0, length, -(-length // MOST_POINTS))
    sums = np.add.reduceat(np.asarray(values, np.float64), starts, axis=1)
    return starts, sums / np.diff(starts, append=length)


def legend_beside(ax: Axes) -> None:
    """Names of lines and points that cross too often to be labelled where they end, to the right."""
    handles, names = ax.get_legend_handles_labels()
    some = slice(None, None, max(1, -(-len(names) // MOST_LABELS)))
    options = {"frameon": False, "fontsize": 8, "handlelength": 1.2, "borderaxespad": 0}
    ax.legend(handles[some], names[some], loc="upper left", bbox_to_anchor=(1.01, 1), **options)


def _apart(heights: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Heights at least `gap` apart in the same order, the lowest half a gap above 0: neighbours that are too
    close give way equally."""
    order = np.argsort(heights)
    placed = heights[order]
    for _ in range(10 * len(placed)):
        missing = np.clip(gap - np.diff(placed), 0, None) / 2
        placed[:-1] -= missing
        placed[1:] += missing
        placed = np.maximum(placed, gap / 2)
    return placed[np.argsort(order)]


def few_ticks(count: int) -> NDArray[np.int64]:
    """At most twelve positions of `count`."""
    return np.arange(0, count, max(1, -(-count // 12)))


def number_ticks(axis: Any, numbers: Sequence[int]) -> None:
    """At most twelve ticks, at places that are called by these numbers."""
    some = few_ticks(len(numbers))
    axis.set_ticks(some, [str(numbers[i]) for i in some])


def write_cells(ax: Axes, values: NDArray[np.float64]) -> None:
    """The numbers themselves, where there is room for them."""
    if values.size > 120:
        return
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for row, column in np.argwhere(~np.isnan(values)):
        value = values[row, column]
        ax.text(
            column,
            row,
            f"{value:.0%}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value < middle else "black",
        )
