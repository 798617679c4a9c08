"""``rattention lra analyze``: a table, figures and findings from folders of results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from rattention._extras import require
from rattention.cli.terminal import Style, note, paragraph, table

if TYPE_CHECKING:
    from rattention.studies.lra.analysis import Analysis

ANALYZE_EXAMPLES = (
    "results_20261127_203000        # table and findings; files into that folder",
    "runs/a runs/b --out together   # several folders as one study",
    "runs/a --format pdf --json",
)


@dataclass(frozen=True)
class Analyze:
    """Compare the runs in folders of results: a table, figures and findings.

    Accuracy with confidence intervals over seeds, convergence, time, memory and what each model attends to.
    Runs that are not finished are named and left out. Writes summary.md, summary.csv, summary.tex,
    findings.md, report.html and figures/ into --out.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """What rattention lra run has written; several are analysed together."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where files go: by default into the folder, and with several into lra_analysis."""
    format: Literal["png", "svg", "pdf"] = "png"
    """Of figures."""
    json: bool = False
    """Print JSON on stdout instead of text."""


SEVERAL = Path("lra_analysis")


def analyze(options: Analyze) -> int:
    """Analyse, print and save; ValueError and OSError say what is wrong with the folders."""
    require("matplotlib")
    from rattention.studies.lra import analysis

    out = options.out or (options.folders[0] if len(options.folders) == 1 else SEVERAL)
    result = analysis.analyze(options.folders, out, formats=(options.format,))
    if options.json:
        print(json.dumps(result.as_data(), allow_nan=False))
        return 0
    for warning in result.results.warnings:
        note(warning)
    print(report(result, Style.of()))
    print(f"Saved in {out}: {', '.join(_saved(result, out))}")
    return 0


def report(analysis: Analysis, style: Style) -> str:
    """The tables and the findings."""
    from rattention.studies.lra.findings import CAVEAT
    from rattention.studies.lra.summary import by_task, heading
    from rattention.studies.lra.tables import COLUMNS, cells_of_row

    parts = []
    for task, cells in by_task(analysis.cells).items():
        rows = [_plain(cells_of_row(cell), style) for cell in cells]
        parts += [style.title(heading(task, cells)), table((*COLUMNS, ""), rows, style), ""]
    for head, sentences in analysis.findings.items():
        parts.append(style.title(head))
        parts += [paragraph(sentence, indent="  ", first="- ") for sentence in sentences]
        parts.append("")
    return "\n".join([*parts, paragraph(CAVEAT)])


def _plain(row: list[str], style: Style) -> list[str]:
    """With a last column that is empty: `table` aligns that to the left."""
    return [*row, ""] if style.symbols else [*(cell.replace("–", "-") for cell in row), ""]


def _saved(analysis: Analysis, out: Path) -> list[str]:
    names = [str(path.relative_to(out)) for path in analysis.files if path.parent == out]
    count = len(analysis.files) - len(names)
    return [*names, f"{count} figures in figures"]
