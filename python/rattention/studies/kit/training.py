"""A training loop that stops between two steps and continues to the same bits."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import threading
import time
import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from rattention._extras import require
from rattention._files import replacing
from rattention.models.folder import WeightsError as WeightsError
from rattention.studies.kit import distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LOGS, FAILED_BATCH = "tensorboard", "failed_batch.safetensors"
"""In the folder of a training."""

CHECKSUM_BYTES = 4


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed; pressed again, it interrupts as usual.

    Python delivers signals to the main thread only: in other threads, nothing is deferred.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def hear(_number: int, _frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, hear)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


class Trainer(ABC):
    """The training of one model; a subclass says what a batch is, its loss, and what follows a step.

    Batches must depend on the step and on fixed seeds alone: then a checkpoint needs no state of theirs, and
    a training that continues from one gives the same bits as one without a break. Under torchrun all ranks
    step together and rank 0 writes.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        *,
        steps: int,
        clip: float,
    ) -> None:
        self.model, self.optimizer, self.folder = model, optimizer, folder
        self.steps, self.clip = steps, clip
        self.step = 0
        """Steps done."""
        self.seconds = 0.0
        """Time spent on them."""
        self.lines: list[dict[str, Any]] = []
        """Numbers logged so far."""
        self.asked: Callable[[], bool] = lambda: False
        """Whether to stop, as `deferred_interrupt` says."""
        self._writer: Any = None

    @abstractmethod
    def batch(self) -> dict[str, torch.Tensor]:
        """The tensors of the next step."""

    @abstractmethod
    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The number to minimise."""

    @abstractmethod
    def rate(self) -> float:
        """The learning rate of the next step."""

    @abstractmethod
    def after_step(self, bar: Any) -> None:
        """Log, validate and save where it is time; `bar` is tqdm's."""

    def finished(self) -> bool:
        """Whether there is no further step."""
        return self.step >= self.steps

    def pause(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.asked():
            raise KeyboardInterrupt

    def run(self, asked: Callable[[], bool]) -> None:
        """All steps that are left.

        Raises
        ------
        FloatingPointError
            The loss or a gradient is NaN or infinite; the message names the file with the batch.
        KeyboardInterrupt
            `asked` returned True; the step was finished first.
        """
        self.asked = asked
        with self._bar() as bar, self._logs():
            while not self.finished():
                self.pause()
                self._step()
                bar.update()
                self.after_step(bar)

    def log(self, numbers: Mapping[str, Any], at: int) -> None:
        """Write numbers to TensorBoard."""
        if self._writer is not None:
            for name, value in numbers.items():
                if value is not None:
                    self._writer.add_scalar(name, value, at)
            self._writer.flush()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; subclasses add to it. Every rank must call this."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "lines": self.lines,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": distributed.all_gather(torch.get_rng_state()),
        }

    def restore(self, state: Mapping[str, Any], path: Path) -> None:
        """Continue from a checkpoint; WeightsError where that is of another model."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"][distributed.rank()])
            self.step, self.seconds, self.lines = state["step"], state["seconds"], state["lines"]
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            raise WeightsError(f"{path} does not fit the model: {error}") from error

    def _step(self) -> None:
        began = time.perf_counter()
        batch = self.batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss = self.loss(batch)
        self._require_finite("loss", loss, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self._require_finite("norm of the gradient", norm, batch)
        self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - began

    def _require_finite(self, what: str, number: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> None:
        if bool(number.isfinite()):
            return
        path, value = self.folder / FAILED_BATCH, str(number.item())
        with replacing(path) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in batch.items()}
            metadata = {"step": str(self.step + 1), what: value}
            require("safetensors.torch").save_file(tensors, temporary, metadata)
        raise FloatingPointError(
            f"the {what} became {value} in step {self.step + 1}: lower the learning rate; its batch is in "
            f"{path}, and the last checkpoint is kept"
        )

    def _bar(self) -> Any:
        """A bar on stderr where that is a terminal, of rank 0 alone."""
        return require("tqdm").tqdm(
            total=self.steps,
            initial=self.step,
            desc=self.folder.name,
            unit="step",
            disable=None if distributed.rank() == 0 else True,
            leave=False,
        )

    def _logs(self) -> contextlib.AbstractContextManager[Any]:
        """Of rank 0, in TensorBoard's files."""
        if distributed.rank() != 0:
            return contextlib.nullcontext()
        tensorboard = require("torch.utils.tensorboard")
        self._writer = tensorboard.SummaryWriter(str(self.folder / LOGS), purge_step=self.logged() + 1)
        return contextlib.closing(self._writer)

    def logged(self) -> int:
        """Where TensorBoard goes on."""
        return self.step


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint with a checksum, whole or not at all; on the disk when this returns."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content + zlib.crc32(content).to_bytes(CHECKSUM_BYTES))
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; WeightsError where it is damaged or something else. No code in it is
    run."""
    try:
        whole = path.read_bytes()
        content, checksum = whole[:-CHECKSUM_BYTES], whole[-CHECKSUM_BYTES:]
        if zlib.crc32(content).to_bytes(CHECKSUM_BYTES) != checksum:
            raise ValueError("it is damaged, or no checkpoint of a training")
        return dict(torch.load(io.BytesIO(content), weights_only=True))
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def adamw(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices alone, the weights of RAttention's norms among them, a row for each head:
    other norms, biases, gravity and timescales do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)


def last_checkpoint(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The last checkpoint that is whole, and what it holds."""
    for path in reversed(checkpoints(folder)):
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


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the last one last: their names end with a number."""
    return sorted(folder.glob("*-*.pt"), key=lambda path: int(path.stem.rpartition("-")[2]))
