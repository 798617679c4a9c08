"""The names of the package, what results look like, and the first words where a dtype is refused."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rattention as ra

from tests.extras import needs
from tests.processes import run_python

X = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
MASS = np.ones((1, 2, 5), np.float32)


def test_all_names_are_listed_and_there() -> None:
    needs("hf")
    assert {"observe", "capture", "compress"} <= set(ra.__all__) <= set(dir(ra))
    for name in ra.__all__:
        value = getattr(ra, name)
        assert not isinstance(value, ModuleType)
        assert value.__doc__
    with pytest.raises(AttributeError, match="module 'rattention' has no attribute 'does_not_exist'"):
        _ = ra.does_not_exist


def test_importing_loads_numpy_alone() -> None:
    """Listing the names does not load what they need either."""
    code = """
import sys
import rattention
dir(rattention), rattention.__all__
for package in ("torch", "transformers", "pandas", "sklearn", "matplotlib", "typing_extensions"):
    assert package not in sys.modules, package
"""
    run_python(code, timeout=60)


def test_the_module_says_what_there_is() -> None:
    assert ra.__doc__ is not None
    for name in ("torch", "nn", "hf", "inspect", "studies", "compression", "models"):
        assert f"`rattention.{name}`" in ra.__doc__


RESULTS = {
    "softmax": (
        lambda: ra.attention(X, X, X, return_lse=True),
        "AttentionResult(output=float32[1, 2, 5, 4], lse=float32[1, 2, 5], metrics=None)",
    ),
    "metrics": (
        lambda: ra.attention_metrics(X, X, metrics=ra.MetricOptions(received=False)),
        "AttentionMetrics(entropy=float32[1, 2, 5], local_concentration=float32[1, 2, 5], ",
    ),
    "top keys": (
        lambda: ra.attention_top_keys(X, X, 3),
        "TopKeys(weights=float32[1, 2, 5, 3], positions=int64[1, 2, 5, 3])",
    ),
    "linear": (
        lambda: ra.rattention(X, X, X, window=2, return_state=True),
        "LinearResult(output=float32[1, 2, 5, 4], state=float32[1, 2, 8, 4])",
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_short_and_compare(name: str) -> None:
    """By identity: equality of arrays has no truth value."""
    make, text = RESULTS[name]
    result = make()
    assert repr(result).startswith(text)
    assert "array(" not in repr(result)
    assert result in [make(), result]
    assert result not in [make()]
    assert len({result, make()}) == 2
    again = pickle.loads(pickle.dumps(result))
    assert type(again) is type(result)
    assert repr(again) == repr(result)


def test_results_unpack() -> None:
    for function in (ra.rattention, ra.residual_linear_attention):
        output, state = result = function(X, X, X, window=2, return_state=True)
        assert isinstance(result, ra.LinearResult)
        assert output is result.output
        assert state is result.state
    output, lse, metrics = result = ra.attention(X, X, X, return_lse=True)
    assert (output is result.output, lse is result.lse, metrics) == (True, True, None)


CALLS: dict[str, tuple[str, Any]] = {
    "attention": ("query", lambda x: ra.attention(x, X, X)),
    "gravitational": ("value", lambda x: ra.gravitational_attention(X, X, x, MASS, MASS)),
    "mass": ("key_mass", lambda x: ra.gravitational_attention(X, X, X, MASS, x[..., 0])),
    "residual_linear": ("key", lambda x: ra.residual_linear_attention(X, x, X, window=1)),
    "gates": ("log_gate", lambda x: ra.gated_linear_attention(X, X, X, -abs(x[..., 0]))),
    "rattention": ("query", lambda x: ra.rattention(x, X, X, window=1)),
    "weight": ("local_norm_weight", lambda x: ra.rattention(X, X, X, window=1, local_norm_weight=x[0, :, 0])),
    "step": ("query", lambda x: ra.rattention_step(x, X, X, ra.RAttentionCache(1, 2, 4, 1))),
    "metrics": ("key", lambda x: ra.attention_metrics(X, x)),
    "rows": ("query", lambda x: ra.attention_rows(x, X, [0])),
    "map": ("query", lambda x: ra.attention_map(x, X)),
    "segments": ("key", lambda x: ra.attention_segments(X, x, [0, 5], [0, 5])),
    "top keys": ("query", lambda x: ra.attention_top_keys(x, X)),
    "distances": ("query", lambda x: ra.attention_distances(x, X, [0, 5])),
    "rotary": ("x", lambda x: ra.rotary(x)),
    "table": ("cos", lambda x: ra.rotary(X, cos=x[0, 0, :, :2], sin=X[0, 0, :, :2])),
    "discount": ("log_discount", lambda x: ra.attention(X, X, X, log_discount=-abs(x[0, :, 0, 0]))),
}


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
@pytest.mark.parametrize("call", CALLS)
def test_the_first_words_say_what_to_write(call: str, dtype: type) -> None:
    name, function = CALLS[call]
    message = rf"^write {name}\.astype\(np\.float32\): {name} has dtype {dtype.__name__};"
    with pytest.raises(TypeError, match=message):
        function((X * 3).astype(dtype))


def test_the_first_words_for_a_mask() -> None:
    message = r"^write attn_mask\.astype\(np\.float32\): attn_mask must be bool or one of"
    with pytest.raises(TypeError, match=message):
        ra.attention(X, X, X, attn_mask=np.zeros((5, 5)))
    with pytest.raises(TypeError, match=r"^attn_mask must be bool or one of .*, got dtype int64"):
        ra.attention(X, X, X, attn_mask=np.zeros((5, 5), int))


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_the_first_words_for_tensors(dtype: str) -> None:
    needs("torch")
    import rattention.torch as rt
    import torch

    x, wrong = torch.from_numpy(X), torch.from_numpy(X).to(getattr(torch, dtype))
    calls = {
        "query": (rt.attention, (wrong, x, x), {}),
        "value": (rt.rattention, (x, x, wrong), {"window": 1}),
        "key": (rt.attention_map, (x, wrong), {}),
        "x": (rt.rotary, (wrong,), {}),
    }
    for name, (function, args, options) in calls.items():
        with pytest.raises(TypeError, match=rf"^write {name}\.float\(\): {name} has dtype torch\.{dtype}"):
            function(*args, **options)
