"""What the files of a study and of its runs are called, for those who write them and those who read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STUDY, ENVIRONMENT, LOCK, RUNS = "study.yaml", "environment.json", ".lock", "runs"
"""Of a study."""

SETTINGS, METRICS, ATTENTION = "run.yaml", "metrics.jsonl", "attention.jsonl"
RESULT, MODEL, MAPS = "result.json", "model.safetensors", "attention_maps.safetensors"
"""Of a run."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, to be compared."""
    named: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            named |= flat(value, f"{prefix}{name}.")
        else:
            named[f"{prefix}{name}"] = value
    return named
