"""Gates of states that decay: logarithms of factors from 0 to 1. The core checks their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import brief, float32_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_gates(log_gate: Any) -> NDArray[np.float32]:
    """Gates per head, ``[batch, heads, length]``, or per channel, ``[batch, heads, length, head_dim]``."""
    gates = float32_array("log_gate", log_gate)
    if gates.ndim not in (3, 4):
        raise ValueError(f"log_gate must have 3 or 4 dimensions, got {gates.ndim} (shape {gates.shape})")
    return gates


def gates_per_head(name: str, gate: Any) -> NDArray[np.float32]:
    """Gates ``[batch, heads, length]``."""
    gates = float32_array(name, gate)
    if gates.ndim != 3:
        where = "; gated_linear_attention alone takes a gate per channel" if gates.ndim == 4 else ""
        raise ValueError(f"{name} must have 3 dimensions, got {gates.ndim} (shape {gates.shape}){where}")
    return gates


def require_whole_past(window: int, feature_map: str | None) -> None:
    """Refuse what gated linear attention with a gate per channel does not have."""
    if window != -1 or feature_map is not None:
        raise ValueError(
            "a log_gate per channel (of 4 dimensions) takes window=-1 and feature_map=None, got "
            f"window={brief(window)}, feature_map={brief(feature_map)}"
        )


def reference_gates(log_gate: NDArray[np.float64], key_mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """The decays themselves, in float64; 1 for hidden tokens."""
    if key_mask is None:
        return np.exp(log_gate)
    shown = key_mask[:, None, :] if log_gate.ndim == 3 else key_mask[:, None, :, None]
    return np.exp(np.where(shown, log_gate, 0.0))
