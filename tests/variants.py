"""The table of mechanisms with what a row can also be called with: the tests iterate over it."""

from __future__ import annotations

from dataclasses import replace

import rattention as ra
from rattention.mechanisms.table import Mechanism


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


def with_exponent(mechanism: Mechanism) -> Mechanism:
    """The row, with a power of the distance for every head."""
    parameters = (*mechanism.parameters, "exponent")
    return replace(mechanism, name=f"{mechanism.name} with exponents", parameters=parameters)


DISCOUNTED = [m for m in ra.MECHANISMS.values() if "log_discount" in m.parameters]
GRAVITATIONAL = [m for m in ra.MECHANISMS.values() if "gravity" in m.parameters]
TABLE = [
    *ra.MECHANISMS.values(),
    *(with_discount_per_query(m) for m in DISCOUNTED),
    *(with_exponent(m) for m in GRAVITATIONAL),
]
SOFTMAX_FAMILY = [m for m in TABLE if m.family == "softmax"]
