"""The mechanisms, one file each: formula with its source, public function and slow float64 reference.

The backward functions and the references are here by name; `table.MECHANISMS`, which is
``rattention.MECHANISMS``, has each in the row of its mechanism. The references are plain NumPy, O(n^2), and
what all kernels are held to.
"""

from __future__ import annotations

from rattention.mechanisms.gated_delta import gated_delta_rule_backward, reference_gated_delta_rule
from rattention.mechanisms.gated_linear import (
    gated_linear_attention_backward,
    reference_gated_linear_attention,
)
from rattention.mechanisms.gravitational import (
    gravitational_attention_backward,
    gravitational_distances,
    gravitational_map,
    gravitational_metrics,
    gravitational_rows,
    gravitational_segments,
    gravitational_top_keys,
    reference_gravitational_attention,
)
from rattention.mechanisms.rattention import rattention_backward, reference_rattention
from rattention.mechanisms.residual_linear import (
    reference_residual_linear_attention,
    residual_linear_attention_backward,
)
from rattention.mechanisms.softmax import attention_backward, reference_attention

__all__ = [
    "attention_backward",
    "gated_delta_rule_backward",
    "gated_linear_attention_backward",
    "gravitational_attention_backward",
    "gravitational_distances",
    "gravitational_map",
    "gravitational_metrics",
    "gravitational_rows",
    "gravitational_segments",
    "gravitational_top_keys",
    "rattention_backward",
    "reference_attention",
    "reference_gated_delta_rule",
    "reference_gated_linear_attention",
    "reference_gravitational_attention",
    "reference_rattention",
    "reference_residual_linear_attention",
    "residual_linear_attention_backward",
]
