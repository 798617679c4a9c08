"""Row B2: every instruction set below the processor's own passes the numerical suite too."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import rattention as ra
from rattention import _core

from tests.instruction_sets import LEVELS, LOWER, capped
from tests.processes import REPOSITORY, run_python

ONEDNN_SUITE = ["tests/test_nn_layers.py"]
COMPACT_SUITE = [
    *ONEDNN_SUITE,
    "tests/test_special_values.py",
    "tests/test_shapes.py",
    "tests/test_map.py::test_across_tiles",
    "tests/test_map.py::test_precisions",
    "tests/test_metrics.py::test_across_tiles",
    "tests/test_metrics.py::test_equal_scores",
    "tests/test_metrics.py::test_rows_across_tiles",
    "tests/test_metrics.py::test_flat_and_peaked_maps",
    "tests/test_numerics.py::test_half_precision",
    "tests/test_numerics.py::test_huge_scores",
    "tests/test_numerics.py::test_denormal_inputs_are_no_harm",
    "tests/test_layouts.py::test_layouts",
    "tests/test_layouts.py::test_misaligned",
    "tests/test_rotary.py::test_equals_the_reference",
    "tests/test_rotary.py::test_as_exact_far_away_as_at_the_start",
]

BFLOAT16_SUITE = [
    "tests/test_bfloat16.py",
    "tests/test_bfloat16_gradients.py",
    "tests/test_numerics.py::test_half_precision",
]
"""What differs from AVX-512 alone."""


def assert_passes(suite: list[str], environment: dict[str, str]) -> int:
    """Runs a part of this test suite in a process of its own; how many tests passed.

    Without the discounted mechanisms, for `test_metrics` has discounts as well, and without what asks for
    time or for Python's lock.
    """
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "not cost_no_time and not multi_timescale and not other_threads_run",
            *suite,
        ],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr
    return int(re.findall(r"(\d+) passed", finished.stdout)[-1])


@pytest.mark.slow
@pytest.mark.row("B2")
@pytest.mark.parametrize("cap", LOWER)
def test_compact_suite_under_a_cap(cap):
    suite, least = (BFLOAT16_SUITE, 30) if cap == "avx512_bf16" else (COMPACT_SUITE, 300)
    assert assert_passes(suite, capped(cap)) > least


@pytest.mark.slow
@pytest.mark.skipif(_core.onednn_version() is None, reason="this build has no oneDNN")
@pytest.mark.row("B2")
@pytest.mark.parametrize("onednn", ["AVX2", "AVX512_CORE"])
def test_layers_under_a_cap_of_onednn_alone(onednn):
    assert assert_passes(ONEDNN_SUITE, {"ONEDNN_MAX_CPU_ISA": onednn}) > 0


@pytest.mark.row("B2")
@pytest.mark.parametrize("cap", LEVELS)
def test_the_cap_is_obeyed(cap):
    printed = run_python("import rattention as ra; print(ra.show_config()['instruction_set'])", **capped(cap))
    own = ra.show_config()["instruction_set"]
    expected = {min(cap, own, key=LEVELS.index)}
    if (cap, own) == ("avx512_bf16", "avx512"):
        expected.add(cap)  # taken by name alone where it is slower
    assert printed.strip() in expected


@pytest.mark.row("B2")
@pytest.mark.parametrize("cap", ["sse2", "AVX2", "avx1024", "avx512_bf", " "])
def test_an_unknown_cap_is_an_import_error(cap):
    code = """
        try:
            import rattention
        except ImportError as error:
            print(error)
    """
    printed = run_python(code, RATTENTION_MAX_ISA=cap)
    assert f"RATTENTION_MAX_ISA is '{cap}'" in printed
    allowed = printed.partition("allowed on this processor: ")[2]
    assert re.split(", | and ", allowed.strip()) == LEVELS


@pytest.mark.row("B2")
def test_an_empty_cap_is_none():
    code = "import rattention as ra; print(ra.show_config()['instruction_set'])"
    assert run_python(code, RATTENTION_MAX_ISA="") == run_python(code)
