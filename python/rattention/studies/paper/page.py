"""The page about the paper that the documentation shows: its sections, its tables, and what to search for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

TITLE = "RAttention: Towards the Minimal Sliding Window Size in Local-Global Attention Models"
SOURCE = "arXiv 2506.15545v1, 18 June 2025"
TERMS = (
    "sliding window attention",
    "local-global",
    "KV cache",
    "residual linear attention",
    "feature map",
    "RULER",
    "MMLU",
    "GSM8K",
    "Mamba2",
)
"""Words under which the paper speaks of what the page says."""
RESULTS = "Results"
"""The section whose tables hold the paper's numbers, written as it prints them."""
_CAPTION = re.compile(r"(?P<title>.+) \((?P<place>[^()]+)\)")
_MARKUP = re.compile("[*`]")
"""Of emphasis and code: what is left is the text."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption that ends with the place in the paper."""

    title: str
    place: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of the row, and a cell for every column."""


@dataclass(frozen=True)
class Section:
    """What stands under a heading: paragraphs first, then points, then tables."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def source() -> str:
    """The page in Markdown."""
    return files(__package__).joinpath("page.md").read_text("utf-8")


@cache
def sections() -> tuple[Section, ...]:
    """The page's sections, without markup; the first has the title of the page."""
    made: list[Section] = []
    for block in source().strip().split("\n\n"):
        if block.startswith("#"):
            made.append(Section(block.lstrip("# ")))
        elif block.startswith("- "):
            made[-1].points.extend(map(_plain, block[2:].split("\n- ")))
        elif block.startswith("|"):
            made[-1].tables.append(_table(made[-1].paragraphs.pop(), block))
        else:
            made[-1].paragraphs.append(_plain(block))
    return tuple(made)


def searchable() -> dict[str, str]:
    """What can be searched for in a copy of the paper, and the place the paper has it in: title, terms, and
    the numbers of the results."""
    tables = next(section.tables for section in sections() if section.title == RESULTS)
    numbers = {cell: table.place for table in tables for _, cells in table.rows for cell in cells}
    return {TITLE: "title", **dict.fromkeys(TERMS, "text"), **numbers}


def _plain(text: str) -> str:
    return _MARKUP.sub("", " ".join(text.split()))


def _table(caption: str, block: str) -> Table:
    found = _CAPTION.fullmatch(caption)
    if found is None:
        raise ValueError(f"the caption of a table must end with its place in brackets, got {caption!r}")
    (_, *columns), _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
    )
    return Table(
        found["title"], found["place"], (*columns,), tuple((name, (*cells,)) for name, *cells in rows)
    )
