"""An HTML file that a browser opens offline: advice, a page to walk through, tables and configuration in one,
with links to the figures beside it."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from rattention._extras import require
from rattention.inspect.statistics import STATISTICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rattention.inspect.findings import Findings
    from rattention.inspect.insights import Advice

IMAGES = (".png", ".svg")
"""What browsers show within a page."""


class Column(NamedTuple):
    """The heading and format of a number, on the console and in the report."""

    heading: str
    form: str = ""


COLUMNS = {
    "sample": Column("sample"),
    "layer": Column("layer"),
    "head": Column("head"),
    "sequence_length": Column("length"),
    "context_tokens": Column("context"),
    "context_mean": Column("mean attention", ".4f"),
    "context_std": Column("std", ".4f"),
    "entropy": Column("entropy (nats)", ".2f"),
    "relative_entropy": Column("entropy / ln n", ".2f"),
    "recent_distant_ratio": Column("recent / distant", ",.2f"),
    "top_mass": Column("top 10 %", ".1%"),
    "needed_share": Column("hold 90 %", ".1%"),
    "clustering": Column("clustering", ".2f"),
    "sink_mass": Column("sink mass", ".1%"),
    "max_position": Column("largest at"),
}
"""Of the tables of `Findings`; means over all rows have "rows_" before their names."""

QUERY_ROW = (
    "Numbers of the query row, the last one; medians over layers and heads. Largest at: the position to "
    "which most heads give their largest weight."
)
"""What the table of samples shows."""
LAYER_MEDIANS = "Medians over samples and heads, and the strategy that each layer alone suggests."
"""What the table of layers shows."""


def heading(name: str) -> str:
    """What a column of `Findings` is called."""
    column = COLUMNS.get(name.removeprefix("rows_"), Column(name))
    return f"all rows: {column.heading}" if name.startswith("rows_") else column.heading


def cell(name: str, value: Any) -> str:
    """A value of that column, with as many decimals as all of them."""
    if isinstance(value, float):
        form = COLUMNS.get(name.removeprefix("rows_"), Column(name, ",.3f")).form
        return "-" if math.isnan(value) else format(value, form)
    return str(value)


def linked(caption: str, file: Path) -> dict[str, Any]:
    """A figure that stands beside the page; `shown` where browsers can show it within."""
    return {"caption": caption, "file": file.name, "shown": file.suffix in IMAGES}


def layer_table(findings: Findings, advice: Advice) -> list[dict[str, Any]]:
    """A row for each layer: the medians over samples and heads of the query row's statistics, and the
    strategy that the layer alone suggests."""
    values = {name: findings.per_layer(name) for name in STATISTICS}
    return [
        {"layer": layer, **{name: float(values[name][i]) for name in STATISTICS}}
        | {"try first": advice.by_layer[layer]}
        for i, layer in enumerate(findings.layers)
    ]


def report(
    title: str,
    description: str,
    findings: Findings,
    advice: Advice,
    overview: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    record: Mapping[str, Any],
    walk: str = "",
) -> str:
    """The page.

    Parameters
    ----------
    title, description:
        The model, and one line about it.
    findings, advice:
        What was measured, and what it means.
    overview, samples:
        Figures over all samples, and those of each sample by its name, as `linked` gives them.
    record:
        Configuration, versions and hardware, as plain data.
    walk:
        A page of the first sample, which stands within this one; none where it is empty.
    """
    source = files("rattention.inspect").joinpath("report.html.j2").read_text("utf-8")
    written = {"query_row": QUERY_ROW, "layer_medians": LAYER_MEDIANS, "heading": heading, "cell": cell}
    template = require("jinja2").Environment(autoescape=True).from_string(source, written)
    tables = {"findings": findings, "advice": advice, "layers": layer_table(findings, advice)}
    given = {**tables, "overview": overview, "samples": samples}
    return str(template.render(title=title, description=description, record=record, walk=walk, **given))
