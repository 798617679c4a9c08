"""What must hold between the results of one call and of another: functions that return how much they
compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import rattention as ra
from numpy.typing import NDArray

from tests.fuzz.bounds import Broken, against_the_law, near, rounding
from tests.fuzz.cases import Case
from tests.fuzz.changes import Touched, change, choose, choose_seen
from tests.fuzz.problems import Problem, Results, compute, problem_of, steps
from tests.fuzz.subjects import SUBJECTS
from tests.mechanisms import Arrays, largest_error, wide

THREADS = (1, 2, 3, 5, 8)


def check(case: Case) -> int:
    """How many numbers the case's relation compared; `Broken` says where it does not hold."""
    ra.set_num_threads(1)  # small problems would but wait for threads
    try:
        return RELATIONS[case.relation](case)
    finally:
        ra.set_num_threads(0)


def same_bits(
    got: NDArray[Any], wanted: NDArray[Any], where: str, free: NDArray[np.bool_] | None = None
) -> int:
    """All but what is `free` along the leading axes is equal to the bit; any NaN is like any other."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise Broken(f"{where} is {got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}")
    bits = np.dtype(f"u{got.dtype.itemsize}")
    got, wanted = np.ascontiguousarray(got), np.ascontiguousarray(wanted)
    differs = got.view(bits) != wanted.view(bits)
    kept = got.size
    if free is not None:
        differs &= ~free.reshape(free.shape + (1,) * (differs.ndim - free.ndim))
        kept = int((~free).sum()) * int(np.prod(got.shape[free.ndim :]))
    if not differs.any():
        return kept
    differs &= ~(np.isnan(got) & np.isnan(wanted)) if got.dtype.kind != "i" else True
    if differs.any():
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        raise Broken(f"{where}: {int(differs.sum())} of {kept} differ, {got[at]} not {wanted[at]} at {at}")
    return kept


def hidden(case: Case) -> int:
    """What a row or a key does not see changes no bit of it; what nothing sees has gradient 0."""
    problem, rng = problem_of(case), np.random.default_rng(case.seed + 1)
    choice = choose(problem, rng)
    if choice is None:
        return 0
    clean = compute(problem, problem.inputs)
    changed = change(problem, choice, rng)
    dirty = compute(changed, changed.inputs)
    touched, kept = Touched.by(problem, choice), 0
    for name, result in clean.items():
        free = touched.of(problem, name, result.kind, result.array.shape[1] if result.array.ndim > 1 else 0)
        kept += same_bits(dirty[name].array, result.array, name, free)
    for results in (clean, dirty):
        _nothing_from_nothing(problem, results)
    return kept


def _nothing_from_nothing(problem: Problem, results: Results) -> None:
    """Rows that see nothing and keys that nothing sees: exactly 0."""
    sees, case = problem.sees, problem.case
    shape = (case.batch, case.heads)
    dead_rows = np.broadcast_to(~sees.any(axis=3), (*shape, case.rows))
    dead_keys = np.broadcast_to(~sees.any(axis=2), (*shape, case.keys))
    started = "initial_state" in problem.inputs
    for name, (array, kind) in ((n, (r.array, r.kind)) for n, r in results.items()):
        if kind == "key":
            dead = dead_keys
            if array.shape[1] != case.heads:
                dead = dead.reshape(case.batch, case.kv_heads, -1, case.keys).all(axis=2)
            left = array[dead]
        elif kind == "row" and (name == "output" or name.startswith("grad")) and not started:
            left = array[dead_rows]
        elif kind == "picked":
            left = array[~np.broadcast_to(sees, (*shape, *sees.shape[2:]))[:, :, problem.picked]]
        else:
            continue
        if (left != 0).any():
            raise Broken(
                f"{name}: {int((left != 0).sum())} of {left.size} numbers that nothing is seen by are not 0"
            )


def threads(case: Case) -> int:
    """Any number of threads gives the same bits, whatever the inputs."""
    problem = _with_change(problem_of(case))
    ra.set_num_threads(THREADS[0])
    first, kept = compute(problem, problem.inputs), 0
    for n in THREADS[1:]:
        ra.set_num_threads(n)
        for name, result in compute(problem, problem.inputs).items():
            kept += same_bits(result.array, first[name].array, f"{name} with {n} threads, not 1")
    return kept


def _with_change(problem: Problem) -> Problem:
    """With odd numbers among those that are seen, where the case asks for it."""
    case = problem.case
    if case.change == "none":
        return problem
    rng = np.random.default_rng(case.seed + 1)
    return change(problem, choose_seen(problem, rng), rng)


def permuted(case: Case) -> int:
    """Sequences and key/value heads in another order, with their query heads: the same bits in that order."""
    problem, rng = problem_of(case), np.random.default_rng(case.seed + 1)
    order = rng.permutation(case.batch), rng.permutation(case.kv_heads)

    def moved(array: Any, axes: str) -> Any:
        """Axes of a batch (b) or of heads (h), the first ones; those of length 1 hold for all."""
        for axis, letter in enumerate(axes):
            n = array.shape[axis]
            if letter == "b" and n == case.batch:
                array = array.take(order[0], axis=axis)
            elif letter == "h" and n > 1:
                size = n // case.kv_heads
                heads = (order[1][:, None] * size + np.arange(size)).ravel()
                array = array.take(heads, axis=axis)
        return array

    inputs = {n: moved(a, "h" if n.endswith("norm_weight") else "bh") for n, a in problem.inputs.items()}
    gradients = {n: moved(a, "bh") for n, a in problem.gradients.items()}
    options = {
        n: moved(a, "bh" if a.ndim == 3 else "h") if isinstance(a, np.ndarray) else a
        for n, a in problem.options.items()
    }
    axes = {"key_mask": "b", "segment_ids": "b", "block_ids": "b", "attn_mask": "bh"}
    masks = {n: moved(a, axes[n]) if n in axes else a for n, a in problem.masks.items()}
    other = replace(problem, inputs=inputs, gradients=gradients, options=options, masks=masks)
    clean, kept = compute(problem, problem.inputs), 0
    for name, result in compute(other, inputs).items():
        if result.kind == "head":  # a sum over the sequences, in their order
            kept += near(problem, name, result.array, moved(clean[name].array, "h"))
        else:
            kept += same_bits(result.array, moved(clean[name].array, "bh"), name)
    return kept


def rows_of(problem: Problem, first: int, last: int) -> Problem:
    """The same problem for some of its query rows."""

    def part(array: Any) -> Any:
        return array[:, :, first:last]

    inputs = {n: part(a) if n.startswith("query") else a for n, a in problem.inputs.items()}
    options = {n: part(a) if np.ndim(a) == 3 else a for n, a in problem.options.items()}
    masks = problem.masks | {"query_offset": problem.start + first}
    if "attn_mask" in masks:
        masks["attn_mask"] = part(masks["attn_mask"])
    case = replace(problem.case, rows=last - first, offset=problem.start + first)
    return Problem(case, inputs, masks, options, {"output": part(problem.gradients["output"])})


def blocks(case: Case) -> int:
    """Query rows computed block by block are those of one call; to the bit, unless only one has few rows."""
    problem, rng = problem_of(case), np.random.default_rng(case.seed + 1)
    cuts = sorted({0, case.rows, *(int(c) for c in rng.integers(0, case.rows + 1, int(rng.integers(1, 4))))})
    whole, kept = compute(problem, problem.inputs), 0
    for first, last in pairwise(cuts):
        part = rows_of(problem, first, last)
        for name, result in compute(part, part.inputs).items():
            if result.kind != "row":
                continue
            wanted = whole[name].array[:, :, first:last]
            if _few_rows(part) == _few_rows(problem):
                kept += same_bits(result.array, wanted, f"{name} of rows {first} to {last}")
            else:
                kept += near(problem, name, result.array, wanted, times=2)
    return kept


def _few_rows(problem: Problem) -> bool:
    """So few that keys are not packed, and products are summed in another order (`kFewRows` in the core)."""
    return problem.case.rows * problem.group <= 8


def padded(case: Case) -> int:
    """More keys at the end, hidden by the key mask, change nothing."""
    problem, rng = problem_of(case), np.random.default_rng(case.seed + 1)
    more = int(rng.integers(1, 130))
    if case.linear:  # the state goes on to the new end
        problem.gradients["state"][:] = 0
    other = _with_more_keys(problem, more, rng)
    clean, kept = compute(problem, problem.inputs), 0
    for name, result in compute(other, other.inputs).items():
        array = result.array
        if result.kind == "key" or (case.linear and result.kind == "row"):
            array = array[:, :, : case.keys]
        if result.kind == "picked":
            array = array[..., : case.keys]
        if result.kind in ("row", "key", "picked"):
            kept += near(problem, name, array, clean[name].array, times=2)
    return kept


def _with_more_keys(problem: Problem, more: int, rng: np.random.Generator) -> Problem:
    case = problem.case
    inputs: Arrays = {}
    for name, array in problem.inputs.items():
        inputs[name] = array
        if name in ("key", "value", "key_mass", "log_gate", "gate", "beta") or (
            case.linear and name == "query"
        ):
            tail = rng.standard_normal((*array.shape[:2], more, *array.shape[3:])) ** 2
            inputs[name] = np.concatenate([array, (tail * rng.choice((1, 100))).astype(array.dtype)], axis=2)
    masks = dict(problem.masks)
    shown = masks.get("key_mask", np.ones((case.batch, case.keys), bool))
    masks["key_mask"] = np.pad(shown, ((0, 0), (0, more)))
    if "segment_ids" in masks:
        masks["segment_ids"] = np.pad(masks["segment_ids"], ((0, 0), (0, more)), mode="edge")
    if "block_ids" in masks:
        masks["block_ids"] = np.pad(masks["block_ids"], ((0, 0), (0, more)), constant_values=-1)
    if "attn_mask" in masks:
        mask = masks["attn_mask"]
        masks["attn_mask"] = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, more)], constant_values=1)
    gradients = dict(problem.gradients)
    if case.linear:
        gradients["output"] = np.pad(
            gradients["output"].astype(np.float32), ((0, 0), (0, 0), (0, more), (0, 0))
        )
        gradients["output"] = gradients["output"].astype(problem.gradients["output"].dtype)
        case = replace(case, rows=case.rows + more, keys=case.keys + more)
    else:
        masks["query_offset"] = problem.start
        case = replace(case, keys=case.keys + more, offset=problem.start)
    return Problem(case, inputs, masks, problem.options, gradients)


def shifted(case: Case) -> int:
    """The same number added to all scores changes the lse by it, and nothing else."""
    problem = problem_of(case)
    shift = float(np.random.default_rng(case.seed + 1).choice((-100, -8, 0.5, 8, 100)))
    mask = problem.masks.get("attn_mask", np.zeros((1, 1, case.rows, case.keys), np.float32))
    mask = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == bool else mask
    masks = problem.masks | {"attn_mask": mask + np.float32(shift)}
    other, kept = replace(problem, masks=masks), 0
    clean = compute(problem, problem.inputs)
    for name, result in compute(other, problem.inputs).items():
        wanted = clean[name].array + (np.float32(shift) if name == "lse" else 0)
        kept += near(problem, name, result.array, wanted, times=1 + abs(shift) / 4)
    return kept


def moved(case: Case) -> int:
    """Where all keys lie before the rows, a discount weighs them alike from any distance."""
    near_by = problem_of(replace(case, offset=case.keys))
    far = int(np.random.default_rng(case.seed + 1).choice((1000, 10**5, 2**24)))
    clean, kept = compute(near_by, near_by.inputs), 0
    other = replace(near_by, masks=near_by.masks | {"query_offset": case.keys + far})
    for name, result in compute(other, other.inputs).items():
        if name not in ("lse", "grad log_discount"):
            kept += near(near_by, name, result.array, clean[name].array, times=2 + case.keys / 10)
    return kept


def split(case: Case) -> int:
    """A cache that is filled piece by piece gives the rows of one call, in 16 bits as exactly."""
    problem, row = problem_of(case), SUBJECTS[case.subject].row
    arguments = problem.options | {"window": case.window}
    whole, pieces = row.forward(**problem.inputs, **arguments), steps(problem, problem.inputs)
    if case.dtype == "float32":
        return near(problem, "output", pieces, whole, times=2)
    law, _ = row.reference(**wide(problem.inputs), **arguments)
    allowed = 2 * max(largest_error(whole, law), rounding(problem) / 2 * float(np.abs(law).max()))
    if not largest_error(pieces, law) <= allowed:
        raise Broken(
            f"output of steps: largest error {largest_error(pieces, law):.3g}, allowed {allowed:.3g}"
        )
    return pieces.size


def joined(case: Case) -> int:
    """A sequence that goes on from the state of its first part."""
    problem, window = _with_change(problem_of(case)), int(case.window)  # type: ignore[arg-type]
    if window < 0:  # no token comes again, so nothing shows where a segment ends
        problem.masks.pop("segment_ids", None)
    cut = int(np.random.default_rng(case.seed + 3).integers(1, case.rows + 1))
    again = max(0, cut - window - 1)

    def part(first: int, last: int, **more: Any) -> Any:
        of_tokens = {"query", "key", "value", "beta", problem.subject.gate}
        tokens = {n: a[:, :, first:last] for n, a in problem.inputs.items() if n in of_tokens}
        masks = {n: a[:, first:last] if isinstance(a, np.ndarray) else a for n, a in problem.masks.items()}
        arguments = problem.inputs | tokens | problem.options | masks | more
        return problem.subject.row.forward(**arguments, return_state=True)

    whole, state = part(0, case.rows)
    first, between = part(0, cut)
    second, last = part(again, case.rows, initial_state=between)
    rows = np.concatenate([first, second[:, :, cut - again :]], axis=2)
    return near(problem, "output", rows, whole) + near(problem, "state", last, state)


def reference(case: Case) -> int:
    """The law in float64, gradients by its differences; with odd numbers among what is seen, too."""
    return against_the_law(_with_change(problem_of(case)))


RELATIONS: dict[str, Callable[[Case], int]] = {
    f.__name__: f
    for f in (hidden, threads, permuted, blocks, padded, shifted, moved, split, joined, reference)
}


def holds_for(relation: str, subject: str, part: str) -> bool:
    """Whether the relation says anything about this pass of a mechanism."""
    linear = SUBJECTS[subject].linear
    match relation:
        case "blocks":
            return not linear and part not in ("rows", "map")
        case "shifted":
            return not linear and "sinks" not in SUBJECTS[subject].terms
        case "moved":
            return bool(SUBJECTS[subject].discount) and part not in ("fused", "metrics", "parts")
        case "padded":
            return part not in ("map", "parts", "steps")  # bins would change, and caches have no masks
        case "split":
            return part == "steps"
        case "joined":  # a rotation goes by positions from 0
            return part == "state" and subject != "rattention rope"
        case "reference":
            return part != "steps"
    return True


TABLE = [
    (relation, subject, part)
    for relation in RELATIONS
    for subject in SUBJECTS
    for part in SUBJECTS[subject].parts
    if holds_for(relation, subject, part)
]
"""All there is to check: every relation with the mechanisms and passes it holds for."""
