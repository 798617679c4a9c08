"""One rank of the tests of several processes: ``torchrun -m tests.distributed_worker FOLDER``.

Every case is computed over the ranks and in this process alone; the differences go into the folder.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import rattention.torch as rt
import torch
import torch.distributed as dist
from rattention.nn import LanguageModel, RAttention
from rattention.torch.distributed import context_parallel_rattention
from torch.nn.parallel import DistributedDataParallel

from benchmarks.traffic_probe import sent

LENGTH = 61
OPTIONS = {
    "plain": {"window": 7},
    "rotary": {"window": 7, "rope_theta": 1e4, "scale": 0.3},
    "relu": {"window": 5, "feature_map": "relu", "eps": 1e-3},
    "norm weights": {"window": 7, "rope_theta": 1e4},
    "window of a slice": {"window": 12},
    "window 0": {"window": 0},
    "window -1": {"window": -1},
    "bfloat16": {"window": 7, "rope_theta": 1e4},
    "autocast": {"window": 7, "rope_theta": 1e4},
    "frozen keys": {"window": 7},
}


def drawn(case, sizes=(2, 4, 2, 8, 6)):
    """Query, key, value of the whole sequence, its norm weights and a gradient of its output."""
    batch, heads, kv_heads, dim, value_dim = sizes
    generator = torch.Generator().manual_seed(len(case))
    shapes = (heads, dim), (kv_heads, dim), (kv_heads, value_dim), (heads, value_dim)
    *inputs, grad = (torch.randn((batch, h, LENGTH, d), generator=generator) for h, d in shapes)
    weights = torch.rand((2, heads, value_dim), generator=generator) + 0.5
    if case == "bfloat16":
        inputs = [tensor.bfloat16() for tensor in inputs]
    return inputs, list(weights) if case == "norm weights" else [], grad


def attended(function, case, inputs, weights, grad, **more):
    """Output and gradients of everything that has one."""
    leaves = [tensor.clone().requires_grad_() for tensor in (*inputs, *weights)]
    if case == "frozen keys":
        leaves[1], leaves[2] = leaves[1].detach(), leaves[2].detach()
    named = dict(zip(("local_norm_weight", "linear_norm_weight"), leaves[3:], strict=False))
    with torch.autocast("cpu", enabled=case == "autocast"):
        output = function(*leaves[:3], **OPTIONS[case], **named, **more)
    output.float().mul(grad).sum().backward()
    zero = torch.zeros(1)
    gradients = [zero if leaf.grad is None else leaf.grad for leaf in leaves]
    return [output.detach(), *gradients[:3]], gradients[3:]


def context_parallel(case, group=None):
    """Largest differences to one process, relative to the size of what is compared."""
    inputs, weights, grad = drawn(case)
    expected, expected_weights = attended(rt.rattention, case, inputs, weights, grad)
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)

    def own(tensor):
        return tensor.tensor_split(ranks, dim=2)[rank] if tensor.dim() == 4 else tensor

    mine = [own(tensor) for tensor in inputs]
    outcome, grads = attended(context_parallel_rattention, case, mine, weights, own(grad), group=group)
    for tensor in grads:
        dist.all_reduce(tensor, group=group)
    pairs = [*zip(outcome, map(own, expected), strict=True), *zip(grads, expected_weights, strict=True)]
    return max(difference(mine, right) for mine, right in pairs)


def difference(mine, right):
    assert mine.dtype == right.dtype
    assert mine.shape == right.shape
    return float((mine - right).abs().max() / right.abs().max().clamp_min(1))


def pairs_of_ranks():
    """Two sequences, each over half of the ranks."""
    ranks = dist.get_world_size()
    halves = [list(range(ranks // 2)), list(range(ranks // 2, ranks))]
    groups = [dist.new_group(half) for half in halves]
    return context_parallel("rotary", groups[dist.get_rank() >= ranks // 2])


def two_layers():
    """The second layer's gradients pass through the first one's messages."""
    (query, _, value), _, _ = drawn("two", (1, 2, 2, 8, 8))
    options = {"window": 6, "rope_theta": 1e4}

    def gradient(function, x, v):
        x = x.clone().requires_grad_()
        y = function(x, x, v, **options)
        function(y, x, y, **options).square().sum().backward()
        return x.grad

    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = [tensor.tensor_split(ranks, dim=2)[rank] for tensor in (query, value)]
    right = gradient(rt.rattention, query, value).tensor_split(ranks, dim=2)[rank]
    return difference(gradient(context_parallel_rattention, *mine), right)


def data_parallel():
    """Gradients of a language model whose batch is spread over the ranks."""
    torch.manual_seed(0)
    pattern = [RAttention(5, rope_theta=1e4), "softmax"]
    model = LanguageModel(vocabulary=11, dim=16, heads=2, depth=2, pattern=pattern)
    tokens = torch.randint(11, (dist.get_world_size(), 30))
    loss(model, tokens).backward()
    right = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    parallel = DistributedDataParallel(model)
    loss(parallel, tokens[dist.get_rank()][None]).backward()
    return max(difference(p.grad, r) for p, r in zip(model.parameters(), right, strict=True))


def loss(model, tokens):
    logits = model(tokens[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def refusals():
    """What this rank is told where the ranks' arguments do not fit."""
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    (query, key, value), _, _ = drawn("refused", (1, 2, 2, 8, 8))
    own = {"query": query, "key": key, "value": value, "window": 4}
    cases = {
        "one rank's type": {"key": [1.0]} if rank == last else {},
        "one rank's shape": {"value": value[:, :, 1:]} if rank == last else {},
        "heads": {"query": query[:, :1], "key": key[:, :1], "value": value[:, :1]} if rank == last else {},
        "window": {"window": 3 + (rank == last)},
        "dtype": {n: own[n].bfloat16() for n in ("query", "key", "value")} if rank == last else {},
        "gradients": {"key": key.clone().requires_grad_()} if rank == last else {},
        "short slice": {n: own[n][:, :, :3] for n in ("query", "key", "value")} if rank == last else {},
        "device": {n: own[n].to("meta") for n in ("query", "key", "value")},
        "option": {"eps": 0.0},
    }
    return {name: message(**(own | change)) for name, change in cases.items()}


def bytes_sent():
    """For a sequence, and for one of twice its length."""
    return [sent(length) for length in (2048, 4096)]


def message(query, key, value, **options):
    try:
        context_parallel_rattention(query, key, value, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main(folder):
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found = {case: context_parallel(case) for case in OPTIONS}
    calls = pairs_of_ranks, two_layers, data_parallel, bytes_sent, refusals
    found |= {call.__name__: call() for call in calls}
    file = Path(folder) / f"{dist.get_rank()}.json"
    dist.destroy_process_group()
    file.write_text(json.dumps(found | {"threads left": threads()}))


def threads():
    """Names of this process's threads."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    main(sys.argv[1])
