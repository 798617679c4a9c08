"""An HTML file that a browser opens offline: figures, tables, advice and configuration in one."""

from __future__ import annotations

import base64
import io
import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from rattention.inspect.findings import Findings
    from rattention.inspect.insights import Advice

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
"""What browsers show as images."""

DPI = 110
"""Of figures that are drawn for the report alone."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1080px; margin: 2em auto }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2em; border-bottom: 1px solid #bbb; padding-bottom: .2em }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
figure { margin: 1.2em 0 } img { max-width: 100% } figcaption { color: #555; font-size: 13px }
li.fired { font-weight: 600 } pre { background: #f4f4f4; padding: 1em; overflow-x: auto; font-size: 12px }
@media print { details { display: block } body { max-width: none } }
"""


class Embedded:
    """A figure as text in a page."""

    def __init__(self, caption: str, figure: Figure, file: Path | None = None) -> None:
        """Takes the image from `file` where that is one a browser shows, else draws `figure`."""
        self.caption = caption
        self.kind = KINDS.get("" if file is None else file.suffix, KINDS[".png"])
        self.data = base64.b64encode(_image(figure, file)).decode("ascii")

    def html(self) -> str:
        """The element."""
        source = f"data:{self.kind};base64,{self.data}"
        text = escape(self.caption)
        return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


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
    details = "".join(
        f"<details><summary>{escape(name)}: {len(figures)} figures</summary>{_all(figures)}</details>"
        for name, figures in samples.items()
    )
    sections = {
        "What it means": _advice(advice),
        "Samples": "<p>Of the query row; medians over layers and heads.</p>"
        + html_table(findings.sample_table()),
        "Over all samples": _all(overview),
        "Sample by sample": details,
        "Every layer and head": html_table(findings.table()),
        "Configuration, versions and hardware": "".join(html_record(n, value) for n, value in record.items()),
    }
    return page(title, description, sections)


def page(title: str, description: str, sections: Mapping[str, str]) -> str:
    """A whole page: a heading, a line below it, and sections of HTML by their headings."""
    body = "".join(f"<h2>{escape(heading)}</h2>{content}" for heading, content in sections.items())
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(description)}</p>{body}"
        "</body></html>\n"
    )


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same names as a table."""
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row.values()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_record(name: str, value: Any) -> str:
    """A setting, or settings by name."""
    if isinstance(value, dict):
        lines = "\n".join(f"{key}: {item}" for key, item in value.items())
        return f"<p>{escape(name)}</p><pre>{escape(lines)}</pre>"
    return f"<p>{escape(name)}: {escape(str(value))}</p>"


def _image(figure: Figure, file: Path | None) -> bytes:
    if file is not None and file.suffix in KINDS:
        return file.read_bytes()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    return drawn.getvalue()


def _all(figures: Iterable[Embedded]) -> str:
    return "".join(figure.html() for figure in figures)


def _advice(advice: Advice) -> str:
    items = "".join(
        f'<li class="{"fired" if insight.fired else "quiet"}">{escape(insight.text)}</li>'
        for insight in advice.insights
    )
    layers = ", ".join(map(str, advice.compressible))
    suggested = ", ".join(f"layer {layer} {strategy}" for layer, strategy in advice.by_layer.items())
    return (
        f"<ul>{items}</ul><p><strong>{escape(advice.reason)}</strong></p>"
        f"<p>Layers by how few positions hold 90 % of the attention, fewest first: {layers}.</p>"
        f"<p>By itself each layer suggests: {escape(suggested)}.</p>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "&ndash;" if math.isnan(value) else f"{value:.3g}"
    return escape(str(value))
