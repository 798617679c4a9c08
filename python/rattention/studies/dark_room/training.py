"""Training by next-action prediction: resumable to the bit, stopped cleanly, logged."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from rattention._config import show_config
from rattention._files import writable_folder, write_json
from rattention._models import evaluating
from rattention.models.folder import read_json_object
from rattention.studies.dark_room.histories import LearningHistories, WindowSampler
from rattention.studies.dark_room.model import HistoryTransformer
from rattention.studies.dark_room.rooms import ACTIONS
from rattention.studies.kit.settings import differences, require_ranges
from rattention.studies.kit.training import Trainer, deferred_interrupt, read_checkpoint, save_checkpoint

MODEL, RECORD, CHECKPOINT = "dark_room.safetensors", "training.json", "training.pt"
"""Files in the folder of a training."""

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
    """Keep every k-th episode of a learning history, k up to this, so that a context spans more progress."""
    learning_rate: float = 3e-3
    """Its peak, after `warmup` steps; from there half a cosine down to a twentieth."""
    warmup: int = 100
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of first weights and batches."""
    log_every: int = 50
    """Steps between numbers in the record, held-out loss included."""
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        require_ranges(
            self,
            steps=1,
            batch=1,
            every=1,
            warmup=0,
            seed=0,
            log_every=1,
            checkpoint_every=1,
            positive=("learning_rate", "clip"),
            not_negative=("weight_decay",),
        )

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)


def losses(model: HistoryTransformer, windows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cross entropies (nats) and accuracies of a batch, at queries and after transitions: scalars.

    `windows` are what `Windows.tensors` gives.
    """
    actions, lengths, counted = (windows[name] for name in ("actions", "lengths", "counted"))
    logits = model.predict(windows["states"], actions, windows["rewards"], windows["next_states"], lengths)
    rows = torch.arange(len(lengths))
    pairs = {
        "query": (logits[rows, lengths], actions[rows, lengths]),
        "transition": (logits[:, :-1][counted], actions[:, 1:][counted]),
    }
    numbers = {}
    for name, (found, wanted) in pairs.items():
        count = max(1, len(wanted))
        numbers[f"{name}_loss"] = functional.cross_entropy(found, wanted, reduction="sum") / count
        numbers[f"{name}_accuracy"] = (found.argmax(dim=-1) == wanted).double().sum() / count
    return numbers


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
        Go on from the checkpoint in the folder, with the same result as without a break. `training` may have
        more steps than before; the learning rate then follows the longer schedule from there on.

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
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        trainer = _Trainer(histories, writable_folder(folder), training or Training(), sizes or {})
        trainer.begin(resume)
        trainer.run(asked)
    return trainer.model


class _Trainer(Trainer):
    """A training under way."""

    model: HistoryTransformer

    def __init__(
        self, histories: LearningHistories, folder: Path, training: Training, sizes: Mapping[str, Any]
    ) -> None:
        self.training = training
        torch.manual_seed(training.seed)
        room = histories.collection.room
        usual = {"context": 100, "columns": room.size}
        model = HistoryTransformer(room.states, len(ACTIONS), **(usual | dict(sizes)))
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=training.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=training.weight_decay,
        )
        super().__init__(model, optimizer, folder, steps=training.steps, clip=training.clip)
        self.samplers = [
            WindowSampler(histories.of_goals(goals), model.config["context"], training.every)
            for goals in histories.collection.split()
        ]
        self.settings = {
            "collection": asdict(histories.collection),
            "training": asdict(training),
            "model": model.config,
        }
        self._losses: dict[str, torch.Tensor] = {}

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint in the folder, or make sure that none is lost."""
        path = self.folder / CHECKPOINT
        if not resume and not path.exists():
            return
        state = read_checkpoint(path)
        settings = state["settings"]["training"]
        if resume:
            settings["steps"] = max(settings["steps"], self.steps)
            if other := differences(state["settings"], self.settings):
                raise ValueError(f"{path} is of a training with {'; '.join(other)}")
            self.restore(state, path)
        elif state["step"] < settings["steps"]:
            raise ValueError(
                f"{self.folder} holds a training after {state['step']} of {settings['steps']} steps: resume "
                "it, or choose another folder"
            )

    def pause(self) -> None:
        if self.asked():
            self.save()
        super().pause()

    def rate(self) -> float:
        return self.training.rate_at(self.step)

    def batch(self) -> dict[str, torch.Tensor]:
        generator = np.random.default_rng((self.training.seed, 0, self.step))
        return self.samplers[0].draw(self.training.batch, generator).tensors()

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The query counts as much as all transitions together."""
        self._losses = losses(self.model, batch)
        return self._losses["query_loss"] + self._losses["transition_loss"]

    def after_step(self, bar: Any) -> None:
        last = self.step == self.steps
        if last or self.step % self.training.log_every == 0:
            self._log(bar)
        if last or self.step % self.training.checkpoint_every == 0:
            self.save()

    def _log(self, bar: Any) -> None:
        held_out = {f"held_out_{name}": value for name, value in self._held_out().items()}
        numbers = {name: value.item() for name, value in (self._losses | held_out).items()}
        numbers["learning_rate"] = self.training.rate_at(self.step - 1)
        self.lines.append({"step": self.step, **numbers})
        self.log(numbers, self.step)
        bar.set_postfix(loss=numbers["query_loss"], accuracy=numbers["query_accuracy"])

    def _held_out(self) -> dict[str, torch.Tensor]:
        generator = np.random.default_rng((self.training.seed, HELD_OUT_STREAM, 0))
        windows = self.samplers[1].draw(2 * self.training.batch, generator)
        with evaluating(self.model):
            return losses(self.model, windows.tensors())

    def state(self) -> dict[str, Any]:
        return super().state() | {"settings": self.settings}

    def save(self) -> None:
        self.model.record = {
            **self.settings,
            "steps_done": self.step,
            "seconds": round(self.seconds, 1),
            "hardware": show_config() | {"torch": torch.__version__},
        }
        save_checkpoint(self.folder / CHECKPOINT, self.state())
        self.model.save(self.folder / MODEL)
        write_json(self.folder / RECORD, {**self.model.record, "curve": self.lines})


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that a training keeps in its folder."""
    return read_json_object(Path(folder) / RECORD)
