"""The summary as Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rattention._extras import require
from rattention.studies.kit.intervals import CONFIDENCE, Interval
from rattention.studies.lra import published
from rattention.studies.lra.summary import Cell, by_task, heading, measured_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattention.studies.lra.results import StudyResults

COLUMNS = (
    "Mechanism",
    "Seeds",
    "Test accuracy",
    "Over softmax (points)",
    "Epochs to 90 %",
    "s / epoch",
    "Tokens / s",
    "Peak memory",
    "Parameters",
)

NOTE = (
    f"Means over seeds with {CONFIDENCE:.0%} intervals (Student's t, over seeds only: data and test samples "
    "are the same for all; accuracies cut at 0 and 100 %). With one seed there is no interval. Over "
    "softmax: accuracy less that of softmax attention with the same seed, in points. Epochs "
    "to 90 %: the first epoch whose validation accuracy is at least 90 % of the run's best; *: "
    "it did not learn, and what never rises is reached at once. Peak memory: resident, of the process."
)
"""What the columns mean."""


def cells_of_row(cell: Cell) -> list[str]:
    """A row of text in the order of `COLUMNS`."""
    return [
        cell.label,
        str(len(cell.seeds)),
        percent(cell.accuracy),
        "–" if cell.improvement is None else points(cell.improvement.points),
        f"{cell.number('epochs_to_90_percent').mean:.1f}{'*' if cell.failed else ''}",
        f"{cell.number('seconds_per_epoch').mean:,.1f}",
        f"{cell.number('tokens_per_second').mean:,.0f}",
        mebibytes(cell.number("peak_memory_bytes").mean),
        f"{cell.number('parameters').mean:,.0f}",
    ]


def percent(number: Interval) -> str:
    """A share with its interval, where it has one."""
    return _with_bounds(number, lambda share: f"{share:.1%}")


def points(number: Interval) -> str:
    """A difference of shares in points of a hundred."""
    return _with_bounds(number, lambda share: f"{100 * share:+.1f}")


def _with_bounds(number: Interval, form: Callable[[float], str]) -> str:
    if math.isnan(number.low):
        return form(number.mean)
    return f"{form(number.mean)} ({form(number.low)} to {form(number.high)})"


def mebibytes(count: float) -> str:
    """Memory as people read it."""
    return f"{count / 2**20:,.0f} MiB"


def markdown(results: StudyResults, cells: Sequence[Cell]) -> str:
    """The summary: a table for each task, what is missing, and the published numbers."""
    parts = ["# Long Range Arena: summary"]
    for task, some in by_task(cells).items():
        rows = [cells_of_row(cell) for cell in some]
        parts += [f"## {heading(task, some)}", _markdown_table(COLUMNS, rows), *attention(some)]
    parts.append(NOTE if cells else "No run is finished yet.")
    if results.unfinished():
        parts += ["## Not finished, and not in the numbers", _bullets(unfinished_lines(results))]
    if results.warnings:
        parts += ["## Warnings", _bullets(results.warnings)]
    parts += ["## Published accuracies", published_table(), f"{published.CAVEAT} Source: {published.SOURCE}."]
    return "\n\n".join(parts) + "\n"


def attention(cells: Sequence[Cell]) -> list[str]:
    """On what the statistics of attention rest."""
    samples = measured_samples(run for cell in cells for run in cell.runs)
    return [f"Attention was measured in {samples}."] if samples else []


def published_table() -> str:
    """In Markdown."""
    header, *rows = published.rows()
    return _markdown_table(header, rows)


def unfinished_lines(results: StudyResults) -> list[str]:
    """Each unfinished run, and how far it is."""
    return [f"{run.name}: {len(run.metrics)} epochs so far" for run in results.unfinished()]


def latex(cells: Sequence[Cell]) -> str:
    """A table for each task, for the package booktabs."""
    if not cells:
        return "% No run is finished yet.\n"
    tables = [_latex_table(heading(task, some), some) for task, some in by_task(cells).items()]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _latex_table(caption: str, cells: Sequence[Cell]) -> str:
    frame = require("pandas").DataFrame(map(cells_of_row, cells), columns=COLUMNS)
    text: str = frame.to_latex(
        index=False,
        escape=True,
        column_format=f"l{'r' * (len(COLUMNS) - 1)}",
        caption=f"{_escaped(caption)}. {_escaped(NOTE)}",
    )
    return text.replace("–", "--")


def _escaped(text: str) -> str:
    for character in "%_&#$":
        text = text.replace(character, f"\\{character}")
    return text.replace("–", "--")
