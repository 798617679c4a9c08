"""An HTML file that a browser opens offline: figures, tables, advice and configuration in one."""

from __future__ import annotations

import base64
import io
import math
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from rattention.inspect.findings import Findings
    from rattention.inspect.insights import Advice

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
"""What browsers show as images."""
DPI = 110
"""Of figures that are drawn for the report alone."""


class Column(NamedTuple):
    """How a number is called and written, on the console and in the report."""

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


class Embedded:
    """A figure as text in a page: from `file` where that is one a browser shows, else drawn."""

    def __init__(self, caption: str, figure: Figure, file: Path | None = None, alt: str = "") -> None:
        self.caption, self.alt = caption, alt or caption
        self.kind = KINDS.get("" if file is None else file.suffix, KINDS[".png"])
        self.data = base64.b64encode(_image(figure, file)).decode("ascii")

    def html(self) -> str:
        """The element."""
        return _part("figure", self)


def report(
    title: str,
    description: str,
    findings: Findings,
    advice: Advice,
    overview: Sequence[Embedded],
    samples: Mapping[str, Sequence[Embedded]],
    record: Mapping[str, Any],
) -> str:
    """The page.

    Parameters
    ----------
    title, description:
        The model, and one line about it.
    findings, advice:
        What was measured, and what it means.
    overview, samples:
        Figures over all samples, and those of each sample by its name.
    record:
        Configuration, versions and hardware, as plain data.
    """
    sections = {
        "What it means": _part("advice", advice),
        "Samples": f"<p>{QUERY_ROW}</p>{html_table(findings.sample_table())}",
        "Over all samples": "".join(figure.html() for figure in overview),
        "Sample by sample": _part("samples", samples),
        "Every layer and head": html_table(findings.table()),
        "Configuration, versions and hardware": "".join(html_record(n, value) for n, value in record.items()),
    }
    return page(title, description, sections)


def page(title: str, description: str, sections: Mapping[str, str]) -> str:
    """A whole page: a heading, a line below it, a table of contents, and sections of HTML by their "
    "headings."""
    page: str = _template().render(title=title, description=description, sections=sections)
    return page


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same names as a table."""
    return _part("table", map(heading, rows[0]), ((cell(n, v) for n, v in row.items()) for row in rows))


def html_record(name: str, value: Any) -> str:
    """A setting, or settings by name."""
    return _part("record", name, value)


def _part(macro: str, *values: Any) -> str:
    """The HTML that a macro of the template makes; what it is given is escaped."""
    return str(getattr(_template().module, macro)(*values))


@cache
def _template() -> Any:
    source = files("rattention.inspect").joinpath("report.html.j2").read_text("utf-8")
    return require("jinja2").Environment(autoescape=True).from_string(source)


def _image(figure: Figure, file: Path | None) -> bytes:
    if file is not None and file.suffix in KINDS:
        return file.read_bytes()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    return drawn.getvalue()
