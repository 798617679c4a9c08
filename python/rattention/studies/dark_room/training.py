"""Training by next-action prediction: resumable to the bit, stopped cleanly, logged."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from rattention._arguments import at_least
from rattention._config import show_config
from rattention._extras import require
from rattention._files import writable_folder, write_json
from rattention.models.errors import read_json_object
from rattention.studies.dark_room.checkpoints import CHECKPOINT, TrainingState, read
from rattention.studies.dark_room.model import HistoryTransformer
from rattention.studies.dark_room.rooms import ACTIONS
from rattention.studies.dark_room.windows import Windows, WindowSampler
from rattention.studies.kit.interrupts import deferred_interrupt

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from rattention.studies.dark_room.histories import LearningHistories

MODEL, RECORD, LOGS = "dark_room.safetensors", "training.json", "tensorboard"
"""What a training leaves in its folder, besides its checkpoint."""

HELD_OUT_STREAM = 1
"""Batches of held-out goals come from random numbers of their own, the same ones each time."""


@dataclass(frozen=True)
class Training:
    """How to train. ValueError where a number is not in its range."""

    steps: int = 4000
    """Optimizer steps."""
    batch: int = 64
    """Windows in a step."""
    every: int = 6
    """Leave out episodes of learning histories, up to all but each so-many-th, so that a context shows more
    progress."""
    learning_rate: float = 3e-3
    """Its peak, after `warmup` steps; from there half a cosine down to a twentieth."""
    warmup: int = 100
    weight_decay: float = 0.05
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Of first weights and batches."""
    log_every: int = 50
    """Steps between numbers in the record, held-out loss included."""
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (
            ("steps", 1),
            ("batch", 1),
            ("every", 1),
            ("warmup", 0),
            ("seed", 0),
            ("log_every", 1),
            ("checkpoint_every", 1),
        ):
            at_least(name, getattr(self, name), least)
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number > 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a number >= 0, got {self.weight_decay}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class Losses:
    """Cross entropies (nats) and accuracies of a batch, at queries and behind transitions."""

    query: torch.Tensor
    transition: torch.Tensor
    query_accuracy: float
    transition_accuracy: float

    @property
    def total(self) -> torch.Tensor:
        """What is minimised: the query counts as much as all transitions together."""
        return self.query + self.transition

    def numbers(self) -> dict[str, float]:
        """All as plain numbers."""
        return {
            "query_loss": self.query.item(),
            "transition_loss": self.transition.item(),
            "query_accuracy": self.query_accuracy,
            "transition_accuracy": self.transition_accuracy,
        }


def losses(model: HistoryTransformer, windows: Windows) -> Losses:
    """How well the model predicts the next actions in `windows`."""
    states, actions, rewards, next_states = (torch.from_numpy(array) for array in windows.history.arrays())
    lengths, counted = torch.from_numpy(windows.lengths), torch.from_numpy(windows.counted)
    logits = model.predict(states, actions, rewards, next_states, lengths)
    rows = torch.arange(len(lengths))
    query, wanted = logits[rows, lengths], actions[rows, lengths]
    behind, following = logits[:, :-1][counted], actions[:, 1:][counted]
    transition = functional.cross_entropy(behind, following, reduction="sum") / max(1, len(following))
    return Losses(
        functional.cross_entropy(query, wanted),
        transition,
        _accuracy(query, wanted),
        _accuracy(behind, following),
    )


def _accuracy(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    return (logits.argmax(dim=-1) == wanted).sum().item() / max(1, len(wanted))


def train(
    histories: LearningHistories,
    folder: str | os.PathLike[str],
    training: Training | None = None,
    *,
    sizes: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> HistoryTransformer:
    """Train a `HistoryTransformer` on the goals that are not held out.

    Parameters
    ----------
    histories:
        Of all goals; those held out give the held-out loss.
    folder:
        Gets the model (``dark_room.safetensors``), the record (``training.json``), TensorBoard logs, and the
        checkpoint (``training.pt``), all brought up to date now and then and at the end.
    training, sizes:
        How to train, and arguments of `HistoryTransformer` but its states and actions; context 100 by
        default.
    resume:
        Go on from the checkpoint in the folder, with the same result as without a break.

    Raises
    ------
    ValueError
        Settings that do not fit the histories or the checkpoint, or an unfinished training in the folder that
        is not to be resumed.
    FloatingPointError
        The loss became NaN or infinite. The folder keeps the last checkpoint.
    KeyboardInterrupt
        Ctrl-C. The step is finished and the folder brought up to date first.
    """
    with torch.random.fork_rng(devices=[]):
        trainer = _Trainer(histories, writable_folder(folder), training or Training(), sizes or {})
        trainer.begin(resume)
        trainer.run()
    return trainer.state.model


class _Trainer:
    """A training under way."""

    def __init__(
        self, histories: LearningHistories, folder: Path, training: Training, sizes: Mapping[str, Any]
    ) -> None:
        self.folder, self.training = folder, training
        torch.manual_seed(training.seed)
        room = histories.collection.room
        usual = {"context": 100, "columns": room.size}
        model = HistoryTransformer(room.states, len(ACTIONS), **(usual | dict(sizes)))
        self.samplers = [
            WindowSampler(histories.of_goals(goals), model.config["context"], training.every)
            for goals in histories.collection.split()
        ]
        settings = {
            "collection": asdict(histories.collection),
            "training": asdict(training),
            "model": model.config,
        }
        self.state = TrainingState(model, _optimizer(model, training), settings)

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint in the folder, or make sure that none is lost."""
        checkpoint = self.folder / CHECKPOINT
        if resume:
            self.state.restore(checkpoint)
        elif checkpoint.exists():
            before = read(checkpoint)
            done, planned = before["step"], before["settings"]["training"]["steps"]
            if done < planned:
                raise ValueError(
                    f"{self.folder} holds a training after {done} of {planned} steps: resume it, or choose "
                    "another folder"
                )

    def run(self) -> None:
        """All steps that are left."""
        state, training = self.state, self.training
        writer = require("torch.utils.tensorboard").SummaryWriter(
            str(self.folder / LOGS), purge_step=state.step
        )
        bar = require("tqdm").tqdm(
            total=training.steps, initial=state.step, desc="train", unit="step", disable=None
        )
        with deferred_interrupt() as asked, bar, contextlib.closing(writer):
            while state.step < training.steps and not asked():
                numbers = self._timed_step()
                bar.update()
                if state.step % training.log_every == 0 or state.step == training.steps:
                    self._log(numbers, writer)
                    bar.set_postfix(loss=numbers["query_loss"], accuracy=numbers["query_accuracy"])
                if state.step % training.checkpoint_every == 0:
                    self.save()
            self.save()
        if state.step < training.steps:
            raise KeyboardInterrupt

    def _timed_step(self) -> dict[str, float]:
        began = time.perf_counter()
        numbers = self._step()
        self.state.step += 1
        self.state.seconds += time.perf_counter() - began
        return numbers

    def _step(self) -> dict[str, float]:
        """One step of the optimizer."""
        state, training = self.state, self.training
        windows = self.samplers[0].draw(training.batch, _generator(training.seed, 0, state.step))
        for group in state.optimizer.param_groups:
            group["lr"] = training.rate_at(state.step)
        now = losses(state.model, windows)
        if not now.total.isfinite():
            raise FloatingPointError(
                f"the loss became {now.total.item()} in step {state.step + 1}: lower the learning rate; "
                f"{self.folder} keeps the last checkpoint"
            )
        state.optimizer.zero_grad()
        now.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), training.clip)
        state.optimizer.step()
        return now.numbers()

    def _log(self, numbers: Mapping[str, float], writer: Any) -> None:
        """Training and held-out numbers, into the curve and TensorBoard."""
        held_out = {f"held_out_{name}": value for name, value in self._held_out().items()}
        rate = self.training.rate_at(self.state.step - 1)
        everything = {**numbers, **held_out, "learning_rate": rate}
        self.state.curve.append({"step": self.state.step, **everything})
        for name, value in everything.items():
            writer.add_scalar(name, value, self.state.step)

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        """Of the same windows each time, of goals the model is not trained on."""
        windows = self.samplers[1].draw(
            2 * self.training.batch, _generator(self.training.seed, HELD_OUT_STREAM, 0)
        )
        self.state.model.eval()
        numbers = losses(self.state.model, windows).numbers()
        self.state.model.train()
        return numbers

    def save(self) -> None:
        """Checkpoint, model and record."""
        state = self.state
        done = {"steps_done": state.step, "seconds": round(state.seconds, 1), "hardware": hardware()}
        state.model.record = {**state.settings, **done}
        state.save(self.folder / CHECKPOINT)
        state.model.save(self.folder / MODEL)
        write_json(self.folder / RECORD, {**state.model.record, "curve": state.curve})


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that a training keeps in its folder."""
    return read_json_object(Path(folder) / RECORD)


def hardware() -> dict[str, Any]:
    """Where a result comes from, for its record."""
    return show_config() | {"torch": torch.__version__}


def _optimizer(model: HistoryTransformer, training: Training) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=training.weight_decay,
    )


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on a key alone, so that a resumed training draws the same."""
    return np.random.default_rng(key)
