"""What a model costs: a training step, a prefill, decoded tokens, and the bytes of its real caches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from rattention._models import evaluating
from rattention.studies.lm.variants import Variant, model_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.nn import LanguageModel
    from rattention.studies.lm.settings import Cost, ModelSize

VOCABULARY = 256


def measured(variant: Variant, size: ModelSize, cost: Cost) -> list[dict[str, Any]]:
    """For every length: seconds of a training step and of a prefill of one sequence, tokens decoded per
    second after it, and bytes of the cache."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_of(variant, size, VOCABULARY)
        return [_at(model, length, cost) for length in cost.lengths]


def _at(model: LanguageModel, length: int, cost: Cost) -> dict[str, Any]:
    tokens = torch.randint(VOCABULARY, (1, length + 1))
    step = _least(lambda: _step(model, tokens), cost.repeats)
    with evaluating(model):
        prefill = _least(lambda: model(tokens[:, :-1], cache=model.new_cache(1)), cost.repeats)
        cache = model.new_cache(1)
        model(tokens[:, :-1], cache=cache)
        kept = cache.nbytes
        decode = _least(lambda: model.generate(tokens[:, -1:], cost.tokens, cache=cache), cost.repeats)
    return {
        "length": length,
        "step_seconds": step,
        "prefill_seconds": prefill,
        "decoded_tokens_per_second": cost.tokens / decode,
        "cache_bytes": kept,
    }


def _step(model: LanguageModel, tokens: torch.Tensor) -> None:
    model.zero_grad()
    logits = model(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]


def _least(call: Callable[[], Any], repeats: int) -> float:
    """The least seconds of so many calls."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)
