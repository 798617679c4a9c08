"""Numbers as lines of JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rattention._files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a line of JSON each, all or none; ValueError for NaN and infinity."""
    write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def read_lines(path: Path, needed: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[int]]:
    """The lines that are whole and have the numbers `needed`, and the places (from 1) of the others.

    OSError and ValueError where the file cannot be read.
    """
    lines, damaged = [], []
    for number, text in enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and all(is_number(line.get(name)) for name in needed):
            lines.append(line)
        else:
            damaged.append(number)
    return lines, damaged


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
