"""How close results have to come to one another, and to the reference, where bits are not promised."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from rattention.mechanisms.masks import Masks, query_positions
from rattention.mechanisms.pooled_map import (
    reference_distances,
    reference_map,
    reference_segments,
    reference_top_keys,
)

from tests.fuzz.problems import (
    APART,
    DISTANCES,
    EPS,
    MAP_SHAPE,
    TOP,
    Problem,
    Results,
    compute,
    map_bins,
)
from tests.mechanisms import DTYPES, Arrays, allowed_error, largest_error, wide
from tests.metric_checks import TOLERANCES

OUTPUT = 1e-6
"""Of float32 results of the softmax family, for scores of a few units, relative to the largest."""
LINEAR = 1e-5
GRADIENT = 2e-5
WEIGHT = 3e-6
"""Relative, of single weights."""
PLACES = ("max_position", "top_keys")
"""Numbers of keys, of which those of equal weight may change places."""
SEARCH = 4
"""Times what is allowed to a few tests: some of millions of draws have bad luck, and some naive evaluations
good."""


class Broken(AssertionError):
    """A relation that does not hold."""


def slack(problem: Problem) -> float:
    """By how much float32 scores of this size are worse than those of a few units: at most, by
    Cauchy-Schwarz."""
    arrays = wide(problem.inputs)
    if problem.subject.gravity:
        largest = 1.5 * _largest(arrays["query_mass"]) * _largest(arrays["key_mass"]) / EPS
    else:
        lengths = [_largest(np.sqrt((arrays[n] ** 2).sum(-1))) for n in ("query", "key")]
        largest = lengths[0] * lengths[1] / problem.case.dim**0.5
    return 1 + min(largest, 1e3) / 4


def _largest(array: NDArray[np.float64]) -> float:
    """Of what is finite."""
    return float(array.max(where=np.isfinite(array), initial=0))


def rounding(problem: Problem) -> float:
    """Of an output in the case's dtype, from one number to the next; relative."""
    return 0.0 if problem.case.dtype == "float32" else float(ml_dtypes.finfo(DTYPES[problem.case.dtype]).eps)


def near(problem: Problem, name: str, got: NDArray[Any], wanted: NDArray[Any], times: float = 1) -> int:
    """`Broken` where a result is not, up to float32, the other; how many numbers it has."""
    if got.shape != wanted.shape:
        raise Broken(f"{name} has shape {got.shape}, not {wanted.shape}")
    if name in PLACES:  # equal weights may change places
        return 0
    a, b = got.astype(np.float64), as_stored(got, wanted.astype(np.float64))
    if name == "recent_distant_ratio":  # weights below float32's smallest are 0
        a, b = np.clip(a, 1e-30, 1e30), np.clip(b, 1e-30, 1e30)
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isfinite(b) & np.isfinite(a), np.abs(a - b), np.where(a == b, 0.0, np.inf))
    apart[np.isnan(a) & np.isnan(b)] = 0
    allowed = _allowed(problem, name, b) * times
    if (apart > allowed).any():
        at = tuple(int(i) for i in np.argwhere(apart > allowed)[0])
        allowed = np.broadcast_to(allowed, b.shape)[at]
        raise Broken(
            f"{name}: {int((apart > allowed).sum())} of {a.size} are off, {a[at]:.8g} not {b[at]:.8g} "
            f"at {at}, allowed {allowed:.2g}"
        )
    return a.size


def as_stored(got: NDArray[Any], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Infinite where the dtype of the result has no such number."""
    if got.dtype.itemsize > 2:
        return wanted
    with np.errstate(over="ignore"):
        beyond = np.isinf(
            wanted.astype(got.dtype).astype(np.float64)
        )  # half a unit above the largest is that
    return np.where(beyond, np.copysign(np.inf, wanted), wanted)


def _allowed(problem: Problem, name: str, wanted: NDArray[np.float64]) -> Any:
    size = np.where(np.isfinite(wanted), np.abs(wanted), 0)
    worse = slack(problem)
    if name in TOLERANCES:
        rtol, atol = TOLERANCES[name]
        return 2 * worse * (rtol * size + atol)
    if name == "lse":
        return 1e-6 * worse * (1 + size)
    if name in ("rows", "map", "segments", "top_weights", "distances"):
        return 2 * worse * WEIGHT * size + 1e-9
    largest = size.max(initial=0)
    if name.startswith("grad"):
        # The output they start from is rounded, and in bfloat16 their terms are, which cancel.
        return (GRADIENT * worse + rounding(problem)) * max(largest, 1, _terms(problem))
    if problem.case.linear:
        return (rounding(problem) + LINEAR * (worse if name == "output" else 1)) * largest
    values = np.abs(problem.inputs["value"].astype(np.float64))
    return (rounding(problem) + OUTPUT * worse) * _largest(values)


def _terms(problem: Problem) -> float:
    """The largest terms of a gradient that are rounded: at most, by Cauchy-Schwarz."""
    if problem.case.dtype != "bfloat16" or "output" not in problem.gradients:
        return 0.0
    arrays = wide(problem.inputs)
    lengths = [_largest(np.sqrt((a**2).sum(-1))) for a in (arrays["value"], problem.gradients["output"])]
    other = max(_largest(np.abs(arrays[name])) for name in ("query", "key"))
    return lengths[0] * lengths[1] * other / problem.case.dim**0.5


def against_the_law(problem: Problem) -> int:
    """The float64 reference; where numbers are odd, as IEEE arithmetic has it."""
    results = compute(problem, problem.inputs)
    with np.errstate(all="ignore"):
        return _hold(problem, results)


def _hold(problem: Problem, results: Results) -> int:
    if problem.case.part == "backward":
        return _derivative(problem, results)
    if problem.case.linear:
        output, state = problem.subject.row.reference(
            **wide(problem.inputs), **problem.options, **problem.masks
        )
        law = {"output": output, "state": state}
    else:
        law = _softmax_law(problem)
    kept = 0
    for name, result in results.items():
        if name == "output" and not problem.case.linear and not problem.case.odd:
            kept += _accurate(problem, result.array, law[name])
        elif name not in PLACES:
            kept += near(problem, name, result.array, _in_float32(problem, result.array, law[name]), SEARCH)
    return kept


def _in_float32(problem: Problem, got: NDArray[Any], law: NDArray[Any]) -> NDArray[Any]:
    """A weight below float32's smallest number is 0, and 0 times infinity NaN, by a norm all of a row."""
    if problem.case.linear and not (problem.subject.mechanism == "rattention" or problem.subject.whole_past):
        return law
    odd = ~np.isfinite(law)
    if problem.subject.whole_past:  # sums of infinite terms come out otherwise in another order
        return np.where(odd & ~np.isfinite(got), got, law)
    if problem.case.linear:
        odd = odd.any(axis=-1, keepdims=True)
    return np.where(np.isnan(got) & odd, np.nan, law)


def _softmax_law(problem: Problem) -> dict[str, NDArray[Any]]:
    exact, options = wide(problem.inputs), problem.options | problem.masks
    rule, part = problem.subject.rule, problem.case.part
    if part in ("rows", "map", "parts"):
        del exact["value"]
        weights, visible, _ = rule.weights(**exact, **options)
        if part == "parts":
            return _law_of_parts(problem, weights, visible)
        return {"rows": weights[:, :, problem.picked], "map": reference_map(weights, MAP_SHAPE)}
    metrics = DISTANCES if part in ("fused", "metrics") else None
    law = rule.reference(**exact, **options, metrics=metrics)
    return {"output": law.output, "lse": law.lse} | dict(law.metrics or {})


def _law_of_parts(
    problem: Problem, weights: NDArray[np.float64], visible: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    positions = query_positions(Masks(query_offset=problem.start), *weights.shape[2:])
    return {
        "segments": reference_segments(weights, *map_bins(problem)),
        "top_weights": reference_top_keys(weights, visible, TOP)[1],
        "distances": reference_distances(weights, visible, positions, APART),
    }


def _accurate(problem: Problem, got: NDArray[Any], exact: NDArray[np.float64]) -> int:
    """Each head within the error that is allowed to every mechanism, see `tests.mechanisms`."""
    for h in range(problem.case.heads):
        inputs, options = _one_head(problem, h)
        error = largest_error(got[:, h : h + 1], exact[:, h : h + 1])
        allowed = SEARCH * allowed_error(problem.subject.rule, inputs, exact[:, h : h + 1], **options)
        if np.isnan(allowed):  # scores that the naive evaluation cannot hold
            near(problem, "output", got, exact, SEARCH)
        elif not error <= allowed:
            raise Broken(f"output of head {h}: largest error {error:.3g}, allowed {allowed:.3g}")
    return got.size


def _one_head(problem: Problem, h: int) -> tuple[Arrays, dict[str, Any]]:
    case = problem.case
    inputs = {n: a[:, h * a.shape[1] // case.heads :][:, :1] for n, a in problem.inputs.items()}
    options = {}
    for name, value in problem.options.items():
        per_head = isinstance(value, np.ndarray)
        options[name] = (
            value if not per_head else value[:, h : h + 1] if value.ndim == 3 else value[h : h + 1]
        )
        if name in ("gravity", "exponent"):
            options[name] = float(options[name][0])
    masks = dict(problem.masks)
    mask = masks.get("attn_mask")
    if mask is not None and mask.shape[1] > 1:
        masks["attn_mask"] = mask[:, h : h + 1]
    return inputs, options | masks


STEP = 1e-6


def _derivative(problem: Problem, results: Results) -> int:
    """Gradients times a random direction against the difference of the law's results along it."""
    case, rng = problem.case, np.random.default_rng(problem.case.seed + 2)
    numbers = wide(problem.inputs) | {
        n: np.asarray(a, np.float64) for n, a in problem.options.items() if isinstance(a, np.ndarray)
    }
    gradients = {n.removeprefix("grad "): r.array for n, r in results.items() if n.startswith("grad ")}
    directions = {n: rng.standard_normal(a.shape) for n, a in numbers.items() if n in gradients}
    got = sum(float((gradients[n] * d).sum()) for n, d in directions.items())
    size = sum(float(np.abs(gradients[n] * d).sum()) for n, d in directions.items())

    def value(sign: int) -> float:
        moved = {n: a + sign * STEP * directions[n] if n in directions else a for n, a in numbers.items()}
        law = problem.subject.row.reference(**(problem.options | moved), **problem.masks)
        of_output = float((law[0] * problem.gradients["output"].astype(np.float64)).sum())
        return of_output + (float((law[1] * problem.gradients["state"]).sum()) if case.linear else 0.0)

    expected = (value(1) - value(-1)) / (2 * STEP)
    allowed = SEARCH * GRADIENT * slack(problem) * (size + 1e-3)
    if not abs(got - expected) <= allowed:
        raise Broken(f"gradients: {got:.8g} along a direction, not {expected:.8g}, allowed {allowed:.2g}")
    return sum(d.size for d in directions.values())
