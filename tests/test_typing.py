"""Users' code type-checks: return types follow from flags, and a misspelt option is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extras import needs

api = pytest.importorskip("mypy.api", reason="needs mypy")
needs("torch")

ROOT = Path(__file__).parent.parent


def test_calls_have_the_types_that_users_expect() -> None:
    settings = ("--strict", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml"))
    found, failure, code = api.run(
        [*settings, "--cache-dir", str(ROOT / ".mypy_cache"), str(ROOT / "tests" / "typed_calls.py")]
    )
    assert (found, failure, code) == ("", "", 0)
