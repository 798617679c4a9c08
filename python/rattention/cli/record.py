"""A demo's measurements as files: JSON, CSV and figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._config import show_config
from rattention._files import save_figure, write_csv, write_json
from rattention._installed import versions
from rattention.studies.degradation import summarise
from rattention.studies.degradation.contexts import AVERAGED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.cli.demo import Demo
    from rattention.cli.subject import Subject
    from rattention.studies.degradation import Degradation

COLUMNS = ("context_length", "sequence_length", *AVERAGED, "retention_change", "first_tokens_share")
FORMATS = (".png", ".svg")


def as_data(
    measured: Degradation, subject: Subject, notes: Sequence[str], options: Demo, *, seconds: float
) -> dict[str, Any]:
    """All numbers, and everything needed to get them again."""
    return {
        "model": subject.data,
        **measured.as_data(),
        "summary": summarise(measured),
        "notes": list(notes),
        **circumstances(options, options.seed),
        "seconds": round(seconds, 3),
    }


def circumstances(options: Any, seed: int) -> dict[str, Any]:
    """What a command ran with and on; `options` is its dataclass."""
    return {
        "seed": seed,
        "configuration": _plain(dataclasses.asdict(options)),
        "versions": versions(),
        "hardware": show_config(),
    }


def save(
    folder: Path, measured: Degradation, subject: Subject, data: dict[str, Any]
) -> tuple[list[Path], list[str]]:
    """Write everything into `folder`; return what was written, and remarks on what was not."""
    rows = [[getattr(c, name) for name in COLUMNS] for c in measured.contexts]
    write_csv(folder / "contexts.csv", COLUMNS, rows)
    write_csv(folder / "heads.csv", ("context_length", "layer", "head", *AVERAGED), _head_rows(measured))
    write_json(folder / "degradation.json", data)
    written = [folder / name for name in ("contexts.csv", "heads.csv", "degradation.json")]
    try:
        written += _save_figures(folder, measured, subject)
    except ImportError as error:
        return written, [f"no figures: {error}"]
    return written, []


def _head_rows(measured: Degradation) -> list[list[float]]:
    rows = []
    for context in measured.contexts:
        layers, heads = context.per_head[AVERAGED[0]].shape
        for layer in range(layers):
            for head in range(heads):
                values = [float(context.per_head[name][layer, head]) for name in AVERAGED]
                rows.append([context.context_length, layer, head, *values])
    return rows


def _save_figures(folder: Path, measured: Degradation, subject: Subject) -> list[Path]:
    from rattention.studies.degradation import figures as draw

    longest = measured.contexts[-1].sequence_length
    figures = {
        "metrics": draw.metrics_figure(measured, title=f"Attention of {subject.name} as its context grows"),
        "heads": draw.heads_figure(measured, title=f"Every head of {subject.name} at {longest} tokens"),
        "reach": draw.reach_figure(
            measured, title=f"Dilution, and what a window would cut off: {subject.name}"
        ),
    }
    if measured.recall:
        figures["recall"] = draw.recall_figure(
            measured, title=f"Does the question find its fact? {subject.name}"
        )
    paths = []
    for name, figure in figures.items():
        for suffix in FORMATS:
            save_figure(folder / f"{name}{suffix}", figure)
        paths.append(folder / f"{name}{FORMATS[0]}")
    return paths


def _plain(value: Any) -> Any:
    """Paths as text, nested."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
