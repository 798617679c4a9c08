"""Files of the repository outside ``docs`` that are pages of the site, and links to any of them.

The links of every source work in the repository. In a page of the site they lead to the page that its target
became, or to a copy of the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import write

import notebooks

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
INCLUDED = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "benchmarks_method": "benchmarks/README.md",
}
"""Pages that include a file, and those files."""
NOTEBOOKS = {f"notebooks/{p.stem}": f"notebooks/{p.name}" for p in sorted(ROOT.glob("notebooks/*.ipynb"))}
ELSEWHERE = {**INCLUDED, **NOTEBOOKS, "notebooks/index": "notebooks"}
PAGES = {source: f"docs/{page}.md" for page, source in ELSEWHERE.items()}
"""What the site has in place of these files and folders."""
CODE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")


def write_notebooks(app: Any) -> None:
    """Called by Sphinx before it looks for pages."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    write(folder / "index.md", notebooks.index(ROOT / "notebooks"))
    for page, source in NOTEBOOKS.items():
        write(folder.parent / f"{page}.md", notebooks.page(ROOT / source))


def turn_links(_app: Any, page: str, source: list[str]) -> None:
    """Called by Sphinx for the text of every page."""
    origin = NOTEBOOKS.get(page, "notebooks/index.md" if page == "notebooks/index" else f"docs/{page}.md")
    source[0] = turned(source[0], origin, f"docs/{page}.md")


def turn_included_links(_app: Any, path: Path, page: str, content: list[str]) -> None:
    """Called by Sphinx for what a page includes."""
    if page in INCLUDED:
        content[0] = turned(content[0], INCLUDED[page], f"docs/{page}.md")


def turned(text: str, origin: str, page: str) -> str:
    """`text`, written for the place `origin`, with links as they must be in `page`; both from the root."""

    def turn(link: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(origin), link[1]))
        return os.path.relpath(PAGES.get(target, target), os.path.dirname(page))

    return outside_code(text, lambda part: LINK.sub(turn, part))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with everything changed but code."""
    parts, begin = [], 0
    for code in CODE.finditer(text):
        parts += [change(text[begin : code.start()]), code[0]]
        begin = code.end()
    return "".join([*parts, change(text[begin:])])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_notebooks)
    app.connect("source-read", turn_links)
    app.connect("include-read", turn_included_links)
    return {"parallel_read_safe": True}
