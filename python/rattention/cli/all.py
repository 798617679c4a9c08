"""``rattention all``: what takes seconds, one after the other."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

from rattention.cli import attempt
from rattention.cli.check import Check
from rattention.cli.demo import Demo
from rattention.cli.options import Folder, Numbers, ReadsText, option
from rattention.cli.paper import Paper
from rattention.cli.text import note


@dataclass(frozen=True)
class All(ReadsText):
    """Run check, demo and paper; where there is no model, demo --simple takes the demo's place.

    Options go to the parts that have them. When a part fails, the next one begins all the same; the exit code
    is that of the first that failed. The commands that take minutes are not run: visualize, compress, ad,
    lra.
    """

    EXAMPLES = ("# check, demo and paper, in that order", "--out figs/mine --pdf mine.pdf")

    lengths: Numbers = option(None, "Measure contexts of these lengths. Default: 50,100,...,500.")
    out: Folder = option(Path("figs/degradation"), "Write figures, CSV and JSON into this folder.")
    pdf: Path | None = option(None, "Search this PDF for what the summary of the paper says.")

    def run(self) -> int:
        """Run the parts in order."""
        demo = Demo(
            **self.given(*{each.name for each in fields(self)} & {each.name for each in fields(Demo)})
        )
        codes, collected = {}, {}

        def do(name: str, command: Check | Demo | Paper) -> None:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed) if self.json else contextlib.nullcontext():
                codes[name] = attempt(command.run)
            collected[name] = json.loads(printed.getvalue() or "null")
            if codes[name] != 0:
                print(f"rattention: {name} did not finish", file=sys.stderr)
            if not self.json:
                print(flush=True)

        do("check", Check(json=self.json))
        do("demo", demo)
        if codes["demo"] != 0:
            do("simple", replace(demo, model=None, text=None, simple=True, out=self.out / "simple"))
        do("paper", Paper(pdf=self.pdf, json=self.json))
        if self.json:
            print(json.dumps(collected))
        note("not run, because they take minutes: rattention visualize, compress, ad, lra")
        return next((code for code in codes.values() if code != 0), 0)
