"""Which library a model belongs to, and evaluation mode; loads neither PyTorch nor Transformers."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    Kind = Literal["transformers", "torch", "bert"]


def kind_of(model: Any) -> Kind | None:
    """``"transformers"`` for a `transformers.PreTrainedModel`, ``"torch"`` for other modules of PyTorch, such
    as those of `rattention.nn`, ``"bert"`` for a `rattention.models.Bert`, and None for other objects."""
    if _is(model, "transformers.modeling_utils", "PreTrainedModel"):
        return "transformers"
    if _is(model, "torch.nn", "Module"):
        return "torch"
    return "bert" if _is(model, "rattention.models.bert", "Bert") else None


def _is(model: Any, module: str, name: str) -> bool:
    """A class whose module has not been imported has no objects."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(model, getattr(loaded, name))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and gradients within the block; afterwards every part has its former mode again."""
    import torch

    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
