"""What a test needs beside NumPy: extras of the project, without which it is skipped."""

from __future__ import annotations

import importlib

import pytest
from rattention._extras import EXTRA_OF
from rattention._installed import EXTRAS, packages

MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Of packages that are not imported under their names."""


def needs(*names: str) -> None:
    """Skip the test, or the file while it is collected, where one of these is `lacking`."""
    __tracebackhide__ = True
    for reason in filter(None, map(lacking, names)):
        pytest.skip(reason, allow_module_level=True)


def lacking(name: str) -> str | None:
    """Why an extra, or a single package of `rattention._extras.EXTRA_OF`, cannot be used; None if it can."""
    for module in modules_of(name) if name in EXTRAS else (name,):
        try:
            importlib.import_module(module)
        except ImportError as error:
            extra = name if name in EXTRAS else EXTRA_OF[name]
            return f"needs the extra {extra!r}: {module} cannot be imported ({error})"
    return None


def modules_of(extra: str) -> list[str]:
    """What the packages of an extra, and of the extras in it, are imported as."""
    named = [requirement.package for requirement in packages(extra)]
    if not named:
        raise ValueError(f"the installed rattention has no extra {extra!r}: install it again")
    return [MODULES.get(package, package.replace("-", "_")) for package in named]
