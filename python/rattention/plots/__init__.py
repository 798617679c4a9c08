"""Figures of the measurements: for print, for colour-blind readers, and without pyplot's global state.

Every ``plot_*`` function draws one panel into `ax`, or into a figure of its own when `ax` is None, and gives
the Axes back (``ax.figure`` is the figure). The ``*_figure`` functions put panels together. Colours are those
of Okabe and Ito and the maps viridis and cividis; lines are labelled where they end, without a legend.
"""

from __future__ import annotations

from rattention.plots.degradation import (
    heads_figure,
    metrics_figure,
    plot_dilution,
    plot_metric,
    plot_recall,
    plot_recall_layers,
    plot_window_cutoff,
    reach_figure,
    recall_figure,
)
from rattention.plots.maps import label_of, maps_figure, plot_head_map, plot_tokens

__all__ = [
    "heads_figure",
    "label_of",
    "maps_figure",
    "metrics_figure",
    "plot_dilution",
    "plot_head_map",
    "plot_metric",
    "plot_recall",
    "plot_recall_layers",
    "plot_tokens",
    "plot_window_cutoff",
    "reach_figure",
    "recall_figure",
]
