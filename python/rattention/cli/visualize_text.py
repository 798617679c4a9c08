"""What `rattention visualize` has found, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rattention._files import json_ready
from rattention.cli.text import paragraph, table
from rattention.inspect.report import COLUMNS, cell
from rattention.inspect.statistics import STATISTICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rattention.cli.text import Style
    from rattention.inspect.visualize import Visualization

SHOWN = ("context_mean", "context_std", "entropy", "recent_distant_ratio", "top_mass", "needed_share")
"""Statistics in the tables."""


def text(model: Mapping[str, Any], seen: Visualization, style: Style) -> str:
    """Advice, tables, and what was saved."""
    saved = [path.name for path in seen.saved]
    figures = [name for name in saved if name.endswith((".png", ".svg", ".pdf"))]
    others = ", ".join(name for name in saved if name not in figures)
    best = seen.advice.compressible[0]
    sections = [
        style.section(f"What {model['name']} attends to", paragraph(f"{model['description']}.")),
        paragraph(seen.advice.reason),
        style.section(
            "Samples",
            paragraph(
                "The query row, the last one; medians over layers and heads. Largest at: the position to "
                "which most heads give their largest weight."
            ),
            _table(("sample", "context_tokens", *SHOWN, "max_position"), seen.findings.sample_table(), style),
        ),
        style.section(
            "Layer by layer",
            paragraph(f"Medians over samples and heads. Compression pays most in layer {best}."),
            _table(("layer", *(n for n in SHOWN if n != "context_std"), "try first"), _layers(seen), style),
        ),
        style.section("The rules behind the advice", _rules(seen, style)),
        paragraph(f"Saved in {seen.saved[0].parent}: {len(figures)} figures, {others}"),
    ]
    return "\n\n".join(sections)


def as_data(model: Mapping[str, Any], seen: Visualization) -> dict[str, Any]:
    """All numbers; None for what is no finite number."""
    return {
        "model": dict(model),
        "samples": [json_ready(row) for row in seen.findings.sample_table()],
        "layers": [json_ready({n: v for n, v in row.items() if n != "try first"}) for row in _layers(seen)],
        "heads": [json_ready(row) for row in seen.findings.table()],
        **seen.advice.as_data(),
        "saved": [str(path) for path in seen.saved],
    }


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]], style: Style) -> str:
    header = [
        COLUMNS[name].heading.replace(" ", "\n", 1) if name in COLUMNS else "try\nfirst" for name in names
    ]
    return table(header, [[cell(name, row[name]) for name in names] for row in rows], style)


def _layers(seen: Visualization) -> list[dict[str, Any]]:
    values = {name: seen.findings.per_layer(name) for name in STATISTICS}
    return [
        {"layer": layer, **{name: float(values[name][i]) for name in STATISTICS}}
        | {"try first": seen.advice.by_layer[layer]}
        for i, layer in enumerate(seen.findings.layers)
    ]


def _rules(seen: Visualization, style: Style) -> str:
    fires, quiet = ("●", "○") if style.symbols else ("[x]", "[ ]")
    rows = [
        (
            f"{fires if found.fired else quiet} {found.rule}",
            COLUMNS[found.statistic].heading,
            cell(found.statistic, found.value),
            cell(found.statistic, found.threshold),
            ", ".join(map(str, found.layers)) or "none",
            f"{len(found.heads)} of {found.of_heads}",
        )
        for found in seen.advice.insights
    ]
    header = ("rule", "median of", "is", "fires\nabove", "fires in\nlayers", "in heads")
    return table(header, rows, style)
