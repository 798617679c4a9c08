"""The training of one classifier: epochs with validation, patience and a checkpoint each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from rattention._files import json_ready, writable_folder
from rattention._models import evaluating
from rattention.studies.kit import distributed
from rattention.studies.kit.records import write_lines
from rattention.studies.kit.training import Trainer, WeightsError, read_checkpoint, save_checkpoint
from rattention.studies.lra.batches import TrainingBatches, collate, in_order_of_length
from rattention.studies.lra.folder import ATTENTION, METRICS
from rattention.studies.lra.measuring import History, PeakMemory, attention_by_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rattention.studies.lra.config import Run
    from rattention.studies.lra.data import Split, TaskData
    from rattention.studies.lra.models import SequenceClassifier

CHECKPOINTS = "checkpoints"
"""In the folder of a run."""

CHECKPOINTS_KEPT = 2
"""One more than is needed, for the case that the last one is damaged."""


def evaluate(
    model: SequenceClassifier, split: Split, batch: int, pause: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """The mean loss (nats) and the accuracy on all samples; each rank of several takes some of the batches.

    `pause` is called between batches.
    """
    distributed.broadcast_buffers(model)
    loss, correct = 0.0, 0
    with evaluating(model):
        for indices in in_order_of_length(split, batch)[distributed.rank() :: distributed.world_size()]:
            pause()
            inputs = collate(split, indices)
            outputs = model(**inputs)
            loss += outputs["loss"].item() * len(indices)
            correct += _correct(outputs["logits"], inputs["labels"])
    loss, right = distributed.all_reduce((loss, correct))
    return loss / len(split), right / len(split)


def _correct(logits: torch.Tensor, labels: torch.Tensor) -> int:
    return int((logits.argmax(dim=-1) == labels).sum())


class ClassifierTrainer(Trainer):
    """The training of a run; its last epoch with a checkpoint that is whole is taken up."""

    model: SequenceClassifier

    def __init__(self, model: SequenceClassifier, data: TaskData, run: Run, folder: Path) -> None:
        training = run.training
        self.batches = TrainingBatches(
            data.train, training.batch, run.seed, distributed.rank(), distributed.world_size(), training.pool
        )
        super().__init__(
            model,
            adamw(model, training.weight_decay),
            folder,
            steps=training.epochs * len(self.batches),
            clip=training.clip,
        )
        self.data, self.training = data, training
        self.heads: list[dict[str, Any]] = []
        """Attention of every epoch, layer and head."""
        self.best: dict[str, torch.Tensor] = {}
        """Weights of the best epoch."""
        self._share = 1.0
        self._own: Iterator[dict[str, Any]] = iter(())
        self._epoch = EpochNumbers()
        torch.manual_seed(run.seed)
        self._take_up()
        self._memory = PeakMemory(self.history.peak_memory())
        self._parallel: Any = self.model
        if distributed.world_size() > 1:
            self._parallel = torch.nn.parallel.DistributedDataParallel(self.model)

    @property
    def history(self) -> History:
        """The epochs so far."""
        return History(self.lines)

    def finished(self) -> bool:
        """Whether all epochs are done or patience is over."""
        return self.history.stopped(self.training) is not None

    def rate(self) -> float:
        """The learning rate by the schedule."""
        return self.training.rate_at(self.step, self.steps)

    def batch(self) -> dict[str, torch.Tensor]:
        """This rank's samples of the next batch."""
        epoch, place = divmod(self.step, len(self.batches))
        if place == 0:
            self.batches.set_epoch(epoch)
            self._own, self._epoch = iter(self.batches), EpochNumbers()
        batch = next(self._own)
        self._share = batch.pop("share")
        return batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss of the batch, counted for the epoch and weighted by this rank's share of it."""
        outputs = self._parallel(**batch)
        loss: torch.Tensor = outputs["loss"]
        self._epoch.count(loss.item(), _correct(outputs["logits"], batch["labels"]), batch["lengths"])
        return loss * self._share

    def after_step(self, bar: Any) -> None:
        """At the end of an epoch: validation, attention, memory, and a checkpoint."""
        shown = self._epoch.so_far()
        if self.lines:
            shown["validation"] = self.lines[-1]["validation_accuracy"]
        bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        if self.step % len(self.batches) == 0:
            self._end_epoch()

    def _end_epoch(self) -> None:
        numbers = self._epoch.means()
        loss, accuracy = evaluate(self.model, self.data.validation, self.training.batch, self.pause)
        line: dict[str, Any] = {
            "epoch": len(self.lines) + 1,
            "step": self.step,
            "train_loss": numbers["train_loss"],
            "train_accuracy": numbers["train_accuracy"],
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "seconds": numbers["seconds"],
            "tokens_per_second": numbers["tokens_per_second"],
            "peak_memory_bytes": self._memory.bytes(),
        }
        self.lines.append(json_ready(line))
        if self.history.best()["epoch"] == line["epoch"]:
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        if distributed.rank() == 0:
            heads = attention_by_head(self.model, self.data.validation, self.training.measured)
            self.heads += [{"epoch": line["epoch"], **head} for head in heads]
        self._save()
        self.log({name: value for name, value in line.items() if name != "epoch"}, line["epoch"])

    def state(self) -> dict[str, Any]:
        """With attention and the best weights."""
        return super().state() | {"heads": self.heads, "best": self.best}

    def _save(self) -> None:
        state = self.state()
        if distributed.rank() == 0:
            folder = writable_folder(self.folder / CHECKPOINTS)
            save_checkpoint(folder / f"epoch-{len(self.lines)}.pt", state)
            remove_all_but(folder, set(_by_epoch(folder)[-CHECKPOINTS_KEPT:]))
            self._write_lines()
        distributed.barrier()

    def _take_up(self) -> None:
        """Continue from the last checkpoint that is whole; without one the lines begin anew."""
        path, state = distributed.broadcast(
            last_checkpoint(self.folder / CHECKPOINTS) if distributed.rank() == 0 else (None, {})
        )
        if path is not None:
            self.restore(state, path)
            self.heads, self.best = state["heads"], state["best"]
        if distributed.rank() == 0:
            self._write_lines()

    def _write_lines(self) -> None:
        """The checkpoint is the record; the files follow it."""
        write_lines(self.folder / ATTENTION, self.heads)
        write_lines(self.folder / METRICS, self.lines)

    def _logged(self) -> int:
        return len(self.lines)


def adamw(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays weight matrices alone: norms, biases, gravity and timescales do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)


def last_checkpoint(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The last checkpoint that is whole, and what it holds."""
    for path in reversed(_by_epoch(folder)):
        try:
            return path, read_checkpoint(path)
        except WeightsError:
            continue
    return None, {}


def remove_all_but(folder: Path, kept: set[Path]) -> None:
    """Remove other checkpoints, and what a write that was killed has left."""
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()


def _by_epoch(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.removeprefix("epoch-")))


class EpochNumbers:
    """Running averages of an epoch that begins now."""

    def __init__(self) -> None:
        self.loss, self.correct, self.samples, self.tokens = 0.0, 0, 0, 0
        self.began = time.perf_counter()

    def count(self, loss: float, correct: int, lengths: torch.Tensor) -> None:
        """A batch with its mean loss."""
        self.loss += loss * len(lengths)
        self.correct += correct
        self.samples += len(lengths)
        self.tokens += int(lengths.sum())

    def means(self) -> dict[str, float]:
        """Of all ranks together, and the time until now."""
        seconds = time.perf_counter() - self.began
        sums = distributed.all_reduce((self.loss, self.correct, self.samples, self.tokens))
        loss, correct, samples, tokens = sums
        return {
            "train_loss": loss / samples,
            "train_accuracy": correct / samples,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
        }

    def so_far(self) -> dict[str, float]:
        """Of this rank, for the bar."""
        return {"loss": self.loss / self.samples, "accuracy": self.correct / self.samples}
