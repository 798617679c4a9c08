"""The table of subcommands: one more is a module (an options dataclass and ``run``) and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rattention.cli import check, compress, demo, everything, paper, visualize


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    options: type
    """Dataclass of its options; its docstring is the help, the docstring's first line the summary."""
    run: Callable[[Any], int]
    """Takes the options, returns the exit code."""
    examples: tuple[str, ...]
    """What may follow ``rattention <name>``, each with a remark after ``#``."""


COMMANDS = {
    "check": Command(check.Check, check.run, ("# what is installed, and what to install", "--json")),
    "demo": Command(demo.Demo, demo.run, demo.EXAMPLES),
    "visualize": Command(visualize.Visualize, visualize.run, visualize.EXAMPLES),
    "compress": Command(compress.Compress, compress.run, compress.EXAMPLES),
    "paper": Command(
        paper.Paper, paper.run, ("# summary and cache sizes", "--model 3b --json", "--pdf mine.pdf")
    ),
    "all": Command(
        everything.All, everything.run, ("# check, demo, demo --simple and paper, in that order",)
    ),
}
"""Every subcommand by name, in the order that ``rattention --help`` shows."""
