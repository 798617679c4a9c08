"""The table of mechanisms with what a row can also be called with: the tests iterate over it."""

from __future__ import annotations

from dataclasses import replace

import rattention as ra
from rattention.mechanisms.row import Mechanism


def with_discount_per_query(mechanism: Mechanism) -> Mechanism:
    """The row, whose log_discount is an array with one number per query."""
    functions = mechanism.functions
    arguments = tuple(
        replace(a, kind="array", shape=("batch", "heads", "query_length")) if a.kind == "per query" else a
        for a in functions.arguments
    )
    return replace(
        mechanism, name=f"{mechanism.name} per query", functions=replace(functions, arguments=arguments)
    )


def with_parameter(mechanism: Mechanism, name: str) -> Mechanism:
    """The row, called with an optional argument."""
    return replace(mechanism, name=f"{mechanism.name} with {name}", parameters=(*mechanism.parameters, name))


def with_softcap(mechanism: Mechanism) -> Mechanism:
    """The row, whose scores are bounded."""
    options = {**mechanism.options, "softcap": 1.5}
    return replace(mechanism, name=f"{mechanism.name} with a softcap", options=options)


DISCOUNTED = [m for m in ra.MECHANISMS.values() if "log_discount" in m.parameters]
GRAVITATIONAL = [m for m in ra.MECHANISMS.values() if "gravity" in m.parameters]
TABLE = [
    *ra.MECHANISMS.values(),
    *(with_discount_per_query(m) for m in DISCOUNTED),
    *(with_parameter(m, "exponent") for m in GRAVITATIONAL),
    *(with_parameter(ra.MECHANISMS["softmax"], name) for name in ("sinks", "relative_bias")),
    with_parameter(ra.MECHANISMS["rattention"], "gate"),
    with_softcap(ra.MECHANISMS["sliding_window"]),
]
SOFTMAX_FAMILY = [m for m in TABLE if m.family == "softmax"]
