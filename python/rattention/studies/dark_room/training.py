"""Training by next-action prediction: resumable to the bit, stopped cleanly, logged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from rattention._config import show_config
from rattention._files import writable_folder, write_json
from rattention.models.errors import read_json_object
from rattention.studies.dark_room.model import HistoryTransformer
from rattention.studies.dark_room.rooms import ACTIONS
from rattention.studies.dark_room.windows import WindowSampler
from rattention.studies.kit.interrupts import deferred_interrupt
from rattention.studies.kit.settings import differences, require_ranges
from rattention.studies.kit.training import Trainer, read_checkpoint, save_checkpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from rattention.studies.dark_room.histories import LearningHistories

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


@dataclass(frozen=True)
class Losses:
    """Cross entropies (nats) and accuracies of a batch, at queries and after transitions."""

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


def losses(model: HistoryTransformer, windows: Mapping[str, torch.Tensor]) -> Losses:
    """How well the model predicts the next actions in windows, as `Windows.tensors` gives them."""
    actions, lengths, counted = (windows[name] for name in ("actions", "lengths", "counted"))
    logits = model.predict(windows["states"], actions, windows["rewards"], windows["next_states"], lengths)
    rows = torch.arange(len(lengths))
    query, wanted = logits[rows, lengths], actions[rows, lengths]
    after, following = logits[:, :-1][counted], actions[:, 1:][counted]
    transition = functional.cross_entropy(after, following, reduction="sum") / max(1, len(following))
    return Losses(
        functional.cross_entropy(query, wanted),
        transition,
        _accuracy(query, wanted),
        _accuracy(after, following),
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
        super().__init__(model, _optimizer(model, training), folder, steps=training.steps, clip=training.clip)
        self.samplers = [
            WindowSampler(histories.of_goals(goals), model.config["context"], training.every)
            for goals in histories.collection.split()
        ]
        self.settings = {
            "collection": asdict(histories.collection),
            "training": asdict(training),
            "model": model.config,
        }
        self._numbers: dict[str, float] = {}

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint in the folder, or make sure that none is lost."""
        path = self.folder / CHECKPOINT
        if not resume and not path.exists():
            return
        state = read_checkpoint(path)
        if resume:
            if other := differences(_lengthened(state["settings"], self.steps), self.settings):
                raise ValueError(f"{path} is of a training with {'; '.join(other)}")
            self.restore(state, path)
        elif state["step"] < (planned := state["settings"]["training"]["steps"]):
            raise ValueError(
                f"{self.folder} holds a training after {state['step']} of {planned} steps: resume it, or "
                "choose another folder"
            )

    def pause(self) -> None:
        """Save before KeyboardInterrupt."""
        if self.asked():
            self.save()
        super().pause()

    def rate(self) -> float:
        """The learning rate by the schedule."""
        return self.training.rate_at(self.step)

    def batch(self) -> dict[str, torch.Tensor]:
        """Windows of the goals to train on."""
        windows = self.samplers[0].draw(
            self.training.batch, np.random.default_rng((self.training.seed, 0, self.step))
        )
        return windows.tensors()

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The query's loss and that of all transitions."""
        now = losses(self.model, batch)
        self._numbers = now.numbers()
        return now.total

    def after_step(self, bar: Any) -> None:
        """Log and save where it is time."""
        last = self.step == self.steps
        if last or self.step % self.training.log_every == 0:
            self._log(bar)
        if last or self.step % self.training.checkpoint_every == 0:
            self.save()

    def _log(self, bar: Any) -> None:
        """Training and held-out numbers, into the curve and TensorBoard."""
        held_out = {f"held_out_{name}": value for name, value in self._held_out().items()}
        rate = self.training.rate_at(self.step - 1)
        numbers = {**self._numbers, **held_out, "learning_rate": rate}
        self.lines.append({"step": self.step, **numbers})
        self.log(numbers, self.step)
        bar.set_postfix(loss=numbers["query_loss"], accuracy=numbers["query_accuracy"])

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        generator = np.random.default_rng((self.training.seed, HELD_OUT_STREAM, 0))
        windows = self.samplers[1].draw(2 * self.training.batch, generator)
        self.model.eval()
        numbers = losses(self.model, windows.tensors()).numbers()
        self.model.train()
        return numbers

    def state(self) -> dict[str, Any]:
        """With everything that decides how the training goes."""
        return super().state() | {"settings": self.settings}

    def save(self) -> None:
        """Checkpoint, model and record."""
        done = {"steps_done": self.step, "seconds": round(self.seconds, 1), "hardware": hardware()}
        self.model.record = {**self.settings, **done}
        save_checkpoint(self.folder / CHECKPOINT, self.state())
        self.model.save(self.folder / MODEL)
        write_json(self.folder / RECORD, {**self.model.record, "curve": self.lines})


def _lengthened(settings: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Settings of a training that goes on to `steps`, where these are more than it had."""
    training = settings["training"]
    return {**settings, "training": {**training, "steps": max(training["steps"], steps)}}


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
