"""What ``rattention lra`` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rattention.cli.text import Style, number, paragraph, table

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.studies.kit.intervals import Interval
    from rattention.studies.lra.analysis import Analysis
    from rattention.studies.lra.data import TaskData
    from rattention.studies.lra.summary import Cell

SPLITS = ("train", "validation", "test")
FEW = 32
"""The most names of tokens that are listed."""


def analysis(result: Analysis, folder: Path, style: Style) -> str:
    """A table for each task, the findings, and where everything is."""
    from rattention.studies.lra.findings import CAVEAT
    from rattention.studies.lra.summary import by_task, heading

    header = (
        "mechanism",
        "seeds",
        "accuracy\n%",
        "against\nsoftmax",
        "epochs\nto 90 %",
        "s /\nepoch",
        "memory\nMiB",
        "para-\nmeters",
    )
    parts = [
        style.section(heading(task, cells), table(header, [_row(cell) for cell in cells], style))
        for task, cells in by_task(result.cells).items()
    ]
    if parts:
        parts.append(paragraph(NOTE))
    parts += [style.section(head, style.bullets(said)) for head, said in result.findings.items()]
    files = [str(path.relative_to(folder)) for path in result.files if path.parent == folder]
    figures = len(result.files) - len(files)
    saved = f": {', '.join(files)}, {figures} figures in figures" if files else ""
    where = f"Saved in {folder}{saved}. Open {folder / 'report.html'} in a browser."
    return "\n\n".join([*parts, paragraph(CAVEAT), paragraph(where)])


NOTE = (
    "Means over seeds; after ± half of the 95 % interval over them, where there are several. Against "
    "softmax: points of accuracy. Epochs to 90 % of the best validation accuracy; *: it did not learn. Time "
    "and memory vary with what else the machine does."
)


def _row(cell: Cell) -> list[str]:
    def mean(name: str, form: str) -> str:
        return number(cell.number(name).mean, form)

    return [
        cell.label,
        str(len(cell.seeds)),
        _points(cell.accuracy, ".1f"),
        "-" if cell.improvement is None else _points(cell.improvement.points, "+.1f"),
        mean("epochs_to_90_percent", ".1f") + "*" * cell.failed,
        mean("seconds_per_epoch", ",.1f"),
        f"{cell.number('peak_memory_bytes').mean / 2**20:,.0f}",
        mean("parameters", ",.0f"),
    ]


def _points(share: Interval, form: str) -> str:
    half = "" if math.isnan(share.low) else f" ±{50 * (share.high - share.low):.1f}"
    return f"{100 * share.mean:{form}}{half}"


def describe(data: TaskData) -> dict[str, Any]:
    """What a task consists of, as plain values."""
    lengths = {name: getattr(data, name).lengths for name in SPLITS}
    return {
        "task": data.name,
        "vocabulary": data.vocabulary,
        "classes": data.classes,
        "token_names": None if data.token_names is None else list(data.token_names),
        "samples": {name: len(values) for name, values in lengths.items()},
        "lengths": {
            name: {"min": int(values.min()), "mean": float(values.mean()), "max": int(values.max())}
            for name, values in lengths.items()
        },
        "label_shares": data.label_shares(),
        "majority_accuracy": data.majority_accuracy(),
    }


def data_of_task(described: dict[str, Any], style: Style) -> str:
    """Samples, lengths and labels of each split."""
    rows = [
        [
            split,
            f"{described['samples'][split]:,}",
            f"{described['lengths'][split]['min']:,}",
            f"{described['lengths'][split]['mean']:,.0f}",
            f"{described['lengths'][split]['max']:,}",
            " ".join(f"{100 * share:.0f}" for share in described["label_shares"][split]),
        ]
        for split in SPLITS
    ]
    names = described["token_names"]
    listed = "" if names is None or len(names) > FEW else f"Tokens: {' '.join(names[1:])}"
    header = ("split", "samples", "shortest", "mean\nlength", "longest", "% of each label\n0, 1, ...")
    return style.section(
        f"{described['task']}: {described['vocabulary']} tokens (0 is padding), {described['classes']} "
        f"labels",
        table(header, rows, style),
        paragraph(listed),
        paragraph(
            "Majority-class baseline: the most frequent label of the training samples gives an accuracy of "
            f"{described['majority_accuracy']:.1%}."
        ),
    )
