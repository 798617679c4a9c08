"""What the models of `rattention.studies.lra` attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.plots.maps import label_of, plot_attention_map
from rattention.plots.style import Size, few_ticks, figure_of
from rattention.studies.lra.results import mechanism_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

METRICS = ("entropy", "local_concentration", "long_range", "retention")
"""Rows of `metrics_by_mechanism_figure`."""

ACROSS = 6
"""The most heads in a row."""


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
    """``layer0`` as people read it."""
    return layer.replace("layer", "layer ")
