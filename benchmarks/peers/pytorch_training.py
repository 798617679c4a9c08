"""Training steps and generation of a small language model, with attention by plain PyTorch."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import load
from benchmarks.peers.pytorch_linear import BLOCK_ROWS, CHUNK, rms_norm, running_state
from benchmarks.peers.pytorch_windows import in_blocks
from benchmarks.race import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Answer, Setup

SIZES = {"vocabulary": 256, "dim": 256, "heads": 4, "depth": 4}
ROPE_THETA = 1e4
LEARNING_RATE = 1e-3
FULL = {"mechanism": "softmax", "rope_theta": ROPE_THETA}


def model(setup: Setup, layer: dict[str, Any]) -> Any:
    """A language model of `SIZES` whose layers are all `layer`, the same weights in every call."""
    load(setup).manual_seed(0)
    return import_module("rattention.nn").LanguageModel(**SIZES, pattern=[layer])


def ours(setup: Setup, layer: dict[str, Any], *, autocast: bool) -> Runner:
    """Steps of the model as `rattention.nn` has it."""
    return _steps(setup, model(setup, layer), autocast)


def sdpa(setup: Setup, *, autocast: bool) -> Runner:
    """Steps of the model with PyTorch's scaled_dot_product_attention over the whole context."""
    return _steps(setup, _with_attention(model(setup, FULL), _sdpa), autocast)


def same_layer(setup: Setup, layer: dict[str, Any], *, autocast: bool) -> Runner:
    """Steps of the model with the same mechanism in plain PyTorch: for its answer."""
    attend = partial(_plain_rattention if layer["mechanism"] == "rattention" else _window_sdpa, setup)
    return _steps(setup, _with_attention(model(setup, layer), attend), autocast)


def _with_attention(model: Any, attend: Callable[..., Any]) -> Any:
    for layer in model.encoder.attention_layers():
        layer._attend = MethodType(attend, layer)
    return model


def _sdpa(layer: Any, query: Any, key: Any, value: Any, rule: Any, masks: Any, **options: Any) -> Any:
    query, key = import_module("rattention.torch.rotary").rotary(query, key, theta=layer.rope_theta)
    attend = import_module("torch.nn.functional").scaled_dot_product_attention
    return attend(query, key, value, **(options or {"is_causal": True}))


def _window_sdpa(setup: Setup, layer: Any, query: Any, key: Any, value: Any, *others: Any) -> Any:
    query, key = import_module("rattention.torch.rotary").rotary(query, key, theta=layer.rope_theta)
    return in_blocks(load(setup), query.shape[2], layer.window, BLOCK_ROWS, query.dtype)(query, key, value)


def _plain_rattention(
    setup: Setup, layer: Any, query: Any, key: Any, value: Any, rule: Any, masks: Any
) -> Any:
    near = _window_sdpa(setup, layer, query, key, value)
    far = running_state(load(setup), query, key, value, window=layer.window, chunk=CHUNK)
    weights = (rule["local_norm_weight"], rule["linear_norm_weight"])
    normed = [rms_norm(rows, weight) for rows, weight in zip((near, far), weights, strict=True)]
    return sum(normed).to(query.dtype)


def _steps(setup: Setup, model: Any, autocast: bool) -> Runner:
    """Forward pass, backward pass and AdamW on one sequence; the answer is of the first step."""
    torch = load(setup)
    text = torch.randint(
        SIZES["vocabulary"], (1, setup.length + 1), generator=torch.Generator().manual_seed(1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)

    def step() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(text[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, model.embedding.weight.grad

    return Runner(step, loss_and_gradient)


def loss_and_gradient(result: Any) -> Answer:
    """The answer of a step that returns both."""
    loss, gradient = result
    return {"loss": loss.detach()[None].numpy(), "gradient": gradient.numpy().copy()}
