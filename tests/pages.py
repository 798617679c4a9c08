"""Pages in Markdown: their examples, their sections, the names in their tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("[!nr]*/*.md")))
"""Pages that people wrote. Notebooks run on their own; the reference comes from docstrings and the parser."""
EXAMPLE = re.compile(
    r"(?P<mark><!-- (?:continues|not run: [^>]+) -->\n)?^```python\n(?P<code>.*?)^```$"
    r"(?:\n+(?:prints\n+)?```text\n(?P<shown>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


class Example(NamedTuple):
    """Code that runs on its own, and what it must print, where the page shows that."""

    page: str
    line: int
    code: str
    shown: str | None


def examples(path: Path) -> list[Example]:
    """The blocks of Python of a page, with what follows each as its output.

    ``<!-- continues -->`` before a block: it goes on where the block before it ended. ``<!-- not run: why
    -->``: it cannot run here.
    """
    text, page = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
    found: list[Example] = []
    for match in EXAMPLE.finditer(text):
        mark, code, shown = match["mark"] or "", match["code"], match["shown"]
        if "not run" in mark:
            continue
        line = text.count("\n", 0, match.start("code")) + 1
        if "continues" in mark:
            before = found[-1]
            code = before.code + code
            shown = None if shown is None else (before.shown or "") + shown
        found.append(Example(page, line, code, shown))
    return found


def section(title: str, text: str) -> str:
    """What stands under a heading of the second level."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Names in the first column of a table."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def links(path: Path) -> list[str]:
    """Targets of a page's links that lie in the repository, without anchors."""
    return re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
