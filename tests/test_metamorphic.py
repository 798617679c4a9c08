"""What must not change a result, on a fixed choice of cases; `python -m tests.fuzz` draws without end."""

from __future__ import annotations

import argparse
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import rattention as ra

from tests.fuzz.__main__ import Search
from tests.fuzz.bounds import Broken
from tests.fuzz.cases import LARGEST_REACH, WINDOWS, Case, draw, parse
from tests.fuzz.problems import problem_of
from tests.fuzz.relations import RELATIONS, TABLE, check, same_bits
from tests.fuzz.subjects import SUBJECTS
from tests.instruction_sets import LOWER
from tests.processes import REPOSITORY

VECTORS = [m * lanes for lanes in (4, 8, 16) for m in (1, 2, 3)]
FEW = sorted({n + d for n in (*VECTORS, 64, 80, 112, 128, 208, 256, 512, 1040) for d in (-1, 0, 1)})
FEW += [*range(96, 272, 16), 384, 512]
ALL = sorted({n + d for n in range(4, LARGEST_REACH + 1, 4) for d in (-1, 0, 1)})
"""Keys that a row sees: multiples of the vectors' lengths and their neighbours."""

by_subject = pytest.mark.parametrize("subject", SUBJECTS)
by_relation = pytest.mark.parametrize("relation", RELATIONS)


SOUND = Case("hidden", "softmax", "forward", rows=20, keys=20, causal=True)


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def seeded(*names: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def assert_holds(case: Case) -> None:
    """The line to repeat it with is in the message."""
    try:
        numbers = check(case)
    except AssertionError as broken:
        pytest.fail(f'{broken}\npython -m tests.fuzz --case "{case!r}"')
    assert numbers > 0, f"nothing to compare: {case!r}"


def drawn(rng: np.random.Generator, *row: str, **reach: object) -> Case | None:
    """A case in which something is hidden; None where none was found."""
    for _ in range(50):
        case = draw(rng, *row, **reach)
        if row[0] != "hidden" or case.place == "query" or hides(case):
            return case
    return None


def hides(case: Case) -> bool:
    return not problem_of(case).sees.all()


def hold_all(cases: list[Case]) -> None:
    assert cases
    for case in cases:
        assert_holds(case)


def windows(subject: str, reaches: list[int]) -> list[Case]:
    """Hidden keys beside windows of every length; passes and kinds of windows take turns. Most have no other
    mask and a hidden key that scores far above what is seen: what takes it in shows most clearly."""
    rng, parts = seeded("windows", subject), SUBJECTS[subject].parts
    cases: list[Case] = []
    while len(cases) < len(reaches):
        i = len(cases)
        reach = {"seen": reaches[i], "kind": list(WINDOWS)[i % 5]}
        case = draw(rng, "hidden", subject, parts[i % len(parts)], **reach)
        case = replace(case, place=str(rng.choice(("key", "key", "all", "value"))))
        if rng.random() < 0.7:
            case = replace(case, masks="", change=str(rng.choice(("above", "above", "inf"))))
        if hides(case):
            cases.append(case)
    return cases


@pytest.mark.row("S4")
@by_subject
def test_keys_beside_a_window(subject: str) -> None:
    hold_all(windows(subject, FEW))


@pytest.mark.row("S4")
@pytest.mark.slow
@by_subject
def test_keys_beside_all_windows(subject: str) -> None:
    hold_all(windows(subject, ALL))


def rows_of_table(relation: str, times: int) -> list[Case]:
    rng = seeded(relation)
    cases = [drawn(rng, *row) for row in TABLE if row[0] == relation for _ in range(times)]
    return [case for case in cases if case is not None]


@pytest.mark.row("N14")
@by_relation
def test_relations(relation: str) -> None:
    hold_all(rows_of_table(relation, 1))


@pytest.mark.row("N14")
@pytest.mark.slow
@by_relation
def test_relations_many_times(relation: str) -> None:
    hold_all(rows_of_table(relation, 10))


@pytest.mark.row("N14")
@pytest.mark.parametrize("cap", LOWER)
def test_relations_under_lower_instruction_sets(cap: str) -> None:
    """Kernels are compiled for each: a process of its own draws cases under the cap."""
    got = fuzz("--max-isa", cap, "--cases", "60", "--only", "hidden")
    assert got.returncode == 0, got.stdout + got.stderr


MENDED = [
    "Case(relation='hidden', subject='gravitational', part='backward', rows=31, keys=17, heads=3, "
    "dim=4, value_dim=1, causal=True, masks='padding+float', change='inf', place='query', "
    "seed=1689549543)",
    "Case(relation='blocks', subject='sliding_window', part='backward', rows=223, keys=223, heads=2, "
    "kv_heads=2, value_dim=3, dtype='bfloat16', causal=True, window=210, masks='padding', "
    "level=30.0, spread=3.0, change='above', place='value', seed=1051157927)",
    "Case(relation='threads', subject='residual_linear relu', part='state', rows=1156, keys=1156, "
    "heads=3, kv_heads=3, dim=18, value_dim=16, window=884, masks='padding', level=-30.0, "
    "spread=3.0, change='inf', place='query', seed=760317755)",
    "Case(relation='joined', subject='residual_linear', part='state', rows=383, keys=383, heads=3, "
    "kv_heads=3, dim=6, dtype='bfloat16', window=127, change='inf', place='value', seed=2123928618)",
    "Case(relation='split', subject='rattention rope', part='steps', rows=11, keys=11, batch=2, "
    "heads=6, kv_heads=2, value_dim=16, dtype='bfloat16', window=1, level=-30.0, spread=3.0, "
    "seed=583540751)",
    "Case(relation='moved', subject='multi_timescale', part='forward', rows=5, keys=271, batch=2, "
    "dim=16, value_dim=17, level=30.0, seed=1055919834)",
]
"""Cases that once did not hold."""


@pytest.mark.row("N14")
@pytest.mark.parametrize("line", MENDED)
def test_what_was_mended_holds(line: str) -> None:
    assert_holds(parse(line))


def test_every_mechanism_is_in_the_table() -> None:
    assert {s.mechanism for s in SUBJECTS.values()} == set(ra.MECHANISMS)
    assert {row[0] for row in TABLE} == set(RELATIONS)


def test_a_case_is_its_line() -> None:
    rng = np.random.default_rng(0)
    for row in TABLE:
        case = draw(rng, *row)
        assert parse(repr(case)) == case


@pytest.mark.parametrize(
    "text", ["", "Case(", "Case(3)", "Case(colour=1)", "open('x')", "Case(relation=f())"]
)
def test_lines_that_are_no_case(text: str) -> None:
    with pytest.raises(ValueError, match="not a case"):
        parse(text)


@pytest.mark.parametrize(("line", "status"), [("Case(3)", 2), (repr(SOUND), 0)])
def test_a_line_on_the_command_line(line: str, status: int) -> None:
    assert fuzz("--case", line).returncode == status


def test_a_broken_relation_is_seen_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Broken, match="1 of 4 differ"):
        same_bits(np.arange(4.0), np.array([0.0, 1.0, 2.5, 3.0]), "output")
    search = Search(argparse.Namespace(only="", max_isa="avx2"))
    search.failed(SOUND, "output: 1 of 4 differ")
    assert f'python -m tests.fuzz --max-isa avx2 --case "{SOUND!r}"' in capsys.readouterr().out
    assert search.failures.total() == 1
