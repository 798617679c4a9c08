"""rattention.torch beside the CPU: the same formula in plain PyTorch, against the kernels; wrong tensors."""

from __future__ import annotations

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch
from rattention.torch import functions, ops
from torch.utils._python_dispatch import TorchDispatchMode

from tests.processes import run_python
from tests.torch_inputs import by_case, by_mechanism, draw, masks_of, tensors_of, with_second


def both_ways(mechanism, inputs, **masks):
    """What the kernels return, and what plain PyTorch does, from the same prepared inputs."""
    signature = ops.SIGNATURES[mechanism.forward]
    options = dict(signature.defaults)
    prepared = functions._prepared(signature, options | inputs | masks)
    is_softmax = mechanism.family == "softmax"
    prepared |= {"metrics": None, "return_lse": True} if is_softmax else {"return_state": True, "keep": True}
    prepared = {name: prepared[name] for name in signature.names}
    output, second, *_ = ops.OPERATIONS[mechanism.forward](*prepared.values())
    return [output, second.to(torch.float32)], functions._composed(signature, prepared)


def gradients(results, tensors):
    """Of a smooth sum of all finite elements; random, so that no symmetry hides a fault."""
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for result in results:
        numbers = torch.where(result.isfinite(), result, torch.zeros_like(result))
        loss = loss + (numbers * torch.randn(result.shape, generator=generator)).sum()
    return torch.autograd.grad(loss, tensors)


@pytest.mark.row("M8")
@by_case
def test_plain_pytorch_equals_the_kernels(mechanism, masks):
    """Results and gradients."""
    inputs = draw(mechanism)
    tensors = [*tensors_of(inputs).values()]
    kernels, plain = both_ways(mechanism, inputs, **masks_of(mechanism)[masks])
    for got, expected in zip(plain, kernels, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=5e-6)
    pairs = zip(gradients(plain, tensors), gradients(kernels, tensors), strict=True)
    for name, (got, expected) in zip(tensors_of(inputs), pairs, strict=True):
        assert (got - expected).norm() <= 1e-5 * expected.norm() + 1e-6, name


@pytest.mark.parametrize("window", [-1, 0, 1, 63, 64, 129, 200])
@pytest.mark.parametrize("name", ["residual_linear", "gated_linear", "rattention"])
def test_plain_windows(name, window):
    """Of the linear family, longer than its chunks; with a relu and one state per query head."""
    state = torch.randn(2, 4, 8, 4)
    ids = torch.arange(130).repeat(2, 1) // 50
    query, (key, value) = torch.randn(2, 4, 130, 4), torch.randn(2, 2, 2, 130, 4)
    inputs = {"query": query, "key": key, "value": value, "initial_state": state, "segment_ids": ids}
    mechanism = ra.MECHANISMS[name]
    if name == "gated_linear":
        gates = -torch.rand(2, 2, 130)
        inputs["log_gate"] = torch.where(gates < -0.95, -torch.inf, gates)
    kernels, plain = both_ways(mechanism, inputs, window=window, feature_map="relu")
    for got, expected in zip(plain, kernels, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-4)


def test_plain_softmax_longer_than_its_chunks():
    query, key, value = torch.randn(3, 1, 2, 1100, 4)
    mechanism = ra.MECHANISMS["sliding_window"]
    inputs = {"query": query, "key": key, "value": value}
    for masks in (
        {"window": (30, 600)},
        {"causal": True},
        {"causal": True, "window": 5, "query_offset": 900},
    ):
        kernels, plain = both_ways(mechanism, inputs, **masks)
        for got, expected in zip(plain, kernels, strict=True):
            torch.testing.assert_close(got, expected, rtol=2e-5, atol=5e-6)


@by_mechanism
def test_plain_bfloat16(mechanism):
    kernels, plain = both_ways(mechanism, draw(mechanism, dtype="bfloat16"))
    assert plain[0].dtype == torch.bfloat16
    torch.testing.assert_close(plain[0], kernels[0], rtol=0.02, atol=0.01)


@by_mechanism
def test_no_query_and_no_batch(mechanism):
    inputs = draw(mechanism)
    without_batch = {n: t[:0] if t.dim() > 2 else t for n, t in tensors_of(inputs).items()}
    without_rows = {
        n: t[:, :, :0] if t.dim() > 2 and n != "initial_state" else t for n, t in tensors_of(inputs).items()
    }
    for empty in (without_batch, without_rows):
        kernels, plain = both_ways(mechanism, inputs | empty)
        for got, expected in zip(plain, kernels, strict=True):
            torch.testing.assert_close(got, expected)


@pytest.mark.row("M8")
@by_mechanism
def test_meta_tensors_have_the_right_shapes(mechanism):
    inputs = draw(mechanism)
    expected = getattr(rt, mechanism.forward.__name__)(**inputs, **with_second(mechanism))[:2]
    moved = inputs | {n: t.detach().to("meta").requires_grad_() for n, t in tensors_of(inputs).items()}
    got = getattr(rt, mechanism.forward.__name__)(**moved, **with_second(mechanism))[:2]
    assert [(g.shape, g.dtype) for g in got] == [(e.shape, e.dtype) for e in expected]
    got[0].sum().backward()
    assert moved["query"].grad.shape == inputs["query"].shape


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (rt.residual_linear_attention, {"window": 64}),
        (lambda q, k, v: rt.gated_linear_attention(q, k, v, q[..., 0]), {}),
        (rt.rattention, {"window": 64, "rope_theta": 100.0}),
        (rt.attention, {"causal": True, "window": 64}),
    ],
    ids=["residual linear", "gated linear", "rattention", "window"],
)
def test_nothing_of_the_maps_size(function, options):
    """Forward and backward."""
    length = 4096
    query = torch.empty(1, 1, length, 8, device="meta", requires_grad=True)
    with Largest() as largest:
        function(query, query, query, **options).sum().backward()
    assert largest.elements < length * length // 10


def test_every_function_of_the_table_is_here():
    names = {mechanism.forward.__name__ for mechanism in ra.MECHANISMS.values()}
    assert names == set(functions.COMPOSITIONS)
    assert names <= set(rt.__all__)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@by_case
def test_gpu_equals_the_cpu(mechanism, masks):
    inputs = draw(mechanism)
    options = masks_of(mechanism)[masks]
    moved = {n: t.detach().cuda().requires_grad_() for n, t in tensors_of(inputs).items()}
    function = getattr(rt, mechanism.forward.__name__)
    masks = {n: m.cuda() if isinstance(m, torch.Tensor) else m for n, m in options.items()}
    on_cpu, on_gpu = function(**inputs, **options), function(**(inputs | moved), **masks)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)
    for a, b in zip(
        gradients([on_gpu.cpu()], [*moved.values()]),
        gradients([on_cpu], [*tensors_of(inputs).values()]),
        strict=True,
    ):
        assert (a.cpu() - b).norm() <= 1e-3 * b.norm() + 1e-5


Q = torch.zeros(1, 2, 4, 8)
MASS = torch.ones(1, 2, 4)

WRONG = {
    "no tensor": (rt.attention, (Q.numpy(), Q, Q), {}, TypeError, "query must be a .*Tensor, got ndarray"),
    "a list": (rt.attention, (Q, [1.0], Q), {}, TypeError, "key must be a .*Tensor, got list"),
    "sparse": (rt.attention, (Q, Q.to_sparse(), Q), {}, TypeError, "key must be a dense"),
    "float64": (rt.attention, (Q.double(),) * 3, {}, TypeError, "query has dtype torch.float64; allowed are"),
    "integers": (rt.rattention, (Q.long(),) * 3, {"window": 2}, TypeError, "query has dtype torch.int64"),
    "mixed dtypes": (rt.attention, (Q, Q.bfloat16(), Q), {}, TypeError, "key is torch.bfloat16.*autocast"),
    "mixed masses": (
        rt.gravitational_attention, (Q, Q, Q, MASS, MASS.half()), {}, TypeError, "key_mass is torch.float16"
    ),
    "two devices": (rt.attention, (Q, Q.to("meta"), Q), {}, ValueError, "query is on cpu, key on meta"),
    "mask elsewhere": (
        rt.attention,
        (Q, Q, Q),
        {"key_mask": torch.ones(1, 4, dtype=torch.bool, device="meta")},
        ValueError,
        "query is on cpu, key_mask on meta",
    ),
    "padding of numbers": (
        rt.rattention, (Q, Q, Q), {"window": 1, "key_mask": torch.ones(1, 4)}, TypeError, "be a bool"
    ),
    "segments of floats": (rt.attention, (Q, Q, Q), {"segment_ids": torch.ones(1, 4)}, TypeError, "integers"),
    "mask of integers": (
        rt.attention, (Q, Q, Q), {"attn_mask": torch.ones(4, 4, dtype=torch.int64)}, TypeError, "attn_mask"
    ),
    "shapes": (rt.attention, (Q, Q, Q[:, :, :3]), {}, ValueError, "value"),
    "heads": (rt.attention, (Q[:, :1].expand(1, 3, 4, 8), Q, Q), {}, ValueError, "heads"),
    "rank": (rt.attention, (Q[0], Q, Q), {}, ValueError, "query must have 4 dimensions"),
    "negative mass": (
        rt.gravitational_attention, (Q, Q, Q, MASS, -MASS), {}, ValueError, "key_mass must be >= 0, 8 of"
    ),
    "negative bfloat16 mass": (
        rt.gravitational_attention,
        (*[Q.bfloat16()] * 3, MASS.bfloat16(), -MASS.bfloat16()),
        {},
        ValueError,
        "key_mass must be >= 0, 8 of",
    ),
    "growing discount": (rt.attention, (Q, Q, Q), {"log_discount": 0.5}, ValueError, "log_discount must be"),
    "discounts": (
        rt.attention, (Q, Q, Q), {"log_discount": torch.zeros(3)}, ValueError, r"one per head \(2\), got"
    ),
    "positive gate": (rt.gated_linear_attention, (Q, Q, Q, MASS), {}, ValueError, "log_gate must be <= 0"),
    "double gates": (rt.gated_linear_attention, (Q, Q, Q, -MASS.double()), {}, TypeError, "log_gate has"),
    "window": (rt.attention, (Q, Q, Q), {"window": 1.5}, TypeError, "window must be an integer"),
    "negative window": (rt.attention, (Q, Q, Q), {"window": (-1, 2)}, ValueError, "window must be >= 0"),
    "causal": (rt.attention, (Q, Q, Q), {"causal": 1}, TypeError, "causal must be True or False"),
    "lse": (rt.attention, (Q, Q, Q), {"return_lse": 1}, TypeError, "return_lse must be True or False, got 1"),
    "state": (rt.rattention, (Q, Q, Q), {"window": 2, "return_state": 0}, TypeError, "return_state must be"),
    "scale": (rt.attention, (Q, Q, Q), {"scale": float("nan")}, ValueError, "scale must be finite"),
    "metrics": (rt.attention, (Q, Q, Q), {"metrics": "all"}, TypeError, "metrics must be a MetricOptions"),
    "unknown": (rt.attention, (Q, Q, Q), {"casual": True}, TypeError, "unexpected keyword argument 'casual'"),
    "missing": (rt.rattention, (Q, Q, Q), {}, TypeError, "missing 1 required keyword.*: 'window'"),
    "by position": (rt.attention, (Q, Q, Q, True), {}, TypeError, "takes 3 positional arguments but 4"),
    "twice": (rt.attention, (Q, Q, Q), {"query": Q}, TypeError, "multiple values for argument 'query'"),
    "feature map": (rt.rattention, (Q, Q, Q), {"window": 2, "feature_map": "elu"}, ValueError, "feature_map"),
    "odd rotation": (rt.rattention, (Q[..., :7],) * 3, {"window": 2, "rope_theta": 9.0}, ValueError, "even"),
}  # fmt: skip


@pytest.mark.row("M8")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    function, args, options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        function(*args, **options)


META = Q.to("meta")
ROW = META[0, 0]
WRONG_META = {
    "rank": (rt.attention, (META[0], META, META), {}, "query must have 4 dimensions"),
    "batch": (rt.attention, (META.expand(2, 2, 4, 8), META, META), {}, "key has batch 1, query has 2"),
    "dims": (rt.attention, (META[..., :3], META, META), {}, "key has head_dim 8, query has 3"),
    "heads": (rt.attention, (META[:, :1].expand(1, 3, 4, 8), META, META), {}, "2 heads, which must divide"),
    "value": (rt.attention, (META, META, META[:, :, :3]), {}, "value has shape"),
    "lengths": (rt.rattention, (META[:, :, :3], META, META), {"window": 2}, "key has length 4, query has 3"),
    "eps": (rt.rattention, (META,) * 3, {"window": 2, "eps": 0.0}, "eps must be > 0"),
    "theta": (rt.rattention, (META,) * 3, {"window": 2, "rope_theta": -1.0}, "rope_theta must be > 0"),
    "scale": (rt.attention, (META,) * 3, {"scale": float("inf")}, "scale must be finite"),
    "window": (rt.rattention, (META,) * 3, {"window": -2}, "window must be >= -1"),
    "feature map": (rt.rattention, (META,) * 3, {"window": 2, "feature_map": "elu"}, "feature_map must be"),
    "odd rotation": (rt.rattention, (META[..., :7],) * 3, {"window": 2, "rope_theta": 9.0}, "even"),
    "mass": (rt.gravitational_attention, (*[META] * 3, META[..., 0], ROW), {}, "key_mass must have shape"),
    "state": (rt.rattention, (META,) * 3, {"window": 2, "initial_state": META}, "initial_state must have"),
    "gates": (rt.gated_linear_attention, (*[META] * 3, META[:, :1, :, 0]), {}, "log_gate must have shape"),
    "its state": (
        rt.gated_linear_attention,
        (*[META] * 3, META[..., 0]),
        {"initial_state": META[:, :, :3]},
        r"initial_state must have shape \(1, 2, 8, 8\)",
    ),
    "gate": (rt.rattention, (META,) * 3, {"window": 2, "gate": ROW}, "gate must have shape"),
    "norms": (rt.rattention, (META,) * 3, {"window": 2, "local_norm_weight": ROW}, "local_norm_weight must"),
    "padding": (rt.attention, (META,) * 3, {"key_mask": ROW > 0}, "key_mask must have"),
    "segments": (rt.attention, (META,) * 3, {"segment_ids": ROW.long()}, "segment_ids must have"),
    "positions": (
        rt.attention,
        (META,) * 3,
        {"segment_ids": META[:, 0, :, 0].long(), "query_offset": 1},
        "positions 0 to 3, but the query rows have positions 1 to 4",
    ),
    "dense": (rt.attention, (META,) * 3, {"attn_mask": ROW}, "attn_mask must be broadcastable"),
    "metrics": (rt.attention, (META,) * 3, {"metrics": ra.MetricOptions()}, "CPU only, query is on meta"),
}  # fmt: skip


@pytest.mark.row("M8")
@pytest.mark.parametrize("case", WRONG_META)
def test_wrong_arguments_beside_the_cpu(case):
    function, args, options, message = WRONG_META[case]
    with pytest.raises(ValueError, match=message):
        function(*args, **options)


def test_shapes_are_checked_while_tracing():
    torch.compiler.reset()
    compiled = torch.compile(rt.attention, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="key has head_dim 8, query has 3"):
        compiled(Q[..., :3], Q, Q)


PROBLEM = """
import torch
import rattention as ra, rattention.torch as rt
query = torch.randn(3, 1, 4, 300, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
def step():
    query.grad = None
    rt.rattention(*query, window=20, rope_theta=100.0).square().sum().backward()
    return query.grad
expected = step().clone()
"""


@pytest.mark.row("T3")
def test_data_loader_workers_after_a_forward_pass():
    """Workers made by fork compute forward and backward, and the parent goes on."""
    code = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return step()
loader = torch.utils.data.DataLoader(Data(), num_workers=2, timeout=30, multiprocessing_context="fork")
assert all(torch.equal(batch[0], expected) for batch in loader)
assert torch.equal(step(), expected)
"""
    run_python(PROBLEM + code, timeout=60)


@pytest.mark.row("T4")
@pytest.mark.parametrize("first", ["import torch", "import rattention", "import rattention.torch"])
def test_one_openmp_runtime(first):
    code = """
paths = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/lib" in line}
print(*(p for p in paths if any(name in p for name in ("libgomp", "libiomp", "libomp"))), sep="\\n")
"""
    assert len(run_python(first + "\n" + PROBLEM + code).split()) == 1


def test_without_torch():
    code = """
import sys
sys.modules["torch"] = None
import rattention
try:
    import rattention.torch
except ImportError as error:
    print(error)
"""
    assert "pip install 'rattention[torch]'" in run_python(code)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rattention; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
