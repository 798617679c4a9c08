"""Faults that are known and not mended: their cases are not drawn, and a test says when one is mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.cases import Case
from tests.fuzz.subjects import SUBJECTS


@dataclass(frozen=True)
class Fault:
    """What goes wrong, for which cases, and one of them that shows it."""

    what: str
    covers: Callable[[Case], bool]
    shown_by: str


KNOWN = [
    Fault(
        "gravity, backward: NaN or infinity in a key or row reaches gradients that do not see it",
        lambda c: SUBJECTS[c.subject].gravity and c.part == "backward" and c.relation == "hidden" and c.odd,
        "Case(relation='hidden', subject='gravitational', part='backward', rows=31, keys=17, heads=3, dim=4, "
        "value_dim=1, causal=True, masks='padding+float', change='inf', place='query', seed=1689549543)",
    ),
    Fault(
        "linear family: what an infinite query gives depends on the number of threads",
        lambda c: c.linear and c.relation == "threads" and c.odd and c.place == "query",
        "Case(relation='threads', subject='residual_linear relu', part='state', rows=1156, keys=1156, "
        "heads=3, kv_heads=3, dim=18, value_dim=16, window=884, masks='padding', level=-30.0, spread=3.0, "
        "change='inf', place='query', seed=760317755)",
    ),
    Fault(
        "linear family: infinity in a key or value becomes NaN from the next chunk on",
        lambda c: (
            c.linear and c.relation in ("threads", "joined", "reference") and c.odd and c.place != "query"
        ),
        "Case(relation='joined', subject='residual_linear', part='state', rows=383, keys=383, heads=3, "
        "kv_heads=3, dim=6, dtype='bfloat16', window=127, change='inf', place='value', seed=2123928618)",
    ),
    Fault(
        "a cache of 16 bits with a rotary embedding is less exact than one call",
        lambda c: c.relation == "split" and c.subject == "rattention rope" and c.dtype != "float32",
        "Case(relation='split', subject='rattention rope', part='steps', rows=11, keys=11, batch=2, heads=6, "
        "kv_heads=2, value_dim=16, dtype='bfloat16', window=1, level=-30.0, spread=3.0, seed=583540751)",
    ),
    Fault(
        "discounts of distances beyond those of a sequence lose digits",
        lambda c: c.relation == "moved",
        "Case(relation='moved', subject='multi_timescale', part='forward', rows=5, keys=271, batch=2, "
        "dim=16, value_dim=17, level=30.0, seed=1055919834)",
    ),
]


def known(case: Case) -> bool:
    """Whether the case may show a known fault."""
    return any(fault.covers(case) for fault in KNOWN)
