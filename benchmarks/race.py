"""A race: our answer and everybody else's are compared, and only then timed."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rattention import _core

from benchmarks.clock import alternate, elsewhere, stopwatch
from benchmarks.outcome import DISTURBANCE, Figure, Goal, Outcome, Samples, ratio

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Answer = dict[str, NDArray[Any]]

OURS = "rattention"
PEAK = "FMA peak"
BFLOAT16_PEAK = "bfloat16 peak"
PEAK_SECONDS = 0.05
PEAK_LIMIT = 105


class WrongAnswerError(Exception):
    """A contestant's answer is not the one expected: there is nothing to time."""


@dataclass(frozen=True)
class Setup:
    """How a case is to be measured."""

    length: int
    threads: int
    quick: bool

    @property
    def budget(self) -> float:
        """Seconds of timing per case."""
        return 0.5 if self.quick else 15.0

    @property
    def rounds(self) -> int:
        """Rounds of timing at least."""
        return 3 if self.quick else 5


@dataclass(frozen=True)
class Runner:
    """Work that is ready to be timed, and how to read what it returns (not timed)."""

    call: Callable[[], Any]
    answer: Callable[[Any], Answer]


@dataclass(frozen=True)
class Peer:
    """Somebody to be compared with.

    `build` prepares the work in the peer's own layout; it raises ImportError where the package is missing.
    `rows`: the query rows the answer is for, None for all. `timed=False`: only the answer counts.
    `comparable=False`: it does other work, such as exact attention beside an approximation, and only its time
    counts. `rival=False`: it is ours in another way, and no candidate for the fastest peer.
    """

    name: str
    build: Callable[[], Runner]
    goal: Goal | None = None
    rows: NDArray[np.int64] | None = None
    timed: bool = True
    comparable: bool = True
    rival: bool = True


def race(
    setup: Setup,
    ours: Runner,
    peers: list[Peer],
    *,
    tolerance: float,
    best: Goal | None = None,
    flops: float = 0.0,
    peak_share: Goal | None = None,
    bfloat16: bool = False,
) -> Outcome:
    """Compare answers to `tolerance`, time in alternation, and return the figures.

    A peer's goal with ``>=`` is on its time over ours, with ``<=`` on our time over its. `best` is a goal
    against the fastest of the peers, and stands only where none is missing; `peak_share` one on the share
    of the FMA peak that `flops` reach, or of the peak of products of `bfloat16`.
    """
    runners, missing = _prepare(peers)
    answers = _compare(ours, peers, runners, tolerance)
    samplers = {OURS: stopwatch(ours.call)}
    samplers |= {p.name: stopwatch(runners[p.name].call) for p in peers if p.timed and p.name in runners}
    peak, rate = (BFLOAT16_PEAK, _core.bf16_peak) if bfloat16 else (PEAK, _core.fma_peak)
    if flops:
        samplers[peak] = lambda: float(rate(PEAK_SECONDS, setup.threads))
    used, begin = elsewhere(), time.perf_counter()
    samples = alternate(samplers, setup.budget, setup.rounds)
    others = (elsewhere() - used) / (time.perf_counter() - begin)
    figures = [_against(p.name, p.goal, samples) for p in peers if p.name in samples]
    if best:
        figures += _against_best(best, peers, samples)
    if peak in samples:
        figures.append(_share_of_peak(peak, flops, samples, peak_share))
    del runners, samplers
    gc.collect()
    return Outcome(figures, samples, answers, missing, {DISTURBANCE: max(0.0, others)})


def _prepare(peers: list[Peer]) -> tuple[dict[str, Runner], dict[str, str]]:
    runners, missing = {}, {}
    for peer in peers:
        try:
            runners[peer.name] = peer.build()
        except ImportError as error:
            missing[peer.name] = str(error)
    return runners, missing


def _compare(
    ours: Runner, peers: list[Peer], runners: dict[str, Runner], tolerance: float
) -> dict[str, float]:
    got = ours.answer(ours.call())
    return {
        p.name: compare(p.name, got, runners[p.name].answer(runners[p.name].call()), tolerance, p.rows)
        for p in peers
        if p.comparable and p.name in runners
    }


def compare(
    name: str, got: Answer, expected: Answer, tolerance: float, rows: NDArray[np.int64] | None = None
) -> float:
    """The largest difference between two answers, relative to the value or, if larger, the root mean square.

    NaN counts as equal to NaN. Integers are positions of a largest weight, which rounding decides among near
    equals: they are not compared.

    Raises
    ------
    WrongAnswerError
        A part is missing, has another shape, or differs by more than `tolerance`.
    """
    worst = 0.0
    for part, theirs in expected.items():
        if theirs.dtype.kind != "f":
            continue
        if part not in got:
            raise WrongAnswerError(f"{name} answers {part!r}, we do not")
        mine = got[part] if rows is None else got[part][:, :, rows]
        if mine.shape != theirs.shape:
            raise WrongAnswerError(f"{part}: our shape is {mine.shape}, that of {name} {theirs.shape}")
        difference = _difference(mine.astype(np.float64), theirs.astype(np.float64))
        if not difference <= tolerance:
            raise WrongAnswerError(
                f"{part}: we and {name} differ by {difference:.3g}, allowed is {tolerance:.3g}"
            )
        worst = max(worst, difference)
    return worst


def _difference(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    if not np.array_equal(
        np.where(np.isfinite(mine), 0, mine), np.where(np.isfinite(theirs), 0, theirs), equal_nan=True
    ):
        return math.inf
    mine, theirs = mine[np.isfinite(theirs)], theirs[np.isfinite(theirs)]
    if not theirs.size:
        return 0.0
    size = math.sqrt(np.mean(theirs**2)) or 1.0
    return float(np.max(np.abs(mine - theirs) / np.maximum(np.abs(theirs), size)))


def _against(name: str, goal: Goal | None, samples: dict[str, Samples]) -> Figure:
    ours, theirs = samples[OURS], samples[name]
    costs = goal is not None and goal.sign == "<="
    value, pairwise = ratio(ours, theirs) if costs else ratio(theirs, ours)
    return Figure(name, value, "x", goal, pairwise, ours.median, theirs.median)


def _against_best(goal: Goal, peers: list[Peer], samples: dict[str, Samples]) -> list[Figure]:
    names = [p.name for p in peers if p.timed and p.rival]
    if any(name not in samples for name in names):
        return []
    fastest = min(names, key=lambda name: samples[name].median)
    return [replace(_against(fastest, goal, samples), against=f"best: {fastest}")]


def _share_of_peak(peak: str, flops: float, samples: dict[str, Samples], goal: Goal | None) -> Figure:
    seconds, rates = samples[OURS], samples[peak]
    at_peak = Samples(tuple(flops / rate / 1e9 for rate in rates.values))
    value, pairwise = (100 * share for share in ratio(at_peak, seconds))
    name = f"{peak}, {rates.median:.0f} GFLOP/s"
    if max(value, pairwise) > PEAK_LIMIT:  # more than everything: nobody can say what share it was
        name, goal = f"{name} (measured too low)", None
    return Figure(name, value, "%", goal, pairwise, seconds.median, at_peak.median)
