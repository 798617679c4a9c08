"""One run: a classifier trained in epochs with a checkpoint each, its numbers, and how they came about."""

from __future__ import annotations

import shutil
import time
from operator import itemgetter
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rattention._files import json_ready, writable_folder, write_json
from rattention._models import evaluating
from rattention.nn import count_parameters
from rattention.studies.kit import distributed
from rattention.studies.kit.settings import write_lines, write_yaml
from rattention.studies.kit.training import (
    Trainer,
    adamw,
    checkpoints,
    deferred_interrupt,
    last_checkpoint,
    remove_all_but,
    save_checkpoint,
)
from rattention.studies.lra.data import SPLITS, TrainingBatches, collate, in_order_of_length
from rattention.studies.lra.folder import ATTENTION, MAPS, METRICS, MODEL, RESULT, SETTINGS
from rattention.studies.lra.measuring import PeakMemory, attention_by_head, save_maps
from rattention.studies.lra.models import SequenceClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rattention.studies.lra.config import Run
    from rattention.studies.lra.data import Split, TaskData

CHECKPOINTS = "checkpoints"
"""In the folder of a run."""

CHECKPOINTS_KEPT = 2
"""One more than is needed, for the case that the last one is damaged."""

CONVERGED = 0.9
"""Share of the best validation accuracy at which a run counts as converged."""


def do_run(run: Run, data: TaskData, folder: Path) -> dict[str, Any]:
    """Train, evaluate and write everything into `folder`; an unfinished run there is taken up.

    Raises
    ------
    FloatingPointError
        The loss became NaN or infinite; the message names the file with the batch.
    RuntimeError
        The accuracy of the saved model is not that of the model in training.
    KeyboardInterrupt
        Ctrl-C, after the step under way. The epochs before are kept.
    """
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / SETTINGS, run)
    distributed.barrier()
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        trainer = ClassifierTrainer(new_model(run, data), data, run, folder)
        trainer.run(asked)
        return _finish(run, data, trainer)


def new_model(run: Run, data: TaskData) -> SequenceClassifier:
    """The model of a run with its first weights."""
    torch.manual_seed(run.seed)
    return SequenceClassifier(data.vocabulary, data.classes, run.mechanism, run.model, data.longest())


def _finish(run: Run, data: TaskData, trainer: ClassifierTrainer) -> dict[str, Any]:
    """Everything after the last epoch; the result is written last."""
    folder, best = trainer.folder, trainer.best_line()
    wanted = CONVERGED * best["validation_accuracy"]
    model = _saved_best(trainer)
    memory, counts = PeakMemory(trainer.peak_memory()), count_parameters(model)
    loss, accuracy = evaluate(model, data.test, run.training.batch, trainer.pause)
    result = {
        "task": run.task,
        "mechanism": run.mechanism,
        "seed": run.seed,
        "test_accuracy": accuracy,
        "test_loss": loss,
        "best_epoch": best["epoch"],
        "best_validation_accuracy": best["validation_accuracy"],
        "epochs": len(trainer.lines),
        "epochs_to_90_percent": next(x["epoch"] for x in trainer.lines if x["validation_accuracy"] >= wanted),
        "seconds_per_epoch": fmean(line["seconds"] for line in trainer.lines),
        "tokens_per_second": fmean(line["tokens_per_second"] for line in trainer.lines),
        "peak_memory_bytes": memory.bytes(),
        "parameters": {n: counts.get(n, 0) for n in ("attention", "mlp", "embedding", "norm", "total")},
        "majority_accuracy": data.majority_accuracy(),
        "bag_accuracy": data.bag_accuracy,
        "label_shares": data.label_shares(),
        "samples": {name: len(getattr(data, name)) for name in SPLITS},
        "stopped": trainer.stopped(),
    }
    if distributed.rank() == 0:
        save_maps(model, data.test, folder / MAPS)
        write_json(folder / RESULT, result)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    distributed.barrier()
    return result


def _saved_best(trainer: ClassifierTrainer) -> SequenceClassifier:
    """The model of the best epoch from its file; RuntimeError where that gives another accuracy."""
    path = trainer.folder / MODEL
    if distributed.rank() == 0:
        trainer.model.load_state_dict(trainer.best)
        trainer.model.save(path)
    distributed.barrier()
    model = SequenceClassifier.load(path)
    _, again = evaluate(model, trainer.data.validation, trainer.training.batch)
    if again != (before := trainer.best_line()["validation_accuracy"]):
        raise RuntimeError(
            f"{path}: the saved model has a validation accuracy of {again}, in training it was {before}"
        )
    return model


def evaluate(
    model: SequenceClassifier, split: Split, batch: int, pause: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """The mean loss (nats) and the accuracy on all samples; each rank of several takes some of the batches.

    `pause` is called between batches.
    """
    distributed.broadcast_buffers(model)
    loss = correct = 0.0
    with evaluating(model):
        for indices in in_order_of_length(split, batch)[distributed.rank() :: distributed.world_size()]:
            pause()
            inputs = collate(split, indices)
            outputs = model(**inputs)
            loss += outputs["loss"].item() * len(indices)
            correct += (outputs["logits"].argmax(dim=-1) == inputs["labels"]).sum().item()
    loss, right = distributed.all_reduce((loss, correct))
    return loss / len(split), right / len(split)


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
        self.heads: list[dict[str, Any]] = []  # attention of every epoch, layer and head
        self.best: dict[str, torch.Tensor] = {}  # weights of the best epoch
        self._share = 1.0
        self._own: Iterator[dict[str, Any]] = iter(())
        self._sums = np.zeros(4)  # of the epoch so far: loss, correct answers, samples, tokens
        self._began = 0.0
        torch.manual_seed(run.seed)
        self._take_up()
        self._memory = PeakMemory(self.peak_memory())
        self._parallel: Any = self.model
        if distributed.world_size() > 1:
            self._parallel = torch.nn.parallel.DistributedDataParallel(self.model)

    def best_line(self) -> dict[str, Any]:
        """The line of the first epoch with the highest validation accuracy."""
        return max(self.lines, key=itemgetter("validation_accuracy"))

    def peak_memory(self) -> int:
        """Bytes, the largest of all epochs."""
        return max((line["peak_memory_bytes"] for line in self.lines), default=0)

    def stopped(self) -> str | None:
        """Why there is no further epoch: ``"epochs"``, ``"patience"``, or None where there is one."""
        done = len(self.lines)
        if done >= self.training.epochs:
            return "epochs"
        return "patience" if done and done - self.best_line()["epoch"] >= self.training.patience else None

    def finished(self) -> bool:
        """Whether all epochs are done or patience is over."""
        return self.stopped() is not None

    def rate(self) -> float:
        """The learning rate by the schedule."""
        return self.training.rate_at(self.step, self.steps)

    def batch(self) -> dict[str, torch.Tensor]:
        """This rank's samples of the next batch."""
        epoch, place = divmod(self.step, len(self.batches))
        if place == 0:
            self.batches.epoch = epoch
            self._own, self._sums, self._began = iter(self.batches), np.zeros(4), time.perf_counter()
        batch = next(self._own)
        self._share = batch.pop("share")
        return batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss of the batch, counted for the epoch and weighted by this rank's share of it."""
        outputs = self._parallel(**batch)
        loss: torch.Tensor = outputs["loss"]
        labels, tokens = batch["labels"], batch["lengths"].sum().item()
        correct = (outputs["logits"].argmax(dim=-1) == labels).sum().item()
        self._sums += (loss.item() * len(labels), correct, len(labels), tokens)
        return loss * self._share

    def after_step(self, bar: Any) -> None:
        """At the end of an epoch: validation, attention, memory, and a checkpoint."""
        loss, correct, samples, _ = self._sums
        shown = {"loss": loss / samples, "accuracy": correct / samples}
        if self.lines:
            shown["validation"] = self.lines[-1]["validation_accuracy"]
        bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        if self.step % len(self.batches) == 0:
            self._end_epoch()

    def _end_epoch(self) -> None:
        seconds = time.perf_counter() - self._began
        loss, correct, samples, tokens = distributed.all_reduce(self._sums)
        validation = evaluate(self.model, self.data.validation, self.training.batch, self.pause)
        line: dict[str, Any] = {
            "epoch": len(self.lines) + 1,
            "step": self.step,
            "train_loss": loss / samples,
            "train_accuracy": correct / samples,
            "validation_loss": validation[0],
            "validation_accuracy": validation[1],
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "peak_memory_bytes": self._memory.bytes(),
        }
        self.lines.append(json_ready(line))
        if self.best_line() is self.lines[-1]:
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
            remove_all_but(folder, set(checkpoints(folder)[-CHECKPOINTS_KEPT:]))
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

    def logged(self) -> int:
        """The epochs so far."""
        return len(self.lines)
