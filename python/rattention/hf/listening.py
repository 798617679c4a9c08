"""The one place where it is heard what the attention layers of a model of Transformers attend with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import PreTrainedModel

from rattention._claims import Claims
from rattention.hf.attention import attend
from rattention.hf.layers import require_model
from rattention.hf.registration import register_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig

NAME = "rattention_observed"
"""Of the implementation while a model is listened to."""


class Listener(Protocol):
    """Attends in the place of a model's layers, and keeps what it likes."""

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        arguments: dict[str, Any],
        /,
    ) -> torch.Tensor:
        """The output ``[batch, heads, query_length, head_dim]`` that `attend` gives for these; `arguments`
        are its keyword arguments."""


_listeners: Claims[Listener] = Claims("observed")
"""Of the modules of models that are listened to."""


@contextmanager
def listening(model: PreTrainedModel, listener: Listener) -> Iterator[None]:
    """Within the ``with`` block each attention layer of `model` attends through `listener`.

    The model is restored at the end, also after an exception.

    Raises
    ------
    ValueError
        The model does not take its attention from ``AttentionInterface``.
    RuntimeError
        Somebody is listening to the model, or a part of it, already.
    """
    with _listeners.claimed(model, listener), _implementation(model):
        yield


@torch.compiler.disable  # type: ignore[untyped-decorator]
def heard_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """`rattention.hf.attention.attention_forward`, through the module's listener where it has one."""
    listener = _listeners.holder(module)
    if listener is None:
        output = attend(module, query, key, value, attention_mask, **arguments)
    else:
        output = listener(module, query, key, value, attention_mask, arguments)
    return output.transpose(1, 2).contiguous(), None


def attention_modules(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """By name. Modules that say whether they are causal do so for attention implementations."""
    require_model(model)
    found = {name: module for name, module in model.named_modules() if takes_implementation(module)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no attention layers that take their attention from Transformers' "
            "AttentionInterface"
        )
    return found


def takes_implementation(module: torch.nn.Module) -> bool:
    """Whether it is an attention module that attends by the implementation of the model."""
    return "is_causal" in vars(module)


@contextmanager
def _implementation(model: PreTrainedModel) -> Iterator[None]:
    """The implementation swapped in, and out again in every part of the model."""
    register_as(NAME, heard_forward)
    before = [(config, config._attn_implementation) for config in _configs(model)]
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


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Of all parts, outer ones first: to set one sets those within it."""
    found: list[PreTrainedConfig] = []
    waiting = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    while waiting:
        config = waiting.pop(0)
        if any(config is other for other in found):
            continue
        found.append(config)
        inner = (getattr(config, name, None) for name in config.sub_configs)
        waiting.extend(part for part in inner if part is not None)
    return found
