"""Where modules of PyTorch are listened to: those of `rattention.nn`, and models of Transformers."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rattention._extras import require

require("torch")

import torch  # noqa: E402

from rattention.inspect.capture import LayerAttention  # noqa: E402
from rattention.nn import SelfAttention  # noqa: E402
from rattention.torch.storage import as_array  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rattention.inspect.capture import Visitor

    Tell = Callable[[torch.Tensor, torch.Tensor, dict[str, Any]], None]


def visiting_module(model: torch.nn.Module, visitor: Visitor) -> AbstractContextManager[None]:
    """`rattention.inspect.visiting` for modules of PyTorch."""
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(model, transformers.PreTrainedModel):
        return _visiting_pretrained(model, visitor)
    layers = {name: part for name, part in model.named_modules() if isinstance(part, SelfAttention)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no attention layers of rattention.nn")
    return _attached({part: _teller(i, name, visitor) for i, (name, part) in enumerate(layers.items())})


@contextmanager
def _attached(tellers: dict[Any, Tell]) -> Iterator[None]:
    """Listeners at layers that have an attribute for one."""
    if any(layer.listener is not None for layer in tellers):
        raise RuntimeError(
            "the model, or a part of it, is being listened to already: leave the other with-block"
        )
    for layer, tell in tellers.items():
        layer.listener = tell
    try:
        yield
    finally:
        for layer in tellers:
            layer.listener = None


@contextmanager
def _visiting_pretrained(model: Any, visitor: Visitor) -> Iterator[None]:
    from rattention.hf.attention import attend, kernel_options, known_keys
    from rattention.hf.converted import RAttentionModule
    from rattention.hf.listening import attention_modules, listening, takes_implementation

    parts = {
        name: part
        for name, part in model.named_modules()
        if takes_implementation(part) or isinstance(part, RAttentionModule)
    }
    if not parts:
        attention_modules(model)  # says what is missing
    tellers = {part: _teller(i, name, visitor) for i, (name, part) in enumerate(parts.items())}
    converted = {part: tell for part, tell in tellers.items() if isinstance(part, RAttentionModule)}

    def listener(part: Any, query: Any, key: Any, value: Any, mask: Any, arguments: dict[str, Any]) -> Any:
        (known,) = known_keys(mask, key)
        tellers[part](query, known, kernel_options(part, mask, **arguments))
        return attend(part, query, key, value, mask, **arguments)

    with listening(model, listener), _attached(converted):
        yield


def _teller(index: int, name: str, visitor: Visitor) -> Tell:
    def tell(query: torch.Tensor, key: torch.Tensor, options: dict[str, Any]) -> None:
        if query.device.type != "cpu":
            raise ValueError(f"attention is looked into on the CPU only, the model is on {query.device}")
        given = {n: _plain(n, value) for n, value in options.items() if value is not None}
        visitor(LayerAttention(index, name, as_array(query), as_array(key), given))

    return tell


def _plain(name: str, value: Any) -> Any:
    """Tensors as arrays: numbers per head and masks that are added as float32, which everything can read."""
    if not isinstance(value, torch.Tensor):
        return value
    added = name == "attn_mask" and value.is_floating_point()
    return as_array(value.float() if value.dim() == 1 or added else value)
