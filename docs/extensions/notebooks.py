"""Notebooks as pages: their text, their code and what it printed and drew when the notebook was last run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def index(folder: Path) -> str:
    """The folder's README, or a list of the notebooks by their titles and first sentences."""
    readme = folder / "README.md"
    listed = "\n".join(["# Notebooks", "", *(_entry(path) for path in sorted(folder.glob("*.ipynb")))])
    text = readme.read_text("utf-8") if readme.exists() else listed
    return BADGE.sub(r"\1", text) + f"\n\n{CONTENTS}"


MAGIC = re.compile(r"^\s*[!%]", re.MULTILINE)
"""What a notebook understands and Python does not."""
BADGE = re.compile(r"!\[([^]]*)\]\(https://[^)]*\)")
"""A picture from elsewhere, which pages do without."""
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
"""In what a cell shows: no section of the page."""
CONTENTS = "```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def _entry(path: Path) -> str:
    title, _, about = _text(_cells(path)[0]).removeprefix("# ").partition("\n")
    first = re.split(r"(?<=[.:])\s", " ".join(about.split()))[0].rstrip(":") if about else ""
    return f"- [{title}]({path.name}): {first}"


def page(path: Path) -> str:
    """The notebook in Markdown."""
    return "\n\n".join(part for cell in _cells(path) for part in _parts(cell))


def _cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf-8"))["cells"]  # type: ignore[no-any-return]


def _text(cell: dict[str, Any], key: str = "source") -> str:
    return "".join(cell[key])


def _parts(cell: dict[str, Any]) -> list[str]:
    if cell["cell_type"] == "markdown":
        return [_text(cell)]
    language = "text" if MAGIC.search(_text(cell)) else "python"
    return [f"```{language}\n{_text(cell)}\n```", *filter(None, map(_output, cell.get("outputs", ())))]


def _output(output: dict[str, Any]) -> str:
    """What a cell printed as text, and what it drew as a picture."""
    if "text" in output:
        return f"```text\n{_text(output, 'text').rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        picture = _text(data, "image/png").replace("\n", "")
        return f'<img alt="What the cell draws" src="data:image/png;base64,{picture}">'
    if "text/markdown" in data:
        return HEADING.sub(r"**\1**", _text(data, "text/markdown"))
    if "text/html" in data:
        return f'<div class="wide">{_text(data, "text/html")}</div>'
    return f"```text\n{_text(data, 'text/plain')}\n```" if "text/plain" in data else ""
