"""Which study a command line names: the one place that decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def chosen_study(
    kind: type[Any], presets: Mapping[str, Any], preset: str | None, config: Path | None, folder: Path | None
) -> Any:
    """A study of this class: the preset or the file that is named, else the one in the folder, or smoke."""
    from rattention.studies.kit.folder import STUDY

    if preset is not None and config is not None:
        raise ValueError("--preset and --config both name a study: leave one out")
    if config is not None:
        return kind.load(config)
    if preset is None and folder is not None and (folder / STUDY).exists():
        return kind.load(folder / STUDY)
    return presets[preset or "smoke"]
