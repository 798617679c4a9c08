"""The table of subcommands: one more is a module (an options dataclass and ``run``) and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rattention.cli import ad, check, compress, demo, everything, lra, lra_analyze, paper, visualize


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    options: type
    """Dataclass of its options; its docstring is the help, the docstring's first line the summary."""
    run: Callable[[Any], int] | None
    """Takes the options, returns the exit code; None for a command that only has parts."""
    examples: tuple[str, ...]
    """What may follow ``rattention <name>``, each with a remark after ``#``."""
    parts: Mapping[str, Command] = field(default_factory=dict)
    """Commands of which one must follow the name."""


COMMANDS = {
    "check": Command(check.Check, check.run, ("# what is installed, and what to install", "--json")),
    "demo": Command(demo.Demo, demo.run, demo.EXAMPLES),
    "visualize": Command(visualize.Visualize, visualize.run, visualize.EXAMPLES),
    "compress": Command(compress.Compress, compress.run, compress.EXAMPLES),
    "paper": Command(
        paper.Paper, paper.run, ("# summary and cache sizes", "--model 3b --json", "--pdf mine.pdf")
    ),
    "ad": Command(
        ad.Ad,
        None,
        ("collect     # histories of agents that learn", "train", "evaluate"),
        {
            "collect": Command(ad.Collect, ad.collect, ad.COLLECT_EXAMPLES),
            "train": Command(ad.Train, ad.train, ad.TRAIN_EXAMPLES),
            "evaluate": Command(ad.Evaluate, ad.evaluate, ad.EVALUATE_EXAMPLES),
        },
    ),
    "lra": Command(
        lra.Lra,
        None,
        ("data    # what the tasks consist of", "run     # 2 minutes on 2 cores"),
        {
            "data": Command(lra.Data, lra.data, lra.DATA_EXAMPLES),
            "run": Command(lra.Run, lra.run, lra.RUN_EXAMPLES),
            "analyze": Command(lra_analyze.Analyze, lra_analyze.analyze, lra_analyze.ANALYZE_EXAMPLES),
        },
    ),
    "all": Command(
        everything.All, everything.run, ("# check, demo, demo --simple and paper, in that order",)
    ),
}
"""Every subcommand by name, in the order that ``rattention --help`` shows."""
