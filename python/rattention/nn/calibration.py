"""First weights of RAttention's norms, by a sample of what a model will read."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

import rattention.torch as rt
from rattention._models import evaluating
from rattention.nn.attention import SelfAttention
from rattention.torch.calibration import begin_as_window
from rattention.torch.rotary import rotary


def begin_as_windows(model: nn.Module, sample: Tensor) -> None:
    """Let every layer of RAttention give nearly what its window alone would give, before training begins.

    RAttention norms what its branches give to a root mean square of 1. Means of values are far smaller than
    that in a new model, so with norm weights of 1 attention outweighs all else, and training is slower
    (``docs/evidence.md`` has measurements). Here each layer's local weights become those that bring normed
    rows nearest to the window's rows on a sample, by least squares for every head and column; weights of the
    state's norm become 0, and learn from the first step on.

    Parameters
    ----------
    model:
        A `LanguageModel`, `TransformerEncoder` or other module; its layers of RAttention are changed, one
        after another in one pass, and nothing else is.
    sample:
        What the model takes as its only argument, without padding: a first batch of tokens
        ``[batch, length]`` will do.

    Raises
    ------
    TypeError
        `model` is no module.
    ValueError
        The model has no layers of RAttention, calls one with masks or a cache, or does not call one; the
        sample is empty, or leads to infinity or NaN. Layers before the fault are changed then.

    Notes
    -----
    A layer that a model has twice is set by its first call. A compiled model is run without its graphs.

    Examples
    --------
    >>> import torch
    >>> from rattention.nn import LanguageModel, RAttention, begin_as_windows
    >>> _ = torch.manual_seed(0)
    >>> model = LanguageModel(256, dim=32, heads=2, depth=2, pattern=RAttention(window=16))
    >>> begin_as_windows(model, torch.randint(256, (4, 100)))
    >>> norms = model.encoder.attention_layers()[0].norms
    >>> norms.local_norm_weight.mean().item() < 0.5, norms.linear_norm_weight.abs().max().item()
    (True, 0.0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    layers = [part for part in model.modules() if isinstance(part, SelfAttention) and part.norms is not None]
    kind = type(model).__name__
    if not layers:
        raise ValueError(
            f"{kind} has no layers of rattention.nn.RAttention (models of Transformers: "
            "rattention.hf.convert(model, calibration=...))"
        )
    waiting = set(layers)

    def begin(layer: SelfAttention, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if layer in waiting:
            waiting.remove(layer)
            _begin(layer, *inputs, **options)

    with evaluating(model), torch.compiler.set_stance("force_eager"), ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(begin, with_kwargs=True).remove)
        model(sample)
    if waiting:
        raise ValueError(f"{kind} calls {len(waiting)} of its {len(layers)} layers of RAttention not at all")


def _begin(layer: SelfAttention, x: Tensor, *masks: Any, **options: Any) -> None:
    if any(other is not None for other in (*masks, *options.values())):
        raise ValueError("begin_as_windows wants a sample without padding, segments or a cache")
    assert layer.norms is not None
    query, key, value = layer.projected(x)
    query, key = rotary(query, key, theta=layer.rope_theta)
    local = rt.attention(query, key, value, causal=True, window=layer.window)
    begin_as_window(local, **layer.norms.rule())
