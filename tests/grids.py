"""Which cases of a grid run by default: every pair of values of two parameters still meets in one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

LARGE, TIMES = 40, 3
"""With two parameters and more cases than this, every value runs this often: all pairs are the whole grid."""


def covering(cases: Sequence[Mapping[str, Any]]) -> list[int]:
    """The indices of the cases to run, each a mapping from parameters to values.

    With three parameters or more, every pair of values of two of them; with two and more than `LARGE` cases,
    every value `TIMES` times or as often as it occurs; with fewer, all. Parameters that always change
    together count as one.
    """
    axes = _axes(cases)
    if len(axes) >= 3:
        wanted = [Counter(combinations(row, 2)) for row in zip(*axes, strict=True)]
        return _greedy(wanted, 1)
    if len(axes) == 2 and len(cases) > LARGE:
        return _greedy([Counter(row) for row in zip(*axes, strict=True)], TIMES)
    return [*range(len(cases))]


def _axes(cases: Sequence[Mapping[str, Any]]) -> list[list[tuple[int, int]]]:
    """For each parameter that varies, the axis and the number of its value in every case."""
    columns = dict.fromkeys(tuple(_numbered([case[name] for case in cases])) for name in cases[0])
    return [[(axis, n) for n in column] for axis, column in enumerate(columns) if max(column)]


def _numbered(values: list[Any]) -> list[int]:
    """Equal constants and identical objects have the same number."""
    numbers: dict[Hashable, int] = {}
    plain = (str, int, float, bool, type(None))
    keys = ((type(v), v) if isinstance(v, plain) else id(v) for v in values)
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _greedy(wanted: list[Counter[Any]], times: int) -> list[int]:
    """Cases in the order in which they add most, until everything is there `times` times."""
    there = sum(wanted, Counter())
    left = Counter({thing: min(times, count) for thing, count in there.items()})
    chosen: list[int] = []
    open_cases = [*range(len(wanted))]
    while +left:
        best = max(open_cases, key=lambda i: sum(left[thing] > 0 for thing in wanted[i]))
        chosen.append(best)
        open_cases.remove(best)
        left -= wanted[best]
    return sorted(chosen)
