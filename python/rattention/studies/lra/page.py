"""The analysis as one HTML file that a browser opens offline."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from rattention._extras import require
from rattention.studies.lra import published
from rattention.studies.lra.findings import CAVEAT
from rattention.studies.lra.summary import Cell, by_task, heading
from rattention.studies.lra.tables import COLUMNS, NOTE, cells_of_row
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rattention.studies.lra.figures import Drawn
    from rattention.studies.lra.results import StudyResults

TEMPLATE = Path(__file__).with_name("report.html.j2")

DPI = 110
"""Of figures that are drawn for the page alone."""


def report_page(
    results: StudyResults,
    cells: Sequence[Cell],
    findings: Mapping[str, Sequence[str]],
    drawn: Sequence[Drawn],
    images: Mapping[str, Path],
) -> str:
    """The page; figures that are not among `images`, PNG files by name, are drawn for it."""
    environment = require("jinja2").Environment(autoescape=True)
    settings = {run.task: run.settings for run in reversed(results.runs) if run.settings is not None}
    records = {f"Settings, {task_label(task)}": own for task, own in settings.items()}
    records |= dict(zip(map(str, results.folders), results.environments, strict=True))
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        finished=len(results.finished()),
        runs=len(results.runs),
        folders=results.folders,
        caveat=CAVEAT,
        findings=findings,
        columns=COLUMNS,
        summary={heading(task, some): map(cells_of_row, some) for task, some in by_task(cells).items()},
        note=NOTE,
        figures=[{"caption": f.caption, "data": _image(f, images.get(f.name))} for f in drawn],
        published=published.rows(),
        published_caveat=published.CAVEAT,
        source=published.SOURCE,
        records=records,
    )
    return text


def _image(drawn: Drawn, file: Path | None) -> str:
    content = io.BytesIO()
    if file is None:
        drawn.figure.savefig(content, format="png", dpi=DPI)
    return base64.b64encode(content.getvalue() if file is None else file.read_bytes()).decode("ascii")
