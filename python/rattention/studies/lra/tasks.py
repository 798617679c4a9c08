"""Every task by name. One more is a file with a `Task` and a line here."""

from __future__ import annotations

from rattention.studies.lra import images, listops, text

TASKS = {"listops": listops.TASK, "text": text.TASK, "images": images.TASK}
"""In the order of tables and figures."""


def task_label(name: str) -> str:
    """A task as tables and figures call it."""
    return TASKS[name].label if name in TASKS else name
