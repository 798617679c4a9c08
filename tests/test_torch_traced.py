"""Operations on tensors where PyTorch traces them: opcheck, compiled and exported graphs."""

from __future__ import annotations

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch
from rattention.torch import functions, ops

from tests.torch_inputs import MASKS, by_mechanism, draw, tensors_of, two_results


def operation_inputs(mechanism, dtype="float32"):
    """Arguments of the operation, as the public function hands them over."""
    signature = ops.SIGNATURES[mechanism.forward]
    options = dict(signature.defaults)
    inputs = functions._prepared(signature, options | draw(mechanism, dtype=dtype) | MASKS["both"])
    softmax = {"metrics": None, "return_lse": True}
    inputs |= softmax if mechanism.family == "softmax" else {"return_state": True, "keep": True}
    return signature, [inputs[name] for name in signature.names]


def assert_checked(outcomes):
    """All four tests of opcheck were made and passed; it raises at the first that fails."""
    assert len(outcomes) == 4
    assert set(outcomes.values()) == {"SUCCESS"}


@pytest.mark.row("N3")
@by_mechanism
def test_opcheck_forward(mechanism):
    _, values = operation_inputs(mechanism)
    assert_checked(torch.library.opcheck(ops.OPERATIONS[mechanism.forward], tuple(values)))


@pytest.mark.row("N3")
@by_mechanism
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_opcheck_backward(mechanism, dtype):
    signature, values = operation_inputs(mechanism, dtype)
    values = [v.detach() if isinstance(v, torch.Tensor) else v for v in values]
    results = ops.run_forward(signature, *values)
    saved = signature.results.to_save(results, dict(zip(signature.names, values, strict=True)))
    grads = [torch.ones_like(r) for r in results[:2]]
    operation = getattr(torch.ops.rattention, f"{signature.name}_backward").default
    assert_checked(torch.library.opcheck(operation, (*grads, *saved, *values, False)))


@pytest.mark.parametrize("shape", [(9, 9), (1, 2, 1, 9)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_opcheck_with_a_mask_that_asks_for_a_gradient(dtype, shape):
    """Its gradient is that of plain PyTorch, in the mask's shape and dtype."""
    query, key, value = torch.randn(3, 1, 2, 9, 4).unbind(0)
    mask = torch.randn(shape).to(getattr(torch, dtype)).requires_grad_()
    others = dict.fromkeys(ops.SIGNATURES[ra.attention].names)
    given = {"query": query, "key": key, "value": value, "attn_mask": mask}
    values = others | given | {"causal": False, "return_lse": True}
    assert_checked(torch.library.opcheck(ops.OPERATIONS[ra.attention], tuple(values.values())))
    direction = torch.randn(1, 2, 9, 4)
    (got,) = torch.autograd.grad((rt.attention(**given) * direction).sum(), mask)
    scores = query @ key.mT / 2 + mask.float()
    (wanted,) = torch.autograd.grad(((scores.softmax(-1) @ value) * direction).sum(), mask)
    assert got.dtype == mask.dtype
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-2)


def test_opcheck_with_metrics():
    query, key, value = (t.requires_grad_() for t in torch.randn(3, 1, 2, 9, 4).unbind(0))
    others = dict.fromkeys(ops.SIGNATURES[ra.attention].names)
    asked = {"causal": False, "metrics": [1, 2, 1], "return_lse": True}
    values = others | {"query": query, "key": key, "value": value} | asked
    assert_checked(torch.library.opcheck(ops.OPERATIONS[ra.attention], tuple(values.values())))


def test_opcheck_with_metrics_that_do_not_exist():
    """Rows that see fewer than two others have a ratio of NaN, which opcheck's last part takes for a
    difference: traced and eager results are compared here."""
    query, key, value = (t.requires_grad_() for t in torch.randn(3, 1, 2, 9, 4).unbind(0))
    others = dict.fromkeys(ops.SIGNATURES[ra.attention].names)
    values = others | {"query": query, "key": key, "value": value, "causal": True, "metrics": [1, 2, 1]}
    operation, arguments = ops.OPERATIONS[ra.attention], tuple(values.values())
    parts = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, arguments, test_utils=parts)
    traced = torch.compile(lambda *a: operation(*a), fullgraph=True, dynamic=True, backend="aot_eager")
    eager = operation(*arguments)
    assert any(result.isnan().any() for result in eager)
    torch.testing.assert_close(traced(*arguments), eager, rtol=0, atol=0, equal_nan=True)


@by_mechanism
def test_compiles_forward_and_backward(mechanism):
    """In one graph; the operations are opaque, so that results are the same bits."""

    def loss(inputs):
        return sum(r.square().sum() for r in two_results(mechanism, inputs))

    inputs = draw(mechanism)
    tensors = [*tensors_of(inputs).values()]
    plain = torch.autograd.grad(loss(inputs), tensors)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for got, expected in zip(torch.autograd.grad(compiled(inputs), tensors), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"metrics": ra.MetricOptions()}, {"metrics": ra.MetricOptions(received=False)}]
)
def test_compiles_with_metrics(options):
    query = torch.randn(1, 2, 9, 4, requires_grad=True)
    torch.compiler.reset()

    def call(x):
        result = rt.attention(x, x, x, **options)
        return result.output.sum(), result.metrics.entropy

    loss, entropy = torch.compile(call, fullgraph=True, backend="aot_eager")(query)
    loss.backward()
    assert torch.equal(entropy, call(query)[1])


def test_compiles_for_any_length():
    torch.compiler.reset()
    compiled = torch.compile(rt.rattention, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (5, 17, 64):
        query = torch.randn(1, 2, length, 4, requires_grad=True)
        out = compiled(query, query, query, window=3, rope_theta=100.0)
        out.sum().backward()
        assert torch.equal(out, rt.rattention(query, query, query, window=3, rope_theta=100.0))


@pytest.mark.slow
@by_mechanism
def test_compiles_to_machine_code(mechanism):
    """By PyTorch's default compiler, whose own operations around ours may round differently."""
    inputs = draw(mechanism)
    tensors = [*tensors_of(inputs).values()]

    def loss(inputs):
        return sum(r.square().sum() for r in two_results(mechanism, inputs))

    plain = torch.autograd.grad(loss(inputs), tensors)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True)
    for got, expected in zip(torch.autograd.grad(compiled(inputs), tensors), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


class Both(torch.nn.Module):
    def forward(self, query, key, value):
        near = rt.attention(query, key, value, causal=True, window=7)
        return near + rt.rattention(query, key, value, window=3, rope_theta=100.0)


def test_exports_with_dynamic_length():
    query, key, value = torch.randn(3, 1, 2, 16, 4)
    length = torch.export.Dim("length", min=2, max=4096)
    program = torch.export.export(Both(), (query, key, value), dynamic_shapes=({2: length},) * 3)
    longer = torch.randn(3, 1, 2, 61, 4)
    assert torch.equal(program.module()(*longer), Both()(*longer))
