"""Text for people: tables, marks and bars, in colour where there is colour, in ASCII where it must be."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Item = TypeVar("Item")

PROSE, BARS, UNKNOWN = 100, 116, 120
"""Columns: the longest line of prose, what bars beside marks need, and what a pipe is taken to have."""

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"

MARKS = {
    "good_spread": ("✓", "[+]", "good spread", GREEN),
    "strong_local_bias": ("●", "[!]", "strong local bias", YELLOW),
    "poor_long_range": ("○", "[-]", "poor long-range", YELLOW),
    "degradation": ("▼", "[v]", "degradation", RED),
}
"""Per mark: symbol, plain fallback, words, colour."""


@dataclass(frozen=True)
class Style:
    """What a stream can show."""

    symbols: bool
    """Characters beyond ASCII."""
    colour: bool
    """ANSI colours."""

    @classmethod
    def of(cls, stream: TextIO | None = None) -> Style:
        """Plain text under NO_COLOR or an encoding other than UTF-8; colours in terminals only."""
        stream = sys.stdout if stream is None else stream
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        symbols = utf8 and not os.environ.get("NO_COLOR")
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        return cls(symbols, symbols and terminal)

    def paint(self, text: str, code: str) -> str:
        """`text` in a colour, where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def title(self, text: str) -> str:
        """A heading with a rule under it."""
        return f"{self.paint(text, BOLD)}\n{self.paint(('─' if self.symbols else '-') * len(text), DIM)}"

    def marks(self, names: Iterable[str]) -> str:
        """Symbols with words."""
        shown = (MARKS[name] for name in names)
        return "  ".join(self.paint(f"{s if self.symbols else p} {words}", c) for s, p, words, c in shown)

    def bar(self, share: float, width: int = 10) -> str:
        """A bar for a share between 0 and 1, in eighths of a character where the stream has them."""
        share = min(1.0, max(0.0, share))
        if not self.symbols:
            return ("#" * round(share * width)).ljust(width, ".")
        full, eighths = divmod(round(share * width * 8), 8)
        return ("█" * full + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")).ljust(width)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], style: Style) -> str:
    """Columns aligned to the right, but the last, which holds bars and marks; headers may have two lines."""
    heads = [cell.split("\n") for cell in header]
    above = [head[0] for head in heads]
    below = [head[1] if len(head) > 1 else "" for head in heads]
    body = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(above, below, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
        return ("  " + "  ".join([*aligned, cells[-1]])).rstrip()

    head = [style.paint(line(above), BOLD)] + ([style.paint(line(below), DIM)] if any(below) else [])
    return "\n".join(head + [line(row) for row in body])


def wide() -> bool:
    """Whether there is room for bars between columns and marks."""
    return _columns() >= BARS


def _columns() -> int:
    return shutil.get_terminal_size((UNKNOWN, 24)).columns


def paragraph(text: str, indent: str = "", first: str | None = None) -> str:
    """Wrapped to the terminal, at most `PROSE` characters wide."""
    width = min(PROSE, _columns())
    return textwrap.fill(
        text, width, initial_indent=indent if first is None else first, subsequent_indent=indent
    )


def note(text: str) -> None:
    """A remark for the person at the terminal, on stderr."""
    print(f"note: {text}", file=sys.stderr)


def progress(items: Sequence[Item], description: str, unit: str) -> Iterable[Item]:
    """A bar on stderr when that is a terminal and tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, desc=description, unit=unit, file=sys.stderr, disable=None, leave=False)
    return bar
