"""The table of commands: one more is a module with a `Command`, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattention.cli.ad import AD
from rattention.cli.all import All
from rattention.cli.check import Check
from rattention.cli.compress import Compress
from rattention.cli.demo import Demo
from rattention.cli.lra import LRA
from rattention.cli.paper import Paper
from rattention.cli.visualize import Visualize

if TYPE_CHECKING:
    from rattention.cli.options import Command, Group

COMMANDS: dict[str, type[Command] | Group] = {
    "check": Check,
    "demo": Demo,
    "visualize": Visualize,
    "compress": Compress,
    "paper": Paper,
    "ad": AD,
    "lra": LRA,
    "all": All,
}
"""Every command by name, in the order that ``rattention --help`` shows."""
