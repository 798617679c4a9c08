"""Figures of the measurements: for print, for colour-blind readers, and without pyplot's global state.

Every ``plot_*`` function draws one panel into `ax`, or into a figure of its own when `ax` is None, and gives
the Axes back (``ax.figure`` is the figure). The ``*_figure`` functions put panels together. Colours are those
of Okabe and Ito and the maps viridis and cividis; lines are labelled where they end, and have a legend
beside them where they cross too often.
"""

from __future__ import annotations

from rattention.plots.findings import (
    distributions_figure,
    heads_comparison_figure,
    layers_figure,
    plot_distribution,
    plot_heads,
    plot_layers,
)
from rattention.plots.maps import (
    Marks,
    attention_figure,
    label_of,
    lines_figure,
    maps_figure,
    plot_attention_map,
    plot_head_map,
    plot_query_attention,
    plot_received,
    plot_tokens,
)

__all__ = [
    "Marks",
    "attention_figure",
    "distributions_figure",
    "heads_comparison_figure",
    "label_of",
    "layers_figure",
    "lines_figure",
    "maps_figure",
    "plot_attention_map",
    "plot_distribution",
    "plot_head_map",
    "plot_heads",
    "plot_layers",
    "plot_query_attention",
    "plot_received",
    "plot_tokens",
]
