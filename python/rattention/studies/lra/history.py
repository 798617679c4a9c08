"""The numbers of a run so far, on which it depends how it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rattention.studies.lra import ranks
from rattention.studies.lra.checkpoints import Lines, keep_only, whole_checkpoints
from rattention.studies.lra.layout import ATTENTION, METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rattention.studies.lra.config import Training


class History:
    """Lines of every epoch, in the memory of every rank; rank 0 writes them."""

    def __init__(self, folder: Path, checkpoints: Path) -> None:
        """What is in the folder of a run, up to the last epoch with a checkpoint that is whole.

        Later lines, and checkpoints that were only half written, are removed.
        """
        self.metrics, self.attention = Lines(folder / METRICS), Lines(folder / ATTENTION)
        self.checkpoints = checkpoints
        self.listener: Callable[[Mapping[str, Any]], None] | None = None
        """Is told every new line of metrics."""
        whole = whole_checkpoints(checkpoints)
        told = min(self.metrics.epochs(), self.attention.epochs() if self.attention.lines else 10**9)
        self._whole = {epoch: path for epoch, path in whole.items() if epoch <= told}
        last = max(self._whole, default=0)
        self._forget_after(last if last and self._best_before(last) in self._whole else 0)

    def _best_before(self, epoch: int) -> int:
        return int(_best([line for line in self.metrics.lines if line["epoch"] <= epoch])["epoch"])

    def _forget_after(self, epoch: int) -> None:
        self._whole = {e: path for e, path in self._whole.items() if e <= epoch}
        ranks.meet()  # all have read
        if ranks.rank() == 0:
            for lines in (self.metrics, self.attention):
                lines.forget_after(epoch)
            keep_only(self.checkpoints, set(self._whole.values()))
        else:
            self.metrics.lines = [line for line in self.metrics.lines if line["epoch"] <= epoch]
        ranks.meet()

    def epochs(self) -> int:
        """How many are done."""
        return len(self.metrics.lines)

    def checkpoint(self) -> Path | None:
        """Of the last epoch, where there was one before this object was made."""
        return self._whole.get(self.epochs())

    def add(self, line: dict[str, Any], heads: list[dict[str, Any]]) -> None:
        """An epoch more: its numbers, and those of every layer and head."""
        if ranks.rank() == 0:
            self.attention.add(*({"epoch": line["epoch"], **head} for head in heads))
            self.metrics.add(line)
            if self.listener is not None:
                self.listener(line)
        else:
            self.metrics.lines.append(line)

    def best(self) -> dict[str, Any]:
        """The line of the first epoch with the highest validation accuracy."""
        return _best(self.metrics.lines)

    def best_checkpoint(self) -> Path:
        """Of that epoch."""
        return self.checkpoints / f"checkpoint-{self.best()['step']}"

    def stopped(self, training: Training) -> str | None:
        """Why there is no further epoch: ``"epochs"``, ``"patience"``, or None where there is one."""
        if self.epochs() >= training.epochs:
            return "epochs"
        if self.epochs() and self.epochs() - self.best()["epoch"] >= training.patience:
            return "patience"
        return None

    def peak_memory(self) -> int:
        """In bytes, of the epochs so far."""
        return max((line["peak_memory_bytes"] for line in self.metrics.lines), default=0)

    def mean(self, name: str) -> float:
        """Over the epochs."""
        return float(sum(line[name] for line in self.metrics.lines) / len(self.metrics.lines))

    def epochs_to(self, share: float) -> int:
        """The first epoch whose validation accuracy is a share of the best."""
        wanted = share * self.best()["validation_accuracy"]
        return next(int(x["epoch"]) for x in self.metrics.lines if x["validation_accuracy"] >= wanted)


def _best(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return max(lines, key=lambda line: float(line["validation_accuracy"]))
