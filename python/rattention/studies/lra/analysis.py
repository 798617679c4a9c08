"""Folders of results as a summary, figures and findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._extras import require
from rattention._files import (
    figure_format,
    json_ready,
    replacing,
    save_figure,
    writable_folder,
    write_text,
)
from rattention.studies.lra import tables
from rattention.studies.lra.figures import Drawn, drawn_figures
from rattention.studies.lra.findings import findings_markdown, findings_of
from rattention.studies.lra.page import report_page
from rattention.studies.lra.results import StudyResults
from rattention.studies.lra.summary import Cell, rows_of, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

FIGURES = "figures"


@dataclass(frozen=True)
class Analysis:
    """What a study came to."""

    results: StudyResults
    cells: tuple[Cell, ...]
    """A mechanism on a task each, with all seeds."""
    findings: dict[str, list[str]]
    """Sentences by task; under ``"Runs"`` what is missing."""
    files: tuple[Path, ...] = ()
    """What was written."""

    def rows(self) -> list[dict[str, Any]]:
        """The numbers, a row per task and mechanism; None where there is none."""
        return rows_of(self.cells)

    def as_data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "folders": [str(path) for path in self.results.folders],
            "summary": [json_ready(row) for row in self.rows()],
            "findings": self.findings,
            "finished": len(self.results.finished()),
            "unfinished": [run.name for run in self.results.unfinished()],
            "warnings": list(self.results.warnings),
            "files": [str(path) for path in self.files],
        }


def analyze(
    folders: Iterable[str | Path], out: str | Path | None = None, *, formats: Sequence[str] = ("png",)
) -> Analysis:
    """Summarise the runs of one or several folders.

    Parameters
    ----------
    folders:
        What ``rattention lra run`` has written. A run that is in several counts once; unfinished runs are
        named, shown in the learning curves, and in no other number.
    out:
        Gets ``summary.md``, ``summary.csv``, ``summary.tex``, ``findings.md``, ``figures/`` and
        ``report.html``, each whole or not at all; None writes nothing.
    formats:
        Of figures, each one of ``"png"``, ``"svg"`` and ``"pdf"``.

    Raises
    ------
    ValueError
        What is no result, settings that differ (`StudyResults.read`), an unknown format.
    OSError
        `out` cannot be written.
    """
    for name in formats:
        figure_format(name)
    results = StudyResults.read(folders)
    cells = tuple(summarize(results))
    findings = findings_of(cells, results)
    files = () if out is None else _write(writable_folder(out), results, cells, findings, formats)
    return Analysis(results, cells, findings, tuple(files))


def _write(
    folder: Path,
    results: StudyResults,
    cells: Sequence[Cell],
    findings: dict[str, list[str]],
    formats: Sequence[str],
) -> list[Path]:
    names = ("summary.md", "summary.csv", "summary.tex", "findings.md", "report.html")
    summary, table, latex, text, page = (folder / name for name in names)
    write_text(summary, tables.markdown(results, cells))
    with replacing(table) as temporary:
        columns = None if cells else ["task", "mechanism", "seeds"]
        require("pandas").DataFrame(rows_of(cells), columns=columns).to_csv(temporary, index=False)
    write_text(latex, tables.latex(cells))
    write_text(text, findings_markdown(findings))
    drawn = drawn_figures(results, cells)
    saved = _save(writable_folder(folder / FIGURES), drawn, formats)
    images = {path.stem: path for path in saved if path.suffix == ".png"}
    write_text(page, report_page(results, cells, findings, drawn, images))
    return [summary, table, latex, text, page, *saved]


def _save(folder: Path, drawn: Sequence[Drawn], formats: Sequence[str]) -> list[Path]:
    paths = []
    for figure in drawn:
        for kind in formats:
            paths.append(folder / f"{figure.name}.{kind}")
            save_figure(paths[-1], figure.figure, dpi=160)
    return paths
