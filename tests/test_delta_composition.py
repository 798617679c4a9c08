"""The gated delta rule in plain PyTorch against its recurrence."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import torch
from rattention.torch.delta_composition import gated_delta_rule

from tests.delta_rule import CASES, drawn, recurrence

LENGTHS = (0, 1, 15, 16, 17, 64, 65, 150)
by_case = pytest.mark.parametrize("case", CASES)


def options(inputs, length):
    """All options at once: a state to begin with, hidden tokens and segments that cross chunks."""
    query, _, value = inputs[:3]
    generator = torch.Generator().manual_seed(1)
    shape = (*query.shape[:2], query.shape[3], value.shape[3])
    return {
        "scale": 0.7,
        "normalize": True,
        "initial_state": torch.randn(shape, generator=generator, dtype=torch.float64),
        "key_mask": torch.rand(query.shape[0], length, generator=generator) < 0.7,
        "segment_ids": torch.arange(length).expand(query.shape[0], -1) // 23,
    }


def assert_close(got, expected, tolerance):
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@by_case
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_chunks_equal_the_recurrence(case, length, dtype):
    inputs = [x.to(dtype) for x in drawn(length, **CASES[case])]
    for given in ({}, options(inputs, length)):
        expected = recurrence(*inputs, **given)
        for got, right in zip(gated_delta_rule(*inputs, **given), expected, strict=True):
            assert got.dtype == dtype
            assert_close(got, right, 1e-11 if dtype == torch.float64 else 2e-5)


@by_case
def test_gradients_equal_those_of_the_recurrence(case):
    inputs = drawn(70, **CASES[case])
    given = options(inputs, 70)
    inputs.append(given.pop("initial_state"))
    for tensor in inputs:
        tensor.requires_grad_()

    def gradients(function):
        output, state = function(*inputs[:5], initial_state=inputs[5], **given)
        generator = torch.Generator().manual_seed(2)
        weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in (output, state)]
        return torch.autograd.grad((output, state), inputs, weights)

    for got, right in zip(gradients(gated_delta_rule), gradients(recurrence), strict=True):
        assert_close(got, right, 1e-10)


@by_case
@pytest.mark.parametrize("cut", [1, 40, 64])
def test_a_state_carries_on(case, cut):
    inputs = drawn(100, **CASES[case])
    whole, last = gated_delta_rule(*inputs)
    first, between = gated_delta_rule(*(x[:, :, :cut] for x in inputs))
    second, end = gated_delta_rule(*(x[:, :, cut:] for x in inputs), initial_state=between)
    assert_close(torch.cat([first, second], dim=2), whole, 1e-11)
    assert_close(end, last, 1e-11)


def test_hidden_tokens_leave_no_trace():
    query, key, value, log_gate, beta = drawn(20)
    shown = torch.ones(2, 20, dtype=torch.bool)
    shown[:, 5] = False
    expected = gated_delta_rule(query, key, value, log_gate, beta, key_mask=shown)
    for tensor in (key, value, log_gate, beta):
        tensor[:, :, 5] = torch.nan
    for got, right in zip(
        gated_delta_rule(query, key, value, log_gate, beta, key_mask=shown), expected, strict=True
    ):
        assert torch.equal(got, right)


def test_16_bits_come_back():
    inputs = drawn(40)
    narrow = [x.bfloat16() for x in inputs[:3]] + [x.float() for x in inputs[3:]]
    output, state = gated_delta_rule(*narrow)
    assert (output.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, recurrence(*narrow)[0], 2e-2)
    assert len(gated_delta_rule(*narrow, return_state=False)) == 1
