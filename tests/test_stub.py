"""The committed stub of the C++ module has its functions, with their parameters.

pybind11 writes every function's signature into the first line of its docstring; mypy's stubtest, which
.ci/run runs as well, sees names only.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import rattention
from rattention import _core

STUB = ast.parse((Path(rattention.__file__).parent / "_core.pyi").read_text("utf-8"))


def stub_functions() -> dict[str, ast.FunctionDef]:
    """By dotted name; of classes, what calls take."""
    found = {}
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
            if "__index__" in methods:  # an enumeration, whose methods are pybind11's
                continue
            found.update({f"{node.name}.{name}": method for name, method in methods.items()})
    return found


FUNCTIONS = stub_functions()


def parameters(function: ast.FunctionDef) -> list[tuple[str, bool, bool]]:
    """Name, keyword-only or not, with a default or not."""
    spec = function.args
    missing = [None] * (len(spec.args) - len(spec.defaults))
    by_place = zip(spec.args, [*missing, *spec.defaults], strict=True)
    by_name = zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    return [(arg.arg, False, default is not None) for arg, default in by_place] + [
        (arg.arg, True, default is not None) for arg, default in by_name
    ]


def of_core(name: str) -> Any:
    value: Any = _core
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_parameters_are_those_of_the_module(name: str) -> None:
    signature = of_core(name).__doc__.splitlines()[0]
    readable = re.sub(r"<[^<>]*>", "...", signature)
    (function,) = ast.parse(f"def {readable}: ...").body
    assert isinstance(function, ast.FunctionDef)
    assert parameters(FUNCTIONS[name]) == parameters(function)


def test_public_names_are_those_of_the_module() -> None:
    defined = {node.name for node in STUB.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert defined == {name for name in dir(_core) if not name.startswith("_")}


def test_activations_are_those_of_the_module() -> None:
    (activation,) = (n for n in STUB.body if isinstance(n, ast.ClassDef) and n.name == "Activation")
    constants = {ast.unparse(item.target) for item in activation.body if isinstance(item, ast.AnnAssign)}
    assert constants - {"__members__"} == set(_core.Activation.__members__)
