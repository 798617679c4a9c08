"""One problem and what is done to it, as a line of text that reproduces it, and how such lines are drawn."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tests.fuzz.subjects import SUBJECTS

Window = int | tuple[int | None, int | None] | None

LANES = (4, 8, 16)
"""Floats of one vector under SSE and NEON, AVX2 and AVX-512."""
LARGEST_REACH = 1040
EDGES = (1, 8, 16, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
"""Rows of a block, keys of a panel and of a tile, rows that count as few, tokens of a chunk or prefill."""
PLACES = ("key", "value", "mass", "query", "all")
FINITE = ("other", "above", "below")
ODD = ("inf", "-inf", "nan")
CHANGES = (*FINITE, *ODD)


@dataclass(frozen=True, repr=False)
class Case:
    """A relation, the function it is tried on, sizes, masks, and a seed for the numbers."""

    relation: str
    subject: str
    part: str
    rows: int = 1
    keys: int = 1
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    dim: int = 8
    value_dim: int = 8
    dtype: str = "float32"
    causal: bool = False
    window: Window = None
    masks: str = ""
    """Any of padding, segments, blocks, bool or float, joined by ``+``."""
    offset: int | None = None
    level: float = 0.0
    """What all scores have in common: far from 0, padding or leftovers of 0 show."""
    spread: float = 1.0
    change: str = "other"
    """What changed numbers become: other ones, such that their scores lie far above or below, or odd ones."""
    place: str = "key"
    """Whose numbers change: those of keys (their vectors, values, masses or all) or of query rows."""
    seed: int = 0

    def __repr__(self) -> str:
        """Without what is left at its default, so that it stays a short line."""
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Case({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"

    @property
    def odd(self) -> bool:
        """Whether numbers become infinite or NaN."""
        return self.change in ODD

    @property
    def linear(self) -> bool:
        return SUBJECTS[self.subject].linear


def parse(text: str) -> Case:
    """The case that `repr` wrote; ValueError for anything else."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Case" or call.args:
            raise ValueError("it does not read Case(name=value, ...)")
        return Case(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"not a case: {text!r} ({error})") from error


def reach(rng: np.random.Generator) -> int:
    """Keys a row sees through a window: a multiple of a vector's length or a neighbour of one."""
    lanes = int(rng.choice(LANES))
    if rng.random() < 0.4:
        multiple = int(rng.integers(1, LARGEST_REACH // lanes + 1))
    else:
        multiple = int(rng.integers(1, 272 // lanes + 1))
    return max(1, lanes * multiple + int(rng.choice((0, 0, 0, 0, -1, 1))))


WINDOWS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "causal": lambda seen, left: {"causal": True, "window": seen - 1},
    "causal pair": lambda seen, left: {"causal": True, "window": (seen - 1, left)},
    "left": lambda seen, left: {"window": (seen - 1, 0)},
    "right": lambda seen, left: {"window": (0, seen - 1)},
    "both": lambda seen, left: {"window": (left, seen - 1 - left)},
    "even": lambda seen, left: {"window": seen // 2},
    "open left": lambda seen, left: {"window": (None, left)},
    "open right": lambda seen, left: {"window": (left, None)},
    "itself": lambda seen, left: {"window": 0},
}
"""Through which a row sees `seen` keys, `left` of them before it (0 <= left < seen) where it may choose."""
OFTEN = (0.3, 0.05, 0.1, 0.1, 0.25, 0.08, 0.04, 0.04, 0.04)


def edge(rng: np.random.Generator, largest: int = 1024) -> int:
    """A length beside one at which loops end."""
    edges = [e for e in EDGES if e <= largest]
    return max(1, int(rng.choice(edges)) + int(rng.integers(-1, 2)))


def draw(
    rng: np.random.Generator,
    relation: str,
    subject: str,
    part: str,
    seen: int | None = None,
    kind: str | None = None,
) -> Case:
    """A case of one relation, mechanism and pass; with `seen`, its window shows that many keys to a row, and
    is of that kind."""
    linear = SUBJECTS[subject].linear
    kv_heads, group = int(rng.integers(1, 4)), int(rng.choice((1, 1, 2, 3)))
    case = Case(
        relation,
        subject,
        part,
        batch=int(rng.choice((1, 1, 2))),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        dim=2 * int(rng.integers(1, 10)) if rng.random() < 0.6 else int(rng.choice((8, 16, 32))),
        value_dim=int(rng.choice((1, 3, 8, 16, 17))),
        dtype=str(rng.choice(("float32", "float32", "bfloat16", "float16"))),
        level=float(rng.choice((0, 0, 30, -30, 60, -60))),
        spread=float(rng.choice((1, 1, 1, 3))),
        change=str(rng.choice(CHANGES)),
        place=str(rng.choice(PLACES)),
        seed=int(rng.integers(2**31)),
    )
    if subject.startswith("rattention") and case.value_dim == 1:
        case = replace(case, value_dim=4)  # the norm of one number is its sign, which any rounding may turn
    case = _linear_sizes(rng, case, seen) if linear else _softmax_sizes(rng, case, seen, kind)
    while case.batch * case.heads * case.rows * case.keys > 6e6 and case.heads > 1:
        case = replace(case, batch=1, heads=case.heads // case.kv_heads, kv_heads=1)
        if case.heads * case.rows * case.keys > 6e6:
            case = replace(case, heads=1)
    return _fitting(rng, case)


def _softmax_sizes(rng: np.random.Generator, case: Case, seen: int | None, kind: str | None) -> Case:
    windowed = seen is not None or case.subject == "sliding_window" or rng.random() < 0.6
    seen = seen or reach(rng)
    some = [name for name in ("padding", "segments") if rng.random() < 0.25]
    some += ["blocks"] if rng.random() < 0.2 else []
    some += [str(rng.choice(("bool", "float")))] if rng.random() < 0.25 else []
    keys = edge(rng) if rng.random() < 0.5 else int(rng.integers(1, 200))
    if windowed:
        keys = seen + (edge(rng, 256) if rng.random() < 0.5 else int(rng.integers(1, 200)))
    few = rng.random() < 0.25
    rows = int(rng.integers(1, 10)) if few else (keys if rng.random() < 0.7 else edge(rng, 512))
    case = replace(case, rows=rows, keys=keys, masks="+".join(some))
    if windowed:
        kind = (
            "causal" if case.subject == "sliding_window" else kind or str(rng.choice(list(WINDOWS), p=OFTEN))
        )
        case = replace(case, **WINDOWS[kind](seen, int(rng.integers(0, seen))))
    elif rng.random() < 0.5:
        case = replace(case, causal=True)
    if rng.random() < 0.25:
        low, high = (0, max(0, keys - rows)) if "segments" in some else (-rows // 2, keys)
        case = replace(case, offset=int(rng.integers(low, high + 1)))
    return case


def _linear_sizes(rng: np.random.Generator, case: Case, seen: int | None) -> Case:
    least = 1 if case.part == "steps" else 0
    seen = seen or (int(rng.integers(least, 3)) if rng.random() < 0.3 else reach(rng))
    length = seen + (edge(rng, 512) if rng.random() < 0.5 else int(rng.integers(1, 300)))
    some = [] if case.part == "steps" else [name for name in ("padding", "segments") if rng.random() < 0.3]
    window = -1 if SUBJECTS[case.subject].whole_past else seen - 1
    return replace(case, rows=length, keys=length, window=window, masks="+".join(some))


def _fitting(rng: np.random.Generator, case: Case) -> Case:
    """What the relation cannot do without, or has no use for."""
    hiding = case.linear or case.causal or case.window is not None or case.masks
    if case.relation == "hidden" and not hiding:
        case = replace(case, place="query")
    if case.place == "query" and case.relation == "hidden" and case.batch * case.heads * case.rows == 1:
        case = replace(case, rows=2, keys=2 if case.linear else case.keys, offset=None)
    if case.subject.startswith("gravit") and case.level:
        case = replace(case, level=0.0)
    if "segments" in case.masks and not case.linear and case.rows > case.keys:
        case = replace(case, rows=case.keys)
    if case.relation in ("threads", "reference", "joined"):  # there the change is made to what is computed
        case = replace(case, change=str(rng.choice(("none", case.change))))
    if case.relation == "joined" and case.place == "query":  # a given state is seen by rows that see no key
        case = replace(case, place="value")
    if case.relation == "moved":  # nothing but distances
        case = replace(case, causal=False, window=None, offset=None, masks="", keys=min(case.keys, 300))
    if case.relation == "reference" and case.part not in ("forward", "lse", "state"):
        case = replace(case, change="none")
    if (
        case.relation == "reference" and case.part == "backward"
    ):  # which starts from an output not rounded to 16 bits
        case = replace(case, dtype="float32")
    if case.relation == "reference" or (case.relation == "split" and case.dtype != "float32"):
        case = _affordable(rng, case)
    return case


def _affordable(rng: np.random.Generator, case: Case) -> Case:
    """The float64 reference stores whole maps and loops over rows."""
    while case.batch * case.heads * case.rows * case.keys > 3e5 or case.batch * case.heads * case.rows > 600:
        if case.heads > 1 or case.batch > 1:
            case = replace(case, batch=1, heads=1, kv_heads=1)
        elif case.linear or case.keys <= 300:
            half = max(1, case.rows // 2)
            keys = half if case.linear or case.rows == case.keys else case.keys
            case = replace(case, rows=half, keys=keys, offset=None)
        else:
            case = replace(case, rows=max(1, min(case.rows // 2, int(rng.integers(1, 64)))), offset=None)
    return case
