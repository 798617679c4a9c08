"""The checkpoint that comes with the package."""

from __future__ import annotations

from pathlib import Path

import rattention


def example_checkpoint() -> Path:
    """A `HistoryTransformer` trained in dark rooms of 9 x 9; ``rattention ad train`` makes it again."""
    return Path(rattention.__file__).parent / "data" / "dark_room.safetensors"
