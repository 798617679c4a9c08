"""Prints requirements, one per line: what builds the package, what it depends on, and the extras named.

scripts/requirements.py [EXTRA ...]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def of_extras(names: Iterable[str]) -> Iterator[str]:
    """The requirements of extras, and of those that they name in turn."""
    for name in names:
        for requirement in EXTRAS[name]:
            own = re.fullmatch(r"rattention\[(.+)\]", requirement)
            yield from of_extras(own[1].split(",")) if own else [requirement]


wanted = [
    *PYPROJECT["build-system"]["requires"],
    *PYPROJECT["project"]["dependencies"],
    *of_extras(sys.argv[1:]),
]
print(*dict.fromkeys(wanted), sep="\n")
