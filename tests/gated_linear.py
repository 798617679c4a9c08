"""What the tests of gated linear attention share, with a gate per head or per channel."""

from __future__ import annotations

from typing import Any

import rattention as ra
from rattention.mechanisms.gated_linear import (
    gated_linear_attention_backward,
    reference_gated_linear_attention,
)

from tests.linear_family import assert_all_gradients, relative_error
from tests.mechanisms import Arrays


def both(inputs: Arrays, **options: Any) -> Any:
    """Output and state."""
    return ra.gated_linear_attention(**inputs, **options, return_state=True)


def assert_follows_the_law(inputs: Arrays, tolerance: float = 1e-5, **options: Any) -> None:
    law = reference_gated_linear_attention(**inputs, **options)
    for got, exact in zip(both(inputs, **options), law, strict=True):
        assert relative_error(got, exact) <= tolerance


def assert_gradients(inputs: Arrays, **options: Any) -> None:
    law = reference_gated_linear_attention
    assert_all_gradients(gated_linear_attention_backward, law, inputs, **options)
