"""Which modules take their attention from Transformers' interface, and models that do so nowhere."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

INTERFACE = "ALL_ATTENTION_FUNCTIONS"
"""The name under which code of models knows the interface."""
ATTENTION = re.compile("attention|attn", re.IGNORECASE)

_GUARDED: set[str] = set()
"""Names of implementations that models without the interface must not bear."""


def calls_interface(module: torch.nn.Module) -> bool:
    """Whether the code of a module asks the interface for its attention function."""
    return _class_calls_interface(type(module))  # type: ignore[arg-type]


@functools.cache
def _class_calls_interface(kind: type) -> bool:
    bases = (base for base in kind.__mro__ if base not in PreTrainedModel.__mro__)  # which names it in checks
    functions = (value for base in bases for value in vars(base).values() if callable(value))
    codes = (getattr(inspect.unwrap(function), "__code__", None) for function in functions)
    return any(INTERFACE in part.co_names for code in codes if code is not None for part in _nested(code))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _nested(constant)


def attending_alone(model: torch.nn.Module) -> list[str]:
    """Classes of the modules that, by their names, attend without the interface."""
    return sorted({type(m).__name__ for m in _alone(model)})


def _alone(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    if calls_interface(module):
        return
    if ATTENTION.search(type(module).__name__) and not any(map(calls_interface, module.modules())):
        yield module
    else:
        for child in module.children():
            yield from _alone(child)


def guard(name: str) -> None:
    """Refuse models without the interface when they are made with implementation `name`, or set to it.

    Transformers checks this in `set_attn_implementation` alone: loaded by name, such models would do what
    they always do and say otherwise. The method of `PreTrainedModel` that chooses the implementation is
    extended for that, once.
    """
    if not _GUARDED:
        choose = PreTrainedModel.get_correct_attn_implementation

        @functools.wraps(choose)
        def checked(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
            chosen = choose(self, *args, **kwargs)
            if chosen in _GUARDED:
                _require_interface(type(self), chosen)
            return chosen

        PreTrainedModel.get_correct_attn_implementation = checked  # type: ignore[method-assign]
    _GUARDED.add(name)


def _require_interface(model: type[PreTrainedModel], name: str) -> None:
    """ValueError where the file of a model has attention of its own only, or one for each implementation that
    it knows: a model that is being made has no layers yet."""
    own = _own_attention(model, name)  # type: ignore[arg-type]
    if own:
        raise ValueError(
            f'{model.__name__} cannot use attn_implementation="{name}": it computes attention itself '
            f"({', '.join(own)}) and does not take it from Transformers' AttentionInterface. Leave "
            "attn_implementation out, or give it to other parts of a composite model only, as in "
            f'attn_implementation={{"text_config": "{name}"}}'
        )


@functools.cache
def _own_attention(model: type[PreTrainedModel], name: str) -> list[str]:
    there = list(vars(sys.modules[model.__module__]).values()) if model.__module__ in sys.modules else []
    for choice in there:
        if isinstance(choice, dict) and "eager" in choice and name not in choice:
            return sorted({kind.__name__ for kind in choice.values() if isinstance(kind, type)})
    kinds = [kind for kind in there if isinstance(kind, type) and issubclass(kind, torch.nn.Module)]
    if any(_class_calls_interface(kind) for kind in kinds):  # type: ignore[arg-type]
        return []
    return sorted(
        k.__name__ for k in kinds if k.__module__ == model.__module__ and ATTENTION.search(k.__name__)
    )
