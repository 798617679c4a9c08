"""The folder of a study: whose it is, who writes to it, and its tables."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rattention._config import get_num_threads, show_config
from rattention._extras import require
from rattention._files import replacing, write_json
from rattention._installed import versions
from rattention.studies.kit.settings import differences, read_lines
from rattention.studies.lra.config import SUBSETS, Study

if TYPE_CHECKING:
    from collections.abc import Iterator

STUDY, ENVIRONMENT, LOCK, RUNS = "study.yaml", "environment.json", ".lock", "runs"
"""Files of a study."""

SETTINGS, METRICS, ATTENTION = "run.yaml", "metrics.jsonl", "attention.jsonl"
RESULT, MODEL, MAPS = "result.json", "model.safetensors", "attention_maps.safetensors"
"""Files of a run."""

KINDS = dict.fromkeys(("task", "mechanism"), "string") | dict.fromkeys(
    ("seed", "epoch", "step", "peak_memory_bytes", "layer", "head"), "int64"
)
"""Types of columns in tables, where not float64."""


def new_name() -> str:
    """A name for a new folder, with the time."""
    return f"results_{datetime.datetime.now():%Y%m%d_%H%M%S}"


def require_study_or_nothing(folder: str | os.PathLike[str]) -> Path:
    """The path, where there is nothing yet or a study; ValueError otherwise."""
    path = Path(folder)
    if path.is_dir() and not (path / STUDY).exists() and any(p.name != LOCK for p in path.iterdir()):
        raise ValueError(f"{path} holds no study (there is no {STUDY}): choose a new or an empty folder")
    return path


def open_folder(study: Study, folder: Path) -> None:
    """Write down the study and where it runs; ValueError where the folder has another one."""
    path = folder / STUDY
    if path.exists():
        before = Study.load(path)
        chosen: dict[str, Any] = {name: getattr(before, name) + getattr(study, name) for name in SUBSETS}
        before, study = (replace(each, **chosen) for each in (before, study))
        if differing := differences(before, study):
            raise ValueError(
                f"{folder} holds another study, with {'; '.join(differing)}: choose another folder, or the "
                "same settings to go on"
            )
    study.save(path)
    if not (folder / ENVIRONMENT).exists():
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        hardware = show_config() | {"torch": torch.__version__}
        write_json(
            folder / ENVIRONMENT,
            {"created": now, "hardware": hardware, "versions": versions(), "threads": get_num_threads()},
        )


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run; None of one that is not."""
    path = folder / RESULT
    try:
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): remove it, and the run is finished again"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in the folder; ValueError where another process is."""
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by another run (process {file.read().strip() or 'unknown'}): wait for "
                "it, or choose another folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_tables(folder: Path) -> None:
    """All lines of all runs, ``metrics.parquet`` and ``attention.parquet``."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    for source in (METRICS, ATTENTION):
        rows = [row for run in sorted((folder / RUNS).glob("*-*-*")) for row in _rows(run, source)]
        if rows:
            schema = arrow.schema([(name, KINDS.get(name, "float64")) for name in rows[0]])
            with replacing(folder / f"{Path(source).stem}.parquet") as temporary:
                parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), temporary)


def _rows(run: Path, source: str) -> list[dict[str, Any]]:
    task, mechanism, seed = run.name.split("-")
    named = {"task": task, "mechanism": mechanism, "seed": int(seed)}
    return [named | line for line in read_lines(run / source, ("epoch",))[0]]
