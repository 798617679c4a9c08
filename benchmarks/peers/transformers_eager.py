"""Models in Transformers that return their attention maps, and our metrics computed from them in PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rattention as ra

from benchmarks.peers import pytorch
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from benchmarks.race import Answer

VOCABULARY = 100
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}

DECODER = {  # as small as transformers over learning histories are
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 256,
}


def _load() -> ModuleType:
    """Transformers, without its progress bars."""
    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def save_random_bert(setup: Setup, folder: Path) -> None:
    """Write a checkpoint of the size of BERT-base (tiny in a quick run).

    Weights are wide enough for the attention to be as peaked as in a trained model.
    """
    transformers, torch = _load(), pytorch.load(setup)
    torch.manual_seed(0)
    sizes: dict[str, Any] = TINY if setup.quick else BASE
    config = transformers.BertConfig(vocab_size=VOCABULARY, initializer_range=0.05, **sizes)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def bert(setup: Setup, folder: Path, ids: NDArray[np.int64]) -> Runner:
    """The forward pass of the checkpoint in `folder`, and every metric of every map."""
    transformers = _load()
    model = transformers.BertModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False
    )
    return metrics_of_maps(setup, model.eval(), ids, causal=False)


def decoder(setup: Setup) -> Any:
    """A small Llama with random weights, wide enough for peaks, that stores its maps when it is asked to."""
    transformers, torch = _load(), pytorch.load(setup)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.1, **DECODER)
    config._attn_implementation = "eager"
    return transformers.LlamaModel(config).eval()


def metrics_of_maps(setup: Setup, model: Any, ids: NDArray[np.int64], *, causal: bool) -> Runner:
    """The forward pass of a model whose attention is eager, and every metric of every map."""
    torch = pytorch.load(setup)
    tokens, factors = torch.from_numpy(ids), _factors(torch, ids.shape[1], ra.MetricOptions(), causal)

    def call() -> Any:
        with torch.inference_mode():
            result = model(tokens, output_attentions=True)
            layers = [_metrics(torch, weights, factors) for weights in result.attentions]
        return result.last_hidden_state, layers

    return Runner(call, _answer)


def _answer(result: Any) -> Answer:
    hidden, layers = result
    return {"hidden": hidden.numpy()} | {
        name: _stacked([layer[name] for layer in layers]) for name in layers[0]
    }


def _stacked(tensors: list[Any]) -> NDArray[Any]:
    import numpy

    return numpy.stack([tensor.numpy() for tensor in tensors])


class _Factors(NamedTuple):
    """What does not depend on the weights and is made once; everything is by query row and key."""

    sums: Any
    """``[n, n, 5]``: sums over the keys with these give local and long-range mass and the three means."""
    far_share: Any
    context: Any
    log_visible: Any
    """Of the number of keys that a row sees."""
    watchers: Any
    """How many rows see a key."""


def _factors(torch: Any, length: int, options: ra.MetricOptions, causal: bool) -> _Factors:
    position = torch.arange(length)
    distance = (position[:, None] - position[None, :]).abs()
    visible = position[:, None] >= position if causal else torch.ones_like(distance, dtype=torch.bool)
    local = (distance <= options.local_radius).float()
    far = ((distance > options.long_range_distance) & visible).float()
    context = visible & (distance > 0)
    size = context.sum(-1, keepdim=True)
    nearest, farthest = _quarters(torch, distance, size, causal)
    context = context / size.clamp_min(1)
    seen = visible.sum(-1)
    return _Factors(
        torch.stack([local, far, context, nearest, farthest], -1),
        far.sum(-1) / seen,
        context,
        seen.log(),
        visible.sum(0),
    )


def _quarters(torch: Any, distance: Any, size: Any, causal: bool) -> tuple[Any, Any]:
    """Factors that average the nearest and the farthest quarter of contexts of `size` keys."""
    quarter = (size // 4).clamp_min(1)
    if causal:  # distances fall along a row, and none of them twice
        position = torch.arange(len(distance))
        exists = (size > 1) & (position[:, None] > position)
        nearest, farthest = exists & (distance <= quarter), exists & (position < quarter)
    else:
        length = len(distance)
        nearest = _first(torch, distance + length * (distance == 0), quarter)
        farthest = _first(torch, -distance, quarter)
    return nearest / quarter, farthest / quarter


def _first(torch: Any, order: Any, quarter: Any) -> Any:
    """The keys of every row that come first in `order`."""
    return order.argsort(dim=-1, stable=True).argsort(dim=-1) < quarter


def _metrics(torch: Any, weights: Any, factors: _Factors) -> dict[str, Any]:
    local, far, mean, nearest, farthest = torch.einsum("bhij,ijm->mbhi", weights, factors.sums)
    # Three times faster than torch.special.entr.
    entropy = -(weights * weights.clamp_min(torch.finfo(weights.dtype).tiny).log()).sum(-1)
    spread = torch.where(factors.log_visible > 0, entropy / factors.log_visible, 0)
    deviation = (weights - mean[..., None]).square_()
    top = weights.max(-1)
    return {
        "entropy": entropy,
        "local_concentration": local,
        "long_range": far,
        "retention": _retention(torch, spread, 1 - local, far, factors),
        "context_mean": mean,
        "context_std": torch.einsum("bhij,ij->bhi", deviation, factors.context).sqrt(),
        "recent_distant_ratio": nearest / farthest,
        "max_weight": top.values,
        "max_position": top.indices,
        "received": weights.sum(-2) / factors.watchers,
    }


def _retention(torch: Any, spread: Any, elsewhere: Any, far: Any, factors: _Factors) -> Any:
    share = factors.far_share
    reach = torch.where(share > 0, (far / share).clamp(max=1), 0)
    return (spread + elsewhere + reach) / (1 + (factors.log_visible > 0) + (share > 0))
