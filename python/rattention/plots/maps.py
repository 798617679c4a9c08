"""Metrics of a model's attention by layer and head, and along the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rattention.plots.style import (
    MOST_LABELS,
    VERMILION,
    axes_of,
    figure_of,
    label_lines,
    layer_colours,
    number_ticks,
    over_stretches,
    percent_axis,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

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
    ax = axes_of(ax)
    image = ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, label=label, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    if percent:
        percent_axis(bar.ax)
    ax.set_xlabel("Head")
    ax.set_ylabel("Layer")
    number_ticks(ax.xaxis, heads or range(values.shape[1]))
    number_ticks(ax.yaxis, layers or range(values.shape[0]))
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
    ax = axes_of(ax)
    starts, means = over_stretches(values)
    colours = layer_colours(len(values))
    for line, colour in zip(means, colours, strict=True):
        ax.plot(starts, line, color=colour, linewidth=1.2)
    if prompt is not None:
        ax.axvline(prompt, color=VERMILION, linewidth=1, linestyle=":")
    ax.set_xlabel("Token")
    ax.set_ylabel(label)
    ax.set_xlim(0, max(1, values.shape[1]) * 1.18)
    some = slice(None, None, -(-len(values) // MOST_LABELS))
    ends = np.nan_to_num(means[some, -1])
    label_lines(ax, starts[-1], ends, [f"layer {n}" for n in layers[some]], colours[some])
    return ax


def maps_figure(
    maps: Mapping[str, NDArray[np.float64]], *, layers: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """Arrays ``[layers, heads]`` of up to four metrics, each as a map."""
    rows, columns = -(-len(maps) // 2), min(len(maps), 2)
    figure, panels = figure_of(title, rows, columns, (4.2 * columns, 2.6 * rows))
    for ax, (name, values) in zip(panels, maps.items(), strict=False):
        plot_head_map(values, label=label_of(name), layers=layers, ax=ax)
    for ax in panels[len(maps) :]:
        ax.remove()
    return figure
