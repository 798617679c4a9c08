"""Which modules take their attention from Transformers' interface, and models that do so nowhere."""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    import torch

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


def require_interface(model: PreTrainedModel, name: str) -> None:
    """ValueError where the layers of `model` compute their attention themselves, and would ignore `name`."""
    own = [] if any(map(calls_interface, model.modules())) else attending_alone(model)
    if own:
        raise ValueError(
            f'{type(model).__name__} cannot use attn_implementation="{name}": it computes attention itself '
            f"({', '.join(own)}) and does not take it from Transformers' AttentionInterface. Leave "
            "attn_implementation out, or give it to other parts of a composite model only, as in "
            f'attn_implementation={{"text_config": "{name}"}}'
        )


def guard(name: str) -> None:
    """Refuse models without the interface as soon as they are made with, or set to, implementation `name`.

    Transformers checks this in `set_attn_implementation` alone; loaded by name, such models would compute
    what they always do and say otherwise. Two methods of `PreTrainedModel` are extended for that, once.
    """
    if not _GUARDED:
        _check_after("post_init", lambda model, *_: model.config._attn_implementation)
        _check_after("get_correct_attn_implementation", lambda model, result: result)
    _GUARDED.add(name)


def _check_after(method: str, name_of: Any) -> None:
    original = getattr(PreTrainedModel, method)

    @functools.wraps(original)
    def checked(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        name = name_of(self, result)
        if name in _GUARDED:  # a model that is still being made has no modules, and passes
            require_interface(self, name)
        return result

    setattr(PreTrainedModel, method, checked)
