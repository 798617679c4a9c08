"""What a model is looked at with: inputs, and what their positions are called."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from rattention._models import evaluating, kind_of


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence for a model."""

    name: str
    """What figures and tables call it."""
    inputs: tuple[Any, ...] = ()
    """Positional arguments of the model, of one sequence (batch 1)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model."""
    labels: tuple[str, ...] = ()
    """What the positions are called: tokens or steps; numbers where there are none."""

    def run(self, model: Any) -> Any:
        """The model's output, without gradients and dropout."""
        with evaluating(model) if kind_of(model) in ("torch", "transformers") else nullcontext():
            return model(*self.inputs, **self.options)
