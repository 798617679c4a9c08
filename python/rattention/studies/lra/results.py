"""What the folders of studies hold: finished and unfinished runs, from one folder or several together."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rattention._extras import require
from rattention.studies.kit.folder import ENVIRONMENT, STUDY
from rattention.studies.kit.settings import differences, is_number, read_lines, read_yaml
from rattention.studies.lra import folder as files
from rattention.studies.lra.config import TASKS
from rattention.studies.lra.settings import MECHANISMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

NUMBERS = (
    "test_accuracy",
    "best_epoch",
    "epochs",
    "epochs_to_90_percent",
    "seconds_per_epoch",
    "tokens_per_second",
    "peak_memory_bytes",
    "majority_accuracy",
)
"""What a result must have, besides its parameters."""

IDENTITY = ("task", "mechanism", "seed")
"""What tells runs apart."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class RunRecord:
    """One run, as far as it went."""

    task: str
    mechanism: str
    seed: int
    folder: Path
    settings: Mapping[str, Any] | None = None
    """How it went, without task, mechanism and seed; None where that cannot be read."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """A line per epoch."""
    attention: Sequence[Mapping[str, Any]] = ()
    """A line per epoch, layer and head."""
    result: Mapping[str, Any] | None = None
    """None of a run that is not finished."""
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """What the best model attends to in one sample: ``layer0`` and so on, ``[heads, rows, keys]``."""

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.task}-{self.mechanism}-{self.seed}"

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Those of the result; none of a run that is not finished."""
        return self.result or {}


@dataclass(frozen=True)
class StudyResults:
    """All runs of one or several folders."""

    folders: tuple[Path, ...]
    runs: tuple[RunRecord, ...]
    """Each task, mechanism and seed once, in the order of tables."""
    environments: tuple[Mapping[str, Any], ...]
    """Of each folder: hardware, versions, threads."""
    warnings: tuple[str, ...]
    """What could not be read or was left out, a sentence each."""

    @classmethod
    def read(cls, folders: Iterable[str | Path]) -> StudyResults:
        """Read folders that ``rattention lra run`` has written.

        A file or line that is damaged becomes a warning and its run, where numbers are missing, an unfinished
        one. A run that is in several folders counts once: the first that is finished.

        Raises
        ------
        ValueError
            No folder; a folder that does not exist, is no result or has no runs; runs of the same task with
            different settings, whose numbers cannot be one table.
        """
        paths = tuple(dict.fromkeys(Path(folder) for folder in folders))
        if not paths:
            raise ValueError("folders must have at least one folder of results")
        warnings: list[str] = []
        found = [run for path in paths for run in _runs(path, warnings)]
        _require_same_settings(found)
        unknown = "{} cannot be read ({}): on what its runs went is not known."
        read = (_read(path / ENVIRONMENT, _mapping, unknown, warnings) for path in paths)
        environments = tuple(environment or {} for environment in read)
        machines = [(own.get("hardware"), own.get("threads")) for own in environments]
        if any(machine != machines[0] for machine in machines):
            warnings.append(
                "The folders come from different hardware or numbers of threads: times and memory of their "
                "runs cannot be compared."
            )
        runs = _each_once(found, warnings)
        return cls(paths, tuple(sorted(runs, key=_order)), environments, tuple(warnings))

    def finished(self) -> list[RunRecord]:
        """Runs that have a result."""
        return [run for run in self.runs if run.result is not None]

    def unfinished(self) -> list[RunRecord]:
        """The others."""
        return [run for run in self.runs if run.result is None]

    def tasks(self) -> list[str]:
        """In the order of tables."""
        return list(dict.fromkeys(run.task for run in self.runs))

    def by_mechanism(self, task: str) -> dict[str, list[RunRecord]]:
        """The runs of a task with all seeds, in the order of tables."""
        runs = [run for run in self.runs if run.task == task]
        return {name: list(some) for name, some in itertools.groupby(runs, attrgetter("mechanism"))}


def mechanism_label(mechanism: str) -> str:
    """A mechanism as tables and figures call it."""
    return MECHANISMS.get(mechanism, mechanism)


def _order(run: RunRecord) -> tuple[int, str, int, str, int]:
    """Those that are not known come last."""
    tasks, names = [*TASKS, run.task], [*MECHANISMS, run.mechanism]
    return tasks.index(run.task), run.task, names.index(run.mechanism), run.mechanism, run.seed


def _runs(folder: Path, warnings: list[str]) -> list[RunRecord]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one that rattention lra run has written")
    if not (folder / STUDY).is_file() or not (folder / files.RUNS).is_dir():
        raise ValueError(
            f"{folder} holds no results (there is no {STUDY} with a folder {files.RUNS}): give a "
            "folder that rattention lra run has written"
        )
    runs = []
    for place in sorted(path for path in (folder / files.RUNS).iterdir() if path.is_dir()):
        parts = place.name.rsplit("-", 2)
        if len(parts) == 3 and all(parts) and parts[2].isdecimal():
            runs.append(_run(RunRecord(parts[0], parts[1], int(parts[2]), place), warnings))
        else:
            warnings.append(f"{place} was left out: its name is no task-mechanism-seed.")
    if not runs:
        raise ValueError(f"{folder} has no runs yet")
    return runs


def _run(run: RunRecord, warnings: list[str]) -> RunRecord:
    """A run with what its folder holds."""

    def read(name: str, load: Callable[[Path], Value], text: str) -> Value | None:
        path = run.folder / name
        return _read(path, load, text, warnings) if path.exists() or name == files.SETTINGS else None

    def lines(name: str, *needed: str) -> Sequence[dict[str, Any]]:
        found = read(name, lambda path: read_lines(path, needed), "{} cannot be read ({}).")
        whole, damaged = found or ([], [])
        if damaged:
            places = ", ".join(map(str, damaged))
            warnings.append(f"{run.folder / name}: line {places} is damaged and was left out.")
        return whole

    unknown = "{1}; whether its settings are those of the others is not known."
    unfinished = "{} cannot be used ({}): the run counts as unfinished."
    return replace(
        run,
        settings=read(files.SETTINGS, _settings, unknown),
        metrics=lines(files.METRICS, "epoch", "train_accuracy", "validation_accuracy"),
        attention=lines(files.ATTENTION, "epoch", "layer", "head"),
        maps=read(files.MAPS, _maps, "{} cannot be read ({}): its figure is missing.") or {},
        result=read(files.RESULT, partial(_result, run=run), unfinished),
    )


def _read(path: Path, load: Callable[[Path], Value], text: str, warnings: list[str]) -> Value | None:
    """What `load` makes of a file; of one that is damaged None, and the warning `text`."""
    try:
        return load(path)
    except ImportError:
        raise
    except Exception as error:  # safetensors has errors of its own for a file that is cut
        warnings.append(text.format(path, error))
    return None


def _result(path: Path, run: RunRecord) -> dict[str, Any]:
    result = _mapping(path)
    missing = [name for name in NUMBERS if not is_number(result.get(name))]
    parameters = result.get("parameters")
    if not isinstance(parameters, dict) or not is_number(parameters.get("total")):
        missing.append("parameters.total")
    if missing:
        raise ValueError(f"no number for {', '.join(missing)}")
    if (name := "-".join(str(result.get(part)) for part in IDENTITY)) != run.name:
        raise ValueError(f"it is that of {name}")
    return result


def _settings(path: Path) -> dict[str, Any]:
    """All that is the same for every mechanism and seed."""
    return {name: value for name, value in read_yaml(path).items() if name not in IDENTITY}


def _maps(path: Path) -> dict[str, NDArray[np.float32]]:
    maps = require("safetensors.numpy").load_file(path)
    if not all(values.ndim == 3 and values.size for values in maps.values()):
        raise ValueError("it must hold arrays [heads, rows, keys]")
    return {name: maps[name] for name in sorted(maps, key=lambda name: (len(name), name))}


def _mapping(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text("utf-8"))
    if not isinstance(data, dict):
        raise ValueError("it holds no numbers by name")
    return data


def _require_same_settings(runs: Sequence[RunRecord]) -> None:
    first: dict[str, RunRecord] = {}
    for run in runs:
        other = run if run.settings is None else first.setdefault(run.task, run)
        if differing := differences(other.settings or {}, run.settings or {}, "{} is {} and {}"):
            raise ValueError(
                f"{other.folder} and {run.folder} have different settings ({'; '.join(differing)}): their "
                "numbers cannot be one table; analyse their folders one by one"
            )


def _each_once(runs: Sequence[RunRecord], warnings: list[str]) -> list[RunRecord]:
    kept: dict[str, RunRecord] = {}
    for run in runs:
        other = kept.setdefault(run.name, run)
        if other is not run:
            better, left = (run, other) if run.numbers and not other.numbers else (other, run)
            kept[run.name] = better
            text = f"{run.name} is in several folders: {better.folder} counts, {left.folder} does not."
            warnings.append(text)
    return list(kept.values())
