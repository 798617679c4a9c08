"""Which runs a study has, and how each is made; written to YAML and read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._arguments import require_seed
from rattention.studies.kit.settings import (
    as_plain,
    from_mapping,
    read_yaml,
    require_mapping,
    require_name,
    write_yaml,
)
from rattention.studies.lra.settings import MECHANISMS, ModelSize, Training
from rattention.studies.lra.tasks import TASKS

if TYPE_CHECKING:
    import os

    from rattention.studies.lra.data import TaskSettings

SUBSETS = ("tasks", "mechanisms", "seeds")
"""Fields of a study that say which runs there are; all others say how each is made."""


@dataclass(frozen=True)
class Study:
    """A comparison: every mechanism on every task with every seed. ValueError lists the known names."""

    tasks: tuple[str, ...] = tuple(name for name, task in TASKS.items() if task.usual)
    mechanisms: tuple[str, ...] = tuple(MECHANISMS)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of first weights, dropout and the order of batches; the data are the same for all."""
    model: ModelSize = field(default_factory=ModelSize)
    training: Training = field(default_factory=Training)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of tasks by name; a task that is missing gets its defaults."""
    task_training: Mapping[str, Training] = field(default_factory=dict)
    """How models of some tasks are trained, where not as all others."""

    def __post_init__(self) -> None:
        for name, one, names in (("tasks", "task", TASKS), ("mechanisms", "mechanism", MECHANISMS)):
            self._set_chosen(name, tuple(require_name(one, value, names) for value in getattr(self, name)))
        for seed in self.seeds:
            require_seed("seeds", seed)
        self._set_chosen("seeds", tuple(self.seeds))
        for task in (*self.data, *self.task_training):
            require_name("task", task, TASKS)
        data = {name: self.data.get(name, task.settings()) for name, task in TASKS.items()}
        object.__setattr__(self, "data", data)

    def _set_chosen(self, name: str, chosen: tuple[Any, ...]) -> None:
        if not chosen:
            raise ValueError(f"{name} must have at least one")
        object.__setattr__(self, name, tuple(dict.fromkeys(chosen)))

    def runs(self) -> list[Run]:
        """Every run; all mechanisms with the first seed come before the second, so that a study that is
        stopped has something of everything."""
        return [
            Run(task, mechanism, seed, self.model, self.training_of(task), self.data[task])
            for seed in self.seeds
            for task in self.tasks
            for mechanism in self.mechanisms
        ]

    def training_of(self, task: str) -> Training:
        """How models for a task are trained."""
        return self.task_training.get(task, self.training)

    def with_data(self, **settings: TaskSettings) -> Study:
        """With other settings of the tasks that are named."""
        return replace(self, data={**self.data, **settings})

    def with_training(self, **changes: Any) -> Study:
        """With other settings of the training, that of single tasks included."""
        own = {name: replace(training, **changes) for name, training in self.task_training.items()}
        return replace(self, training=replace(self.training, **changes), task_training=own)

    def as_data(self) -> dict[str, Any]:
        """Plain values, as YAML has them."""
        data: dict[str, Any] = as_plain(asdict(self))
        return data

    def save(self, path: Path) -> None:
        """Write YAML, whole or not at all."""
        write_yaml(path, self.as_data())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """The study in a YAML file.

        What the file does not mention has its default. ValueError names the file and keys that are unknown or
        values of another type, and what is allowed.
        """
        where = str(path)
        parts = read_yaml(Path(path))
        forms = {"data": {name: task.settings for name, task in TASKS.items()}}
        forms["task_training"] = dict.fromkeys(TASKS, Training)
        for name, by_task in forms.items():
            if name in parts:
                parts[name] = {
                    task: _part(by_task, task, value, f"{where}: {name}")
                    for task, value in require_mapping(parts[name], f"{where}: {name}").items()
                }
        return from_mapping(cls, parts, where)

    def with_more(self, other: Study) -> Study:
        """With the tasks, mechanisms and seeds of another one as well."""
        parts: dict[str, Any] = {name: (*getattr(self, name), *getattr(other, name)) for name in SUBSETS}
        return replace(self, **parts)


def _part(forms: Mapping[str, Any], task: str, value: Any, where: str) -> Any:
    try:
        form = forms[require_name("task", task, forms)]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return from_mapping(form, require_mapping(value, f"{where}: {task}"), f"{where}: {task}")


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    mechanism: str
    seed: int
    model: ModelSize
    training: Training
    data: TaskSettings

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.task}-{self.mechanism}-{self.seed}"

    def as_data(self) -> dict[str, Any]:
        """Plain values, as YAML has them."""
        data: dict[str, Any] = as_plain({f.name: getattr(self, f.name) for f in fields(self)})
        return data
