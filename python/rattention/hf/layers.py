"""Which model, and which of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel

from rattention._arguments import whole_number


def require_model(model: Any) -> None:
    """Refuse what is no model of Transformers."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers.PreTrainedModel, got {type(model).__name__}")


def chosen_layers(layers: int | Iterable[int] | None, there: Iterable[int]) -> tuple[int, ...]:
    """One number or several as a sorted tuple, all that are `there` for None; ValueError for any other."""
    available = sorted(there)
    if layers is None:
        return tuple(available)
    given = layers if isinstance(layers, Iterable) else (layers,)
    chosen = sorted({whole_number("layers", layer) for layer in given})
    if not chosen or not set(chosen) <= set(available):
        raise ValueError(f"layers must be some of {available}, got {chosen}")
    return tuple(chosen)
