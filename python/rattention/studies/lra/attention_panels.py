"""What the models of `rattention.studies.lra` attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.plots.maps import label_of, plot_attention_map
from rattention.plots.style import Size, axes_of, few_ticks, figure_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

METRICS = ("entropy", "local_concentration", "long_range", "retention")
"""Rows of `metrics_by_mechanism_figure`."""


def plot_mean_map(weights: NDArray[np.float32], *, colorbar: bool = True, ax: Axes | None = None) -> Axes:
    """The mean over the heads of ``[heads, rows, keys]``; a colour scale of its own up to the 99.5th
    percentile. Axes are cells of the pooled map, not tokens."""
    ax = plot_attention_map(weights.mean(axis=0), colorbar=colorbar, ax=axes_of(ax))
    _of_cells(ax)
    return ax


def mean_maps_figure(
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]], labels: Mapping[str, str], *, title: str = ""
) -> Figure:
    """Mean over heads of each layer: a row per layer and a column per mechanism."""
    layers = list(dict.fromkeys(layer for some in maps.values() for layer in some))
    size = (max(4.0, 2.5 * len(maps)), 2.5 * len(layers) + 0.5)
    figure, panels = figure_of(title, len(layers), len(maps), size)
    for column, (mechanism, some) in enumerate(maps.items()):
        for row, layer in enumerate(layers):
            ax = panels[row * len(maps) + column]
            if layer not in some:
                ax.remove()
                continue
            plot_mean_map(some[layer], colorbar=False, ax=ax)
            ax.set_title(f"{labels[mechanism]}\n{_words(layer)}" if row == 0 else _words(layer), fontsize=9)
            _outer_labels(ax, left=column == 0, below=row == len(layers) - 1)
    _bar_of_many(figure)
    return figure


def head_maps_figure(maps: Mapping[str, NDArray[np.float32]], *, title: str = "") -> Figure:
    """Every head of a mechanism: layers downwards, heads across, each with a colour scale of its own."""
    heads = max(len(values) for values in maps.values())
    columns = min(heads, 6)
    lines = [(layer, start) for layer in maps for start in range(0, len(maps[layer]), columns)]
    size: Size = (max(4.6, 1.9 * columns), 2.05 * len(lines) + 0.5)
    figure, panels = figure_of(title, len(lines), columns, size)
    for row, (layer, start) in enumerate(lines):
        for column in range(columns):
            ax, head = panels[row * columns + column], start + column
            if head >= len(maps[layer]):
                ax.remove()
                continue
            plot_attention_map(maps[layer][head], colorbar=False, ax=ax)
            _of_cells(ax)
            ax.set_title(f"{_words(layer)}, head {head}", fontsize=8.5)
            _outer_labels(ax, left=column == 0, below=row == len(lines) - 1)
    _bar_of_many(figure)
    return figure


def _bar_of_many(figure: Figure) -> None:
    """What colours mean in maps that each have a scale of their own."""
    panels = [ax for ax in figure.axes if ax.images]
    image = panels[0].images[0]
    ends = (image.norm.vmin, image.norm.vmax)
    bar = figure.colorbar(image, ax=panels, pad=0.01, ticks=ends, label="Weight, on each map's own scale")
    bar.ax.set_yticklabels(["0", "most"], fontsize=8)


def metrics_by_mechanism_figure(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]], labels: Mapping[str, str], *, title: str = ""
) -> Figure:
    """Arrays ``[layers, heads]`` by metric and mechanism: a row per metric, on one colour scale, and a column
    per mechanism."""
    mechanisms = list(dict.fromkeys(name for some in values.values() for name in some))
    size = (max(5.0, 2.45 * len(mechanisms) + 0.9), 1.75 * len(values) + 0.6)
    figure, panels = figure_of(title, len(values), len(mechanisms), size)
    for row, (metric, some) in enumerate(values.items()):
        own = panels[row * len(mechanisms) : (row + 1) * len(mechanisms)]
        numbers = np.concatenate([array.ravel() for array in some.values()])
        low, high = _limits(numbers)
        images = []
        for column, (ax, mechanism) in enumerate(zip(own, mechanisms, strict=True)):
            if mechanism not in some:
                ax.set_axis_off()
                continue
            images.append(plot_layers_and_heads(some[mechanism], low, high, ax=ax).images[0])
            if row == 0:
                ax.set_title(labels[mechanism], fontsize=9)
            _outer_labels(ax, left=column == 0, below=row == len(values) - 1, ticks=True)
        figure.colorbar(images[-1], ax=own, label=_folded(label_of(metric)), pad=0.01).ax.tick_params(
            labelsize=8
        )
    return figure


def plot_layers_and_heads(
    values: NDArray[np.float64], low: float, high: float, *, ax: Axes | None = None
) -> Axes:
    """An array ``[layers, heads]`` with colours from `low` to `high`; NaN stays blank."""
    ax = axes_of(ax)
    ax.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest", vmin=low, vmax=high)
    ax.set_xticks(few_ticks(values.shape[1]))
    ax.set_yticks(few_ticks(values.shape[0]))
    ax.set_xlabel("Head")
    ax.set_ylabel("Layer")
    ax.spines[:].set_visible(False)
    return ax


def by_layer_and_head(lines: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> NDArray[np.float64]:
    """``[layers, heads]`` of a metric: the mean over runs, each given as its lines of one epoch. NaN where no
    run has a number."""
    every = [line for run in lines for line in run]
    shape = (1 + max(int(x["layer"]) for x in every), 1 + max(int(x["head"]) for x in every))
    sums, counts = np.zeros(shape), np.zeros(shape)
    for line in every:
        value = line.get(metric)
        if value is not None and np.isfinite(value):
            sums[int(line["layer"]), int(line["head"])] += value
            counts[int(line["layer"]), int(line["head"])] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _of_cells(ax: Axes) -> None:
    ax.set_xlabel("Keys (pooled)", fontsize=8.5)
    ax.set_ylabel("Queries (pooled)", fontsize=8.5)
    ax.set_aspect("auto")
    ax.set_xticks([])
    ax.set_yticks([])


def _outer_labels(ax: Axes, *, left: bool, below: bool, ticks: bool = False) -> None:
    """Only at the edges of a figure."""
    if not left:
        ax.set_ylabel("")
        if ticks:
            ax.set_yticks([])
    if not below:
        ax.set_xlabel("")


def _words(layer: str) -> str:
    """``layer0`` as people read it."""
    return layer.replace("layer", "layer ")


def _folded(label: str) -> str:
    return label.replace(" ", "\n", 1)
