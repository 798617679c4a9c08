"""Every task by name: one more is a file with a class of settings that has ``load``, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rattention.studies.lra.listops import ListOps
from rattention.studies.lra.text import Text

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.studies.lra.data import TaskData
    from rattention.studies.lra.listops import Progress


class TaskSettings(Protocol):
    """What a task is made with."""

    def load(self, cache: Path | None = None, progress: Progress | None = None) -> TaskData:
        """Make or read the data; what takes long is kept in the folder `cache`, or the user's own."""


TASKS = {"listops": ListOps, "text": Text}
"""The classes of their settings."""
