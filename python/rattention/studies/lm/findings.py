"""What the numbers say: differences between two models, paired by seed, with intervals, one sentence each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rattention.studies.kit.intervals import Interval, interval
from rattention.studies.lm.results import BITS
from rattention.studies.lm.variants import AS_WINDOW, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rattention.studies.lm.results import Number

CAVEAT = (
    "Small models on one corpus. Intervals are Student's 95 % intervals of differences paired by seed; "
    "nothing is claimed where one holds zero, and they are not corrected for the number of comparisons."
)
FULL = Variant("full").name


@dataclass(frozen=True)
class Contrast:
    """The difference between two models in one number."""

    experiment: str
    measure: str
    at: int
    one: str
    """The label of the model."""
    other: str
    """Of the one it is compared with."""
    seeds: int
    difference: Interval
    """One less the other."""

    @property
    def claimed(self) -> bool:
        """Whether zero is outside the interval."""
        low, high = self.difference.low, self.difference.high
        return self.seeds > 1 and (low > 0 or high < 0)

    def sentence(self) -> str:
        """In words."""
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        of = f"{self.measure}{f' at {self.at:,}' if self.at else ''}: {self.one} against {self.other}"
        if self.seeds < 2:
            return f"{of}: {mean:+.4f} with one seed, so no interval and no claim."
        measured = f"{mean:+.4f} ({low:+.4f} to {high:+.4f}, {self.seeds} seeds)"
        if not self.claimed:
            return f"{of}: no claim, the interval of the difference {measured} holds zero."
        return f"{of}: {'more' if mean > 0 else 'less'}, by {measured}."

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        bounds = (self.difference.low, self.difference.high)
        low, high = (None if math.isnan(bound) else bound for bound in bounds)
        own = {name: getattr(self, name) for name in ("experiment", "measure", "at", "one", "other", "seeds")}
        return own | {"difference": self.difference.mean, "low": low, "high": high, "claimed": self.claimed}


def contrasts_of(numbers: Sequence[Number]) -> list[Contrast]:
    """One for every measure of every pair of models that a claim of the paper is about, in their order."""
    found: list[Contrast] = []
    for experiment in dict.fromkeys(number.experiment for number in numbers):
        own = [number for number in numbers if number.experiment == experiment]
        for one, other in dict.fromkeys(_pairs(experiment, own)):
            found += _compared(experiment, own, one, other)
    return found


def _compared(experiment: str, numbers: Sequence[Number], one: str, other: str) -> Iterator[Contrast]:
    labels = {number.name: number.label for number in numbers}
    measures = dict.fromkeys((n.measure, n.at) for n in numbers if n.name == one)
    for measure, at in sorted(measures, key=itemgetter(1)):
        if not _relevant(measure, numbers, one):
            continue
        first, second = (
            {n.seed: n.value for n in numbers if (n.name, n.measure, n.at) == (name, measure, at)}
            for name in (one, other)
        )
        seeds = sorted(first.keys() & second.keys())
        if seeds:
            difference = interval([first[seed] - second[seed] for seed in seeds])
            yield Contrast(experiment, measure, at, labels[one], labels[other], len(seeds), difference)


def _relevant(measure: str, numbers: Sequence[Number], name: str) -> bool:
    """Losses on what lies beyond a window are told of models with that window alone."""
    beyond = measure.rpartition("beyond ")[2] if "beyond" in measure else None
    window = next(number.window for number in numbers if number.name == name)
    return beyond is None or window == int(beyond)


def _pairs(experiment: str, numbers: Iterable[Number]) -> Iterator[tuple[str, str]]:
    """Names of models that are compared."""
    models = {number.name: number for number in numbers}
    if experiment == "cost":  # times of one process on a shared machine have no seeds
        return
    for name, model in models.items():
        yield from ((name, other) for other in _others(experiment, model, models) if other in models)


def _others(experiment: str, model: Number, models: Mapping[str, Number]) -> list[str]:
    """What one model is compared with."""

    def beside(mechanism: str) -> str:
        return Variant(mechanism, model.window, model.layout).name

    if model.mechanism in ("rattention", AS_WINDOW):
        others = [beside("rattention")] if model.mechanism == AS_WINDOW else []
        others += [beside("window"), beside("window_normed"), FULL]
        others += [n for n in ("linear", "gated_linear", "gated_delta") if experiment == "recall"]
        return others + [n for n, m in models.items() if _larger_window(m, model)][-1:]
    if model.mechanism == "window":
        return [FULL]
    if model.mechanism == "window_normed":
        return [beside("window")]
    return [beside("rattention")] if model.mechanism.startswith("rattention") else []


def _larger_window(other: Number, model: Number) -> bool:
    if other.mechanism != "window" or other.layout != model.layout:
        return False
    return (other.window or 0) > (model.window or 0)


def markdown(contrasts: Iterable[Contrast], costs: Iterable[str]) -> str:
    """All sentences, by experiment."""
    lines, last = [f"{CAVEAT}"], ""
    for contrast in contrasts:
        if contrast.experiment != last:
            lines.append(f"\n## {contrast.experiment}\n")
            last = contrast.experiment
        lines.append(f"- {contrast.sentence()}")
    if said := list(costs):
        lines += ["\n## cost\n", *(f"- {sentence}" for sentence in said)]
    return "\n".join(lines) + "\n"


def cost_sentences(numbers: Sequence[Number]) -> list[str]:
    """Bytes of caches against full attention, for every length; they are counted, so there is no interval."""
    bytes_of = {(n.name, n.at): n for n in numbers if n.measure == "cache_bytes"}
    found = []
    for (name, at), number in bytes_of.items():
        full = bytes_of.get((FULL, at))
        if full is not None and name != FULL:
            share = 1 - number.value / full.value
            less = f"{abs(share):.0%} {'less' if share >= 0 else 'more'} than full attention"
            found.append(f"Cache after {at:,} tokens: {number.label}: {number.value:,.0f} bytes, {less}.")
    return found


__all__ = ["BITS", "Contrast", "contrasts_of", "cost_sentences", "markdown"]
