"""The page of the sweep's results, docs/models.md."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from typing import Any

import torch
import transformers

HEADINGS = {
    "right": "Right",
    "refused": "Refused, with an error that says why",
    "wrong": "Wrong",
    "error": "Ended by another error",
    "blind": "Undecided: the inputs would not show a fault",
    "no attention": "No attention for the kernels",
    "not built": "Not checked",
}

REASONS = {
    "needs a package that is not there": "library but it was not found",
    "too large: a size of it is not known": r"NotImplementedError: \d+ parameters",
    "has no forward pass": "missing the required .forward.|has no attribute '\\w+Model'",
    "inputs of it are not known": "NotImplementedError: inputs|You must specify|You have to specify|NoneType",
    "outputs are random, infinite or zero": "random or infinite|outputs of zeros",
    "sizes do not fit each other": "Validation|size|shape|divisible|range|numbers?|expected|must|fit",
    "other errors": "",
}
"""Reasons why a class is not built, by patterns of their texts; the first that fits counts."""

WRITTEN = """\
Written by `python -m tests.sweep --write docs/models.md` on {date}, with Transformers {transformers} and
PyTorch {torch}. Do not edit it by hand."""
METHOD = """\
Each class of the AutoModels is built tiny, with random weights, and run with "eager" and with "rattention":
loaded by name and set by `set_attn_implementation`, one and two sequences, padding on either side, windows
shorter than the text, gradients, greedy generation with dynamic and static caches. "Right" means that all
outputs differ by less than 1e-4 of the largest, and tokens not at all; where padding reaches rows that count,
the outputs are compared with those of "sdpa". Faults of scale, causality, windows and masks are made on
purpose, and must show. Pictures and sound are checked where a class takes nothing else; composite models with
text. A class with features that its small configuration does not have, such as capped
scores, may be right here and refused there."""


def page(results: list[dict[str, Any]]) -> str:
    """The text of the page."""
    counts = Counter(result["status"] for result in results)
    lines = [
        "# Models of Transformers",
        "",
        WRITTEN.format(
            date=f"{datetime.datetime.now(datetime.UTC):%-d %B %Y}",
            transformers=transformers.__version__,
            torch=torch.__version__.partition("+")[0],
        ),
        "",
        METHOD,
        "",
        "| result | classes |",
        "| --- | --- |",
        *(f"| {HEADINGS[status]} | {counts[status]} |" for status in HEADINGS if counts[status]),
        "",
    ]
    for status, heading in HEADINGS.items():
        chosen = sorted((r for r in results if r["status"] == status), key=lambda r: r["name"])
        if chosen:
            lines += [f"## {heading}", "", *_table(status, chosen), ""]
    return "\n".join(lines)


def _table(status: str, results: list[dict[str, Any]]) -> list[str]:
    if status == "right":
        rows = [f"| {r['name']} | {r['calls']} | {', '.join(r['features'])} |" for r in results]
        return ["| class | calls of the kernels in a pass | in its masks |", "| --- | --- | --- |", *rows]
    if status == "not built":
        named = {kind: [r["name"] for r in results if _kind(r["reason"]) == kind] for kind in REASONS}
        rows = [f"| {kind} | {', '.join(names)} |" for kind, names in named.items() if names]
        return ["| why | classes |", "| --- | --- |", *rows]
    rows = [f"| {r['name']} | {r['reason'].replace('|', '/')[:200]} |" for r in results]
    return ["| class | why |", "| --- | --- |", *rows]


def _kind(reason: str) -> str:
    return next(kind for kind, pattern in REASONS.items() if re.search(pattern, reason))
