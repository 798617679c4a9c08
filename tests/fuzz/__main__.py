"""The endless search: ``python -m tests.fuzz --seconds 3600 --seed 0 --max-isa avx2``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.cases import Case

ISA = ("baseline", "avx2", "avx512", "avx512_bf16", "amx", "neon")
EACH = 3
"""Failures of one kind that are listed; more are counted."""
REPORT_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long; without it and --cases until Ctrl-C")
    parser.add_argument("--cases", type=int, help="how many cases at most")
    parser.add_argument(
        "--seed", type=int, default=0, help="where the drawing begins; the same cases for the same seed"
    )
    parser.add_argument("--max-isa", choices=ISA, help="run as on a processor with no more than that")
    parser.add_argument(
        "--only", default="", help="relations, mechanisms or passes to stay with, joined by commas"
    )
    parser.add_argument("--case", help="check this one: a line that a failure printed")
    options = parser.parse_args()
    if options.max_isa:
        os.environ["RATTENTION_MAX_ISA"] = options.max_isa  # read when rattention is imported
        require_isa(parser, options.max_isa)
    return one(options.case) if options.case else Search(options).run()


def require_isa(parser: argparse.ArgumentParser, name: str) -> None:
    try:
        import rattention as ra
    except ImportError as error:
        parser.error(str(error))
    used = ra.show_config()["instruction_set"]
    if used != name:
        parser.error(f"--max-isa {name}: this processor has {used}")


def one(text: str) -> int:
    from tests.fuzz.bounds import Broken
    from tests.fuzz.cases import parse
    from tests.fuzz.relations import check

    try:
        case = parse(text)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        print(f"holds for {check(case)} numbers")
    except Broken as broken:
        print(broken)
        return 1
    return 0


class Search:
    """Cases in turns of the table, checked until time or patience ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tests.fuzz.relations import TABLE

        self.options = options
        wanted = set(filter(None, options.only.split(",")))
        self.table = [entry for entry in TABLE if wanted <= set(entry)]
        if not self.table:
            raise SystemExit(f"--only {options.only}: nothing in the table has all of these")
        self.failures: Counter[tuple[str, ...]] = Counter()
        self.checked = self.empty = self.numbers = 0

    def run(self) -> int:
        import rattention as ra

        print(
            f"{len(self.table)} rows, seed {self.options.seed}, {ra.show_config()['instruction_set']}",
            flush=True,
        )
        started = reported = time.monotonic()
        try:
            for case in self.cases():
                now = time.monotonic()
                if self.options.seconds is not None and now - started >= self.options.seconds:
                    break
                self.check(case)
                if now - reported >= REPORT_SECONDS:
                    reported = now
                    print(self.summary(now - started), flush=True)
        except KeyboardInterrupt:
            print()
        print(self.summary(time.monotonic() - started))
        for kind, count in self.failures.most_common():
            print(f"  {count} failed: {', '.join(kind)}")
        return 1 if self.failures else 0

    def cases(self) -> Iterator[Case]:
        import numpy as np

        from tests.fuzz.cases import draw

        rng = np.random.default_rng(self.options.seed)
        count = 0
        while self.options.cases is None or count < self.options.cases:
            count += 1
            yield draw(rng, *self.table[int(rng.integers(len(self.table)))])

    def check(self, case: Case) -> None:
        from tests.fuzz.bounds import Broken
        from tests.fuzz.relations import check

        self.checked += 1
        try:
            numbers = check(case)
            self.empty += numbers == 0
            self.numbers += numbers
        except Broken as broken:
            self.failed(case, str(broken))
        except Exception as error:
            self.failed(case, f"{type(error).__name__}: {error}")

    def failed(self, case: Case, why: str) -> None:
        kind = (case.relation, case.subject)
        self.failures[kind] += 1
        if self.failures[kind] <= EACH:
            cap = f" --max-isa {self.options.max_isa}" if self.options.max_isa else ""
            print(f'python -m tests.fuzz{cap} --case "{case!r}"  # {" ".join(why.split())}', flush=True)

    def summary(self, seconds: float) -> str:
        failed = sum(self.failures.values())
        return (
            f"{seconds:.0f} s: {self.checked} cases, {self.checked / max(seconds, 1e-9):.0f} a second, "
            f"{self.numbers:.3g} numbers compared, {self.empty} cases with nothing to compare, "
            f"{failed} failed"
        )


if __name__ == "__main__":
    sys.exit(main())
