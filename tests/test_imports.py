"""The structure of the code: no module imports in a circle, studies are on top, functions are short; and that
of docstrings, as the reference of the documentation reads them."""

from __future__ import annotations

import ast
import re
import statistics
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"rattention": ROOT / "python" / "rattention", "benchmarks": ROOT / "benchmarks"}
packages = pytest.mark.parametrize("package", FOLDERS)

Graph = dict[str, set[str]]


@cache
def sources(package: str) -> dict[str, ast.Module]:
    """Syntax trees by the names of modules."""
    folder = FOLDERS[package]
    trees = {}
    for path in folder.rglob("*.py"):
        name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        trees[name.removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return trees


def graph_of(trees: dict[str, ast.Module], *, nested: bool = True) -> Graph:
    """What each module imports of its own package, type-only imports included.

    Without `nested` imports within functions do not count.
    """
    modules = {*trees, "rattention._core"}  # compiled: no source
    return {
        name: {found for node in _nodes(tree, nested) for found in _imported(node, modules)} - {name}
        for name, tree in trees.items()
    }


def _nodes(tree: ast.AST, nested: bool) -> list[ast.AST]:
    below = [
        node
        for node in ast.iter_child_nodes(tree)
        if nested or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return below + [node for child in below for node in _nodes(child, nested)]


def _imported(node: ast.AST, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in modules]
    if not isinstance(node, ast.ImportFrom) or not node.module:
        return []
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in modules else node.module for name in names if {name, node.module} & modules]


def circle(graph: Graph) -> list[str]:
    """One circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def lengths(trees: dict[str, ast.Module]) -> dict[str, int]:
    """Lines of every function, signature included, docstring and decorators not."""
    found = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
                docstring = text.end_lineno - text.lineno + 1 if text else 0
                found[f"{module}:{node.lineno}"] = node.end_lineno - node.lineno + 1 - docstring
    return found


@packages
def test_no_module_imports_in_a_circle(package: str) -> None:
    """Imports within functions are left out: `rattention` itself loads its parts on demand."""
    assert circle(graph_of(sources(package), nested=False)) == []


def test_benchmarks_have_no_circle_within_functions_either() -> None:
    assert circle(graph_of(sources("benchmarks"))) == []


def test_nothing_below_imports_the_studies_or_the_command_line() -> None:
    for name, imported in graph_of(sources("rattention")).items():
        part = ".".join(name.split(".")[:2])
        if part not in ("rattention.__main__", "rattention.cli"):
            assert not [other for other in imported if other.startswith("rattention.cli")], name
            if part not in ("rattention.studies", "rattention.explorer"):
                assert not [other for other in imported if other.startswith("rattention.studies")], name


@packages
def test_functions_are_short(package: str) -> None:
    counts = list(lengths(sources(package)).values())
    assert statistics.median(counts) <= 8
    assert statistics.quantiles(counts, n=10)[-1] <= 20


SECTION = re.compile(r"^([A-Z][a-z]+)\n-{3,}\n", re.MULTILINE)


def swallowed_examples(tree: ast.Module) -> list[str]:
    """Names whose docstrings have examples in a section of something else, which lists them as its own."""
    documented = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef))
    found = []
    for node in documented:
        _, *parts = SECTION.split(ast.get_docstring(node) or "")
        sections = zip(parts[::2], parts[1::2], strict=True)
        if any(">>>" in text and title not in ("Examples", "Notes") for title, text in sections):
            found.append(node.name)
    return found


@packages
def test_examples_have_a_section(package: str) -> None:
    assert [name for tree in sources(package).values() for name in swallowed_examples(tree)] == []


def test_swallowed_examples_are_found() -> None:
    text = 'def {}():\n    """One.\n\n    {}\n    ------\n    >>> 1\n    """\n'
    tree = ast.parse(text.format("f", "Raises") + text.format("g", "Examples"))
    assert swallowed_examples(tree) == ["f"]


MADE = {
    "p.a": "from p import b\n",
    "p.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import x\n",
}


def test_circles_are_found() -> None:
    trees = {name: ast.parse(text) for name, text in MADE.items()}
    assert set(circle(graph_of(trees))) == {"p.a", "p.b"}
    assert circle(graph_of(trees | {"p.b": ast.parse("def f():\n    import p.a\n")}, nested=False)) == []
    assert circle(graph_of(trees | {"p.b": ast.parse("def f():\n    import p.a\n")})) != []


def test_lines_are_counted_without_docstrings() -> None:
    tree = ast.parse('@d\ndef f(a,\n  b):\n    """One.\n\n    Two.\n    """\n    return a\n')
    assert list(lengths({"p": tree}).values()) == [3]
