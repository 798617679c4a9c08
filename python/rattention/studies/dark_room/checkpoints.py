"""The state of a training: enough to go on as if it had never stopped."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from rattention._files import replacing
from rattention.models.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rattention.studies.dark_room.model import HistoryTransformer

CHECKPOINT = "training.pt"


@dataclass
class TrainingState:
    """What changes from step to step. Batches are drawn from the seed and the step and need no state."""

    model: HistoryTransformer
    optimizer: torch.optim.Optimizer
    settings: Mapping[str, Any]
    """Everything that decides how the training goes."""
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Spent on them."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """The numbers logged so far."""

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        state = {
            "settings": dict(self.settings),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote; WeightsError for other files, ValueError for other settings."""
        state = read(path)
        other = [
            f"{part} {name} {value} instead of {now}"
            for part, settings in state["settings"].items()
            for name, value in settings.items()
            if (now := self.settings[part].get(name)) != value
        ]
        if other:
            raise ValueError(f"{path} is of a training with {'; '.join(other)}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise WeightsError(f"{path} does not fit the model: {error}") from error
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint; WeightsError where it cannot be read. No code in it is run."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if not {"settings", "step", "seconds", "curve", "model", "optimizer", "random"} <= set(state):
            raise ValueError("it is something else than a checkpoint of a training")
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return state
