"""The table: every mechanism in all its forms, and the passes it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import rattention as ra
from rattention.mechanisms.row import Mechanism as Row

from tests.mechanisms import GRAVITATIONAL, SOFTMAX, Mechanism

SOFTMAX_PARTS = ("forward", "lse", "fused", "metrics", "rows", "map", "parts", "backward")
"""The output alone, with lse, with metrics; metrics, rows of the map and the pooled map alone; segments,
largest weights and distances; gradients."""
LINEAR_PARTS = ("forward", "state", "backward")


@dataclass(frozen=True)
class Subject:
    """A row of `rattention.MECHANISMS` in one form, and its passes."""

    mechanism: str
    parts: tuple[str, ...] = SOFTMAX_PARTS
    discount: str = ""
    """``"head"`` or ``"query"``: what has a discount of its own."""
    exponent: bool = False
    terms: tuple[str, ...] = ()
    """Of softcap, sinks and relative_bias."""
    options: dict[str, Any] = field(default_factory=dict)
    gate: str = ""
    """Which argument lets the state decay."""

    @property
    def row(self) -> Row:
        return ra.MECHANISMS[self.mechanism]

    @property
    def linear(self) -> bool:
        return self.row.family == "linear"

    @property
    def gate_shape(self) -> tuple[str, ...]:
        """In attributes of a case."""
        channels = ["dim"] if self.mechanism in ("gla", "kda") else []
        return ("batch", "heads" if self.delta else "kv_heads", "keys", *channels)

    @property
    def delta(self) -> bool:
        """The delta rule: gates and betas of query heads."""
        return "beta" in self.row.parameters

    @property
    def whole_past(self) -> bool:
        """The kernels of the delta rule, which have no window; infinity times a decay that underflows is
        NaN."""
        return self.delta or self.mechanism == "gla"

    @property
    def gravity(self) -> bool:
        return "gravity" in self.row.parameters

    @property
    def rule(self) -> Mechanism:
        """Its functions that the package's table does not have: those of the map."""
        return GRAVITATIONAL if self.gravity else SOFTMAX


STEPS = (*LINEAR_PARTS, "steps")
SUBJECTS = {
    "softmax": Subject("softmax"),
    "softmax with softcap and sinks": Subject("softmax", terms=("softcap", "sinks")),
    "softmax with relative bias": Subject("softmax", terms=("relative_bias",)),
    "sliding_window": Subject("sliding_window"),
    "sliding_window with all terms": Subject("sliding_window", terms=("softcap", "sinks", "relative_bias")),
    "multi_timescale": Subject("multi_timescale", discount="head"),
    "multi_timescale per query": Subject("multi_timescale", discount="query"),
    "gravitational": Subject("gravitational"),
    "gravitational with exponent": Subject("gravitational", exponent=True),
    "gravitational_multi_timescale": Subject("gravitational_multi_timescale", discount="head"),
    "gravitational_multi_timescale per query": Subject(
        "gravitational_multi_timescale", discount="query", exponent=True
    ),
    "residual_linear": Subject("residual_linear", LINEAR_PARTS, options={"feature_map": "softmax"}),
    "residual_linear relu": Subject("residual_linear", LINEAR_PARTS, options={"feature_map": "relu"}),
    "gated_linear": Subject("gated_linear", LINEAR_PARTS, options={"feature_map": None}, gate="log_gate"),
    "gated_linear softmax": Subject(
        "gated_linear", LINEAR_PARTS, options={"feature_map": "softmax"}, gate="log_gate"
    ),
    "gla": Subject("gla", LINEAR_PARTS, options={"feature_map": None}, gate="log_gate"),
    "gated_delta": Subject("gated_delta", LINEAR_PARTS, options={"normalize": True}, gate="log_gate"),
    "kda": Subject("kda", LINEAR_PARTS, options={"normalize": True}, gate="log_gate"),
    "rattention": Subject("rattention", STEPS, options={"feature_map": "softmax", "rope_theta": None}),
    "rattention relu": Subject("rattention", STEPS, options={"feature_map": "relu", "rope_theta": None}),
    "rattention gated": Subject(
        "rattention", LINEAR_PARTS, options={"feature_map": "softmax", "rope_theta": None}, gate="gate"
    ),
    "rattention rope": Subject("rattention", STEPS, options={"feature_map": "softmax", "rope_theta": 1e4}),
}
