"""Whatever object stands for an argument, the error names that argument and stays short."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import rattention as ra
from rattention._arguments import LARGEST_SEED, MOST_SHOWN, brief, float32_array, require_seed
from rattention.mechanisms.gated_delta import gated_delta_rule_backward
from rattention.mechanisms.gated_linear import gated_linear_attention_backward
from rattention.mechanisms.gravitational import (
    gravitational_attention_backward,
    gravitational_distances,
    gravitational_map,
    gravitational_metrics,
    gravitational_rows,
    gravitational_segments,
    gravitational_top_keys,
)
from rattention.mechanisms.rattention import rattention_backward
from rattention.mechanisms.residual_linear import residual_linear_attention_backward
from rattention.mechanisms.softmax import attention_backward

from tests.extras import needs

LONGEST_MESSAGE = 600


class Boom:
    """Raises whatever it is asked."""

    def _boom(self, *_args, **_kwargs):
        raise RuntimeError("boom")

    __array__ = __float__ = __index__ = __repr__ = __str__ = __len__ = __iter__ = __getitem__ = _boom
    __bool__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __neg__ = __hash__ = __fspath__ = _boom


class NoAttributes:
    """Raises whatever it is asked for."""

    def __getattr__(self, name):
        raise RuntimeError(name)


def nested(depth, width=1):
    value = []
    for _ in range(depth):
        value = [value] * width
    return value


def holding(value):
    array = np.empty(1, object)
    array[0] = value
    return array


ODD = {
    "raises": Boom(),
    "no attributes": NoAttributes(),
    "a list that raises": [Boom()],
    "a pair that raises": (Boom(), Boom()),
    "an array of what raises": holding(Boom()),
    "a plain object": object(),
    "a dict": {},
    "a ragged list": [[1], [1, 2]],
    "a deep list": nested(90),
    "a long text": "a" * 10_000,
    "a lone surrogate": "\ud800",
    "bytes": b"x",
    "5000 digits": 10**5000,
    "minus 5000 digits": -(10**5000),
    "2**70": 2**70,
    "the largest of uint64": np.uint64(2**64 - 1),
    "the smallest of int64": np.int64(-(2**63)),
    "a complex number": 1j,
    "NaN": float("nan"),
    "beyond float32": np.float64(1e300),
    "no numbers": np.zeros(0),
    "one number": np.ones(1),
    "a masked array": np.ma.masked_array([1.0, 2.0]),
    "a date": np.datetime64("2026-01-01"),
    "a generator": (i for i in range(3)),
    "a class": int,
    "a slice": slice(1),
    "True": True,
    "None": None,
}

QUERY, MASS = np.ones((1, 2, 3, 4), np.float32), np.ones((1, 2, 3), np.float32)
REQUIRED = {
    "query": QUERY,
    "key": QUERY,
    "value": QUERY,
    "grad_output": QUERY,
    "query_mass": MASS,
    "key_mass": MASS,
    "log_gate": -MASS,
    "beta": MASS,
    "n": 1,
}
GRAVITATIONAL = ra.gravitational_attention(
    QUERY, QUERY, QUERY, query_mass=MASS, key_mass=MASS, return_lse=True
)
FUNCTIONS = {
    ra.attention: {},
    ra.attention_metrics: {},
    ra.attention_rows: {"rows": [0]},
    ra.attention_map: {},
    ra.attention_segments: {"query_edges": [0, 3], "key_edges": [0, 3]},
    ra.attention_top_keys: {},
    ra.attention_distances: {"edges": [0, 3]},
    ra.gravitational_attention: {},
    gravitational_metrics: {},
    gravitational_rows: {"rows": [0]},
    gravitational_map: {},
    gravitational_segments: {"query_edges": [0, 3], "key_edges": [0, 3]},
    gravitational_top_keys: {},
    gravitational_distances: {"edges": [0, 3]},
    ra.residual_linear_attention: {"window": 2},
    ra.gated_linear_attention: {},
    ra.rattention: {"window": 2},
    ra.rattention_step: {"cache": lambda: ra.RAttentionCache(1, 2, 4, 2)},
    attention_backward: {"result": ra.attention(QUERY, QUERY, QUERY, return_lse=True)},
    gravitational_attention_backward: {"result": GRAVITATIONAL},
    residual_linear_attention_backward: {"window": 2},
    gated_linear_attention_backward: {},
    ra.gated_delta_rule: {},
    gated_delta_rule_backward: {},
    ra.gated_delta_step: {"cache": lambda: ra.GatedDeltaCache(1, 2, 4)},
    ra.gated_linear_step: {"cache": lambda: ra.GatedDeltaCache(1, 2, 4)},
    rattention_backward: {"window": 2},
    ra.MetricOptions: {},
    ra.set_num_threads: {},
}


@pytest.mark.row("H11")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_argument_is_named(function, odd):
    """In every place where the object is not taken, as True and None are in some."""
    own, names = FUNCTIONS[function], [*inspect.signature(function).parameters]
    if "options" in names:
        forward = next(
            m.functions for m in ra.MECHANISMS.values() if function in m.functions.__dict__.values()
        )
        names = [*names[:-1], *(a.name for a in forward.arguments if a.optional), *forward.masks]
    messages = {}
    for name in names:
        inputs = {**{key: value for key, value in REQUIRED.items() if key in names}, **own}
        if "cache" in inputs:
            inputs["cache"] = own["cache"]()
        try:
            function(**{**inputs, name: ODD[odd]})
        except (TypeError, ValueError) as error:
            messages[name] = str(error)
    ra.set_num_threads(0)
    assert messages
    for name, message in messages.items():
        assert name in message
        assert "incompatible function arguments" not in message
        assert len(message) < LONGEST_MESSAGE


def test_integers_of_a_map_beyond_any_map_ask_for_all_of_it():
    whole = ra.attention_map(QUERY, QUERY, shape=(3, 3))
    for shape in [(2**70, 2**70), (10**5000, 3), (2**31, 2**62)]:
        np.testing.assert_array_equal(ra.attention_map(QUERY, QUERY, shape=shape), whole)
    assert ra.attention_map(QUERY, QUERY, shape=(2**70, 1)).shape == (1, 2, 3, 1)


@pytest.mark.parametrize("seed", [0, 1, LARGEST_SEED, np.int64(7)])
def test_seeds(seed):
    assert require_seed("--seed", seed) == seed


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, -(10**5000)], ids=["-1", "2**32", "2**64", "huge"])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match=r"^--seed must be between 0 and 4294967295, got "):
        require_seed("--seed", seed)


@pytest.mark.parametrize("seed", [True, 1.0, "1", None, Boom()], ids=["True", "1.0", "'1'", "None", "odd"])
def test_seeds_that_are_no_integers(seed):
    with pytest.raises(TypeError, match=r"^--seed must be an integer, got "):
        require_seed("--seed", seed)


def test_bfloat16_as_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")
    numbers = np.random.default_rng(0).standard_normal((3, 5)).astype(ml_dtypes.bfloat16)
    for given in (numbers, numbers[:, ::2], numbers.T):
        got = float32_array("x", given, 2)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, given.astype(np.float32))


def test_masked_elements_are_no_numbers():
    masked = np.ma.masked_greater(np.arange(6, dtype=np.float32).reshape(1, 2, 3) - 2, 0)
    with pytest.raises(TypeError, match=r"^log_gate must have no masked elements, got 3: fill them"):
        ra.gated_linear_attention(QUERY, QUERY, QUERY, masked)
    filled = ra.gated_linear_attention(QUERY, QUERY, QUERY, masked.filled(0))
    whole = np.ma.masked_array(masked.filled(0))
    np.testing.assert_array_equal(ra.gated_linear_attention(QUERY, QUERY, QUERY, whole), filled)


def test_tensors_are_sent_to_the_functions_on_tensors():
    needs("torch")
    import torch

    with pytest.raises(TypeError, match=r"^query cannot be read as an array: .*; rattention\.torch"):
        ra.attention(torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16), QUERY, QUERY)


@pytest.mark.parametrize("value", [*ODD.values(), nested(90, 10)], ids=[*ODD, "10**90 lists"])
def test_values_in_messages_are_short(value):
    assert 0 < len(brief(value)) <= MOST_SHOWN
