"""Figures of how attention changes as its context grows; needs the extra ``plots``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rattention.plots import style
from rattention.plots.maps import LABELS, maps_figure, plot_head_map
from rattention.studies.degradation.contexts import AVERAGED, FIRST_TOKENS
from rattention.studies.degradation.sources import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rattention.studies.degradation.contexts import ContextMetrics, Degradation, Recall, WindowCutoff

RULES = {
    "entropy": "good spread above",
    "local_concentration": "strong local bias above",
    "long_range": "poor below",
}
"""What the threshold of a metric means."""


def plot_metric(
    contexts: Sequence[ContextMetrics], name: str, *, threshold: float | None = None, ax: Axes | None = None
) -> Axes:
    """One metric against the context length: the average, and the range of the layers' averages around it.

    `name` is a key of `ContextMetrics.per_head`; `threshold` draws a line where a mark begins.
    """
    ax = style.axes_of(ax)
    tokens = [c.sequence_length for c in contexts]
    layers = np.array([c.per_head[name].mean(axis=1) for c in contexts])
    ax.fill_between(tokens, layers.min(axis=1), layers.max(axis=1), color=style.BLUE, alpha=0.15, linewidth=0)
    if len(tokens) > 2:
        middle = len(tokens) // 2
        ax.annotate(
            "range of the layers",
            (tokens[middle], layers[middle].max()),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=style.BLUE,
            alpha=0.7,
        )
    values = [getattr(c, name) for c in contexts]
    ax.plot(tokens, values, color=style.BLUE, marker="o", markersize=4)
    style.label_ends(ax, tokens, values, "{:.2f}")
    if threshold is not None:
        style.rule(ax, threshold, RULES[name])
    style.length_axis(ax, tokens)
    ax.set_ylabel(LABELS[name])
    ax.set_ylim(0, None if name == "entropy" else max(1.0, layers.max()))
    return ax


def plot_dilution(contexts: Sequence[ContextMetrics], *, ax: Axes | None = None) -> Axes:
    """The share of attention that the first tokens receive as the context grows, and their even share."""
    ax = style.axes_of(ax)
    tokens = [c.sequence_length for c in contexts]
    shares = [c.first_tokens_share for c in contexts]
    even = [c.first_tokens_even_share for c in contexts]
    ax.plot(tokens, shares, color=style.BLUE, marker="o", markersize=4)
    ax.plot(tokens, even, color=style.GREY, linestyle="--")
    ax.fill_between(tokens, even, shares, color=style.BLUE, alpha=0.12, linewidth=0)
    style.length_axis(ax, tokens, room=1.36)
    style.percent_axis(ax)
    ax.set_ylim(0, 1.05)
    ax.set_ylabel(f"Attention received by\nthe first {FIRST_TOKENS} tokens")
    texts = [f"measured {shares[-1]:.0%}", f"even {even[-1]:.0%}"]
    style.label_lines(ax, tokens[-1], [shares[-1], even[-1]], texts, [style.BLUE, style.GREY])
    return ax


def plot_window_cutoff(
    cutoff: WindowCutoff, *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """How much weight lies beyond a sliding window, per layer and on average."""
    ax = style.axes_of(ax)
    selection = selection or Selection.whole(cutoff.mass)
    layers = selection.of_array(cutoff.mass).mean(axis=1)
    mean = layers.mean(axis=0)
    colours = style.layer_colours(len(layers))
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
            path_effects=style.halo(),
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(cutoff.windows, [str(w) for w in cutoff.windows])
    ax.set_xlim(cutoff.windows[0] / 2.6, cutoff.windows[-1] * 1.8)
    style.percent_axis(ax)
    ax.set_ylim(0, 1.05)
    ax.set_xlabel("Window w (tokens on either side)")
    ax.set_ylabel("Attention beyond the window")
    some = slice(None, None, -(-len(layers) // style.MOST_LABELS))
    texts = [f"layer {n}" for n in selection.layers]
    style.label_lines(ax, cutoff.windows[0], layers[some, 0], texts[some], colours[some], left=True)
    return ax


def plot_recall(
    recall: Sequence[Recall], *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """The attention a question gives its fact as the context grows: best head, mean and even share."""
    ax = style.axes_of(ax)
    selection = selection or Selection.whole(recall[0].mass)
    tokens = [r.sequence_length for r in recall]
    best = [float(selection.of_array(r.mass).max()) for r in recall]
    mean = [r.mean_mass for r in recall]
    even = [r.even_mass for r in recall]
    ax.plot(tokens, best, color=style.VERMILION, marker="o", markersize=4)
    ax.plot(tokens, mean, color=style.BLUE, marker="o", markersize=4)
    ax.plot(tokens, even, color=style.GREY, linestyle="--")
    style.length_axis(ax, tokens, room=1.4)
    style.log_axis(ax, percent=True)
    ax.set_ylabel("Attention from the question\nto its fact")
    texts = [f"best head {best[-1]:.0%}", f"mean {mean[-1]:.1%}", f"even {even[-1]:.1%}"]
    style.label_lines(
        ax, tokens[-1], [best[-1], mean[-1], even[-1]], texts, [style.VERMILION, style.BLUE, style.GREY]
    )
    return ax


def plot_recall_layers(
    recall: Sequence[Recall], *, selection: Selection | None = None, ax: Axes | None = None
) -> Axes:
    """What the best head of every layer gives the fact of the question's attention, for every context."""
    selection = selection or Selection.whole(recall[0].mass)
    best = np.array([selection.of_array(r.mass).max(axis=1) for r in recall]).T
    ax = plot_head_map(best, label="Attention to the fact, best head", cmap="cividis", percent=True, ax=ax)
    ax.set_xlabel("Context (tokens)")
    ax.set_xticks(range(len(recall)), [str(r.sequence_length) for r in recall])
    ax.set_yticks(range(len(best)), [str(n) for n in selection.layers])
    style.write_cells(ax, best)
    return ax


def metrics_figure(measured: Degradation, *, title: str = "") -> Figure:
    """The four metrics against the context length."""
    figure, panels = style.figure_of(title, 2, 2, (8.4, 5.6))
    for ax, name in zip(panels, AVERAGED, strict=True):
        threshold = getattr(measured.thresholds, name) if name in RULES else None
        plot_metric(measured.contexts, name, threshold=threshold, ax=ax)
    return figure


def heads_figure(measured: Degradation, *, title: str = "") -> Figure:
    """A layer-by-head map of each metric in the longest context."""
    return maps_figure({name: measured.contexts[-1].per_head[name] for name in AVERAGED}, title=title)


def reach_figure(measured: Degradation, *, title: str = "") -> Figure:
    """How the first tokens are diluted, and what a sliding window would cut off."""
    figure, panels = style.figure_of(title, 1, 2, (9.2, 3.6))
    plot_dilution(measured.contexts, ax=panels[0])
    plot_window_cutoff(measured.cutoff, selection=measured.selection, ax=panels[1])
    return figure


def recall_figure(measured: Degradation, *, title: str = "") -> Figure:
    """How a question looks at its fact as the context grows; ValueError when no context held both."""
    if not measured.recall:
        raise ValueError("no context was long enough for the fact and the question")
    figure, panels = style.figure_of(title, 1, 2, (9.6, 3.8))
    plot_recall(measured.recall, selection=measured.selection, ax=panels[0])
    plot_recall_layers(measured.recall, selection=measured.selection, ax=panels[1])
    return figure
