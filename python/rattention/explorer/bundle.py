"""The files of the page, and its modules as one, for hosts that cannot fetch: offline pages and notebooks."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""What the page is made of."""
IMPORT = re.compile(r"(?P<before>\b(?:from|import)\s*)(?P<quote>[\"'])(?P<path>\.[^\"']+)(?P=quote)")
"""A static import of another file of the page."""
LOADER = """\
const modules = %s;
const urls = {};
for (const [name, source] of modules) {
  const linked = source.replace(/"explorer:([^"]+)"/g, (_, wanted) => JSON.stringify(urls[wanted]));
  urls[name] = URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
}
const entry = await import(urls[%s]);
"""
"""Modules become blobs in the order of their imports."""


@cache
def page_files() -> dict[str, bytes]:
    """The files of the page by their paths."""
    found = dict[str, bytes]()

    def walk(folder: Any, path: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                walk(entry, f"{path}{entry.name}/")
            elif any(entry.name.endswith(kind) for kind in KINDS):
                found[path + entry.name] = entry.read_bytes()

    walk(files("rattention.explorer").joinpath("page"), "")
    return found


def module(entry: str) -> str:
    """`entry` and all that it imports as one module, which has it as ``entry``."""
    ordered = list[tuple[str, str]]()
    _collect(entry, ordered, ())
    return LOADER % (_script_json(ordered), _script_json(entry))


def _collect(path: str, ordered: list[tuple[str, str]], within: tuple[str, ...]) -> None:
    """Add a module after those that it imports; ValueError for modules that import each other."""
    if path in within:
        raise ValueError(f"modules of the page import each other: {' -> '.join((*within, path))}")
    if any(path == name for name, _ in ordered):
        return
    source = page_files()[path].decode("utf-8")
    wanted = [_resolved(path, match["path"]) for match in IMPORT.finditer(source)]
    for name in wanted:
        _collect(name, ordered, (*within, path))
    names = iter(wanted)
    linked = IMPORT.sub(lambda match: f'{match["before"]}"explorer:{next(names)}"', source)
    ordered.append((path, linked))


def _resolved(path: str, wanted: str) -> str:
    """A relative import of the module at `path`, from the folder of the page."""
    parts = path.split("/")[:-1]
    for part in wanted.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _script_json(value: Any) -> str:
    """JSON that may stand within a script element."""
    return json.dumps(value).replace("<", "\\u003c")
