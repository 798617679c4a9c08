"""Results read from folders: one table of numbers, each with its experiment, its model and its seed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention.studies.kit.settings import as_plain, from_mapping
from rattention.studies.lm.config import Study
from rattention.studies.lm.evaluation import outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RESULTS = "results"
DIFFERING = ("experiments", "seeds", "windows", "layouts")
"""Settings in which results of one table may differ."""


@dataclass(frozen=True)
class Number:
    """One measured number."""

    experiment: str
    name: str
    """Of the variant."""
    label: str
    seed: int
    measure: str
    """What it is, with its unit."""
    value: float
    mechanism: str
    window: int | None
    layout: str
    at: int = 0
    """The context, the number of pairs, or the tokens of training after a conversion."""


def read_results(folders: Iterable[str | Path]) -> list[dict[str, Any]]:
    """All finished results in folders of ``rattention lm run``.

    ValueError for a folder without any, a damaged file, the same run in two folders, or results of one
    experiment that were made with different settings.
    """
    found: dict[tuple[str, str, int, str | None], dict[str, Any]] = {}
    for folder in map(Path, folders):
        paths = sorted((folder / RESULTS).glob("*.json"))
        if not paths:
            raise ValueError(f"{folder} holds no results of rattention lm run (there is no {RESULTS}/*.json)")
        for path in paths:
            result = _read(path)
            key = (result["experiment"], result["name"], result["seed"], result["trained_on"])
            if key in found:
                raise ValueError(f"{path} is a run that another folder has, too: analyse one of them")
            found[key] = result
    _require_equal_settings(list(found.values()))
    return list(found.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        result = dict(json.loads(path.read_text("utf-8")))
        for name in ("experiment", "name", "label", "seed", "variant", "settings", "trained_on"):
            result[name]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no result of rattention lm run: {error}") from error
    return result


def _require_equal_settings(results: list[dict[str, Any]]) -> None:
    first: dict[str, tuple[Any, Any]] = {}
    for result in results:
        settings = {n: v for n, v in _whole(result["settings"]).items() if n not in DIFFERING}
        corpus = result.get("corpus_sha256")
        known = first.setdefault(result["experiment"], (settings, corpus))
        if known != (settings, corpus):
            raise ValueError(
                f"results of {result['experiment']} were made with different settings or texts: analyse "
                "their folders one by one"
            )


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what was no setting yet when they were written."""
    return dict(as_plain(from_mapping(Study, settings, "settings")))


def numbers_of(results: Iterable[dict[str, Any]]) -> list[Number]:
    """The table."""
    return [number for result in results for number in _numbers(result)]


def _numbers(result: dict[str, Any]) -> Iterator[Number]:
    variant = result["variant"]
    common = {name: result[name] for name in ("experiment", "name", "label", "seed")} | variant
    for measure, at, value in _measures(result):
        if value is not None and math.isfinite(value):
            yield Number(**common, measure=measure, at=at, value=value)


def _measures(result: dict[str, Any]) -> Iterator[tuple[str, int, float | None]]:
    windows = result["settings"]["windows"]
    if "text" in result:
        converted = result["experiment"] == "conversion"
        at = result["training"]["tokens"] if converted else result["text"]["context"]
        yield from _of_text(result["text"], windows, at)
    for text in result.get("lengths", []):
        yield from _of_text(text, windows, text["context"])
    for row in result.get("tasks", ()):
        yield f"{row['task']}: accuracy", row["length"], row["accuracy"]
        yield f"{row['task']}: bits gained", row["length"], row["bits_gained"]
    if "recall" in result:
        pairs = int(result["trained_on"].rpartition("-")[2])
        yield "accuracy", pairs, result["recall"]["accuracy"]
    for row in result.get("cost", ()):
        for measure in ("step_seconds", "prefill_seconds", "decoded_tokens_per_second", "cache_bytes"):
            yield measure, row["length"], row[measure]


def _of_text(text: dict[str, Any], windows: list[int], at: int) -> Iterator[tuple[str, int, float | None]]:
    yield BITS, at, text["second_half_bits_per_byte"]
    for window in windows:
        yield f"bits per token, last seen beyond {window}", at, outside(text["by_reach"], window)


BITS = "bits per byte, second half"
