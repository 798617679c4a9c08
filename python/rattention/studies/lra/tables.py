"""The summary as Markdown, CSV and LaTeX, and the published numbers beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rattention._extras import require
from rattention.studies.kit.intervals import CONFIDENCE, Interval
from rattention.studies.lra.summary import Cell, by_task, heading, measured_samples
from rattention.studies.lra.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rattention.studies.lra.results import StudyResults

NOTE = (
    f"Means over seeds with {CONFIDENCE:.0%} intervals (Student's t, over seeds only: data and test samples "
    "are the same for all; accuracies cut at 0 and 100 %). With one seed there is no interval. Over "
    "softmax: accuracy less that of softmax attention with the same seed, in points. Epochs "
    "to 90 %: the first epoch whose validation accuracy is at least 90 % of the run's best; *: "
    "it did not learn, and what never rises is reached at once. Peak memory: resident, of the process."
)
"""What the columns mean."""

PUBLISHED = {
    "Transformer": {"listops": 36.37, "text": 64.27},
    "Local attention": {"listops": 15.82, "text": 52.98},
    "Sparse Transformer": {"listops": 17.07, "text": 63.58},
    "Longformer": {"listops": 35.63, "text": 62.85},
    "Linformer": {"listops": 35.70, "text": 53.94},
    "Reformer": {"listops": 37.27, "text": 56.10},
    "Sinkhorn Transformer": {"listops": 33.67, "text": 61.20},
    "Synthesizer": {"listops": 36.99, "text": 61.68},
    "BigBird": {"listops": 36.05, "text": 64.02},
    "Linear Transformer": {"listops": 16.13, "text": 65.90},
    "Performer": {"listops": 18.01, "text": 65.40},
}
"""Test accuracy in percent by model and task: the published comparison."""

PUBLISHED_NOTE = (
    "As context only: these models had other sizes and settings and ran on other hardware, and an "
    "early data pipeline of the benchmark lost the brackets of ListOps; the sources do not say whether these "
    "numbers come from it. They cannot be compared with the numbers of this study. Source: Tay et al., Long "
    "Range Arena: A Benchmark for Efficient Transformers, ICLR 2021 (arXiv:2011.04006), Table 1, as in the "
    "README of google-research/long-range-arena (8 November 2020)."
)


def published_rows() -> list[list[str]]:
    """`PUBLISHED` as text, its header first."""
    header = ["Model", *(f"{TASKS[task].label} (%)" for task in PUBLISHED["Transformer"])]
    return [header, *([model, *(f"{x:.2f}" for x in own.values())] for model, own in PUBLISHED.items())]


def row(cell: Cell) -> dict[str, str]:
    """The texts of a row by column."""
    mean = cell.mean
    return {
        "Mechanism": cell.label,
        "Seeds": str(len(cell.seeds)),
        "Test accuracy": percent(cell.accuracy),
        "Over softmax (points)": "–" if cell.improvement is None else points(cell.improvement.points),
        "Epochs to 90 %": f"{mean('epochs_to_90_percent'):.1f}{'*' * cell.failed}",
        "s / epoch": f"{mean('seconds_per_epoch'):,.1f}",
        "Tokens / s": f"{mean('tokens_per_second'):,.0f}",
        "Peak memory": mebibytes(mean("peak_memory_bytes")),
        "Parameters": f"{mean('parameters'):,.0f}",
    }


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """A table as text, its header first."""
    texts = [row(cell) for cell in cells]
    return [[*texts[0]], *([*text.values()] for text in texts)]


def percent(number: Interval, form: str = "{:.1%}") -> str:
    """A share with its interval, where it has one."""
    mean, low, high = (form.format(part) for part in (number.mean, number.low, number.high))
    return mean if math.isnan(number.low) else f"{mean} ({low} to {high})"


def points(number: Interval) -> str:
    """A difference of shares in points of a hundred."""
    return percent(Interval(100 * number.mean, 100 * number.low, 100 * number.high), "{:+.1f}")


def mebibytes(count: float) -> str:
    """Memory as people read it."""
    return f"{count / 2**20:,.0f} MiB"


def markdown(results: StudyResults, cells: Sequence[Cell]) -> str:
    """The summary: a table for each task, what is missing, and the published numbers."""
    parts = ["# Long Range Arena: summary"]
    for task, some in by_task(cells).items():
        parts += [f"## {heading(task, some)}", _markdown_table(rows(some)), *attention(some)]
    parts.append(NOTE if cells else "No run is finished yet.")
    if results.unfinished():
        parts += ["## Not finished, and not in the numbers", bullets(unfinished_lines(results))]
    if results.warnings:
        parts += ["## Warnings", bullets(results.warnings)]
    parts += ["## Published accuracies", _markdown_table(published_rows()), PUBLISHED_NOTE]
    return "\n\n".join(parts) + "\n"


def attention(cells: Sequence[Cell]) -> list[str]:
    """On what the statistics of attention rest."""
    samples = measured_samples(run for cell in cells for run in cell.runs)
    return [f"Attention was measured in {samples}."] if samples else []


def unfinished_lines(results: StudyResults) -> list[str]:
    """Each unfinished run, and how far it is."""
    return [f"{run.name}: {len(run.metrics)} epochs so far" for run in results.unfinished()]


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def latex(cells: Sequence[Cell]) -> str:
    """A table for each task, for the package booktabs."""
    if not cells:
        return "% No run is finished yet.\n"
    tables = [_latex_table(heading(task, some), some) for task, some in by_task(cells).items()]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _latex_table(caption: str, cells: Sequence[Cell]) -> str:
    text = f"{caption}. {NOTE}"
    for character in "%_&#$":
        text = text.replace(character, f"\\{character}")
    frame = require("pandas").DataFrame(map(row, cells))
    form = f"l{'r' * (frame.shape[1] - 1)}"
    table: str = frame.to_latex(index=False, escape=True, column_format=form, caption=text)
    return table.replace("–", "--")
