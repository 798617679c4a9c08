"""What compression costs: compressed against full, for strategies and budgets, over seeds."""

from __future__ import annotations

from rattention import _extras

_extras.require("scipy.stats")

from rattention.studies.compression.figures import compression_figure, plot_budgets
from rattention.studies.compression.results import Cell, Measured, Preview, Trial, Validation
from rattention.studies.compression.tasks import Task, validate

__all__ = [
    "Cell",
    "Measured",
    "Preview",
    "Task",
    "Trial",
    "Validation",
    "compression_figure",
    "plot_budgets",
    "validate",
]
