"""What is wrong with a model's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rattention._files import read_text


class WeightsError(ValueError):
    """A model that cannot be found or whose files cannot be used; the message names file and fault."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; WeightsError where there is none."""
    try:
        value = json.loads(read_text(path))
    except RecursionError:
        raise WeightsError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value
