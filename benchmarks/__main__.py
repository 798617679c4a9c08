"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import math
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import rattention as ra
from rattention._files import writable_folder, write_json

from benchmarks import growth, machine, report
from benchmarks.cases import CASES, Case
from benchmarks.outcome import Outcome
from benchmarks.race import Setup, WrongAnswerError

MOST_THREADS = 4096


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 for a wrong answer or (with --check) a missed goal, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{case.name:32}{case.summary}" for case in CASES))
        return 0
    ra.set_num_threads(options.threads)
    described = machine.describe()
    if options.growth:
        return _growth(options, described)
    print(machine.line(described), report.table_head(), sep="\n\n")
    outcomes, wrong = _measure(_chosen(options.only), options)
    print("\n" + report.closing_line(outcomes, options.quick))
    if options.json:
        chosen = {"quick": options.quick, "threads": options.threads, "only": options.only}
        write_json(options.json, report.as_json(described, chosen, outcomes))
    failed = options.check and not all(_passes(outcome, options.quick) for outcome in outcomes.values())
    return 1 if wrong or failed else 0


def _growth(options: argparse.Namespace, described: dict[str, Any]) -> int:
    measured = growth.measure(quick=options.quick)
    print(machine.line(described), growth.table(measured), sep="\n\n")
    growth.draw(measured, options.growth)
    if options.json:
        chosen = {"quick": options.quick, "threads": options.threads}
        write_json(options.json, {"machine": described, "options": chosen, "growth": measured})
    return 0


def _measure(cases: list[Case], options: argparse.Namespace) -> tuple[dict[str, Outcome], bool]:
    outcomes, wrong = {}, False
    for case in cases:
        setup = Setup(case.quick if options.quick else case.length, options.threads, options.quick)
        try:
            outcomes[case.name] = case.measure(setup)
        except WrongAnswerError as error:
            wrong = True
            print(f"{case.name}  WRONG ANSWER, not timed: {error}", flush=True)
            continue
        title = f"{case.name} at n = {setup.length}" if options.quick and setup.length else case.name
        print(report.lines_of(title, outcomes[case.name], options.quick), flush=True)
    return outcomes, wrong


def _passes(outcome: Outcome, quick: bool) -> bool:
    some = bool(outcome.figures or outcome.missing)
    computed = some and all(math.isfinite(figure.value) for figure in outcome.figures)
    return computed and (quick or all(figure.met is not False for figure in outcome.figures))


def _chosen(patterns: list[str] | None) -> list[Case]:
    return [c for c in CASES if patterns is None or any(fnmatchcase(c.name, p) for p in patterns)]


def _pattern(text: str) -> str:
    if not _chosen([text]):
        names = ", ".join(case.name for case in CASES)
        raise argparse.ArgumentTypeError(f"must be or match the name of a case ({names}), got {text!r}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="rattention against its peers on this machine"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, five minutes: answers, not figures"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        type=_pattern,
        help="this case, or those that match, as in 'hf-*' (may be repeated)",
    )
    parser.add_argument(
        "--threads", type=_positive, default=2, metavar="N", help="for us and for every peer (default 2)"
    )
    parser.add_argument("--json", type=_writable, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument(
        "--growth",
        type=_writable,
        metavar="FILE",
        help="instead of the cases: draw time against length, 1 k to 256 k tokens, into FILE (svg, png, pdf)",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit 1 when a goal is missed; with --quick, when a ratio cannot be computed",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_THREADS}, got {text!r}")
    return int(text)


def _writable(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, and {text!r} is a folder")
    try:
        writable_folder(path.parent)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


if __name__ == "__main__":
    sys.exit(main())
