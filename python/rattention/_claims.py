"""Modules that are within a ``with`` block which admits no other."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Holder = TypeVar("Holder")


class Claims(Generic[Holder]):
    """Who holds a module; claims of models that have gone are gone with them."""

    def __init__(self, doing: str) -> None:
        """What is done to a model meanwhile, for the message: ``"observed"``."""
        self._doing = doing
        self._holders: WeakKeyDictionary[nn.Module, Holder] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def holder(self, module: nn.Module) -> Holder | None:
        """Who holds it, if anybody does."""
        return self._holders.get(module)

    @contextmanager
    def claimed(self, model: nn.Module, holder: Holder) -> Iterator[None]:
        """All modules of `model` are `holder`'s in the block; RuntimeError where one is claimed already."""
        modules = [*model.modules()]
        with self._lock:
            if any(module in self._holders for module in modules):
                raise RuntimeError(
                    f"this {type(model).__name__}, or a part of it, is being {self._doing} already: leave "
                    "the other with-block first"
                )
            self._holders.update(dict.fromkeys(modules, holder))
        try:
            yield
        finally:
            for module in modules:
                del self._holders[module]
