"""Where models of Transformers are watched: an attention implementation that calls the hooks of layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

import rattention.torch as rt
from rattention.hf.attention import attention_forward, register_as
from rattention.hf.interface import attending_alone
from rattention.inspect.hooks import hook_of

NAME = "rattention_observed"
"""The implementation's name while a model is watched."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _hooked_forward(module: torch.nn.Module, *tensors: Any, **arguments: Any) -> tuple[torch.Tensor, None]:
    """`rattention.hf.attention.attention_forward`, through the module's hook where it has one."""
    hook = hook_of(module)
    if hook is None:
        return attention_forward(module, *tensors, **arguments)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
        return hook(rt.attention, query, key, value, options)

    return attention_forward(module, *tensors, **arguments, attend=attend)


@contextmanager
def calling_hooks(model: PreTrainedModel) -> Iterator[None]:
    """Swap the implementation in, and restore every part of the model afterwards, also after an exception."""
    register_as(NAME, _hooked_forward)
    if unseen := attending_alone(model):
        warnings.warn(
            f"not seen: {', '.join(unseen)} of {type(model).__name__} attend without Transformers' "
            "AttentionInterface",
            stacklevel=6,
        )
    configs = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    for config in configs:  # grows; outer ones first, because setting one also sets those inside it
        inner = (getattr(config, name, None) for name in config.sub_configs)
        configs += [part for part in inner if part is not None and all(part is not c for c in configs)]
    before = [(config, config._attn_implementation) for config in configs]
    try:
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:
            raise ValueError(
                f"{type(model).__name__} does not take its attention from Transformers' AttentionInterface"
            )
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name
