"""Figures of the measurements: for print, for colour-blind readers, and without pyplot's global state.

Every ``plot_*`` function draws one panel into `ax`, or into a figure of its own when `ax` is None, and gives
the Axes back (``ax.figure`` is the figure). The ``*_figure`` functions put panels together. Colours are those
of Okabe and Ito and the maps viridis and cividis; lines are labelled where they end, and have a legend
beside them where they cross too often.
"""

from __future__ import annotations

from rattention.plots.attention import (
    attention_figure,
    lines_figure,
    plot_attention_map,
    plot_query_attention,
    plot_received,
)
from rattention.plots.compression import compression_figure, plot_budgets
from rattention.plots.lra import (
    by_task_figure,
    cost_figure,
    plot_accuracy,
    plot_accuracy_against_time,
    plot_convergence,
    plot_cost,
    plot_improvement,
    plot_radar,
    radar_figure,
)
from rattention.plots.lra_attention import (
    head_maps_figure,
    mean_maps_figure,
    metrics_by_mechanism_figure,
    plot_layers_and_heads,
    plot_mean_map,
)
from rattention.plots.lra_curves import curves_figure, plot_curves
from rattention.plots.maps import label_of, maps_figure, plot_head_map, plot_tokens
from rattention.plots.microscope import (
    distributions_figure,
    heads_comparison_figure,
    layers_figure,
    plot_distribution,
    plot_heads,
    plot_layers,
)

__all__ = [
    "attention_figure",
    "by_task_figure",
    "compression_figure",
    "cost_figure",
    "curves_figure",
    "distributions_figure",
    "head_maps_figure",
    "heads_comparison_figure",
    "label_of",
    "layers_figure",
    "lines_figure",
    "maps_figure",
    "mean_maps_figure",
    "metrics_by_mechanism_figure",
    "plot_accuracy",
    "plot_accuracy_against_time",
    "plot_attention_map",
    "plot_budgets",
    "plot_convergence",
    "plot_cost",
    "plot_curves",
    "plot_distribution",
    "plot_head_map",
    "plot_heads",
    "plot_improvement",
    "plot_layers",
    "plot_layers_and_heads",
    "plot_mean_map",
    "plot_query_attention",
    "plot_radar",
    "plot_received",
    "plot_tokens",
    "radar_figure",
]
