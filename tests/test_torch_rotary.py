"""The rotary embedding as an operation of PyTorch: against the plain formula, with gradients, traced."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch
from rattention.torch.rotary import plain_rotary, rotary, turn


def rows(shape=(2, 3, 70, 10), dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("first_position", [0, 1, 63, 100_000])
@pytest.mark.parametrize("dim", [2, 10, 64, 130])
def test_equals_the_formula(dtype, first_position, dim):
    x = rows((1, 2, 70, dim), dtype)
    (got,) = rotary(x, theta=1e4, first_position=first_position)
    (expected,) = plain_rotary(x.double(), theta=1e4, first_position=first_position)
    assert got.dtype == dtype
    precision = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=precision * x.abs().max().item())


@pytest.mark.parametrize(
    "strided",
    [
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x[:, :, ::2],
        lambda x: torch.cat([x, x], dim=-1)[..., ::2],
        lambda x: x[:, :1].expand(2, 3, 70, 10),
    ],
)
def test_any_strides(strided):
    x = strided(rows())
    torch.testing.assert_close(rotary(x, theta=50.0), plain_rotary(x, theta=50.0))


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (1, 0, 5, 4), (1, 3, 0, 4), (1, 1, 1, 2)])
def test_empty_and_smallest(shape):
    assert rotary(rows(shape), theta=9.0)[0].shape == shape


def test_gradient_turns_back():
    x = rows().requires_grad_()
    (got,) = torch.autograd.grad((rotary(x, theta=50.0)[0] * rows(seed=1)).sum(), x)
    (expected,) = torch.autograd.grad((plain_rotary(x, theta=50.0)[0] * rows(seed=1)).sum(), x)
    torch.testing.assert_close(got, expected)


def test_operation_is_a_good_citizen():
    values = (rows().requires_grad_(), None, None, 1e4, 3, 8, False, False)
    assert set(torch.library.opcheck(turn, values).values()) == {"SUCCESS"}


def test_compiles_and_maps():
    compiled = torch.compile(lambda x: rotary(x, theta=50.0)[0] * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows()), 2 * rotary(rows(), theta=50.0)[0])
    many = rows((4, 2, 3, 5, 6))
    mapped = torch.func.vmap(lambda x: rotary(x, theta=50.0)[0])(many)
    torch.testing.assert_close(mapped, torch.stack([rotary(x, theta=50.0)[0] for x in many]))


@pytest.mark.parametrize("turned", [lambda x: rotary(x, theta=50.0)[0], rt.rotary])
def test_forward_mode_derivatives_are_refused(turned):
    with pytest.raises(NotImplementedError, match="rotary has no forward-mode derivatives"):
        torch.func.jvp(turned, (rows(),), (rows(),))


def test_same_for_any_number_of_threads(use_threads):
    x = rows((1, 2, 2000, 64))
    results = []
    for threads in (1, 2, 3):
        use_threads(threads)
        results.append(rotary(x, theta=1e4)[0])
    assert all(torch.equal(results[0], other) for other in results)


def test_other_tensors_take_the_plain_form():
    assert rotary(rows(dtype=torch.float64), theta=50.0)[0].dtype == torch.float64
    assert rotary(rows().to("meta"), theta=50.0)[0].device.type == "meta"


def test_bad_input():
    with pytest.raises(ValueError, match="even head_dim, got 5"):
        rotary(rows((1, 1, 3, 5)), theta=50.0)
    with pytest.raises(ValueError, match="first_position must be >= 0, got -1"):
        rotary(rows(), theta=50.0, first_position=-1)
    with pytest.raises(ValueError, match="4 dimensions"):
        rotary(rows((3, 4)), theta=50.0)
