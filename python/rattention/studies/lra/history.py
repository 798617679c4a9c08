"""The epochs of a run so far, on which it depends whether there is a further one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.studies.lra.settings import Training


@dataclass(frozen=True)
class History:
    """A line of numbers per epoch."""

    lines: Sequence[dict[str, Any]]

    def best(self) -> dict[str, Any]:
        """The line of the first epoch with the highest validation accuracy."""
        return max(self.lines, key=lambda line: float(line["validation_accuracy"]))

    def stopped(self, training: Training) -> str | None:
        """Why there is no further epoch: ``"epochs"``, ``"patience"``, or None where there is one."""
        done = len(self.lines)
        if done >= training.epochs:
            return "epochs"
        if done and done - self.best()["epoch"] >= training.patience:
            return "patience"
        return None

    def peak_memory(self) -> int:
        """Bytes, the largest of all epochs."""
        return max((line["peak_memory_bytes"] for line in self.lines), default=0)

    def mean(self, name: str) -> float:
        """The mean of a number over the epochs."""
        return float(sum(line[name] for line in self.lines) / len(self.lines))

    def epochs_to(self, share: float) -> int:
        """The first epoch whose validation accuracy is a share of the best."""
        wanted = share * self.best()["validation_accuracy"]
        return next(int(x["epoch"]) for x in self.lines if x["validation_accuracy"] >= wanted)
