"""A model as it was, where changing it fails half-way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch


@contextmanager
def taken_back_on_error(model: PreTrainedModel, parts: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Where the block raises, `parts` have their class, attributes and parameters again, and configurations
    what was in them. Numbers within a parameter that was there before are not seen to."""
    configs = {id(config): config for config in _configs(model)}.values()
    settings = [(config, dict(vars(config))) for config in configs]
    owners = [(part, type(part), vars(part) | {"_parameters": dict(part._parameters)}) for part in parts]
    try:
        yield
    except BaseException:
        for part, kind, _ in owners:
            part.__class__ = kind
        for owner, before in [*settings, *((part, before) for part, _, before in owners)]:
            vars(owner).clear()
            vars(owner).update(before)
        raise


def _configs(model: PreTrainedModel) -> Iterator[PreTrainedConfig]:
    """Of the model and its parts, with those inside others."""
    waiting: list[Any] = [part.config for part in model.modules() if isinstance(part, PreTrainedModel)]
    while waiting:
        config = waiting.pop()
        yield config
        waiting += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
