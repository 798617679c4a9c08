"""The pages of the reference: one for each public module, with every name of its ``__all__``."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = {
    "rattention": "attention on NumPy arrays, decoding, metrics and maps",
    "rattention.torch": "the same on PyTorch tensors, differentiable",
    "rattention.torch.distributed": "one long sequence over several processes",
    "rattention.nn": "layers, language models, generation",
    "rattention.hf": "models of Transformers",
    "rattention.inspect": "what a model attends to",
    "rattention.explorer": "a page to walk through the attention of a document",
    "rattention.compression": "smaller key/value caches",
    "rattention.plots": "figures",
    "rattention.models": "a pretrained BERT without PyTorch",
    "rattention.mechanisms": "backward functions and references",
    "rattention.studies.lm": "small language models that differ in how they attend",
    "rattention.studies.lra": "mechanisms compared on tasks of the Long Range Arena",
    "rattention.studies.dark_room": "a transformer that learns in its context",
    "rattention.studies.compression": "what dropping a part of the history costs",
    "rattention.studies.degradation": "attention as a context grows: the demo",
}
"""What users import, and what for."""


def write_pages(app: Any) -> None:
    """Called by Sphinx before it looks for pages. What lies there is rewritten only where it differs."""
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        write(folder / f"{module}.rst", page(module))
    for left in {*folder.glob("*.rst")} - {folder / f"{module}.rst" for module in MODULES}:
        left.unlink()


def page(module: str) -> str:
    """The module's docstring and its names. What is said of a table is read from its source: loaded, it has
    the docstring of its type."""
    head = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :members:\n"
    tables = (f".. py:data:: {name}\n   :module: {module}\n\n   {about}\n" for name, about in _tables(module))
    return "\n".join([head, *tables])


def _tables(module: str) -> Iterator[tuple[str, str]]:
    """Public names of values that come from other modules, with what is said of them there."""
    loaded = import_module(module)
    origins = _origins(Path(str(loaded.__file__)))
    for name in loaded.__all__:
        if not callable(getattr(loaded, name)) and name in origins:
            about = ModuleAnalyzer.for_module(origins[name]).find_attr_docs().get(("", name), [""])
            yield name, " ".join(about).strip()


def _origins(source: Path) -> dict[str, str]:
    """The module that each imported name comes from."""
    imports = (node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


AS_WRITTEN: dict[str, list[str]] = {}
"""Docstrings of attributes: Napoleon would take what stands before a colon in the first line for a type."""


def note(_app: Any, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Called by Sphinx for every docstring, before Napoleon is."""
    if what in ("attribute", "property"):
        AS_WRITTEN[name] = [*lines]


def restore(_app: Any, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Called by Sphinx for every docstring, after Napoleon was."""
    if name in AS_WRITTEN:
        lines[:] = AS_WRITTEN.pop(name)


def write(path: Path, text: str) -> None:
    """Write a page unless it holds this text: Sphinx reads what is new."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def list_modules(_app: Any, name: str, source: list[str]) -> None:
    """Called by Sphinx for the text of every page: fills in the table of modules."""
    if name == "reference/index":
        rows = (f"| [`{module}`](api/{module}.rst) | {what} |" for module, what in MODULES.items())
        source[0] = source[0].replace(
            "<!-- modules -->", "\n".join(["| module | for |", "| --- | --- |", *rows])
        )


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", write_pages)
    app.connect("source-read", list_modules)
    app.connect("autodoc-process-docstring", note, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
    return {"parallel_read_safe": True}
