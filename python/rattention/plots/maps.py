"""Attention itself, its metrics by layer and head, and both along the positions: maps and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rattention._extras import require
from rattention.plots import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike, NDArray

    Scale = Literal["linear", "log"]
    Span = tuple[int, int]

LABELS = {
    "entropy": "Entropy (nats)",
    "local_concentration": "Local concentration",
    "long_range": "Long-range attention",
    "retention": "Retention score",
}
"""What the metrics are called on axes; all but entropy are shares between 0 and 1."""


def label_of(metric: str) -> str:
    """What a metric is called on axes."""
    return LABELS.get(metric, metric.replace("_", " ").capitalize())


def plot_head_map(
    values: NDArray[np.float64],
    *,
    label: str = "",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    cmap: str = "viridis",
    percent: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """An array ``[layers, heads]`` as a map with a colour bar; `label` names the bar, `layers` and `heads`
    number rows and columns, `percent` is for shares."""
    ax = style.axes_of(ax)
    image = ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, label=label, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    if percent:
        style.percent_axis(bar.ax)
    ax.set(xlabel="Head", ylabel="Layer")
    style.number_ticks(ax.xaxis, heads or range(values.shape[1]))
    style.number_ticks(ax.yaxis, layers or range(values.shape[0]))
    ax.spines[:].set_visible(False)
    return ax


def plot_tokens(
    values: NDArray[np.float64],
    layers: Sequence[int],
    *,
    label: str = "",
    prompt: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """An array ``[layers, tokens]`` as a line per layer along the tokens; long texts as means over stretches.

    `layers` are the numbers the lines are called by; `prompt` is how many tokens came before generation.
    """
    ax = style.axes_of(ax)
    starts, means = style.over_stretches(values)
    colours = style.layer_colours(len(values))
    for line, colour in zip(means, colours, strict=True):
        ax.plot(starts, line, color=colour, linewidth=1.2)
    if prompt is not None:
        ax.axvline(prompt, color=style.VERMILION, linewidth=1, linestyle=":")
    ax.set(xlabel="Token", ylabel=label, xlim=(0, max(1, values.shape[1]) * 1.18))
    some = slice(None, None, -(-len(values) // style.MOST_LABELS))
    ends = np.nan_to_num(means[some, -1])
    style.label_lines(ax, starts[-1], ends, [f"layer {n}" for n in layers[some]], colours[some])
    return ax


def maps_figure(
    maps: Mapping[str, NDArray[np.float64]], *, layers: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """Arrays ``[layers, heads]`` of up to four metrics, each as a map."""
    rows, columns = -(-len(maps) // 2), min(len(maps), 2)
    figure, panels = style.figure_of(title, rows, columns, (4.2 * columns, 2.6 * rows))
    for ax, (name, values) in zip(panels, maps.items(), strict=False):
        plot_head_map(values, label=label_of(name), layers=layers, ax=ax)
    for ax in panels[len(maps) :]:
        ax.remove()
    return figure


SCALES = ("linear", "log")
MOST_TEXTS = 30
"""More positions than this have numbers on an axis and not their labels."""

DECADES = 4
"""How far down from the largest weight a logarithmic colour scale goes."""

BRIGHTEST = 99.5
"""The percentile of the weights at which a linear colour scale ends: first rows have weights near 1."""


class Marks(NamedTuple):
    """What is marked on a map."""

    episodes: tuple[int, ...] = ()
    """The positions at which episodes begin: grey lines."""
    query: int | None = None
    """The query row: a triangle at the right."""
    sinks: int = 0
    """How many first positions are an attention sink: a bar and a triangle at the top."""


def plot_attention_map(
    weights: ArrayLike,
    *,
    shown: ArrayLike | None = None,
    rows: Span | None = None,
    keys: Span | None = None,
    labels: Sequence[str] = (),
    scale: Scale = "linear",
    norm: Normalize | None = None,
    colorbar: bool = True,
    marks: Marks | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One head's map, query rows downwards and keys across; cells that nothing can be seen in stay blank.

    Parameters
    ----------
    weights:
        ``[rows, keys]``: exact rows of `rattention.attention_rows`, or cells of `rattention.attention_map`.
    shown:
        Bool of the same shape, False for cells to leave blank; by default those with weight 0.
    rows, keys:
        ``(start, stop)``: the positions that the map covers; by default one for each row and column.
    labels:
        What the positions of the whole sequence are called; written where there is room.
    scale, norm:
        ``"linear"`` or ``"log"`` colours of these weights, or a norm of Matplotlib's for several maps.
    colorbar:
        Whether to draw one.
    marks:
        Episodes, the query row and the sink, of the whole sequence; those within the map are marked.
    """
    values = np.asarray(weights, np.float64)
    if values.ndim != 2:
        raise ValueError(f"weights must be [rows, keys], got shape {values.shape}")
    ax = style.axes_of(ax)
    down, across = rows or (0, values.shape[0]), keys or (0, values.shape[1])
    blank = ~(values > 0) if shown is None else ~np.asarray(shown, bool)
    colours = require("matplotlib").colormaps["viridis"].with_extremes(bad="white")
    extent = (across[0] - 0.5, across[1] - 0.5, down[1] - 0.5, down[0] - 0.5)
    options = {"cmap": colours, "extent": extent, "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(np.ma.masked_where(blank, values), **options)
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#BBBBBB")
    image.set_norm(colour_norm(values, scale) if norm is None else norm)
    if colorbar:
        _colour_bar(ax.figure, image, [ax], "Attention weight")
    _position_axis(ax.xaxis, across, labels, rotation=90)
    _position_axis(ax.yaxis, down, labels, rotation=0)
    ax.set(xlabel="Key position", ylabel="Query position")
    if marks is not None:
        _mark(ax, marks, down, across)
    return ax


def _mark(ax: Axes, marks: Marks, rows: Span, keys: Span) -> None:
    """Draw what lies within a map, each kind once with a label for the legend."""
    line: dict[str, Any] = {"color": "#B8B8B8", "linewidth": 0.8}
    within = [start - 0.5 for start in marks.episodes if start > 0]
    down = [y for y in within if rows[0] < y < rows[1]]
    across = [x for x in within if keys[0] < x < keys[1]]
    ax.vlines(across, [max(x, rows[0] - 0.5) for x in across], rows[1] - 0.5, **line)
    ax.hlines(down, keys[0] - 0.5, [min(y, keys[1] - 0.5) for y in down], **line)
    if down or across:
        ax.plot([], [], label="an episode begins", **line)
    sign: dict[str, Any] = {"color": style.VERMILION, "markersize": 5, "linestyle": "none", "clip_on": False}
    if marks.query is not None and rows[0] <= marks.query < rows[1]:
        place = ax.get_yaxis_transform()
        ax.plot([1.02], [marks.query], marker="<", transform=place, label="query row", **sign)
    last = min(marks.sinks, keys[1])
    if last > keys[0]:
        place, ends = ax.get_xaxis_transform(), [keys[0] - 0.5, last - 0.5]
        ax.plot(ends, [1, 1], color=style.VERMILION, linewidth=2.5, transform=place, clip_on=False)
        what = f"attention sink: the first {marks.sinks} positions"
        ax.plot([sum(ends) / 2], [1.03], marker="v", transform=place, label=what, **sign)


def attention_figure(
    weights: NDArray[Any],
    *,
    heads: Sequence[int] | None = None,
    scale: Scale = "linear",
    title: str = "",
    figsize: style.Size | None = None,
    marks: Sequence[Marks] = (),
    **options: Any,
) -> Figure:
    """The maps of all heads of a layer, ``[heads, rows, keys]``, on one colour scale.

    `marks` has those of each head; `options` are `shown`, `rows`, `keys` and `labels` of
    `plot_attention_map`.
    """
    count = len(weights)
    columns = min(4, count) if count <= 16 else min(8, count)
    lines = -(-count // columns)
    side = 2.7 if columns <= 4 else 1.9
    size = figsize or (max(4.6, side * columns + 0.8), side * lines + 0.8)
    figure, panels = style.figure_of(title, lines, columns, size)
    norm = colour_norm(weights, scale)
    for i, ax in enumerate(panels):
        if i >= count:
            ax.remove()
            continue
        marked = marks[i] if marks else None
        plot_attention_map(weights[i], norm=norm, colorbar=False, marks=marked, ax=ax, **options)
        ax.set_title(f"head {i if heads is None else heads[i]}", fontsize=9)
        if i % columns:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if i + columns < count:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    _colour_bar(figure, panels[0].images[0], panels[:count], "Attention weight")
    _legend_below(figure, panels[:count])
    return figure


def _legend_below(figure: Figure, panels: list[Axes]) -> None:
    """What the marks of all panels mean, each once."""
    found = {
        label: mark for ax in panels for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if found:
        figure.legend(
            [*found.values()],
            [*found],
            loc="outside lower center",
            ncols=len(found),
            fontsize=8,
            frameon=False,
        )


def plot_query_attention(
    weights: NDArray[Any],
    *,
    heads: Sequence[int] | None = None,
    start: int = 0,
    labels: Sequence[str] = (),
    scale: Scale = "linear",
    ax: Axes | None = None,
) -> Axes:
    """What one query row gives each position, ``[heads, keys]``: a thin line per head, a thick one for the
    mean. `start` is the first position; long sequences are drawn as means over stretches."""
    ax = style.axes_of(ax)
    numbers = range(len(weights)) if heads is None else heads
    begins, lines = style.over_stretches(np.vstack([weights, np.mean(weights, axis=0)[None]]))
    ax.plot(start + begins, lines[-1], color="black", linewidth=1.2, label="mean", zorder=3)
    for line, colour, number in zip(lines[:-1], style.layer_colours(len(weights)), numbers, strict=False):
        ax.plot(start + begins, line, color=colour, linewidth=0.8, alpha=0.8, label=f"head {number}")
    span = (start, start + weights.shape[1])
    ax.set(xlabel="Key position", ylabel="Attention of the query row", xlim=(span[0] - 0.5, span[1] - 0.5))
    _position_axis(ax.xaxis, span, labels, rotation=90)
    if scale == "log" and (lines > 0).any():
        top = lines.max()
        ax.set_ylim(max(lines[lines > 0].min(), top / 10**DECADES) / 1.5, top * 2)
        style.log_axis(ax, percent=True)
    else:
        style.percent_axis(ax, decimals=None)
        ax.set_ylim(0, None)
    style.legend_beside(ax)
    return ax


def plot_received(received: NDArray[Any], **options: Any) -> Axes:
    """The mean attention that each position receives from the rows that may see it, ``[heads, keys]``; drawn
    as `plot_query_attention` draws, with its `options`."""
    ax = plot_query_attention(received, **options)
    ax.set_ylabel("Mean attention received")
    return ax


def lines_figure(
    weights: NDArray[Any],
    received: NDArray[Any],
    *,
    title: str = "",
    figsize: style.Size | None = None,
    **options: Any,
) -> Figure:
    """What the query row gives, and what positions receive, ``[heads, keys]`` each; `options` are those of
    `plot_query_attention`."""
    figure, panels = style.figure_of(title, 1, 2, figsize or (10.4, 3.4))
    plot_query_attention(weights, ax=panels[0], **options)
    plot_received(received, ax=panels[1], **options)
    return figure


def colour_norm(weights: NDArray[Any], scale: Scale) -> Normalize:
    """Colours from 0 to the largest weights, or over the last `DECADES` powers of ten."""
    colors = require("matplotlib.colors")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    positive = weights[weights > 0]
    norm: Normalize = colors.Normalize(0, np.percentile(positive, BRIGHTEST) if positive.size else 1)
    if scale == "log" and positive.size:
        top = positive.max()
        norm = colors.LogNorm(max(positive.min(), top / 10**DECADES), top, clip=True)
    return norm


def _colour_bar(figure: Any, image: AxesImage, panels: list[Axes], label: str) -> None:
    linear = type(image.norm).__name__ == "Normalize"
    bar = figure.colorbar(image, ax=panels, label=label, pad=0.02, extend="max" if linear else "min")
    bar.ax.tick_params(labelsize=8)


def _position_axis(axis: Any, span: Span, labels: Sequence[str], *, rotation: float) -> None:
    """Labels where there are few positions, else numbers."""
    start, stop = span
    if labels and stop - start <= MOST_TEXTS:
        texts = [shortened(labels[i]) if i < len(labels) else str(i) for i in range(start, stop)]
        axis.set_ticks(range(start, stop), texts, fontsize=6.5, rotation=rotation)
        return
    locator = require("matplotlib.ticker").MaxNLocator(nbins=5, integer=True)
    axis.set_major_locator(locator)


def shortened(label: str, most: int = 14) -> str:
    """A label that leaves room for the figure; dollar signs would begin a formula."""
    text = label if len(label) <= most else label[: most - 1] + "…"
    return text.replace("$", r"\$")
