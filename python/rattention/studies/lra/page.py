"""The analysis as one HTML file that a browser opens offline."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rattention.inspect.report import Embedded, html_record, html_table, page
from rattention.studies.lra import published
from rattention.studies.lra.figures import Drawn
from rattention.studies.lra.findings import CAVEAT
from rattention.studies.lra.summary import Cell, by_task, heading
from rattention.studies.lra.tables import COLUMNS, NOTE, cells_of_row
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rattention.studies.lra.results import StudyResults


def report_page(
    results: StudyResults,
    cells: Sequence[Cell],
    findings: Mapping[str, Sequence[str]],
    drawn: Sequence[Drawn],
    images: Mapping[str, Path],
) -> str:
    """The page; figures that are not among `images`, by name, are drawn for it."""
    finished, every = len(results.finished()), len(results.runs)
    sections = {
        "Findings": _findings(findings),
        "Summary": _summary(cells),
        "Figures": "".join(Embedded(f.caption, f.figure, images.get(f.name)).html() for f in drawn),
        "Published accuracies": _published(),
        "Settings, hardware and versions": _records(results),
    }
    folders = ", ".join(str(path) for path in results.folders)
    return page("Long Range Arena", f"{finished} of {every} runs finished, in {folders}", sections)


def _findings(findings: Mapping[str, Sequence[str]]) -> str:
    parts = [f"<p>Generated from the numbers of the runs. {escape(CAVEAT)}</p>"]
    for head, sentences in findings.items():
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<h3>{escape(head)}</h3><ul>{items}</ul>")
    return "".join(parts)


def _summary(cells: Sequence[Cell]) -> str:
    tables = [
        f"<h3>{escape(heading(task, some))}</h3>"
        + html_table([dict(zip(COLUMNS, cells_of_row(cell), strict=True)) for cell in some])
        for task, some in by_task(cells).items()
    ]
    return "".join(tables) + f"<p>{escape(NOTE)}</p>"


def _published() -> str:
    header, *lines = published.rows()
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    return f"{html_table(rows)}<p>{escape(published.CAVEAT)} Source: {escape(published.SOURCE)}.</p>"


def _records(results: StudyResults) -> str:
    settings = {run.task: run.settings for run in reversed(results.runs) if run.settings is not None}
    parts = [html_record(f"Settings, {task_label(task)}", dict(some)) for task, some in settings.items()]
    pairs = zip(results.folders, results.environments, strict=True)
    return "".join([*parts, *(html_record(str(path), dict(environment)) for path, environment in pairs)])
