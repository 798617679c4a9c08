"""What the numbers say, in sentences that claim no more than they do."""

from __future__ import annotations

import math
from operator import eq
from typing import TYPE_CHECKING

from rattention.studies.kit.intervals import CONFIDENCE
from rattention.studies.lra.config import task_label
from rattention.studies.lra.models import MATCHED_WITHIN
from rattention.studies.lra.settings import BASELINE
from rattention.studies.lra.summary import (
    Cell,
    attention,
    bullets,
    by_task,
    difference,
    learned,
    mebibytes,
    percent,
    points,
    unfinished_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattention.studies.lra.results import StudyResults

CAVEAT = (
    f"A difference counts as shown where its {CONFIDENCE:.0%} interval leaves 0 out: Student's, of the "
    "differences between runs with the same seed (a paired t-test). Intervals are over seeds only, and "
    "nothing is corrected for the number of comparisons. Times and memory were measured on a machine that "
    "other work may have shared: a difference in them counts as shown only where the ranges of two or more "
    "runs each do not overlap. All statements hold for these sizes, settings, data and machines."
)

COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds_per_epoch": ("time per epoch", lambda seconds: f"{seconds:,.3g} s"),
    "peak_memory_bytes": ("peak memory", mebibytes),
}
"""What an epoch takes: its name in sentences, and how it is written."""


def findings_of(cells: Sequence[Cell], results: StudyResults) -> dict[str, list[str]]:
    """Sentences by task, in the order of `RULES`; under ``"Runs"`` what is not finished or was left out."""
    texts = {
        task_label(task): [sentence for rule in RULES for sentence in rule(some)]
        for task, some in by_task(cells).items()
    }
    runs = [] if cells else ["No run is finished yet: there is nothing to compare."]
    runs += [f"Not finished and left out: {line}." for line in unfinished_lines(results)]
    runs += results.warnings
    return {**texts, **({"Runs": runs} if runs else {})}


def findings_markdown(findings: dict[str, list[str]]) -> str:
    """The same as a text."""
    parts = ["# Long Range Arena: findings", f"Generated from the numbers of the runs. {CAVEAT}"]
    for head, sentences in findings.items():
        parts += [f"## {head}", bullets(sentences)]
    return "\n\n".join(parts) + "\n"


def best(cells: Sequence[Cell]) -> list[str]:
    """The highest mean accuracy, and from which others it is shown to differ."""
    top = max(cells, key=lambda cell: cell.accuracy.mean)
    equal = [c for c in cells if c is not top and c.accuracy.mean == top.accuracy.mean]
    same = f"; the same mean: {_names(equal)}" if equal else ""
    seeds = _seeds(len(top.seeds))
    text = [f"Highest mean test accuracy: {top.label} with {percent(top.accuracy)}, {seeds}{same}."]
    others = [(cell, difference(top, cell)) for cell in cells if cell is not top]
    if not others:
        return [*text, "There is no other mechanism to compare it with."]
    if unknown := [cell for cell, between in others if between.pairs < 2]:
        text.append(
            f"{_names(unknown)}: fewer than two seeds in common with {top.label}, so no interval and no "
            "difference that could be shown."
        )
    if near := [cell for cell, between in others if between.pairs > 1 and not between.shown]:
        text.append(
            f"No difference is shown between {top.label} and {'any of ' * (len(near) > 1)}{_names(near)}: "
            f"{'the interval includes' if len(near) == 1 else 'the intervals include'} 0."
        )
    return text + [
        f"{top.label} is more accurate than {cell.label} by {points(between.points)} points, paired over "
        f"{_seeds(between.pairs)}."
        for cell, between in others
        if between.shown
    ]


def against_majority(cells: Sequence[Cell]) -> list[str]:
    """Which mechanisms did not learn, or are not shown to have learned."""
    failed = [
        f"{cell.label} did not learn: its mean accuracy of {cell.accuracy.mean:.1%} is not above that of "
        f"the majority class, {cell.majority:.1%}."
        for cell in cells
        if cell.failed
    ]
    unsure = [
        f"{cell.label} is not shown to have learned: {percent(cell.accuracy)} against the majority "
        f"class's {cell.majority:.1%}, which the choice of test samples alone can move by "
        f"{100 * cell.chance_margin(cell.majority):.1f} points."
        for cell in cells
        if learned(cell) is None
    ]
    every = f"Every mechanism is above the majority class ({cells[0].majority:.1%})."
    return failed + unsure or [every]


def against_bag(cells: Sequence[Cell]) -> list[str]:
    """Which mechanisms are shown to use the order of tokens."""
    if (bag := cells[0].bag) is None:
        return []
    above = [cell for cell in cells if cell.exceeds(bag)]
    groups = {"shown": above, "not shown": [cell for cell in cells if cell not in above]}
    named = [f"{verdict} to be above it: {_names(some)}" for verdict, some in groups.items() if some]
    text = f"Logistic regression on the counts of tokens, without their order, gets {bag:.1%}"
    return [f"{'; '.join([text, *named])}."]


def against_baseline(cells: Sequence[Cell]) -> list[str]:
    """Accuracy against that of softmax attention."""
    text = []
    for cell in cells:
        if (between := cell.improvement) is None:
            continue
        if between.pairs < 2:
            verdict = "with fewer than two seeds in common no difference can be shown"
        elif between.shown:
            verdict = "a difference is shown"
        else:
            verdict = "the interval includes 0: no difference is shown"
        pairing = f"paired over {_seeds(between.pairs)}" if between.pairs else "not paired"
        text.append(
            f"{cell.label}: accuracy {points(between.points)} points against softmax attention, "
            f"{pairing}; {verdict}."
        )
    if not any(cell.mechanism == BASELINE for cell in cells):
        text.append("Softmax attention has no finished run here: nothing is compared with it.")
    return text


def speed(cells: Sequence[Cell]) -> list[str]:
    """Seconds per epoch and peak memory: what is least, what is shown to be more, and ratios of means."""
    if len(cells) < 2:
        return []
    ratios = "; ".join(
        f"{cell.label} "
        + " and ".join(f"{cell.ratio(name):.2f}{'*' * (not apart(cell, base, name))}" for name in COSTS)
        for cell in cells
        if (base := cell.baseline) and None not in map(cell.ratio, COSTS)
    )
    star = "; *: no difference is shown" * ("*" in ratios)
    return [
        *[_least(cells, name) for name in COSTS],
        *[f"Mean time per epoch and peak memory, as multiples of softmax attention's: {ratios}{star}."]
        * bool(ratios),
    ]


def _least(cells: Sequence[Cell], name: str) -> str:
    """The least mean, and from which others it is shown to differ."""
    what, form = COSTS[name]
    least, *others = sorted(cells, key=lambda cell: cell.mean(name))
    more = [cell for cell in others if apart(cell, least, name)]
    mean = least.mean(name)
    text = f"Lowest mean {what}: {least.label} with {form(mean)}, {_seeds(len(least.seeds))}"
    if more:
        times = (f"{cell.label} ({cell.mean(name) / (mean or math.nan):.2f} times)" for cell in more)
        text += f"; higher in every run of {', '.join(times)}"
    if unsure := [cell for cell in others if cell not in more]:
        text += f"; no difference is shown to {_names(unsure)}"
    return f"{text}."


def apart(one: Cell, other: Cell, name: str) -> bool:
    """Whether a cost differs between mechanisms: two or more runs each, whose ranges do not overlap."""
    lower, higher = sorted((one.values(name), other.values(name)), key=max)
    return min(len(lower), len(higher)) > 1 and max(lower) < min(higher)


def convergence(cells: Sequence[Cell]) -> list[str]:
    """Epochs to 90 % of the best, and runs that had not ended improving. Mechanisms that did not learn reach
    their best at once, and are left out of the former."""
    text = []
    means = [(cell, cell.mean("epochs_to_90_percent")) for cell in cells if not cell.failed]
    if len(means) > 1:
        least, most = min(mean for _, mean in means), max(mean for _, mean in means)
        first, last = (_names([cell for cell, mean in means if mean == end]) for end in (least, most))
        text.append(
            f"Epochs to 90 % of a run's own best validation accuracy: {least:.1f} for {first}"
            + (f", {most:.1f} for {last}." if least < most else ": all the same.")
        )
    late = [
        f"{cell.label} {count} of {len(cell.runs)}"
        for cell in cells
        if (count := sum(map(eq, cell.values("best_epoch"), cell.values("epochs"))))
    ]
    if late:
        text.append(
            "Runs whose best validation accuracy came in the last epoch, so that longer training might "
            f"change their accuracy: {', '.join(late)}."
        )
    return text


def sizes(cells: Sequence[Cell]) -> list[str]:
    """Mechanisms whose number of parameters is not that of softmax attention within 10 %."""
    ratios = [(cell.label, cell.ratio("parameters") or 1.0) for cell in cells]
    return [
        f"{name} has {ratio:.2f} times the parameters of softmax attention: the models are not equally large."
        for name, ratio in ratios
        if not 1 - MATCHED_WITHIN <= ratio <= 1 + MATCHED_WITHIN
    ]


RULES = (best, against_majority, against_bag, against_baseline, speed, convergence, sizes, attention)
"""From the finished runs of a task to sentences."""


def _names(cells: Sequence[Cell]) -> str:
    *others, last = (cell.label for cell in cells)
    return f"{', '.join(others)} and {last}" if others else last


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"
