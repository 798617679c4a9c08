"""Converting layers of a model to RAttention, and the memory that saves in generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

from rattention._arguments import chosen_numbers, whole_number
from rattention.hf.attention import NAME, register
from rattention.hf.converted import PROJECTIONS, RAttentionModule, sliding_window_of
from rattention.mechanisms.rattention_cache import RAttentionCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

FAMILY = ("llama", "mistral", "qwen2", "qwen3")
"""Values of ``config.model_type``: the models whose attention is known to be what is replaced."""

CONTEXTS = (1024, 4096, 16_384, 65_536, 262_144)


@dataclass(frozen=True, repr=False)
class CacheReport:
    """Bytes of the caches of one sequence, over context lengths."""

    contexts: tuple[int, ...]
    """Tokens."""
    converted: tuple[int, ...]
    """Bytes of the converted model's cache, layers that were not converted included."""
    original: tuple[int, ...]
    """Bytes of the cache that the model had before."""

    def __repr__(self) -> str:
        lines = [f"{'context':>10}{'original':>14}{'converted':>14}{'saved':>8}"]
        for context, now, before in zip(self.contexts, self.converted, self.original, strict=True):
            sizes = "".join(f"{size / 2**20:>10.1f} MiB" for size in (before, now))
            lines.append(f"{context:>10}{sizes}{1 - now / before:>8.0%}")
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Conversion:
    """What `convert` did to a model; printed, a report in words with the table of `cache`."""

    layers: tuple[int, ...]
    """The layers that are RAttention now."""
    window: int
    new_parameters: int
    """Numbers in the norms' weights, which are 1 until they are trained."""
    cache: CacheReport

    def __repr__(self) -> str:
        return (
            f"{len(self.layers)} layers are now RAttention with a window of {self.window}; "
            f"{self.new_parameters} parameters are new.\nThe model needs fine-tuning: it computes something "
            "else than it was trained for, and its answers are poor until then.\n"
            f"Cache of one sequence:\n{self.cache}"
        )


def convert(
    model: PreTrainedModel,
    window: int = 512,
    layers: int | Iterable[int] | None = None,
) -> Conversion:
    """Turn layers of a Llama-family model into RAttention, in place; **the model then needs fine-tuning**.

    The layers keep their projections and gain the weights of two norms. Their cache no longer grows with the
    text: it holds the last keys and values and a state (arXiv 2506.15545, section 3).
    ``model.generate`` works as before, greedy, sampling or with beams, with padding, and with
    ``past_key_values`` of an earlier turn.

    Parameters
    ----------
    model:
        A model of the types Llama, Mistral, Qwen2 or Qwen3 with plain rotary embedding.
    window:
        w of `rattention.rattention`: w + 1 tokens are seen in full.
    layers:
        Which decoder layers, by number; all by default.

    Returns
    -------
    A `Conversion`; printed, it says what was done, that fine-tuning is left to do, and how many bytes the
    caches have.

    Raises
    ------
    TypeError
        `model` is no `transformers.PreTrainedModel`, or other arguments are no integers.
    ValueError
        The model has no such layers, or layers that are converted already or have another rotary embedding.

    Notes
    -----
    Train with ``use_cache=False`` and without dropout of attention weights. A saved model is read back by
    the same conversion of the original, and ``load_state_dict``. Position ids are ignored, except that packed
    sequences stay apart; generation with a cache runs on the CPU. Tokens in the cache can neither be removed
    nor hidden by a later mask.

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import rattention.hf
    >>> config = LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
    ...                      num_attention_heads=4, num_key_value_heads=2)
    >>> model = LlamaForCausalLM(config).eval()
    >>> conversion = rattention.hf.convert(model, window=16, layers=[0, 1, 2])
    >>> conversion.new_parameters
    192
    >>> model.generate(torch.arange(40)[None], max_new_tokens=3, min_new_tokens=3, do_sample=False).shape
    torch.Size([1, 43])
    """
    width = whole_number("window", window)
    if width < 0:
        raise ValueError(f"window must be >= 0, got {width}")
    found = _convertible(model)
    chosen = chosen_numbers("layers", layers, found)
    thetas = {index: _rope_theta(found[index][2]) for index in chosen}
    register()
    model.set_attn_implementation(NAME)
    for index in chosen:
        parent, name, attention = found[index]
        setattr(parent, name, RAttentionModule(attention, width, thetas[index]))
    added = sum(2 * found[index][2].q_proj.out_features for index in chosen)
    return Conversion(chosen, width, added, cache_report(model))


def cache_report(model: PreTrainedModel, contexts: Sequence[int] = CONTEXTS) -> CacheReport:
    """Bytes of the caches of one sequence in a model that `convert` has converted, and before."""
    attentions = [m for m in model.modules() if all(hasattr(m, name) for name in PROJECTIONS)]
    if not any(isinstance(m, RAttentionModule) for m in attentions):
        raise ValueError(f"{type(model).__name__} has no converted layers: see rattention.hf.convert")
    original = [[_key_value_bytes(m, context) for m in attentions] for context in contexts]
    constant = [_converted_bytes(m) if isinstance(m, RAttentionModule) else None for m in attentions]
    converted = [
        sum(grown if fixed is None else fixed for grown, fixed in zip(sizes, constant, strict=True))
        for sizes in original
    ]
    return CacheReport(tuple(contexts), tuple(converted), tuple(sum(sizes) for sizes in original))


def _key_value_bytes(attention: Any, context: int) -> int:
    """Of plain attention; a sliding window of W keeps W - 1 tokens for the next."""
    sliding = sliding_window_of(attention)
    kept = context if sliding is None else min(context, sliding - 1)
    return int(2 * kept * attention.k_proj.out_features * attention.k_proj.weight.element_size())


def _converted_bytes(attention: RAttentionModule) -> int:
    weight = attention.k_proj.weight
    kv_heads = attention.k_proj.out_features // attention.head_dim
    dtype = str(weight.dtype).removeprefix("torch.")
    return RAttentionCache(
        1,
        kv_heads,
        attention.head_dim,
        attention.window,
        rope_theta=attention.rope_theta,
        dtype=dtype,
    ).nbytes


def _convertible(model: PreTrainedModel) -> dict[int, tuple[torch.nn.Module, str, Any]]:
    """Attention modules that can be replaced, by layer: what holds them, their name there, and themselves."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers.PreTrainedModel, got {type(model).__name__}")
    found: dict[int, tuple[torch.nn.Module, str, Any]] = {
        int(child.layer_idx): (parent, name, child)
        for parent in model.modules()
        for name, child in cast("Iterable[tuple[str, Any]]", parent.named_children())
        if getattr(getattr(child, "config", None), "model_type", None) in FAMILY
        and not isinstance(child, RAttentionModule)
        and all(hasattr(child, attribute) for attribute in (*PROJECTIONS, "layer_idx"))
    }
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no layers that can be converted: that takes a model of the types "
            f"{', '.join(FAMILY)} with layers that are not converted yet"
        )
    return found


def _rope_theta(attention: Any) -> float:
    """The base of the plain rotary embedding, the one the kernels have."""
    given = attention.config.rope_parameters
    if given.get("rope_type") != "default" or given.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            f"only the plain rotary embedding (rope_type 'default') can be converted, got {given}"
        )
    return float(given["rope_theta"])
