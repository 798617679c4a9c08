"""Formulas become MathML when the site is built: browsers draw it without a script or a font of ours."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

NAMES = re.compile(r'<mrow>((?:<mi mathvariant="normal">\w</mi>){2,})</mrow>')
"""What latex2mathml makes of ``\\mathrm{softmax}``: letters, which browsers set apart."""


def mathml(latex: str, display: str) -> str:
    """A formula as an element of HTML."""
    drawn = convert(latex.strip(), display=display)
    return NAMES.sub(lambda word: f"<mi>{re.sub('<[^>]+>', '', word[1])}</mi>", drawn)


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Called by Sphinx for a formula within a line."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Called by Sphinx for a formula of its own."""
    writer.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}
