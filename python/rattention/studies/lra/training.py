"""The training loop: `transformers.Trainer` with batches, numbers and checkpoints of this package."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rattention._extras import require
from rattention._files import json_ready, replacing
from rattention._models import evaluating
from rattention.studies.lra import ranks
from rattention.studies.lra.batches import TrainingBatches, collate, in_order_of_length
from rattention.studies.lra.checkpoints import keep_only, seal, whole_checkpoints
from rattention.studies.lra.measuring import PeakMemory, attention_by_head

require("accelerate")
transformers = require("transformers")

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rattention.studies.lra.config import Training
    from rattention.studies.lra.data import Split, TaskData
    from rattention.studies.lra.history import History
    from rattention.studies.lra.models import SequenceClassifier

CHECKPOINTS, LOGS, FAILED_BATCH = "checkpoints", "tensorboard", "failed_batch.safetensors"
"""In the folder of a run."""

SCHEDULERS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def evaluate(
    model: SequenceClassifier, split: Split, batch: int, pause: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """The mean loss (nats) and the accuracy on all samples; each rank of several takes some of the batches.

    `pause` is called between batches.
    """
    loss, correct = 0.0, 0
    with evaluating(model):
        for indices in in_order_of_length(split, batch)[ranks.rank() :: ranks.ranks()]:
            pause()
            inputs = collate(split, indices)
            outputs = model(**inputs)
            loss += outputs["loss"].item() * len(indices)
            correct += _correct(outputs["logits"], inputs["labels"])
    loss, right = ranks.totals((loss, correct))
    return loss / len(split), right / len(split)


def _correct(logits: torch.Tensor, labels: torch.Tensor) -> int:
    return int((logits.argmax(dim=-1) == labels).sum())


class ClassifierTrainer(transformers.Trainer):  # type: ignore[misc, name-defined]
    """One model's training; at the end of each epoch a line in the history and a checkpoint.

    FloatingPointError where the loss or a gradient becomes NaN or infinite; the message names the file with
    the batch.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        data: TaskData,
        training: Training,
        seed: int,
        history: History,
        folder: Path,
        pause: Callable[[], None],
    ) -> None:
        """Get ready; `pause` is called between steps."""
        arguments = _arguments(training, seed, folder / CHECKPOINTS)
        super().__init__(model, arguments, train_dataset=data.train, eval_dataset=data.validation)
        self.remove_callback(transformers.PrinterCallback)
        self.data, self.training, self.history, self.folder = data, training, history, folder
        self.pause = pause
        self.batches = TrainingBatches(
            data.train, training.batch, seed, ranks.rank(), ranks.ranks(), training.pool
        )
        self.epoch = EpochNumbers()
        self.memory = PeakMemory(history.peak_memory())
        self.held: dict[str, Any] = {}
        """The batch under way."""

    def go_on(self) -> None:
        """All epochs that are left, from the history's last checkpoint."""
        steps, done = len(self.batches), self.history.epochs()
        with (
            _bar(self.folder.name, self.training.epochs * steps, done * steps) as bar,
            _logs(self.history, self.folder),
        ):
            self.add_callback(Hooks(self, bar))
            checkpoint = self.history.checkpoint()
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def get_train_dataloader(self) -> Any:
        """Batches of this rank."""
        return self.batches

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Weight matrices: norms, biases, gravity and timescales do not decay."""
        return [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """The loss of a batch, counted for the epoch."""
        share = inputs.pop("share")
        self.held = inputs
        outputs = model(**inputs)
        loss: torch.Tensor = outputs["loss"]
        self.require_finite(loss, "loss")
        self.epoch.count(loss.item(), _correct(outputs["logits"], inputs["labels"]), inputs["lengths"])
        weighted: torch.Tensor = loss * share
        return weighted

    def require_finite(self, number: torch.Tensor, what: str) -> None:
        """Save the batch and raise FloatingPointError where a number is none."""
        if bool(number.isfinite()):
            return
        path = self.folder / FAILED_BATCH
        said = {"step": str(self.state.global_step + 1), what: str(number.item())}
        with replacing(path) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in self.held.items()}
            require("safetensors.torch").save_file(tensors, temporary, said)
        raise FloatingPointError(
            f"the {what} became {number.item()} in step {said['step']} of {self.folder.name}; its batch is "
            f"in {path}, the checkpoint of the last epoch is kept. A lower learning rate may help"
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation, attention and memory at the end of an epoch, into the history."""
        numbers = self.epoch.means()
        loss, accuracy = evaluate(self.model, self.data.validation, self.training.batch, self.pause)
        line = {
            "epoch": self.history.epochs() + 1,
            "step": self.state.global_step,
            "train_loss": numbers["train_loss"],
            "train_accuracy": numbers["train_accuracy"],
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "seconds": numbers["seconds"],
            "tokens_per_second": numbers["tokens_per_second"],
            "peak_memory_bytes": self.memory.bytes(),
        }
        heads = []
        if ranks.rank() == 0:
            heads = attention_by_head(self.model, self.data.validation, self.training.measured)
        self.history.add(json_ready(line), heads)
        self.control.should_training_stop |= self.history.stopped(self.training) is not None
        return {"eval_loss": loss, "eval_accuracy": accuracy}


def _arguments(training: Training, seed: int, folder: Path) -> Any:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=training.batch,
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=0.0,  # `Hooks` clips, to see the norm
        lr_scheduler_type=SCHEDULERS[training.schedule],
        warmup_steps=training.warmup_steps,
        seed=seed,
        use_cpu=True,
        ddp_backend="gloo" if ranks.ranks() > 1 else None,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )


class EpochNumbers:
    """Running averages of an epoch."""

    def __init__(self) -> None:
        """Of an epoch that begins now."""
        self.loss, self.correct, self.samples, self.tokens = 0.0, 0, 0, 0
        self.began = time.perf_counter()
        self.seconds = 0.0

    def count(self, loss: float, correct: int, lengths: torch.Tensor) -> None:
        """A batch with its mean loss."""
        self.loss += loss * len(lengths)
        self.correct += correct
        self.samples += len(lengths)
        self.tokens += int(lengths.sum())

    def end(self) -> None:
        """Training is over; what follows does not count as its time."""
        self.seconds = time.perf_counter() - self.began

    def means(self) -> dict[str, float]:
        """Of all ranks together."""
        sums = ranks.totals((self.loss, self.correct, self.samples, self.tokens))
        loss, correct, samples, tokens = sums
        return {
            "train_loss": loss / samples,
            "train_accuracy": correct / samples,
            "seconds": self.seconds,
            "tokens_per_second": tokens / self.seconds,
        }

    def so_far(self) -> dict[str, float]:
        """Of this rank, for the bar."""
        return {"loss": self.loss / self.samples, "accuracy": self.correct / self.samples}


class Hooks(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """What happens between the steps of a `ClassifierTrainer`."""

    def __init__(self, trainer: ClassifierTrainer, bar: Any) -> None:
        """With a bar of tqdm."""
        self.trainer, self.bar = trainer, bar

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Count from nothing."""
        self.trainer.epoch = EpochNumbers()

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        """Clip the gradient."""
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.trainer.training.clip)
        self.trainer.require_finite(norm, "norm of the gradient")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Show where training is."""
        shown = self.trainer.epoch.so_far()
        if self.trainer.history.metrics.lines:
            shown["validation"] = self.trainer.history.metrics.lines[-1]["validation_accuracy"]
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        self.bar.update()
        self.trainer.pause()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Validation does not count as time of training."""
        self.trainer.epoch.end()

    def on_save(self, *_: Any, **__: Any) -> None:
        """The checkpoint is whole; all but the last and the best may go."""
        ranks.meet()
        if ranks.rank() == 0:
            trainer = self.trainer
            folder = trainer.folder / CHECKPOINTS
            seal(folder / f"checkpoint-{trainer.state.global_step}", trainer.history.epochs())
            whole = whole_checkpoints(folder)
            keep_only(folder, {whole[max(whole)], whole[trainer.history.best()["epoch"]]})
        ranks.meet()


def _bar(name: str, total: int, done: int) -> Any:
    """On stderr where that is a terminal; rank 0 alone."""
    disable = None if ranks.rank() == 0 else True
    return require("tqdm").tqdm(
        total=total, initial=done, desc=name, unit="step", disable=disable, leave=False
    )


@contextlib.contextmanager
def _logs(history: History, folder: Path) -> Any:
    """The history is written to TensorBoard as well."""
    if ranks.rank() != 0:
        yield
        return
    tensorboard = require("torch.utils.tensorboard")
    writer = tensorboard.SummaryWriter(str(folder / LOGS), purge_step=history.epochs() + 1)

    def log(line: Mapping[str, Any]) -> None:
        for name, value in line.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, line["epoch"])
        writer.flush()

    history.listener = log
    try:
        yield
    finally:
        history.listener = None
        writer.close()
