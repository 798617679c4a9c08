"""rattention.torch.scaled_dot_product_attention against PyTorch's: results, gradients, what is refused."""

from __future__ import annotations

import inspect

import pytest

from tests.extras import needs

needs("torch")

import torch
import torch.nn.functional as F
from rattention.torch import attention, scaled_dot_product_attention

SHAPES = {
    "two": ((7, 8), (7, 8)),
    "three": ((3, 7, 8), (3, 7, 8)),
    "four": ((2, 3, 7, 8), (2, 3, 7, 8)),
    "five": ((2, 2, 3, 7, 8), (2, 2, 3, 7, 8)),
    "more keys": ((2, 3, 5, 8), (2, 3, 9, 8)),
    "fewer keys": ((2, 3, 9, 8), (2, 3, 5, 8)),
    "one batch of keys": ((2, 3, 7, 8), (1, 3, 7, 8)),
    "one head of keys": ((2, 3, 7, 8), (2, 1, 7, 8)),
    "queries of lower rank": ((7, 8), (2, 3, 7, 8)),
    "keys of lower rank": ((2, 3, 7, 8), (3, 7, 8)),
    "three, fewer keys": ((3, 9, 8), (3, 5, 8)),
    "five, one batch of keys": ((2, 4, 3, 7, 8), (4, 3, 7, 8)),
}
GROUPED = {
    "four": ((2, 6, 7, 8), (2, 2, 7, 8)),
    "heads alone": ((6, 7, 8), (2, 7, 8)),
    "five": ((2, 2, 6, 7, 8), (2, 1, 3, 7, 8)),
    "equal heads": ((2, 3, 7, 8), (2, 3, 7, 8)),
}


def draw(query_shape, key_shape, value_dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (query_shape, key_shape, (*key_shape[:-1], value_dim))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def mask_of(kind, shape):
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randn(shape, generator=generator)
    if kind == "bool":
        return (numbers > -0.5).index_fill(-1, torch.tensor(0), True)
    return numbers.masked_fill(numbers < -1, -torch.inf).index_fill(-1, torch.tensor(0), 0.0)


def assert_equal_to_torch(inputs, **options):
    """Output and gradients."""
    ours, theirs = (
        scaled_dot_product_attention(*inputs, **options),
        F.scaled_dot_product_attention(*inputs, **options),
    )
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    direction = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(9))
    got, expected = (torch.autograd.grad((out * direction).sum(), inputs) for out in (ours, theirs))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.7}], ids=str)
@pytest.mark.parametrize("shapes", SHAPES)
def test_equals_torch(shapes, options):
    assert_equal_to_torch(draw(*SHAPES[shapes]), **options)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", GROUPED)
def test_grouped_heads(shapes, causal):
    assert_equal_to_torch(draw(*GROUPED[shapes]), is_causal=causal, enable_gqa=True)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize(
    ("shapes", "mask"),
    [
        ("two", (7, 7)),
        ("three", (7, 7)),
        ("three", (3, 7, 7)),
        ("three", (1, 1, 7)),
        ("four", (7, 7)),
        ("four", (1, 7)),
        ("four", (3, 7, 7)),
        ("four", (2, 1, 7, 7)),
        ("four", (2, 1, 1, 7)),
        ("five", (7, 7)),
        ("five", (3, 7, 7)),
        ("five", (2, 1, 7, 7)),
        ("five", (2, 1, 3, 1, 7)),
        ("more keys", (5, 9)),
        ("queries of lower rank", (2, 1, 7, 7)),
    ],
    ids=str,
)
def test_masks(shapes, mask, kind):
    assert_equal_to_torch(draw(*SHAPES[shapes]), attn_mask=mask_of(kind, mask))


def test_rows_that_see_nothing():
    mask = torch.ones(7, 7, dtype=torch.bool)
    mask[2] = False
    assert_equal_to_torch(draw(*SHAPES["four"]), attn_mask=mask)


def test_by_position_as_in_torch():
    inputs = draw(*SHAPES["four"])
    mask = mask_of("bool", (7, 7))
    torch.testing.assert_close(
        scaled_dot_product_attention(*inputs, mask, 0.0, False),
        F.scaled_dot_product_attention(*inputs, mask, 0.0, False),
    )
    names = [*inspect.signature(scaled_dot_product_attention).parameters]
    assert names[:8] == [
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    inputs = [t.detach().to(dtype) for t in draw(*SHAPES["four"])]
    got = scaled_dot_product_attention(*inputs, is_causal=True)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got, F.scaled_dot_product_attention(*inputs, is_causal=True), rtol=0.02, atol=0.02
    )


def test_what_torch_does_not_have():
    """Window, padding, segments and discount are those of `attention`, whatever the batch dimensions."""
    five = draw((2, 2, 3, 9, 8), (2, 2, 3, 9, 8))
    four = [tensor.flatten(0, 1) for tensor in five]
    shown = torch.rand(2, 2, 9) > 0.2
    ids = torch.arange(9).expand(2, 2, 9) // 4
    slope = -torch.rand(2, 2, 3, 9)
    got = scaled_dot_product_attention(
        *five, is_causal=True, window=3, key_mask=shown, segment_ids=ids, log_discount=slope
    )
    flat = {
        "key_mask": shown.flatten(0, 1),
        "segment_ids": ids.flatten(0, 1),
        "log_discount": slope.flatten(0, 1),
    }
    expected = attention(*four, causal=True, window=3, **flat)
    assert torch.equal(got, expected.unflatten(0, (2, 2)))
    three = [tensor[0, :, 0] for tensor in five]
    got = scaled_dot_product_attention(*three, key_mask=shown[0], log_discount=slope[0, :, 0])
    one_head = [tensor[:, None] for tensor in three]
    assert torch.equal(got, attention(*one_head, key_mask=shown[0], log_discount=slope[0, :, :1])[:, 0])


def test_positions_align_at_the_start_under_is_causal_alone():
    inputs = draw((1, 2, 3, 8), (1, 2, 9, 8))
    causal = scaled_dot_product_attention(*inputs, is_causal=True, window=1)
    assert torch.equal(causal, attention(*inputs, causal=True, window=1, query_offset=0))
    assert torch.equal(scaled_dot_product_attention(*inputs, window=1), attention(*inputs, window=1))
    moved = scaled_dot_product_attention(*inputs, is_causal=True, query_offset=6)
    assert torch.equal(moved, attention(*inputs, causal=True))


def test_compiles_in_one_graph():
    torch.compiler.reset()
    inputs = draw(*SHAPES["five"])

    def loss(query, key, value):
        return scaled_dot_product_attention(query, key, value, is_causal=True, window=3).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(f(*inputs), inputs) for f in (compiled, loss))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


Q = torch.zeros(2, 4, 5, 8)
WRONG = {
    "dropout": ({"dropout_p": 0.1}, ValueError, "dropout_p must be 0, got 0.1: the weights are never stored"),
    "mask and causal": (
        {"is_causal": True, "attn_mask": torch.ones(5, 5, dtype=torch.bool)},
        ValueError,
        "attn_mask must be None where is_causal=True",
    ),
    "fewer heads": ({"key": Q[:, :2], "value": Q[:, :2]}, ValueError, "need enable_gqa=True"),
    "heads that do not divide": (
        {"key": Q[:, :3], "value": Q[:, :3], "enable_gqa": True},
        ValueError,
        "key has 3 heads, query has 4",
    ),
    "batches": ({"key": torch.zeros(3, 4, 5, 8)}, ValueError, "must broadcast"),
    "a vector": ({"query": Q[0, 0, 0]}, ValueError, "at least 2 dimensions"),
    "float64": ({"query": Q.double()}, TypeError, r"^write query\.float\(\): query has dtype torch\.float64"),
    "an array": ({"query": Q.numpy()}, TypeError, "query must be a torch.Tensor, got ndarray"),
    "nothing": ({"value": None}, TypeError, "value must be a torch.Tensor, got NoneType"),
    "causal 1": ({"is_causal": 1}, TypeError, "is_causal must be True or False"),
    "a padding of other batches": (
        {"key_mask": torch.ones(3, 5, dtype=torch.bool)}, ValueError, "key_mask must have"
    ),
    "a softcap of 0": ({"softcap": 0.0}, ValueError, "softcap must be > 0"),
    "blocks of other batches": (
        {"block_ids": torch.zeros(3, 5, dtype=torch.int64)}, ValueError, "block_ids must have"
    ),
    "a list for a mask": ({"attn_mask": [[True]]}, TypeError, "attn_mask must be a torch.Tensor, got list"),
    "a mask of other heads": ({"attn_mask": torch.zeros(1, 3, 5, 5)}, ValueError, "attn_mask"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refused(case):
    options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(**{"query": Q, "key": Q, "value": Q} | options)
