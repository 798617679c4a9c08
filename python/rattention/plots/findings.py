"""Figures of `rattention.inspect`: how layers and heads differ, over several samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.plots import style
from rattention.plots.maps import plot_head_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rattention.inspect.findings import Findings
    from rattention.inspect.insights import Rules

DISTRIBUTIONS = {
    "context_mean": "Mean context attention",
    "context_std": "Std of context attention",
    "entropy": "Entropy (nats)",
    "recent_distant_ratio": "Recent / distant ratio\n(1/1000 to 1000, then arrows)",
}
"""What `distributions_figure` shows of the query row."""

LOGARITHMIC = ("context_mean", "context_std", "recent_distant_ratio")
"""Statistics that span powers of ten."""


MOST_RATIO = 1000.0
"""Ratios beyond this, or below its inverse, are drawn there: one of 10^7 would leave the others no room."""


def plot_distribution(
    values: NDArray[np.float64],
    layers: Sequence[int],
    *,
    label: str = "",
    log: bool = False,
    threshold: float | None = None,
    most: float = math.inf,
    ax: Axes | None = None,
) -> Axes:
    """A statistic ``[samples, layers, heads]``, layer by layer: a point for each sample and head, and a box
    from quartile to quartile with the median. `threshold` is where a rule begins to fire; what is beyond
    `most` or its inverse is drawn there, as an arrow head.

    What is no number, and on a logarithmic axis not positive, is left out, and so is what is infinite where
    there is no `most`.
    """
    ax = style.axes_of(ax)
    groups = [_drawable(values[:, i].ravel(), log, most) for i in range(len(layers))]
    places = np.arange(len(layers))
    for place, group in zip(places, groups, strict=True):
        spread = 0.28 * np.sin(2.4 * np.arange(len(group)))  # points side by side, and the same each time
        _points(ax, place + spread, group, most, s=9, color=style.BLUE, alpha=0.45)
    _boxes(ax, groups, places)
    if log and any(len(group) for group in groups):
        _log_axis_around(ax, np.concatenate(groups), threshold)
    if threshold is not None:
        style.rule(ax, threshold, "rule above", beside=True)
    style.number_ticks(ax.xaxis, layers)
    ax.set(xlabel="Layer", ylabel=label, xlim=(-0.6, len(layers) - 0.4))
    return ax


def plot_layers(needed: NDArray[np.float64], layers: Sequence[int], *, ax: Axes | None = None) -> Axes:
    """The share of positions that holds 90 % of the attention, ``[samples, layers, heads]``: the median of
    each layer as a bar, and from its least to its greatest head a line. Where it is least, compression pays
    most."""
    ax = style.axes_of(ax)
    heads = np.nanmedian(needed, axis=0)
    medians = np.nanmedian(needed, axis=(0, 2))
    best = int(np.nanargmin(medians))
    colours = [style.VERMILION if i == best else style.BLUE for i in range(len(layers))]
    places = np.arange(len(layers))
    ax.bar(places, medians, color=colours, width=0.62, alpha=0.85)
    ax.vlines(places, np.nanmin(heads, axis=1), np.nanmax(heads, axis=1), color="black", linewidth=1.2)
    if len(layers) <= 16:
        for place, median in zip(places, medians, strict=True):
            ax.annotate(
                f"{median:.0%}",
                (place, 0),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                bbox=style.BACKING,
            )
    style.number_ticks(ax.xaxis, layers)
    ax.set(xlabel="Layer", ylabel="Positions that hold 90 %\nof the attention")
    style.percent_axis(ax)
    ax.set_ylim(0, min(1.05, 1.25 * float(np.nanmax(heads)) + 0.02))
    ax.set_title(
        f"compression pays most in layer {layers[best]}",
        fontsize=9,
        color=style.VERMILION,
        loc="right",
        pad=8,
    )
    return ax


def plot_heads(
    relative_entropy: NDArray[np.float64],
    ratio: NDArray[np.float64],
    layers: Sequence[int],
    *,
    heads: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Each head as a point, arrays ``[layers, heads]``: specialised ones to the left, general ones to the
    right, those with recency bias above 1. The two at the ends are named; ratios beyond `MOST_RATIO` or its
    inverse are drawn there, as arrow heads."""
    ax = style.axes_of(ax)
    colours, ratio = style.layer_colours(len(layers)), np.clip(ratio, 1 / MOST_RATIO, MOST_RATIO)
    drawn = ~(np.isnan(relative_entropy) | np.isnan(ratio))
    for layer, colour, x, y, there in zip(layers, colours, relative_entropy, ratio, drawn, strict=True):
        _points(ax, x[there], y[there], MOST_RATIO, s=26, color=colour, alpha=0.85, label=f"layer {layer}")
    if drawn.any():
        _log_axis_around(ax, ratio[drawn], 1.0)
    style.legend_beside(ax)
    ax.axhline(1, color=style.GREY, linewidth=1, linestyle="--")
    ax.set(xlabel="Entropy / ln n: specialised to general", ylabel=DISTRIBUTIONS["recent_distant_ratio"])
    ax.set_xlim(0, 1.02)
    _name_ends(ax, np.where(drawn, relative_entropy, np.nan), ratio, layers, heads)
    return ax


def distributions_figure(
    findings: Findings, rules: Rules | None = None, *, title: str = "", figsize: style.Size | None = None
) -> Figure:
    """Four statistics of the query row over samples and heads, layer by layer, and where the rules begin."""
    figure, panels = style.figure_of(title, 2, 2, figsize or (8.4, 5.8))
    begins = {"entropy": "entropy", "recent_distant_ratio": "recency_ratio"}
    for ax, (name, label) in zip(panels, DISTRIBUTIONS.items(), strict=True):
        plot_distribution(
            getattr(findings, name),
            findings.layers,
            label=label,
            log=name in LOGARITHMIC,
            threshold=getattr(rules, begins.get(name, ""), None),
            most=MOST_RATIO if name == "recent_distant_ratio" else math.inf,
            ax=ax,
        )
    return figure


def layers_figure(findings: Findings, *, title: str = "", figsize: style.Size | None = None) -> Figure:
    """Layers compared: where compression pays most, and how even their attention is."""
    figure, panels = style.figure_of(title, 1, 2, figsize or (9.2, 3.6))
    plot_layers(findings.needed_share, findings.layers, ax=panels[0])
    plot_distribution(
        findings.relative_entropy,
        findings.layers,
        label="Entropy / ln n (1 is even attention)",
        ax=panels[1],
    )
    panels[1].set_ylim(0, 1.05)
    return figure


def heads_comparison_figure(
    findings: Findings, *, title: str = "", figsize: style.Size | None = None
) -> Figure:
    """Heads compared: specialised against general, recent against distant."""
    entropy, ratio = findings.per_head("relative_entropy"), findings.per_head("recent_distant_ratio")
    rows, columns = entropy.shape
    figure, panels = style.figure_of(title, 1, 2, figsize or (9.6, max(3.6, 0.26 * rows + 1.2)))
    numbers = findings.head_numbers(columns)
    names = {"layers": findings.layers, "heads": numbers}
    options = {"label": "Entropy / ln n", "cmap": "cividis", "percent": True, **names}
    ax = plot_head_map(entropy, ax=panels[0], **options)  # type: ignore[arg-type]
    style.write_cells(ax, entropy)
    plot_heads(entropy, ratio, findings.layers, heads=numbers, ax=panels[1])
    return figure


def _points(ax: Axes, x: NDArray[Any], y: NDArray[Any], most: float, **look: Any) -> None:
    """What was clipped at `most` or its inverse is an arrow head."""
    high, low = y >= most, (y <= 1 / most) & (most < math.inf)
    for marker, these in (("o", ~(high | low)), ("^", high), ("v", low)):
        if these.any():
            ax.scatter(x[these], y[these], marker=marker, linewidth=0, **look)
            look.pop("label", None)  # once in the legend


def _drawable(values: NDArray[np.float64], log: bool, most: float) -> NDArray[np.float64]:
    if most < math.inf:
        values = np.clip(values, 1 / most, most)
    finite = values[np.isfinite(values)]
    return finite[finite > 0] if log else finite


def _log_axis_around(ax: Axes, values: NDArray[np.float64], threshold: float | None) -> None:
    ends = np.append(values, [] if threshold is None else [threshold])
    ax.set_ylim(ends.min() / 1.3, ends.max() * 1.3)
    style.log_axis(ax)


def _boxes(ax: Axes, groups: Sequence[NDArray[np.float64]], places: NDArray[np.int64]) -> None:
    """From quartile to quartile, the median, and whiskers to the ends; ``Axes.boxplot`` imports pyplot."""
    there = [(place, group) for place, group in zip(places, groups, strict=True) if len(group)]
    if not there:
        return
    at = np.array([place for place, _ in there])
    low, first, median, third, high = np.transpose([np.percentile(g, (0, 25, 50, 75, 100)) for _, g in there])
    width = 0.31
    ax.bar(at, third - first, 2 * width, bottom=first, facecolor="none", edgecolor=style.GREY, linewidth=1)
    ax.vlines([at, at], [low, third], [first, high], color=style.GREY, linewidth=1)
    ax.hlines(median, at - width, at + width, color=style.VERMILION, linewidth=1.8)


def _name_ends(
    ax: Axes,
    entropy: NDArray[np.float64],
    ratio: NDArray[np.float64],
    layers: Sequence[int],
    heads: Sequence[int] | None,
) -> None:
    """The most specialised and the most general head, where there are two."""
    if np.count_nonzero(~np.isnan(entropy)) < 2:
        return
    points = np.column_stack([entropy.ravel(), ratio.ravel()])
    there = points[~np.isnan(points).any(axis=1)]
    for pick in (np.nanargmin, np.nanargmax):
        i, h = divmod(int(pick(entropy)), entropy.shape[1])
        name = f"layer {layers[i]} head {h if heads is None else heads[h]}"
        style.label_point(ax, name, (float(entropy[i, h]), float(ratio[i, h])), there)
