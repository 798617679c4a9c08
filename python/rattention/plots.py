"""Figures of the measurements: for print, for colour-blind readers, and without pyplot's global state.

Every ``plot_*`` function draws one panel into `ax`, or into a figure of its own when `ax` is None, and gives
the Axes back (``ax.figure`` is the figure). The ``*_figure`` functions put panels together. Colours are those
of Okabe and Ito and the maps viridis and cividis; lines are labelled where they end, without a legend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.degradation.contexts import AVERAGED, FIRST_TOKENS
from rattention.degradation.sources import Selection
from rattention.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from rattention.degradation import ContextMetrics, Degradation, Recall, WindowCutoff

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6B6B6B"

BACKING = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.8}
"""Behind numbers that stand on lines."""

MOST_POINTS = 400
"""More points than this on a line would hide one another."""

MOST_LABELS = 9
"""More labels beside lines than this would run into each other."""

LABELS = {
    "entropy": "Entropy (nats)",
    "local_concentration": "Local concentration",
    "long_range": "Long-range attention",
    "retention": "Retention score",
}
"""What the metrics are called on axes; all but entropy are shares between 0 and 1."""

RULES = {
    "entropy": ("entropy", "good spread above"),
    "local_concentration": ("local_concentration", "strong local bias above"),
    "long_range": ("long_range", "poor below"),
}
"""Per metric: the field of `Thresholds` to draw, and what it means."""


def plot_metric(
    contexts: Sequence[ContextMetrics], name: str, *, threshold: float | None = None, ax: Axes | None = None
) -> Axes:
    """One metric against the context length: the average, and the range of the layers' averages behind it.

    `name` is a key of `ContextMetrics.per_head`; `threshold` draws a line where a mark begins.
    """
    ax = _axes(ax)
    tokens = [c.sequence_length for c in contexts]
    layers = np.array([c.per_head[name].mean(axis=1) for c in contexts])
    ax.fill_between(tokens, layers.min(axis=1), layers.max(axis=1), color=BLUE, alpha=0.15, linewidth=0)
    if len(tokens) > 2:
        middle = len(tokens) // 2
        ax.annotate(
            "range of the layers",
            (tokens[middle], layers[middle].max()),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=BLUE,
            alpha=0.7,
        )
    values = [getattr(c, name) for c in contexts]
    ax.plot(tokens, values, color=BLUE, marker="o", markersize=4)
    _label_ends(ax, tokens, values, "{:.2f}")
    if threshold is not None:
        _rule(ax, threshold, RULES[name][1])
    _length_axis(ax, tokens)
    ax.set_ylabel(LABELS[name])
    ax.set_ylim(0, None if name == "entropy" else max(1.0, layers.max()))
    return ax


def plot_head_map(
    values: NDArray[np.float64],
    *,
    label: str = "",
    layers: Sequence[int] | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
) -> Axes:
    """An array ``[layers, heads]`` as a map with a colour bar; `label` names the bar, `layers` the rows."""
    ax = _axes(ax)
    image = ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.02).ax.tick_params(labelsize=8)
    ax.set_xlabel("Head")
    ax.set_ylabel("Layer")
    ax.set_xticks(_few_ticks(values.shape[1]))
    rows = _few_ticks(values.shape[0])
    ax.set_yticks(rows, [str(row if layers is None else layers[row]) for row in rows])
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
    ax = _axes(ax)
    stretch = -(-values.shape[1] // MOST_POINTS)
    starts = np.arange(0, values.shape[1], stretch)
    means = np.add.reduceat(values, starts, axis=1) / np.diff(starts, append=values.shape[1])
    colours = require("matplotlib", "plots").colormaps["viridis"](np.linspace(0, 0.75, len(values)))
    for line, colour in zip(means, colours, strict=True):
        ax.plot(starts, line, color=colour, linewidth=1.2)
    if prompt is not None:
        ax.axvline(prompt, color=VERMILION, linewidth=1, linestyle=":")
    ax.set_xlabel("Token")
    ax.set_ylabel(label)
    ax.set_xlim(0, max(1, values.shape[1]) * 1.18)
    some = slice(None, None, -(-len(values) // MOST_LABELS))
    ends = np.nan_to_num(means[some, -1])
    _label_lines(ax, starts[-1], ends, [f"layer {n}" for n in layers[some]], colours[some])
    return ax


def plot_dilution(contexts: Sequence[ContextMetrics], *, ax: Axes | None = None) -> Axes:
    """The share of attention that the first tokens receive as the context grows, and their even share."""
    ax = _axes(ax)
    tokens = [c.sequence_length for c in contexts]
    shares = [c.first_tokens_share for c in contexts]
    even = [c.first_tokens_even_share for c in contexts]
    ax.plot(tokens, shares, color=BLUE, marker="o", markersize=4)
    ax.plot(tokens, even, color=GREY, linestyle="--")
    ax.fill_between(tokens, even, shares, color=BLUE, alpha=0.12, linewidth=0)
    _length_axis(ax, tokens, room=1.36)
    _percent_axis(ax)
    ax.set_ylim(0, 1.05)
    ax.set_ylabel(f"Attention received by\nthe first {FIRST_TOKENS} tokens")
    texts = [f"measured {shares[-1]:.0%}", f"even {even[-1]:.0%}"]
    _label_lines(ax, tokens[-1], [shares[-1], even[-1]], texts, [BLUE, GREY])
    return ax


def plot_window_cutoff(
    cutoff: WindowCutoff, *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """How much weight lies beyond a sliding window, per layer and on average."""
    ax = _axes(ax)
    selection = selection or Selection(*(tuple(range(n)) for n in cutoff.mass.shape[:2]))
    layers = selection.of_array(cutoff.mass).mean(axis=1)
    mean = layers.mean(axis=0)
    colours = require("matplotlib", "plots").colormaps["viridis"](np.linspace(0, 0.75, len(layers)))
    for mass, colour in zip(layers, colours, strict=True):
        ax.plot(cutoff.windows, mass, color=colour, linewidth=1.2)
    ax.plot(cutoff.windows, mean, color="black", linewidth=2.2, marker="o", markersize=4)
    for window, share in zip(cutoff.windows, mean, strict=True):
        text = f"mean {share:.0%}" if window == cutoff.windows[0] else f"{share:.0%}"
        ax.annotate(
            text,
            (window, share),
            (5, 2),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=8,
            fontweight="bold",
            bbox=BACKING,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(cutoff.windows, [str(w) for w in cutoff.windows])
    ax.set_xlim(cutoff.windows[0] / 2.6, cutoff.windows[-1] * 1.8)
    _percent_axis(ax)
    ax.set_ylim(0, 1.05)
    ax.set_xlabel("Window w (tokens on either side)")
    ax.set_ylabel("Attention beyond the window")
    some = slice(None, None, -(-len(layers) // MOST_LABELS))
    texts = [f"layer {n}" for n in selection.layers]
    _label_lines(ax, cutoff.windows[0], layers[some, 0], texts[some], colours[some], left=True)
    return ax


def plot_recall(
    recall: Sequence[Recall], *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """The attention a question gives its fact as the context grows: best head, mean and even share."""
    ax = _axes(ax)
    selection = selection or Selection(*(tuple(range(n)) for n in recall[0].mass.shape))
    tokens = [r.sequence_length for r in recall]
    best = [float(selection.of_array(r.mass).max()) for r in recall]
    mean = [r.mean_mass for r in recall]
    even = [r.even_mass for r in recall]
    ax.plot(tokens, best, color=VERMILION, marker="o", markersize=4)
    ax.plot(tokens, mean, color=BLUE, marker="o", markersize=4)
    ax.plot(tokens, even, color=GREY, linestyle="--")
    _length_axis(ax, tokens, room=1.4)
    _log_percent_axis(ax)
    ax.set_ylabel("Attention from the question\nto its fact")
    texts = [f"best head {best[-1]:.0%}", f"mean {mean[-1]:.1%}", f"even {even[-1]:.1%}"]
    _label_lines(ax, tokens[-1], [best[-1], mean[-1], even[-1]], texts, [VERMILION, BLUE, GREY])
    return ax


def plot_recall_layers(
    recall: Sequence[Recall], *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """What the best head of every layer gives the fact of the question's attention, for every context."""
    selection = selection or Selection(*(tuple(range(n)) for n in recall[0].mass.shape))
    best = np.array([selection.of_array(r.mass).max(axis=1) for r in recall]).T
    ax = plot_head_map(best, label="Attention to the fact, best head", cmap="cividis", ax=ax)
    ax.set_xlabel("Context (tokens)")
    ax.set_xticks(range(len(recall)), [str(r.sequence_length) for r in recall])
    ax.set_yticks(range(len(best)), [str(n) for n in selection.layers])
    _write_cells(ax, best)
    return ax


def metrics_figure(measured: Degradation, *, title: str = "") -> Figure:
    """The four metrics against the context length."""
    figure, panels = _panels(title, 2, 2, (8.4, 5.6))
    for ax, name in zip(panels, AVERAGED, strict=True):
        threshold = getattr(measured.thresholds, RULES[name][0]) if name in RULES else None
        plot_metric(measured.contexts, name, threshold=threshold, ax=ax)
    return figure


def heads_figure(measured: Degradation, *, title: str = "") -> Figure:
    """A layer-by-head map of each metric in the longest context."""
    return maps_figure({name: measured.contexts[-1].per_head[name] for name in AVERAGED}, title=title)


def maps_figure(
    maps: Mapping[str, NDArray[np.float64]], *, layers: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """Arrays ``[layers, heads]`` of up to four metrics, each as a map."""
    rows, columns = -(-len(maps) // 2), min(len(maps), 2)
    figure, panels = _panels(title, rows, columns, (4.2 * columns, 2.6 * rows))
    for ax, (name, values) in zip(panels, maps.items(), strict=False):
        plot_head_map(values, label=label_of(name), layers=layers, ax=ax)
    for ax in panels[len(maps) :]:
        ax.remove()
    return figure


def label_of(metric: str) -> str:
    """What a metric is called on axes."""
    return LABELS.get(metric, metric.replace("_", " ").capitalize())


def reach_figure(measured: Degradation, *, title: str = "") -> Figure:
    """How the first tokens are diluted, and what a sliding window would cut off."""
    figure, panels = _panels(title, 1, 2, (9.2, 3.6))
    plot_dilution(measured.contexts, ax=panels[0])
    plot_window_cutoff(measured.cutoff, selection=measured.selection, ax=panels[1])
    return figure


def recall_figure(measured: Degradation, *, title: str = "") -> Figure:
    """How a question looks at its fact as the context grows; ValueError when no context held both."""
    if not measured.recall:
        raise ValueError("no context was long enough for the fact and the question")
    figure, panels = _panels(title, 1, 2, (9.6, 3.8))
    plot_recall(measured.recall, selection=measured.selection, ax=panels[0])
    plot_recall_layers(measured.recall, selection=measured.selection, ax=panels[1])
    return figure


def _panels(title: str, rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = require("matplotlib.figure", "plots").Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure, [_tidy(ax) for ax in figure.subplots(rows, columns, squeeze=False).flat]


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    return _tidy(
        require("matplotlib.figure", "plots").Figure(figsize=(5, 3.4), layout="constrained").add_subplot()
    )


def _tidy(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8.5)
    ax.margins(x=0.08)
    return ax


def _length_axis(ax: Axes, tokens: Sequence[int], room: float = 1.12) -> None:
    ax.set_xlabel("Context (tokens)")
    ax.set_xlim(0, max(tokens) * room)


def _percent_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(require("matplotlib.ticker", "plots").PercentFormatter(1, decimals=0))


def _log_percent_axis(ax: Axes) -> None:
    """Powers of ten with 2 and 5 between them; a plain log axis would write 2 x 10^-2."""
    ticker = require("matplotlib.ticker", "plots")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    ax.yaxis.set_minor_formatter(ticker.NullFormatter())


def _rule(ax: Axes, value: float, meaning: str) -> None:
    ax.axhline(value, color=VERMILION, linewidth=1, linestyle=":")
    ax.annotate(
        f"{meaning} {value:g}",
        (1, value),
        (0, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=VERMILION,
        fontsize=8,
    )


def _label_ends(ax: Axes, x: Sequence[int], y: Sequence[float], form: str) -> None:
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


def _label_lines(
    ax: Axes, x: float, y: ArrayLike, texts: Sequence[str], colours: Any, *, left: bool = False
) -> None:
    """Labels beside the ends of lines, moved apart where they would overlap; needs the final axes' limits."""
    ends = np.column_stack([np.full(len(texts), x), np.asarray(y)])
    heights = ax.transAxes.inverted().transform(ax.transData.transform(ends))
    placed = _apart(heights[:, 1], gap=0.068)
    side = -0.03 if left else 0.03
    for end, height, at, text, colour in zip(ends, placed, heights[:, 0], texts, colours, strict=True):
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
        )


def _apart(heights: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Heights at least `gap` apart in the same order: neighbours that are too close give way equally."""
    order = np.argsort(heights)
    placed = heights[order]
    for _ in range(10 * len(placed)):
        missing = np.clip(gap - np.diff(placed), 0, None) / 2
        placed[:-1] -= missing
        placed[1:] += missing
    return placed[np.argsort(order)]


def _few_ticks(count: int) -> NDArray[np.int64]:
    return np.arange(0, count, max(1, -(-count // 12)))


def _write_cells(ax: Axes, values: NDArray[np.float64]) -> None:
    """The numbers themselves, where there is room for them."""
    if values.size > 120:
        return
    middle = (values.min() + values.max()) / 2
    for (row, column), value in np.ndenumerate(values):
        ax.text(
            column,
            row,
            f"{value:.0%}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value < middle else "black",
        )
