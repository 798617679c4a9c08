"""From a case to arrays: inputs, options, which row sees which key, and the results of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import rattention as ra
from numpy.typing import NDArray
from rattention import MetricOptions
from rattention.mechanisms.masks import Masks, reference_visible
from rattention.mechanisms.pooled_map import bin_edges

from tests.fuzz.cases import Case
from tests.fuzz.subjects import SUBJECTS, Subject
from tests.mechanisms import DTYPES, Arrays

DISTANCES = MetricOptions(local_radius=3, long_range_distance=40)
MAP_SHAPE = (24, 40)
PICKED = 40
TOP = 7
APART = (0, 1, 2, 17, 64, 300)
EPS = 4.0
"""As large as squared distances, so that the scores of gravity are a few units."""


@dataclass(frozen=True)
class Result:
    """An array, and what its second and third axes stand for."""

    array: NDArray[Any]
    kind: str
    """Of ``[batch, heads, rows, ...]``: ``row``, and ``picked`` where the rows are `Problem.picked`; ``map``
    where they are bins; ``mean``, of all rows, lacks them. ``key``: ``[batch, heads or kv_heads, keys,
    ...]``; ``state`` lacks keys; ``head``: ``[heads, ...]``."""


Results = dict[str, Result]


@dataclass(frozen=True)
class Problem:
    """The arguments of one case. `inputs` are arrays that a change may reach, `masks` are those that hide."""

    case: Case
    inputs: Arrays
    masks: dict[str, Any]
    options: dict[str, Any]
    gradients: Arrays
    """With respect to the output and, of the linear family, to the state."""

    @property
    def subject(self) -> Subject:
        return SUBJECTS[self.case.subject]

    @property
    def group(self) -> int:
        return self.case.heads // self.case.kv_heads

    @cached_property
    def start(self) -> int:
        """Position of the first query row."""
        return self.case.keys - self.case.rows if self.case.offset is None else self.case.offset

    @cached_property
    def sees(self) -> NDArray[np.bool_]:
        """``[batch, heads or 1, rows, keys]``: may the key change the row?"""
        case = self.case
        if case.linear:
            return _linear_sees(case, self.masks)
        mask = self.masks.get("attn_mask")
        heads = 1 if mask is None or np.ndim(mask) < 3 else np.shape(mask)[-3]
        return reference_visible(Masks(**self.masks), case.batch, heads, case.rows, case.keys)[0]

    @cached_property
    def picked(self) -> NDArray[np.int64]:
        """The rows of the map to look at."""
        rng = np.random.default_rng(self.case.seed + 5)
        return np.sort(rng.permutation(self.case.rows)[:PICKED])

    @property
    def cuts(self) -> list[int]:
        """Where a sequence is cut into steps: a prompt, a piece, single tokens, then again a piece."""
        n = self.case.rows
        rng = np.random.default_rng(self.case.seed + 7)
        first, second = sorted(int(x) for x in rng.integers(0, n + 1, 2))
        tokens = range(second, min(n, second + int(rng.integers(1, 12))) + 1)
        return sorted({0, first, *tokens, n})


def problem_of(case: Case) -> Problem:
    subject = SUBJECTS[case.subject]
    rng = np.random.default_rng(case.seed)
    dtype = DTYPES[case.dtype]
    query = rng.standard_normal((case.batch, case.heads, case.rows, case.dim), np.float32)
    key = rng.standard_normal((case.batch, case.kv_heads, case.keys, case.dim), np.float32)
    query[...] = query * np.float32(case.spread) + np.float32(np.sign(case.level))
    key += np.float32(abs(case.level) / max(abs(query).mean(), 1) / case.dim**0.5)
    value = rng.standard_normal((case.batch, case.kv_heads, case.keys, case.value_dim), np.float32)
    inputs: Arrays = {n: a.astype(dtype) for n, a in (("query", query), ("key", key), ("value", value))}
    options = dict(subject.options)
    if subject.gravity:
        unit = 2 * case.dim**0.5
        heads = int(rng.choice((case.heads, case.kv_heads)))
        inputs["query_mass"] = (rng.random((case.batch, case.heads, case.rows)) * unit).astype(dtype)
        inputs["key_mass"] = (rng.random((case.batch, heads, case.keys)) * unit).astype(dtype)
        options |= {"eps": EPS, "gravity": rng.uniform(0.5, 1.5, case.heads).astype(np.float32)}
        if subject.exponent:
            options["exponent"] = rng.choice((1, 2, 0.7, 2.6), case.heads).astype(np.float32)
    if subject.discount:
        shape = (case.heads,) if subject.discount == "head" else (case.batch, case.heads, case.rows)
        options["log_discount"] = -rng.random(shape, np.float32) * np.float32(0.2)
    options |= _terms(case, rng)
    shapes = {"output": (case.batch, case.heads, case.rows, case.value_dim)}
    if case.linear:
        inputs |= _linear_arrays(case, rng)
        own = case.heads if subject.delta else case.kv_heads
        heads = inputs["initial_state"].shape[1] if "initial_state" in inputs else own
        shapes["state"] = (case.batch, heads, _features(case), case.value_dim)
    gradients = {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}
    gradients["output"] = gradients["output"].astype(dtype)
    return Problem(case, inputs, _masks(case, rng), options, gradients)


def _terms(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    for name in SUBJECTS[case.subject].terms:
        if name == "softcap":
            terms[name] = float(rng.choice((1.0, 5.0, 50.0)))
        elif name == "sinks":
            terms[name] = rng.normal(0, 3, case.heads).astype(np.float32)
        else:
            reach = int(rng.choice((0, 1, 7, 8, 64, 1100)))
            terms[name] = rng.standard_normal((case.heads, 2 * reach + 1), np.float32)
    return terms


def _features(case: Case) -> int:
    return case.dim if SUBJECTS[case.subject].options.get("feature_map") is None else 2 * case.dim


def _linear_arrays(case: Case, rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    if gate := SUBJECTS[case.subject].gate:
        decay = rng.choice((0.01, 1, 50))
        gates = [getattr(case, name) for name in SUBJECTS[case.subject].gate_shape]
        arrays[gate] = -rng.random(gates, np.float32) * np.float32(decay)
    if SUBJECTS[case.subject].delta:
        arrays["beta"] = 2 * rng.random((case.batch, case.heads, case.keys), np.float32)
    if case.part != "steps" and rng.random() < 0.5:
        heads = int(rng.choice((case.heads, case.kv_heads)))
        heads = case.heads if SUBJECTS[case.subject].delta else heads
        shape = (case.batch, heads, _features(case), case.value_dim)
        arrays["initial_state"] = rng.standard_normal(shape, np.float32)
    if case.subject.startswith("rattention") and rng.random() < 0.5:
        for name in ("local_norm_weight", "linear_norm_weight"):
            arrays[name] = rng.uniform(0.5, 1.5, (case.heads, case.value_dim)).astype(np.float32)
    return arrays


def _masks(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    masks: dict[str, Any] = {} if case.linear and SUBJECTS[case.subject].delta else {"window": case.window}
    if not case.linear:
        masks |= {"causal": case.causal, "query_offset": case.offset}
    for name in filter(None, case.masks.split("+")):
        if name == "padding":
            shown = rng.random((case.batch, case.keys)) < 0.8
            shown[:, case.keys - int(rng.integers(0, case.keys // 4 + 1)) :] = False
            masks["key_mask"] = shown
        elif name == "segments":
            ids = rng.integers(0, 4, (case.batch, case.keys))
            apart = np.sort(ids, axis=1) if rng.random() < 0.75 else ids
            masks["segment_ids"] = apart * (3 if rng.random() < 0.5 else -1)
        elif name == "blocks":
            length = int(rng.choice((1, 5, 16, 64, 130)))
            start = rng.integers(0, length, (case.batch, 1))
            masks["block_ids"] = (np.arange(case.keys) + start) // length % 3 - 1
        else:
            shape = (*(int(rng.choice((1, n))) for n in (case.batch, case.heads)), case.rows, case.keys)
            floats = rng.standard_normal(shape, np.float32)
            floats[floats > 0.5] = -np.inf
            masks["attn_mask"] = floats != -np.inf if name == "bool" else floats
    return masks


def _linear_sees(case: Case, masks: dict[str, Any]) -> NDArray[np.bool_]:
    """Through the state; with the local branch also through the window."""
    n, shown, ids = case.rows, masks.get("key_mask"), masks.get("segment_ids")
    ids = np.zeros((case.batch, n), np.int64) if ids is None else ids
    run = np.cumsum(np.diff(ids, axis=1, prepend=ids[:, :1]) != 0, axis=1)
    near = SUBJECTS[case.subject].mechanism == "rattention"
    reach = -1 if near else int(case.window)  # type: ignore[arg-type]
    sees = (np.arange(n) < np.arange(n)[:, None] - reach) & (run[:, :, None] == run[:, None])
    return (sees if shown is None else sees & shown[:, None])[:, None]


def compute(problem: Problem, inputs: Arrays) -> Results:
    """What the pass of the case returns for these inputs."""
    return (_linear if problem.case.linear else _softmax)(problem, inputs)


def _measured(metrics: ra.AttentionMetrics) -> Results:
    return {n: Result(a, "key" if n == "received" else "row") for n, a in metrics}


def _softmax(problem: Problem, inputs: Arrays) -> Results:
    rule, part = problem.subject.rule, problem.case.part
    options = problem.options | problem.masks
    of_map = {n: a for n, a in inputs.items() if n != "value"}
    if part == "metrics":
        return _measured(rule.metrics(**of_map, **options, metrics=DISTANCES))
    if part == "rows":
        return {"rows": Result(rule.rows(**of_map, **options, rows=problem.picked), "picked")}
    if part == "map":
        return {"map": Result(rule.pooled(**of_map, **options, shape=MAP_SHAPE), "map")}
    if part == "parts":
        return _parts(problem, of_map | options)
    if part == "forward":
        return {"output": Result(rule.forward(**inputs, **options), "row")}
    metrics = DISTANCES if part == "fused" else None
    got = rule.forward(**inputs, **options, return_lse=True, metrics=metrics)
    results = {"output": Result(got.output, "row"), "lse": Result(got.lse, "row")}
    if part == "fused":
        return results | _measured(got.metrics)
    if part == "lse":
        return results
    gradients = problem.subject.row.backward(problem.gradients["output"], **inputs, **options, result=got)
    return results | {f"grad {n}": Result(a, _kind(n, a)) for n, a in gradients.items()}


def _parts(problem: Problem, given: dict[str, Any]) -> Results:
    rule, (down, across) = problem.subject.rule, map_bins(problem)
    top = rule.top_keys(**given, k=TOP)
    return {
        "segments": Result(rule.segments(**given, query_edges=down, key_edges=across), "map"),
        "top_keys": Result(top.positions, "row"),
        "top_weights": Result(top.weights, "row"),
        "distances": Result(rule.distances(**given, edges=APART), "mean"),
    }


def _kind(name: str, array: NDArray[Any]) -> str:
    if name in ("query", "query_mass") or (name == "log_discount" and array.ndim == 3):
        return "row"
    if name in ("key", "value", "key_mass", "log_gate", "gate", "beta"):
        return "key"
    return "state" if name == "initial_state" else "head"


def _linear(problem: Problem, inputs: Arrays) -> Results:
    row, part = problem.subject.row, problem.case.part
    options = problem.options | problem.masks
    if part == "steps":
        return {"output": Result(steps(problem, inputs), "row")}
    if part == "forward":
        return {"output": Result(row.forward(**inputs, **options), "row")}
    output, state = row.forward(**inputs, **options, return_state=True)
    results = {"output": Result(output, "row"), "state": Result(state, "state")}
    if part == "state":
        return results
    grad, grad_state = (problem.gradients[n] for n in ("output", "state"))
    gradients = row.backward(grad, **inputs, **options, grad_state=grad_state)
    return {f"grad {n}": Result(a, _kind(n, a)) for n, a in gradients.items()}


def steps(problem: Problem, inputs: Arrays) -> NDArray[Any]:
    """The rows of a cache that is filled piece by piece."""
    case, options = problem.case, problem.options
    cache = ra.RAttentionCache(
        case.batch,
        case.kv_heads,
        case.dim,
        int(case.window),  # type: ignore[arg-type]
        value_dim=case.value_dim,
        dtype=case.dtype,
        **options,
    )
    weights = {n: a for n, a in inputs.items() if n.endswith("norm_weight")}
    tokens = {n: inputs[n] for n in ("query", "key", "value")}
    rows = [
        ra.rattention_step(**{n: a[:, :, i:j] for n, a in tokens.items()}, cache=cache, **weights)
        for i, j in pairwise(problem.cuts)
    ]
    return np.concatenate(rows, axis=2)


def map_bins(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of the map's bins of rows and of keys."""
    rows, keys = MAP_SHAPE
    return bin_edges(0, problem.case.rows, rows), bin_edges(0, problem.case.keys, keys)
