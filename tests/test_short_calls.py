"""Calls that bypass PyTorch's dispatcher give what it gives, and only where nobody looks."""

from __future__ import annotations

import datetime

import pytest

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch
from rattention import _core
from rattention.torch import short_calls
from torch.fx.experimental.proxy_tensor import make_fx

from tests.torch_inputs import Names

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPTIONS = {
    "nothing": {},
    "causal": {"causal": True},
    "scale": {"scale": -0.3, "window": None},
    "window": {"window": 5, "causal": True},
    "padding": {"key_mask": torch.arange(70).expand(2, -1) != 3},
    "mask": {"attn_mask": torch.arange(70.0)},
    "sinks": {"sinks": torch.tensor([0.0, 1.0, 2.0, 3.0])},
    "numbers": {"sinks": 0.5, "log_discount": -0.1},
}
with_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def draw(dtype=torch.float32, rows=3, keys=70, dim=96):
    torch.manual_seed(0)
    return [torch.randn(2, h, n, dim).to(dtype) for h, n in ((4, rows), (2, keys), (2, keys))]


@pytest.fixture(params=["exchange", "arrays"])
def way(request, monkeypatch):
    """By PyTorch's exchange protocol, and by arrays, as before it had one."""
    if request.param == "arrays":
        monkeypatch.setattr(short_calls, "EXCHANGE", None)
    elif short_calls.EXCHANGE is None:
        pytest.skip("this PyTorch has no exchange protocol")


@pytest.mark.usefixtures("way")
@with_options
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 3, 70])
def test_bits_are_those_of_the_operation(dtype, rows, options):
    inputs = draw(dtype, rows)
    with Names() as names:
        expected = rt.attention(*inputs, **options)
    assert [name for name in names.seen if name.startswith("rattention::")] == ["rattention::attention"]
    got = rt.attention(*inputs, **options)
    assert got.dtype == dtype
    assert torch.equal(got, expected)


@pytest.mark.usefixtures("way")
def test_any_strides_and_lazily_negated_tensors():
    query, key, value = draw()
    expected = rt.attention(query, key, value)
    together = torch.stack([key, value], dim=3).transpose(1, 2).contiguous()
    views = (part.transpose(1, 2) for part in together.unbind(dim=3))
    assert torch.equal(rt.attention(query, *views), expected)
    negated = torch.complex(torch.zeros_like(query), -query).conj().imag
    assert negated.is_neg()
    assert torch.equal(rt.attention(negated, key, value), expected)
    turned = rt.attention(query.flip(2), key.expand(2, 2, 70, 96), torch.nn.Parameter(value).detach())
    assert torch.equal(turned.flip(2), expected)


def test_whoever_looks_sees_the_operation():
    inputs = draw()
    with torch.profiler.profile() as profile:
        rt.attention(*inputs)
    assert "rattention::attention" in {event.name for event in profile.events()}
    graph = make_fx(lambda query, key, value: rt.attention(query, key, value))(*inputs)
    assert "rattention.attention" in graph.code
    with torch.autocast("cpu", torch.bfloat16):
        assert rt.attention(*inputs).dtype == torch.bfloat16
    inputs[0].requires_grad_()
    assert rt.attention(*inputs).requires_grad
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        assert not rt.attention(*inputs).requires_grad


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"key_mask": torch.ones(2, 70)}, "key_mask must be a bool tensor"),
        ({"scale": "1"}, "scale must be a number"),
        ({"causal": 1}, "causal must be True or False"),
        ({"scale": float("nan")}, "scale must be finite"),
        ({"window": -1}, "window must be >= 0"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"key": torch.ones(2, 2, 70, 96, dtype=torch.float64)}, "key has dtype torch.float64"),
        ({"key": torch.ones(2, 2, 70, 96).half()}, "all inputs must have the same dtype"),
        ({"key": torch.ones(2, 2, 70, 96).to_sparse()}, "key must be a dense"),
        ({"value": torch.ones(2, 2, 71, 96)}, "value has length 71, key has 70"),
        ({"query": torch.ones(2, 3, 1, 96)}, "must divide the number of query heads"),
        ({"query": torch.ones(3, 96)}, "query must have 4 dimensions"),
    ],
)
def test_errors_speak_of_tensors(wrong, message):
    query, key, value = draw()
    with pytest.raises((TypeError, ValueError), match=message):
        rt.attention(**({"query": query, "key": key, "value": value} | wrong))


def test_a_capsule_of_something_else_is_refused():
    with pytest.raises(ValueError, match="incorrect name"):
        _core.attention_of_tensors(datetime.datetime_CAPI, *draw(), False, None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("way", ["exchange", "arrays"], indirect=True)
@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("dims", [(1, 5), (0, 5), (1, 0)])
def test_nothing_to_attend(heads, dims):
    query, key = (torch.ones(1, heads, n, 16) for n in dims)
    assert rt.attention(query, key, key).shape == query.shape


def of_an_ended_transform():
    kept = []
    torch.func.vmap(lambda x: kept.append(x) or x)(torch.ones(2, 1, 1, 1, 96))
    return kept[0]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "make",
    [
        of_an_ended_transform,
        lambda: torch._efficientzerotensor((1, 1, 1, 96)),
        lambda: torch._to_functional_tensor(torch.ones(1, 1, 1, 96)),
        lambda: torch.quantize_per_tensor(torch.ones(1, 1, 1, 96), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([torch.ones(1, 1, 96)]),
        lambda: torch.ones(1, 1, 1, 96, dtype=torch.complex64).conj(),
        lambda: None,
    ],
    ids=["vmap", "zero", "functional", "quantized", "nested", "conjugated", "None"],
)
def test_odd_tensors_do_what_they_do_in_the_operation(make):
    other = torch.ones(1, 1, 1, 96)

    def outcome():
        try:
            return rt.attention(make(), other, other)
        except Exception as error:
            return type(error)

    with Names():
        expected = outcome()
    got = outcome()
    assert got is expected or torch.equal(got, expected)


@pytest.mark.skipif(short_calls.EXCHANGE is None, reason="this PyTorch has no exchange protocol")
@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (torch.ones(1, 1, 1, 4, dtype=torch.int32), TypeError, "must be float32, bfloat16 or float16"),
        (torch.ones(1, 1, 1, 4, dtype=torch.complex64), TypeError, "must be float32, bfloat16 or float16"),
        (torch.ones(1, 1, 4), ValueError, "4 dimensions"),
        (torch.ones(1, 1, 1, 4, device="meta"), ValueError, "exchanged|CPU"),
    ],
)
def test_the_core_refuses_other_tensors(query, error, message):
    key = torch.ones(1, 1, 1, 4)
    for arguments in ((query, key, key), (key, query, key), (key, key, query)):
        with pytest.raises(error, match=message):
            _core.attention_of_tensors(short_calls.EXCHANGE, *arguments, False, None)
