"""What `rattention visualize` has found, for people and for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rattention._files import json_ready
from rattention.cli.record import circumstances
from rattention.cli.terminal import Style, paragraph, table
from rattention.inspect.query_row import STATISTICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rattention.cli.specimen import Specimen
    from rattention.cli.visualize import Visualize
    from rattention.inspect.visualize import Visualization

SHOWN = {
    "context_mean": "mean\nattention",
    "context_std": "std",
    "entropy": "entropy\nnats",
    "recent_distant_ratio": "recent /\ndistant",
    "top_mass": "mass on\ntop 10 %",
    "needed_share": "hold\n90 %",
}
"""Statistics in the tables, and their headings."""


def text(chosen: Specimen, seen: Visualization, style: Style) -> str:
    """Tables, advice, and what was saved."""
    title = style.title(f"What {chosen.name} attends to")
    lead = "Of the query row, the last one; medians over layers and heads:"
    saved = [path.name for path in seen.saved]
    figures = [name for name in saved if name.endswith((".png", ".svg", ".pdf"))]
    others = ", ".join(name for name in saved if name not in figures)
    where = paragraph(f"Saved in {seen.saved[0].parent}: {len(figures)} figures, {others}")
    return "\n\n".join(
        [
            f"{title}\n{chosen.description}\n{lead}\n{_samples(seen, style)}",
            f"{style.title('Layer by layer')}\nMedians over samples and heads:\n{_layers(seen, style)}",
            _advice(seen, style),
            where,
        ]
    )


def as_data(chosen: Specimen, seen: Visualization, options: Visualize, *, seconds: float) -> dict[str, Any]:
    """All numbers, and everything needed to get them again; None for what is no finite number."""
    findings = seen.findings
    return {
        "model": {"name": chosen.name, "description": chosen.description, **chosen.data},
        "samples": [json_ready(row) for row in findings.sample_table()],
        "layers": [json_ready(row) for row in _layer_rows(seen)],
        "heads": [json_ready(row) for row in findings.table()],
        **seen.advice.as_data(),
        "saved": [str(path) for path in seen.saved],
        **circumstances(options, options.seed),
        "seconds": round(seconds, 3),
    }


def _samples(seen: Visualization, style: Style) -> str:
    header = ("sample", "length", "context", *SHOWN.values(), "")
    rows = (
        (row["sample"], str(row["sequence_length"]), str(row["context_tokens"]), *_cells(row), "")
        for row in seen.findings.sample_table()
    )
    return table(header, rows, style)


def _layers(seen: Visualization, style: Style) -> str:
    best = seen.advice.compressible[0]
    rows = (
        (
            str(row["layer"]),
            *_cells(row),
            seen.advice.by_layer[row["layer"]] + (", compression pays most" if row["layer"] == best else ""),
        )
        for row in _layer_rows(seen)
    )
    return table(("layer", *SHOWN.values(), "try first"), rows, style)


def _layer_rows(seen: Visualization) -> list[dict[str, Any]]:
    values = {name: seen.findings.per_layer(name) for name in STATISTICS}
    return [
        {"layer": layer, **{name: float(values[name][i]) for name in STATISTICS}}
        for i, layer in enumerate(seen.findings.layers)
    ]


def _advice(seen: Visualization, style: Style) -> str:
    fires, quiet = ("● ", "○ ") if style.symbols else ("[x] ", "[ ] ")
    lines = [
        paragraph(insight.text, "    ", first=f"  {fires if insight.fired else quiet}")
        for insight in seen.advice.insights
    ]
    return "\n".join([style.title("What it means"), *lines, paragraph(seen.advice.reason, "  ", first="  ")])


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    return ["-" if math.isnan(row[name]) else f"{row[name]:.3g}" for name in SHOWN]
