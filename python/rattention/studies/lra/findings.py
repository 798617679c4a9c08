"""What the numbers say, in sentences that claim no more than they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattention.studies.kit.intervals import CONFIDENCE
from rattention.studies.lra.models import MATCHED_WITHIN
from rattention.studies.lra.results import mechanism_label
from rattention.studies.lra.settings import BASELINE
from rattention.studies.lra.summary import Cell, by_task, difference, learned
from rattention.studies.lra.tables import attention, mebibytes, percent, points, unfinished_lines
from rattention.studies.lra.tasks import task_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattention.studies.lra.results import StudyResults

CAVEAT = (
    f"A difference counts as shown where its {CONFIDENCE:.0%} interval leaves 0 out: Student's, of the "
    "differences between runs with the same seed (a paired t-test). Intervals are over seeds only, and "
    "nothing is corrected for the number of comparisons. All statements hold for these sizes, settings and "
    "data."
)


def findings_of(cells: Sequence[Cell], results: StudyResults) -> dict[str, list[str]]:
    """Sentences by task, in the order of `RULES`; under ``"Runs"`` what is not finished or was left out."""
    texts = {
        task_label(task): [sentence for rule in RULES for sentence in rule(some)]
        for task, some in by_task(cells).items()
    }
    runs = [f"Not finished and left out: {line}." for line in unfinished_lines(results)]
    runs += results.warnings
    if not cells:
        runs.insert(0, "No run is finished yet: there is nothing to compare.")
    return {**texts, **({"Runs": runs} if runs else {})}


def findings_markdown(findings: dict[str, list[str]]) -> str:
    """The same as a text."""
    parts = ["# Long Range Arena: findings", f"Generated from the numbers of the runs. {CAVEAT}"]
    for head, sentences in findings.items():
        parts += [f"## {head}", "\n".join(f"- {sentence}" for sentence in sentences)]
    return "\n\n".join(parts) + "\n"


def best(cells: Sequence[Cell]) -> list[str]:
    """The highest mean accuracy, and from which others it is shown to differ."""
    top = max(cells, key=lambda cell: cell.accuracy.mean)
    equal = [c for c in cells if c is not top and c.accuracy.mean == top.accuracy.mean]
    same = f"; the same mean: {_names(equal)}" if equal else ""
    text = [f"Highest mean test accuracy: {top.label} with {percent(top.accuracy)}, {_seeds(top)}{same}."]
    others = [(cell, difference(top, cell)) for cell in cells if cell is not top]
    if not others:
        return [*text, "There is no other mechanism to compare it with."]
    unknown = [cell for cell, between in others if between.pairs < 2]
    if unknown:
        text.append(
            f"{_names(unknown)}: fewer than two seeds in common with {top.label}, so no interval and no "
            "difference that could be shown."
        )
    near = [cell for cell, between in others if between.pairs > 1 and not between.shown]
    if near:
        text.append(
            f"No difference is shown between {top.label} and {'any of ' * (len(near) > 1)}{_names(near)}: "
            f"{'the interval includes' if len(near) == 1 else 'the intervals include'} 0."
        )
    text += [
        f"{top.label} is more accurate than {cell.label} by {points(between.points)} points, paired over "
        f"{_count(between.pairs, 'seed')}."
        for cell, between in others
        if between.shown
    ]
    return text


def against_majority(cells: Sequence[Cell]) -> list[str]:
    """Which mechanisms did not learn, or are not shown to have learned."""
    text = []
    no, unsure = ([c for c in cells if learned(c) is verdict] for verdict in (False, None))
    for cell in no:
        text.append(
            f"{cell.label} did not learn: its mean accuracy of {cell.accuracy.mean:.1%} is not above that of "
            f"the majority class, {cell.majority:.1%}."
        )
    for cell in unsure:
        text.append(
            f"{cell.label} is not shown to have learned: {percent(cell.accuracy)} against the majority "
            f"class's {cell.majority:.1%}, which the choice of test samples alone can move by "
            f"{100 * cell.chance_margin:.1f} points."
        )
    if not text:
        text.append(f"Every mechanism is above the majority class ({cells[0].majority:.1%}).")
    return text


def against_baseline(cells: Sequence[Cell]) -> list[str]:
    """Accuracy against that of softmax attention."""
    text = []
    for cell in cells:
        between = cell.improvement
        if between is None:
            continue
        if between.pairs < 2:
            verdict = "with fewer than two seeds in common no difference can be shown"
        elif between.shown:
            verdict = "a difference is shown"
        else:
            verdict = "the interval includes 0: no difference is shown"
        pairing = f"paired over {_count(between.pairs, 'seed')}" if between.pairs else "not paired"
        text.append(
            f"{cell.label}: accuracy {points(between.points)} points against softmax attention, "
            f"{pairing}; {verdict}."
        )
    if not any(cell.mechanism == BASELINE for cell in cells):
        text.append("Softmax attention has no finished run here: nothing is compared with it.")
    return text


def speed(cells: Sequence[Cell]) -> list[str]:
    """Seconds per epoch and peak memory, as ratios of means."""
    if len(cells) < 2:
        return []
    return [
        _ends(cells, "seconds_per_epoch", "Fastest per epoch", lambda s: f"{s:,.3g} s", "as long"),
        _ends(cells, "peak_memory_bytes", "Least peak memory", mebibytes, "as much"),
        *_ratios(cells),
    ]


def convergence(cells: Sequence[Cell]) -> list[str]:
    """Epochs to 90 % of the best, and runs that had not ended improving. Mechanisms that did not learn reach
    their best at once, and are left out of the former."""
    text = []
    risen = [cell for cell in cells if not cell.failed]
    if len(risen) > 1:
        means = [cell.number("epochs_to_90_percent").mean for cell in risen]
        first = [cell for cell, mean in zip(risen, means, strict=True) if mean == min(means)]
        last = [cell for cell, mean in zip(risen, means, strict=True) if mean == max(means)]
        text.append(
            f"Epochs to 90 % of a run's own best validation accuracy: {min(means):.1f} for {_names(first)}"
            + (f", {max(means):.1f} for {_names(last)}." if min(means) < max(means) else ": all the same.")
        )
    late = [f"{cell.label} {count} of {len(cell.runs)}" for cell in cells if (count := _late(cell))]
    if late:
        text.append(
            "Runs whose best validation accuracy came in the last epoch, so that longer training might "
            f"change their accuracy: {', '.join(late)}."
        )
    return text


def _late(cell: Cell) -> int:
    results = [run.result for run in cell.runs if run.result is not None]
    return sum(result["best_epoch"] == result["epochs"] for result in results)


def sizes(cells: Sequence[Cell]) -> list[str]:
    """Mechanisms whose number of parameters is not that of softmax attention within 10 %."""
    return [
        f"{cell.label} has {ratio:.2f} times the parameters of softmax attention: the models are not "
        "equally large."
        for cell in cells
        if (ratio := cell.ratio("parameters")) is not None
        and not 1 - MATCHED_WITHIN <= ratio <= 1 + MATCHED_WITHIN
    ]


RULES = (best, against_majority, against_baseline, speed, convergence, sizes, attention)
"""From the finished runs of a task to sentences."""


def _ends(cells: Sequence[Cell], name: str, what: str, form: Callable[[float], str], times: str) -> str:
    """The least and the greatest mean of a number."""
    ordered = sorted(cells, key=lambda cell: cell.number(name).mean)
    low, high = ordered[0], ordered[-1]
    least, most = low.number(name).mean, high.number(name).mean
    text = f"{what}: {low.label} with {form(least)}"
    return f"{text}; {high.label} takes {most / least:.2f} times {times}." if least else f"{text}."


def _ratios(cells: Sequence[Cell]) -> list[str]:
    parts = [
        f"{cell.label} {time:.2f} and {memory:.2f}"
        for cell in cells
        if (time := cell.ratio("seconds_per_epoch")) is not None
        and (memory := cell.ratio("peak_memory_bytes")) is not None
    ]
    return [f"Time per epoch and peak memory, as multiples of softmax attention's: {'; '.join(parts)}."] * (
        len(parts) > 0
    )


def _names(cells: Sequence[Cell]) -> str:
    names = [mechanism_label(cell.mechanism) for cell in cells]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _seeds(cell: Cell) -> str:
    return _count(len(cell.seeds), "seed")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
