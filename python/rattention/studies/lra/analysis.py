"""Folders of results as a summary, figures, findings, and one page that a browser opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._extras import require
from rattention._files import figure_format, save_figure, writable_folder, write_text
from rattention.studies.lra import summary
from rattention.studies.lra.config import task_label
from rattention.studies.lra.figures import drawn_figures
from rattention.studies.lra.findings import CAVEAT, findings_markdown, findings_of
from rattention.studies.lra.results import StudyResults
from rattention.studies.lra.summary import Cell, by_task, heading, rows_of, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True)
class Analysis:
    """What a study came to."""

    results: StudyResults
    cells: tuple[Cell, ...]
    """A mechanism on a task each, with all seeds."""
    findings: dict[str, list[str]]
    """Sentences by task; under ``"Runs"`` what is missing."""
    files: tuple[Path, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "folders": [str(path) for path in self.results.folders],
            "summary": rows_of(self.cells),
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
    analysis = Analysis(results, cells, findings_of(cells, results))
    return (
        analysis if out is None else replace(analysis, files=_write(analysis, writable_folder(out), formats))
    )


def _write(analysis: Analysis, folder: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    results, cells = analysis.results, analysis.cells
    columns = None if cells else ["task", "mechanism", "seeds"]
    texts = {
        "summary.md": summary.markdown(results, cells),
        "summary.csv": require("pandas").DataFrame(rows_of(cells), columns=columns).to_csv(index=False),
        "summary.tex": summary.latex(cells),
        "findings.md": findings_markdown(analysis.findings),
    }
    place, drawn = writable_folder(folder / "figures"), drawn_figures(results, cells)
    saved = {place / f"{one.name}.{kind}": one.figure for one in drawn for kind in formats}
    for path, figure in saved.items():
        save_figure(path, figure, dpi=160)
    images = {one.caption: _png(one.figure, place / f"{one.name}.png", saved) for one in drawn}
    texts["report.html"] = _page(analysis, images)
    for name, text in texts.items():
        write_text(folder / name, text)
    return (*(folder / name for name in texts), *saved)


def _png(figure: Figure, path: Path, saved: Iterable[Path]) -> str:
    """The file of a figure in base64, or where it was not saved one made for the page."""
    content = io.BytesIO(path.read_bytes() if path in saved else b"")
    if path not in saved:
        figure.savefig(content, format="png", dpi=110)
    return base64.b64encode(content.getvalue()).decode("ascii")


def _page(analysis: Analysis, images: Mapping[str, str]) -> str:
    results = analysis.results
    settings = {run.task: run.settings for run in reversed(results.runs) if run.settings is not None}
    records = {f"Settings, {task_label(task)}": own for task, own in settings.items()}
    records |= dict(zip(map(str, results.folders), results.environments, strict=True))
    environment = require("jinja2").Environment(autoescape=True)
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        finished=len(results.finished()),
        runs=len(results.runs),
        folders=results.folders,
        caveat=CAVEAT,
        findings=analysis.findings,
        summary={heading(task, some): summary.rows(some) for task, some in by_task(analysis.cells).items()},
        note=summary.NOTE,
        figures=images,
        published=summary.published_rows(),
        published_note=summary.PUBLISHED_NOTE,
        records=records,
    )
    return text
