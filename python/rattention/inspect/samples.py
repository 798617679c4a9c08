"""What a model is looked at with: inputs, and what their positions are called."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import Any


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
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(model, torch.nn.Module):
            return model(*self.inputs, **self.options)
        with torch.no_grad(), _evaluating(model):
            return model(*self.inputs, **self.options)


@contextlib.contextmanager
def _evaluating(model: Any) -> Any:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
