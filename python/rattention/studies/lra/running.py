"""One run: a folder with a trained model, its numbers, and how they came about."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch

from rattention._files import write_json
from rattention.nn import count_parameters
from rattention.studies.kit import distributed
from rattention.studies.kit.interrupts import deferred_interrupt
from rattention.studies.kit.settings import write_yaml
from rattention.studies.lra.data import SPLITS, TaskData
from rattention.studies.lra.folder import MAPS, MODEL, RESULT, SETTINGS
from rattention.studies.lra.measuring import PeakMemory, save_maps
from rattention.studies.lra.models import SequenceClassifier
from rattention.studies.lra.training import CHECKPOINTS, ClassifierTrainer, evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.studies.lra.config import Run
    from rattention.studies.lra.measuring import History

CONVERGED = 0.9
"""Share of the best validation accuracy at which a run counts as converged."""


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run; None of one that is not."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): remove it, and the run is finished again"
        ) from error
    return dict(result)


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
        write_yaml(folder / SETTINGS, run.as_data())
    distributed.barrier()
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        trainer = ClassifierTrainer(new_model(run, data), data, run, folder)
        trainer.run(asked)
        return _finish(run, data, trainer)


def new_model(run: Run, data: TaskData) -> SequenceClassifier:
    """The model of a run with its first weights."""
    torch.manual_seed(run.seed)
    return SequenceClassifier(data.vocabulary, data.classes, run.mechanism, run.model, longest(data))


def longest(data: TaskData) -> int:
    """Tokens of the longest sequence of a task."""
    return max(int(split.lengths.max()) for split in (data.train, data.validation, data.test))


def _finish(run: Run, data: TaskData, trainer: ClassifierTrainer) -> dict[str, Any]:
    """Everything after the last epoch; the result is written last."""
    folder, history = trainer.folder, trainer.history
    if distributed.rank() == 0:
        trainer.model.load_state_dict(trainer.best)
        trainer.model.save(folder / MODEL)
    distributed.barrier()
    model = SequenceClassifier.load(folder / MODEL)
    _require_same_accuracy(model, data, run, history, folder / MODEL)
    memory = PeakMemory(history.peak_memory())
    loss, accuracy = evaluate(model, data.test, run.training.batch, trainer.pause)
    result = {
        "task": run.task,
        "mechanism": run.mechanism,
        "seed": run.seed,
        "test_accuracy": accuracy,
        "test_loss": loss,
        **_convergence(history),
        "peak_memory_bytes": memory.bytes(),
        "parameters": _counts(model),
        "majority_accuracy": data.majority_accuracy(),
        "label_shares": data.label_shares(),
        "samples": {name: len(getattr(data, name)) for name in SPLITS},
        "stopped": history.stopped(run.training),
    }
    if distributed.rank() == 0:
        save_maps(model, data.test, folder / MAPS)
        write_json(folder / RESULT, result)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    distributed.barrier()
    return result


def _require_same_accuracy(
    model: SequenceClassifier, data: TaskData, run: Run, history: History, path: Path
) -> None:
    _, again = evaluate(model, data.validation, run.training.batch)
    before = history.best()["validation_accuracy"]
    if again != before:
        raise RuntimeError(
            f"{path}: the saved model has a validation accuracy of {again}, in training it was {before}"
        )


def _convergence(history: History) -> dict[str, Any]:
    best = history.best()
    return {
        "best_epoch": best["epoch"],
        "best_validation_accuracy": best["validation_accuracy"],
        "epochs": len(history.lines),
        "epochs_to_90_percent": history.epochs_to(CONVERGED),
        "seconds_per_epoch": history.mean("seconds"),
        "tokens_per_second": history.mean("tokens_per_second"),
    }


def _counts(model: SequenceClassifier) -> dict[str, int]:
    counts = count_parameters(model)
    return {name: counts.get(name, 0) for name in ("attention", "mlp", "embedding", "norm", "total")}
