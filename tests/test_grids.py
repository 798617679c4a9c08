"""The choice of cases that run by default."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.grids import LARGE, TIMES, covering


def grid(*sizes: int) -> list[dict[str, str]]:
    return [{f"p{i}": f"v{v}" for i, v in enumerate(row)} for row in product(*map(range, sizes))]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (7, 5, 3), (6, 5, 4, 2), (3, 3, 3, 3, 3)], ids=str)
def test_every_pair_of_values_meets(sizes: tuple[int, ...]) -> None:
    cases = grid(*sizes)
    chosen = [cases[i] for i in covering(cases)]
    assert len(chosen) < len(cases)
    for a, b in combinations(cases[0], 2):
        assert {(case[a], case[b]) for case in chosen} == {(case[a], case[b]) for case in cases}


def test_two_parameters_keep_every_value() -> None:
    cases = grid(9, 20)
    chosen = [cases[i] for i in covering(cases)]
    assert len(chosen) < len(cases)
    for name in cases[0]:
        for value in {case[name] for case in cases}:
            assert sum(case[name] == value for case in chosen) >= TIMES


@pytest.mark.parametrize("cases", [grid(3), grid(500), grid(5, LARGE // 5), [{"a": 1, "b": 1}]], ids=len)
def test_what_is_small_stays_whole(cases: list[dict[str, str]]) -> None:
    assert covering(cases) == [*range(len(cases))]


def test_parameters_that_change_together_are_one() -> None:
    cases = [{"a": i, "b": -i, "c": j} for i, j in product(range(3), range(4))]
    assert covering(cases) == [*range(12)]


def test_values_are_what_they_are_and_not_what_they_equal() -> None:
    cases = [{"a": value, "b": b, "c": c} for value, b, c in product((1, True, 1.0), range(2), range(2))]
    assert len({type(cases[i]["a"]) for i in covering(cases)}) == 3
