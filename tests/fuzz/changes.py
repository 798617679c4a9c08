"""What is hidden from whom, and how it is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fuzz.cases import Case
from tests.fuzz.problems import Problem, map_bins
from tests.mechanisms import Arrays

FAR = {"above": 1e3, "below": -1e3}
NOT_FINITE = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """Which numbers change: ``[batch, kv_heads, keys]`` or ``[batch, heads, rows]``; `row` and `key` are a
    pair among them that does not, or need not, see each other."""

    keys: Bools
    rows: Bools
    row: int
    key: int


def choose(problem: Problem, rng: np.random.Generator) -> Choice | None:
    """Keys that some row does not see, or rows, such that something is left that they must not change; None
    where every row sees every key."""
    for _ in range(20):
        choice = _choose_rows(problem, rng) if problem.case.place == "query" else _choose_keys(problem, rng)
        if choice is not None and not Touched.by(problem, choice).everything(problem):
            return choice
    return None


def _nothing(problem: Problem) -> tuple[Bools, Bools]:
    case = problem.case
    return np.zeros((case.batch, case.kv_heads, case.keys), bool), np.zeros(
        (case.batch, case.heads, case.rows), bool
    )


def _choose_rows(problem: Problem, rng: np.random.Generator) -> Choice:
    (keys, rows), n = _nothing(problem), problem.case.rows
    row = int(rng.integers(n))
    _mark(rows, np.array([row]) if rng.random() < 0.7 else np.delete(np.arange(n), row), rng)
    return Choice(keys, rows, row, int(rng.integers(problem.case.keys)))


def _choose_keys(problem: Problem, rng: np.random.Generator) -> Choice | None:
    keys, rows = _nothing(problem)
    b, h = (int(rng.integers(n)) for n in problem.sees.shape[:2])
    row = (
        int(rng.choice(problem.picked))
        if problem.case.part == "rows"
        else int(rng.integers(problem.case.rows))
    )
    hidden = np.flatnonzero(~problem.sees[b, h, row])
    if not hidden.size:
        return None
    chosen = _near(problem.sees[b, h, row], hidden, rng)
    _mark(keys, chosen, rng)
    return Choice(keys, rows, row, int(chosen[0]))


def choose_seen(problem: Problem, rng: np.random.Generator) -> Choice:
    """Any key, or any rows, whoever sees them."""
    choice = _choose_rows(problem, rng)
    if problem.case.place != "query":
        choice.rows[:] = False
        choice.keys[:, :, choice.key] = True
    return choice


def _near(seen: Bools, hidden: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One hidden key beside one that is seen, a few, or all."""
    kind = rng.random()
    beside = hidden[seen[np.maximum(hidden - 1, 0)] | seen[np.minimum(hidden + 1, seen.size - 1)]]
    if kind < 0.5 and beside.size:
        return rng.choice(beside, 1)
    return hidden if kind > 0.85 else rng.permutation(hidden)[: int(rng.integers(1, 5))]


def _mark(marks: Bools, chosen: NDArray[Any], rng: np.random.Generator) -> None:
    """In all sequences and heads or in one of them."""
    if rng.random() < 0.7:
        marks[:, :, chosen] = True
    else:
        b, h = (int(rng.integers(n)) for n in marks.shape[:2])
        marks[b, h, chosen] = True


def change(problem: Problem, choice: Choice, rng: np.random.Generator) -> Problem:
    """The problem with other numbers there."""
    case, inputs = problem.case, {n: a.copy() for n, a in problem.inputs.items()}
    options, masks = dict(problem.options), dict(problem.masks)
    if case.place == "query":
        _replace(inputs, "query", choice.rows, problem.inputs["key"][:, :, choice.key], case, rng)
        _replace(inputs, "query_mass", choice.rows, None, case, rng)
        if np.ndim(options.get("log_discount")) == 3:
            options["log_discount"] = np.where(
                choice.rows, options["log_discount"] * 2, options["log_discount"]
            )
        return replace(problem, inputs=inputs, options=options)
    gate = problem.subject.gate
    beside = ("key_mass", gate, "beta")
    places = {"all": ("key", "value", *beside), "mass": beside}.get(case.place, (case.place,))
    if not set(places) & set(inputs):
        places = ("value",)
    if gate and gate in places:
        _replace_gates(problem, inputs[gate], choice.keys, rng)
        places = tuple(name for name in places if name != gate)
    for name in places:
        _replace(inputs, name, choice.keys, problem.inputs["query"][:, :, choice.row], case, rng)
    dense = masks.get("attn_mask")
    if case.place == "all" and case.odd and dense is not None and dense.dtype != bool:
        hidden = ~problem.sees.any(axis=(0, 1) if dense.ndim == 2 else _ones(dense), keepdims=dense.ndim > 2)
        masks["attn_mask"] = np.where(hidden & (dense != -np.inf), np.float32(NOT_FINITE[case.change]), dense)
    return replace(problem, inputs=inputs, masks=masks)


def _ones(array: NDArray[Any]) -> tuple[int, ...]:
    """The axes of batch and heads that the array has one of."""
    return tuple(axis for axis in (0, 1) if array.shape[axis] == 1)


def _replace(
    inputs: Arrays, name: str, marks: Bools, like: NDArray[Any] | None, case: Case, rng: np.random.Generator
) -> None:
    """`like` is the vector, one per head, that a changed one shall be close to or far from."""
    if name not in inputs:
        return
    array, mass = inputs[name], name.endswith("mass")
    like = None if name == "beta" else like
    if array.shape[1] > marks.shape[1]:  # masses of keys may be those of query heads
        marks = np.repeat(marks, array.shape[1] // marks.shape[1], axis=1)
    shape = array[marks].shape
    if case.change in NOT_FINITE:
        number = abs(NOT_FINITE[case.change]) if mass else NOT_FINITE[case.change]
        one = not mass and rng.random() < 0.5
        array[marks] = np.where(np.arange(shape[-1]) == rng.integers(shape[-1]), number, 1) if one else number
    elif like is None or mass or name == "value" or case.change == "other":
        fresh = rng.standard_normal(shape) * FAR.get(case.change, 1)
        array[marks] = (np.maximum(fresh, 0) if mass else fresh).astype(array.dtype)
    else:
        heads = np.arange(array.shape[1]) * like.shape[1] // array.shape[1]
        near = np.broadcast_to(like[:, heads, None].astype(np.float32), array.shape)[marks]
        # Gravity is largest where nothing lies between.
        factor = 1 if "query_mass" in inputs and case.change == "above" else FAR[case.change]
        array[marks] = (near * factor).astype(array.dtype)


def _replace_gates(problem: Problem, gates: NDArray[Any], marks: Bools, rng: np.random.Generator) -> None:
    """By other ones that are allowed; by anything where no row sees them."""
    case = problem.case
    fresh = -np.abs(rng.standard_normal(gates.shape)) * abs(FAR.get(case.change, 1))
    if case.odd:
        shown = problem.masks.get("key_mask", np.ones((case.batch, case.keys), bool))
        shown = shown[:, None] if gates.ndim == 3 else shown[:, None, :, None]
        fresh = np.where(shown, -np.inf, NOT_FINITE[case.change])
    if gates.shape[1] > marks.shape[1]:
        marks = np.repeat(marks, gates.shape[1] // marks.shape[1], axis=1)
    gates[marks] = np.broadcast_to(fresh, gates.shape)[marks]


@dataclass(frozen=True)
class Touched:
    """What a change may reach, by query head: ``[batch, heads, rows]`` and ``[batch, heads, keys]``."""

    rows: Bools
    keys: Bools
    queries: bool
    """Whether it was made to query rows, which no state depends on."""

    @classmethod
    def by(cls, problem: Problem, choice: Choice) -> Touched:
        """A row by the keys it sees; a key by the rows that see it, and so by whatever changed them."""
        case, sees = problem.case, problem.sees
        rows = choice.rows.copy()
        columns = np.flatnonzero(choice.keys.any(axis=(0, 1)))
        changed = np.repeat(choice.keys[:, :, columns], problem.group, axis=1)[:, :, None]
        rows |= (sees[..., columns] & changed).any(axis=-1)
        keys = np.zeros((case.batch, case.heads, case.keys), bool)
        for b, h in np.ndindex(case.batch, case.heads):
            keys[b, h] = sees[b, h % sees.shape[1]][rows[b, h]].any(axis=0)
        return cls(rows, keys, case.place == "query")

    def everything(self, problem: Problem) -> bool:
        """Of the rows that the pass returns, or of what it returns for keys."""
        kind = {"rows": "picked", "map": "map"}.get(problem.case.part, "row")
        return bool(self.of(problem, "", kind, problem.case.heads).all())

    def of(self, problem: Problem, name: str, kind: str, heads: int) -> Bools:
        """Along the leading axes of a result."""
        if kind == "head":
            return self.rows.any(axis=(0, 2))
        if kind == "mean":
            return self.rows.any(axis=2)
        if kind == "row":
            return self.rows
        if kind == "picked":
            return self.rows[:, :, problem.picked]
        if kind == "map":
            return np.logical_or.reduceat(self.rows, map_bins(problem)[0][:-1], axis=2)
        touched = self.keys
        if kind == "state":
            of_last = self.rows[:, :, -1] & ~np.bool_(self.queries)
            touched = of_last if name == "state" else self.rows.any(axis=2)
        case = problem.case
        if heads != case.heads:
            touched = touched.reshape(case.batch, case.kv_heads, problem.group, *touched.shape[2:]).any(
                axis=2
            )
        return touched
