"""The training of one language model, with checkpoints from which it goes on to the same bits."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any

import torch

from rattention._files import writable_folder, write_json
from rattention.nn import begin_as_windows
from rattention.nn.weights import load_model, save_model
from rattention.studies.kit import distributed
from rattention.studies.kit.folder import read_result
from rattention.studies.kit.settings import as_plain, from_mapping, write_lines
from rattention.studies.kit.training import (
    Trainer,
    adamw,
    checkpoints,
    deferred_interrupt,
    last_checkpoint,
    remove_all_but,
    save_checkpoint,
)
from rattention.studies.lm.settings import ModelSize
from rattention.studies.lm.variants import AS_WINDOW, Variant, model_of

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.nn import LanguageModel
    from rattention.studies.lm.batches import Batches
    from rattention.studies.lm.settings import Training

METRICS, MODEL, TRAINED, CHECKPOINTS = "metrics.jsonl", "model.safetensors", "trained.json", "checkpoints"
"""In the folder of a training; `TRAINED` is written last."""

CHECKPOINTS_KEPT = 2
"""One more than is needed, for the case that the last one is damaged."""


class LmTrainer(Trainer):
    """Steps of one model; the last checkpoint in its folder that is whole is taken up."""

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        training: Training,
        folder: Path,
        *,
        rate: float,
        steps: int,
    ) -> None:
        super().__init__(model, adamw(model, training.weight_decay), folder, steps=steps, clip=training.clip)
        self.batches, self.training, self.peak_rate = batches, training, rate
        self._recorded: dict[str, Any] = {}
        self._loss = torch.tensor(0.0)
        self._take_up()
        self._parallel: Any = self.model
        if distributed.world_size() > 1:
            self._parallel = torch.nn.parallel.DistributedDataParallel(self.model)

    def batch(self) -> dict[str, torch.Tensor]:
        """This rank's sequences of the next step."""
        self._began = time.perf_counter()
        batch, self._recorded = self.batches(self.step)
        return batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross entropy of the labels, nats."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training.bfloat16):
            logits = self._parallel(batch["tokens"])
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten())
        self._loss = loss.detach()
        return loss

    def rate(self) -> float:
        """The learning rate by the schedule."""
        return self.training.rate_at(self.step, self.steps, self.peak_rate)

    def after_step(self, bar: Any) -> None:
        """A line of numbers, and from time to time a checkpoint."""
        loss = distributed.all_reduce([self._loss.item()])[0] / distributed.world_size()
        line = {"step": self.step, "loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        self.lines.append(line | {"seconds": time.perf_counter() - self._began} | self._recorded)
        bar.set_postfix({"loss": f"{loss:.3f}"}, refresh=False)
        if self.step % self.training.checkpoint_every == 0 or self.finished():
            self._save()

    def tokens(self) -> int:
        """How many the model has been trained on."""
        return self.step * self.training.batch * self.training.context

    def _logs(self) -> contextlib.AbstractContextManager[Any]:
        """The lines are the only log: there are many short trainings."""
        return contextlib.nullcontext()

    def _save(self) -> None:
        state = self.state()
        if distributed.rank() == 0:
            folder = writable_folder(self.folder / CHECKPOINTS)
            save_checkpoint(folder / f"step-{self.step}.pt", state)
            remove_all_but(folder, set(checkpoints(folder)[-CHECKPOINTS_KEPT:]))
            write_lines(self.folder / METRICS, self.lines)
        distributed.barrier()

    def _take_up(self) -> None:
        path, state = distributed.broadcast(
            last_checkpoint(self.folder / CHECKPOINTS) if distributed.rank() == 0 else (None, {})
        )
        if path is not None:
            self.restore(state, path)
        if distributed.rank() == 0:
            write_lines(self.folder / METRICS, self.lines)


def train(
    variant: Variant,
    size: ModelSize,
    vocabulary: int,
    batches: Batches,
    training: Training,
    folder: Path,
    *,
    seed: int,
    rate: float,
    steps: int,
    weights: dict[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Train a model, or go on where its training stopped; what is written last says that it is finished.

    `weights`, where given, are those that it begins with; the seed makes those that are not among them.

    Returns
    -------
    Numbers of the training: steps, tokens, seconds, the last losses, parameters.

    Raises
    ------
    FloatingPointError
        The loss became NaN or infinite; the message names the file with the batch.
    KeyboardInterrupt
        Ctrl-C, after the step under way; the steps up to the last checkpoint are kept.
    """
    finished = distributed.broadcast(read_result(folder / TRAINED) if distributed.rank() == 0 else None)
    if finished is not None:
        return finished
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        torch.manual_seed(seed)
        model = begun(variant, size, vocabulary, batches, weights)
        trainer = LmTrainer(model, batches, training, folder, rate=rate, steps=steps)
        trainer.run(asked)
    numbers = _numbers(trainer, rate, seed)
    if distributed.rank() == 0:
        config = {"variant": as_plain(variant), "size": as_plain(size), "vocabulary": vocabulary}
        save_model(model, config, folder / MODEL)
        write_json(folder / TRAINED, numbers)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    distributed.barrier()
    return numbers


def _numbers(trainer: LmTrainer, rate: float, seed: int) -> dict[str, Any]:
    last = trainer.lines[-max(1, len(trainer.lines) // 20) :]
    return {
        "seed": seed,
        "learning_rate": rate,
        "steps": trainer.step,
        "tokens": trainer.tokens(),
        "seconds": trainer.seconds,
        "tokens_per_second": trainer.tokens() / trainer.seconds,
        "last_train_loss": sum(line["loss"] for line in last) / len(last),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }


def begun(
    variant: Variant,
    size: ModelSize,
    vocabulary: int,
    batches: Batches,
    weights: dict[str, torch.Tensor] | None = None,
) -> LanguageModel:
    """A model before its first step, with these weights where it has them. Where the first batch sets some,
    several processes have rows of their own: all go on with the weights of the first."""
    model = model_of(variant, size, vocabulary)
    if weights is not None:
        model.load_state_dict(weights, strict=False)
    if variant.mechanism == AS_WINDOW:
        begin_as_windows(model, batches(0)[0]["tokens"])
    return model


def load(folder: Path) -> LanguageModel:
    """The trained model in a folder; WeightsError names the fault of a damaged file."""
    return load_model(_made, folder / MODEL)


def _made(variant: dict[str, Any], size: dict[str, Any], vocabulary: int) -> LanguageModel:
    form = from_mapping(ModelSize, size, "size")
    return model_of(from_mapping(Variant, variant, "variant"), form, vocabulary)
