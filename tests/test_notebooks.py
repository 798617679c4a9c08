"""Notebooks as they are stored: run from top to bottom, and listed. Running them is the work of nbmake."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INDEX = ROOT / "notebooks" / "README.md"
COLAB = "cell-colab"

pytestmark = pytest.mark.skipif(
    not NOTEBOOKS, reason="needs the notebooks, which a source distribution lacks"
)


def code_cells(notebook: Path) -> list[dict[str, object]]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run(notebook: Path) -> None:
    first, *cells = code_cells(notebook)
    assert first["id"] == COLAB
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert all(cell["outputs"] for cell in cells[1:])  # the first one may only import
    outputs = [output for cell in cells for output in cell["outputs"]]  # type: ignore[attr-defined]
    assert "error" not in {output["output_type"] for output in outputs}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_index_says_what_colab_installs(notebook: Path) -> None:
    (row,) = (line for line in INDEX.read_text("utf-8").splitlines() if f"({notebook.name})" in line)
    assert f"/blob/main/notebooks/{notebook.name})" in row
    (extras,) = re.findall(r"rattention\[([\w,]+)\]", "".join(code_cells(notebook)[0]["source"]))  # type: ignore[call-overload]
    assert f"| `{extras}` |" in row
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
