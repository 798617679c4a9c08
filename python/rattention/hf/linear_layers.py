"""The linear layers of models (Gated DeltaNet, Kimi Delta Attention, Mamba2) on these kernels."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rattention.hf import state_space
from rattention.hf.overflow import known_gates
from rattention.hf.packed import MARK, convolution, packed_ids
from rattention.mechanisms.gated_delta_cache import GatedDeltaCache
from rattention.torch import delta_composition, gated_delta_rule, gated_delta_step
from rattention.torch.checks import as_array

if TYPE_CHECKING:
    from collections.abc import Callable


def use_linear_kernels(model: torch.nn.Module, use: bool = True) -> tuple[str, ...]:
    """Make the linear layers of a model run on the kernels of `rattention.torch`, or as before.

    These are layers with the gated delta rule, with one gate per head (Qwen3-Next, Qwen3.5, OLMo-hybrid) or
    per channel (Kimi Linear), and those of Mamba2 (Granite 4, Bamba, Nemotron-H, Zamba2, Falcon-H1 and Mamba2
    itself), found by the functions of Transformers that their code calls. They give the results of those
    functions in training, prefill and decoding, whatever implementation the attention beside them has::

        model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="rattention")
        rattention.hf.use_linear_kernels(model)

    Packed sequences (``cu_seq_lens_q`` or ``seq_idx``), which Transformers does not keep apart on a CPU, are
    kept apart, in the short convolution as well. Copies of the model, pickled ones too, run as it does; what
    `save_pretrained` writes does not change. Call it before `torch.compile`, which does not look again.

    Parameters
    ----------
    model:
        Loaded or made; any module that holds such layers.
    use:
        False gives the layers back to Transformers.

    Returns
    -------
    The names of all such layers, as in ``model.named_modules()``.

    Raises
    ------
    ValueError
        There is no such layer; the message names the layers there are.
    TypeError
        `model` is not a module.

    Examples
    --------
    >>> from transformers import OlmoHybridConfig, OlmoHybridForCausalLM
    >>> from rattention.hf import use_linear_kernels
    >>> config = OlmoHybridConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
    ...                           num_attention_heads=4, pad_token_id=0)
    >>> use_linear_kernels(OlmoHybridForCausalLM(config))
    ('model.layers.0.linear_attn', 'model.layers.1.linear_attn', 'model.layers.2.linear_attn')
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    layers = _linear_layers(model)
    if not layers:
        raise ValueError(_nothing_found(model))
    for layer in layers.values():
        _unmark(layer)
        if use:
            layer.register_forward_pre_hook(_Mark(type(layer)), with_kwargs=True)
    return tuple(layers)


def _linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if _rules_of(type(module))  # type: ignore[arg-type]
    }


_FOLLOWED: set[str] = set()


def follow_implementation(name: str) -> None:
    """Make linear layers of models that are made or loaded from now on run on these kernels while the
    attention of their model has the implementation `name`; calling it again does no harm.

    The method that ends the making of every `PreTrainedModel` is extended for that: before, there are no
    layers.
    """
    if name in _FOLLOWED:
        return
    _FOLLOWED.add(name)
    finish: Any = PreTrainedModel.post_init

    @functools.wraps(finish)
    def finished(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        finish(self, *args, **kwargs)
        for layer in _linear_layers(self).values():
            if not _marks(layer):  # a part of the model, which has a configuration of its own
                layer.register_forward_pre_hook(_Mark(type(layer), self.config, name), with_kwargs=True)

    PreTrainedModel.post_init = finished  # type: ignore[method-assign]


def _nothing_found(model: torch.nn.Module) -> str:
    kinds = {type(module).__name__ for module in model.modules() if hasattr(module, "layer_idx")}
    found = f"its layers are {', '.join(sorted(kinds))}" if kinds else "nor any layer with a layer_idx"
    return (
        f"{type(model).__name__} has no layer with the gated delta rule (Qwen3-Next, Qwen3.5, OLMo-hybrid, "
        f"Kimi Linear) or of Mamba2 (Granite 4, Bamba, Nemotron-H, Zamba2, Falcon-H1); {found}"
    )


class _Mark:
    """A hook that marks the calls of one layer. Where it is made, and so where a pickled model is loaded, it
    prepares the file of the layer's class. With a configuration it marks them while that names `name`."""

    def __init__(self, kind: type[torch.nn.Module], config: Any = None, name: str | None = None) -> None:
        self.kind, self.config, self.name = kind, config, name
        functions = _function(kind).__globals__
        for called, replacement in _rules_of(kind).items():  # type: ignore[arg-type]
            if not hasattr(functions[called], MARK):
                functions[called] = _choosing(functions[called], replacement)

    def __reduce__(self) -> tuple[type[_Mark], tuple[Any, ...]]:
        return _Mark, (self.kind, self.config, self.name)

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.config is not None and self.config._attn_implementation != self.name:
            return None
        rows = args[0] if args else kwargs["hidden_states"]
        return args, kwargs | {MARK: rows.shape[1]}


def _marks(layer: torch.nn.Module) -> list[int]:
    return [key for key, hook in layer._forward_pre_hooks.items() if isinstance(hook, _Mark)]


def _unmark(layer: torch.nn.Module) -> None:
    for key in _marks(layer):
        del layer._forward_pre_hooks[key]
        layer._forward_pre_hooks_with_kwargs.pop(key, None)


def _choosing(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Ours in marked calls; a name in a file of Transformers serves all models of its kind."""

    @functools.wraps(theirs, updated=())
    def chosen(*args: Any, **kwargs: Any) -> Any:
        if MARK in kwargs:
            return ours(theirs, *args, **kwargs)
        return theirs(*args, **kwargs)

    setattr(chosen, MARK, True)
    return chosen


def _function(kind: type[torch.nn.Module]) -> Any:
    return inspect.unwrap(kind.forward)


@functools.cache
def _rules_of(kind: type[torch.nn.Module]) -> dict[str, Callable[..., Any]]:
    """What replaces the functions that a layer calls; nothing where it has no rule that is known."""
    code = getattr(_function(kind), "__code__", None)
    called = {} if code is None else {name: REPLACED[name] for name in code.co_names if name in REPLACED}
    return called if any(rule in called.values() for rule in RULES) else {}


def delta_rule(
    theirs: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """What layers call to mix tokens: output ``[batch, tokens, heads, value_dim]`` and state.

    Queries and keys may have fewer heads than values, which have those of gates and state.
    """
    query, key, value, log_gate, beta = (x.transpose(1, 2) for x in (query, key, value, g, beta))
    query, key = (_as_many(x, value.shape[1]) for x in (query, key))
    tokens = query, key, value, *known_gates(log_gate.float(), beta.float())
    if initial_state is not None and output_final_state and _goes_on_in_place(query, initial_state):
        cache = GatedDeltaCache.of(as_array(initial_state), copy=False)
        output, state = gated_delta_step(*tokens, cache, normalize=use_qk_l2norm_in_kernel), initial_state
    else:
        double = query.dtype == torch.float64  # which the kernels do not have
        output, state = (delta_composition.gated_delta_rule if double else gated_delta_rule)(
            *tokens,
            normalize=use_qk_l2norm_in_kernel,
            initial_state=initial_state,
            segment_ids=packed_ids(others, query.shape[2]),
            return_state=True,
        )
    return output.transpose(1, 2).contiguous(), state if output_final_state else None


def _goes_on_in_place(query: Tensor, state: Tensor) -> bool:
    """Whether a step may write into the state, which a cache owns and would copy the next one into."""
    return (
        query.shape[2] == 1
        and query.device.type == "cpu"
        and query.dtype != torch.float64
        and state.dtype == torch.float32
        and state.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and (torch.is_inference_mode_enabled() or not state.is_inference())
    )


def _as_many(tensor: Tensor, heads: int) -> Tensor:
    return tensor if tensor.shape[1] == heads else tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


REPLACED: dict[str, Callable[..., Any]] = {
    "torch_chunk_gated_delta_rule": delta_rule,
    "torch_recurrent_gated_delta_rule": delta_rule,
    "chunk_kimi_delta_attention": delta_rule,
    "recurrent_kimi_delta_attention": delta_rule,
    "mamba2_chunk_scan": state_space.scan,
    "mamba2_selective_state_update": state_space.step,
    "mamba2_split_conv1d_scan_combined": state_space.not_fused,
    "causal_conv1d_fn": convolution,
}
"""By the names in files of Transformers; each takes first the function in whose place it stands."""
RULES = (delta_rule, state_space.scan)
"""Of which one is in every linear layer."""
