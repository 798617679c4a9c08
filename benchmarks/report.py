"""Outcomes as a table for people and as JSON for later comparison."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import DISTURBANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.outcome import Figure, Outcome

HEAD = ("against", "ours", "theirs", "figure", "pairwise", "goal", "")
DISTURBED = 0.05
WIDTHS = (62, 10, 10, 9, 9, 9, 8)
EXTRA = "pip install 'rattention[bench]'"


def table_head() -> str:
    return _row(HEAD)


def lines_of(title: str, outcome: Outcome, quick: bool) -> str:
    """A case as a few lines of the table."""
    lines = [f"{title}  ({_rounds(outcome)})"]
    lines += [_row(_cells(figure, quick)) for figure in outcome.figures]
    lines += [f"  missing: {peer}: {reason}" for peer, reason in outcome.missing.items()]
    return "\n".join(lines)


def _rounds(outcome: Outcome) -> str:
    agreed = max(outcome.answers.values(), default=None)
    answers = "" if agreed is None else f"answers agree to {agreed:.1g}"
    if not outcome.samples:
        return answers or "one measurement"
    rounds = len(next(iter(outcome.samples.values())).values)
    others = outcome.details.get(DISTURBANCE, 0.0)
    disturbed = f"DISTURBED: other programs kept {others:.1f} cores busy" if others > DISTURBED else ""
    return ", ".join(filter(None, (answers, f"{rounds} rounds", disturbed)))


def _row(cells: tuple[str, ...]) -> str:
    first, *rest = zip(cells, WIDTHS, strict=True)
    return ("  " + first[0].ljust(first[1]) + " ".join(text.rjust(width) for text, width in rest)).rstrip()


def _cells(figure: Figure, quick: bool) -> tuple[str, ...]:
    goal = f"{figure.goal.sign} {figure.goal.limit:g}" if figure.goal else ""
    verdict = "" if figure.met is None else "(quick)" if quick else "met" if figure.met else "NOT MET"
    return (
        figure.against,
        _time(figure.ours),
        _time(figure.theirs),
        f"{figure.value:.3g} {figure.unit}",
        "" if figure.pairwise is None else f"{figure.pairwise:.3g} {figure.unit}",
        goal,
        verdict,
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose second row is the rule."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def closing_line(outcomes: dict[str, Outcome], quick: bool) -> str:
    """How many goals were met, and how to get the peers that were missing."""
    verdicts = [
        figure.met for outcome in outcomes.values() for figure in outcome.figures if figure.met is not None
    ]
    counted = "goals are for the full sizes" if quick else f"{sum(verdicts)} of {len(verdicts)} goals met"
    missing = sorted({peer for outcome in outcomes.values() for peer in outcome.missing})
    return counted if not missing else f"{counted}; missing: {', '.join(missing)} ({EXTRA} brings the peers)"


def as_json(machine: dict[str, Any], options: dict[str, Any], outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": machine,
        "options": options,
        "cases": {name: _as_json(o) for name, o in outcomes.items()},
    }


def _as_json(outcome: Outcome) -> dict[str, Any]:
    samples = {
        name: {"median": s.median, "repetitions": len(s.values), "values": s.values}
        for name, s in outcome.samples.items()
    }
    figures = [asdict(figure) | {"met": figure.met} for figure in outcome.figures]
    return asdict(outcome) | {"figures": figures, "samples": samples}
