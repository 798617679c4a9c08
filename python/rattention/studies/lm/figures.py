"""A figure for every experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.plots.style import COLOURS, GREY, MARKERS, figure_of, legend_beside
from rattention.studies.kit.intervals import interval
from rattention.studies.lm.results import BITS
from rattention.studies.lm.tasks import LABELS as TASK_LABELS
from rattention.studies.lm.variants import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rattention.studies.lm.results import Number

WINDOW, CONTEXT = "Window (tokens)", "Context (tokens)"


def figures_of(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> dict[str, Figure]:
    """By experiment, of those that have results."""
    drawn = {}
    for name, draw in FIGURES.items():
        own = [number for number in numbers if number.experiment == name]
        if own:
            baseline = [number for number in numbers if number.experiment == "ngram"]
            drawn[name] = draw([r for r in results if r["experiment"] == name], [*own, *baseline])
    return drawn


def pareto(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Loss against the window, on all tokens and on those last seen beyond it; loss by position."""
    figure, axes = figure_of("Loss against the window", 1, 3, (14, 4))
    own = [n for n in numbers if n.experiment == "pareto"]
    _by_window(axes[0], [n for n in own if n.measure == BITS], "Bits per byte, second half of the context")
    for n in numbers:
        if n.experiment == "ngram" and n.measure == BITS:
            axes[0].set_title(f"5-grams: {n.value:.3f} bits per byte", fontsize=9, color=GREY)
    beyond = [n for n in own if n.measure == f"bits per token, last seen beyond {n.window}"]
    _by_window(axes[1], beyond, "Bits per token, last seen beyond the window")
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize=8)
    _by_position(axes[2], results)
    return figure


def _by_window(ax: Axes, numbers: Sequence[Number], label: str) -> None:
    """A line for each mechanism and layout; those without a window are levels."""
    for layout in ("pure", "3:1"):
        for index, mechanism in enumerate(LABELS):
            own = [n for n in numbers if (n.mechanism, n.layout) == (mechanism, layout)]
            name = LABELS[mechanism] + ("" if layout == "pure" else ", 3:1")
            if own and own[0].window is None:
                level = interval([n.value for n in own]).mean
                ax.axhline(level, color=COLOURS[index % len(COLOURS)], linestyle="--", label=name)
            elif own:
                _line(ax, own, lambda n: n.window or 0, name, index, dotted=layout != "pure")
    _powers(ax, WINDOW, [n.window for n in numbers if n.window is not None])
    ax.set_ylabel(label)


def _line(
    ax: Axes,
    numbers: Sequence[Number],
    place: Callable[[Number], int],
    name: str,
    index: int,
    *,
    dotted: bool = False,
) -> None:
    """Means over seeds with intervals."""
    places = sorted({place(n) for n in numbers})
    means = [interval([n.value for n in numbers if place(n) == x]) for x in places]
    middle = np.array([m.mean for m in means])
    errors = np.nan_to_num([[m.mean - m.low for m in means], [m.high - m.mean for m in means]])
    style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
    style["linestyle"] = ":" if dotted else "-"
    ax.errorbar(places, middle, errors, label=name, linewidth=1.3, markersize=4, capsize=2, **style)


def _by_position(ax: Axes, results: Sequence[dict[str, Any]]) -> None:
    """Full attention and the smallest and the largest window (dotted) of each mechanism, means over seeds."""
    windows = sorted({r["variant"]["window"] for r in results if r["variant"]["window"] is not None})
    chosen = [r for r in results if r["variant"]["window"] in (None, *windows[:1], *windows[-1:])]
    for name in dict.fromkeys(r["name"] for r in chosen if r["variant"]["layout"] == "pure"):
        own = [r for r in chosen if r["name"] == name]
        lines = [[row["bits_per_byte"] for row in r["text"]["by_position"]] for r in own]
        places = [row["position"] for row in own[0]["text"]["by_position"]]
        mechanism, window = own[0]["variant"]["mechanism"], own[0]["variant"]["window"]
        colour = COLOURS[list(LABELS).index(mechanism) % len(COLOURS)]
        style = "-" if window in (None, *windows[:1]) else ":"
        mean = np.mean(lines, axis=0)
        ax.plot(places, mean, style, color=colour, label=own[0]["label"], linewidth=1.3)
    ax.set_xlabel("Position in the context")
    ax.set_ylabel("Bits per byte")
    legend_beside(ax)


def recall(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Accuracy by the number of pairs and the window."""
    own = [n for n in numbers if n.measure == "accuracy"]
    pairs = sorted({n.at for n in own})
    figure, axes = figure_of("Associative recall (MQAR)", 1, len(pairs), (5.5 * len(pairs), 4))
    for ax, count in zip(axes, pairs, strict=True):
        _by_window(ax, [n for n in own if n.at == count], "Share of queries answered")
        ax.set_title(f"{count} pairs", fontsize=9)
        ax.set_ylim(-0.03, 1.03)
        legend_beside(ax)
    return figure


def length(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Loss and the share of tasks solved, or where nothing is solved the bits gained, against the context."""
    figure, axes = figure_of("Longer contexts than in training", 1, 1 + len(TASK_LABELS), (17, 3.6))
    solved = any(n.value > 0 for n in numbers if n.measure.endswith(": accuracy"))
    kind, unit = ("accuracy", "share solved") if solved else ("bits gained", "bits gained")
    measures = {BITS: "Bits per byte, second half"}
    measures |= {f"{task}: {kind}": f"{label}, {unit}" for task, label in TASK_LABELS.items()}
    for ax, (measure, label) in zip(axes, measures.items(), strict=True):
        own = [n for n in numbers if n.experiment == "length" and n.measure == measure]
        _by_context(ax, own)
        ax.set_title(label, fontsize=9)
        if measure != BITS and solved:
            ax.set_ylim(-0.03, 1.03)
    legend_beside(axes[-1])
    return figure


def _by_context(ax: Axes, numbers: Sequence[Number]) -> None:
    for index, name in enumerate(dict.fromkeys(n.name for n in numbers)):
        own = [n for n in numbers if n.name == name]
        _line(ax, own, lambda n: n.at, own[0].label, index)
    _powers(ax, CONTEXT, [n.at for n in numbers])


def _powers(ax: Axes, label: str, places: Sequence[int]) -> None:
    """A logarithmic axis with a tick at each place."""
    ticks = sorted({*places})
    ax.set_xscale("log", base=2)
    ax.set_xlabel(label)
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])


def ablations(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Loss of every variant, the least first."""
    own = [n for n in numbers if n.experiment == "ablations" and n.measure == BITS]
    means = {n.label: interval([m.value for m in own if m.name == n.name]) for n in own}
    order = sorted(means, key=lambda label: -means[label].mean)
    figure, axes = figure_of("Parts of RAttention changed", 1, 1, (7, 0.35 * len(order) + 1.2))
    for place, label in enumerate(order):
        bounds = means[label]
        errors = np.nan_to_num([[bounds.mean - bounds.low], [bounds.high - bounds.mean]])
        axes[0].errorbar(bounds.mean, place, xerr=errors, fmt="o", color=COLOURS[0], capsize=2)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set_xlabel("Bits per byte, second half of the context")
    return figure


def conversion(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Loss against the tokens of training after the conversion."""
    figure, axes = figure_of("Full attention converted and trained on", 1, 1, (7, 4))
    own = [n for n in numbers if n.experiment == "conversion" and n.measure == BITS]
    places = sorted({n.at for n in own})
    for index, name in enumerate(dict.fromkeys(n.name for n in own)):
        of_it = [n for n in own if n.name == name]
        _line(axes[0], of_it, lambda n: places.index(n.at), of_it[0].label, index)
    axes[0].set_xticks(range(len(places)), [f"{place:,}" for place in places])
    axes[0].set_xlabel("Tokens of training after the conversion")
    axes[0].set_ylabel("Bits per byte, second half of the context")
    legend_beside(axes[0])
    return figure


def cost(results: Sequence[dict[str, Any]], numbers: Sequence[Number]) -> Figure:
    """Times and bytes against the window, a row for each length of the context."""
    labels = {
        "step_seconds": "Training step (s)",
        "prefill_seconds": "Prefill (s)",
        "decoded_tokens_per_second": "Decoded tokens / s",
        "cache_bytes": "Cache (bytes)",
    }
    own = [n for n in numbers if n.experiment == "cost"]
    lengths = sorted({n.at for n in own})
    size = (16, 3.2 * len(lengths))
    figure, axes = figure_of("Time and memory of one sequence", len(lengths), len(labels), size)
    places = [(length, *names) for length in lengths for names in labels.items()]
    for ax, (length, measure, label) in zip(axes, places, strict=True):
        _by_window(ax, [n for n in own if (n.at, n.measure) == (length, measure)], label)
        ax.set_ylim(bottom=0)
        ax.set_title(f"{length:,} tokens of context", fontsize=9)
    for ax in axes[len(labels) - 1 :: len(labels)]:
        legend_beside(ax)
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
    "pareto": pareto,
    "recall": recall,
    "length": length,
    "ablations": ablations,
    "conversion": conversion,
    "cost": cost,
}
