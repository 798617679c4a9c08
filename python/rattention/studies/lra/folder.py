"""The folder of a study: its files, what it was begun with, and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rattention._extras import require
from rattention._files import replacing
from rattention.studies.kit.folder import STUDY, write_environment
from rattention.studies.kit.settings import differences, read_lines
from rattention.studies.lra.config import SUBSETS, Study

RUNS = "runs"
"""The folder of all runs."""

SETTINGS, METRICS, ATTENTION = "run.yaml", "metrics.jsonl", "attention.jsonl"
RESULT, MODEL, MAPS = "result.json", "model.safetensors", "attention_maps.safetensors"
"""Files of a run."""

KINDS = dict.fromkeys(("task", "mechanism"), "string") | dict.fromkeys(
    ("seed", "epoch", "step", "peak_memory_bytes", "layer", "head"), "int64"
)
"""Types of columns in tables, where not float64."""


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
    write_environment(folder)


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
