"""Converting layers of a model to RAttention, and the memory that saves in generation."""

from __future__ import annotations

import copy
import functools
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicSlidingWindowLayer

from rattention._arguments import chosen_numbers, whole_number
from rattention._models import evaluating
from rattention.hf.attention import NAME, register
from rattention.hf.converted import RAttentionModule, become_converted
from rattention.hf.convertible import attentions_of, caches_of, convertible, require_caches_of_keys
from rattention.hf.rotation import LayerShape, Rotation, decoder_of, measured
from rattention.hf.taking_back import taken_back_on_error
from rattention.mechanisms.rattention_cache import RAttentionCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEPT_AS = "rattention"
"""The attribute of a configuration that says what was converted."""

NO_IDS = (torch.bool, torch.complex64, torch.complex128)

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
    """Numbers in the norms' weights."""
    calibrated: bool
    """Whether they begin as `calibration` says; 1 otherwise."""
    cache: CacheReport

    def __repr__(self) -> str:
        begins = (
            "It begins nearly as with sliding windows of that size."
            if self.calibrated
            else "With calibration=, token ids of some text, it would begin nearly as with sliding windows."
        )
        return (
            f"{len(self.layers)} layers are now RAttention with a window of {self.window}; "
            f"{self.new_parameters} parameters are new.\nThe model needs fine-tuning: it computes something "
            f"else than it was trained for, and its answers are poor until then. {begins}\n"
            f"Cache of one sequence:\n{self.cache}"
        )


def convert(
    model: PreTrainedModel,
    window: int = 512,
    layers: int | Iterable[int] | None = None,
    *,
    calibration: torch.Tensor | None = None,
) -> Conversion:
    """Turn layers of a decoder model into RAttention, in place; **the model then needs fine-tuning**.

    The layers keep their projections, norms of queries and keys, and scales, and gain the weights of two
    norms. Their cache no longer grows with the text: it holds the last keys and values and a state (arXiv
    2506.15545, section 3). ``model.generate`` works as before, greedy, sampling or with beams, with padding,
    and with ``past_key_values`` of an earlier turn.

    Parameters
    ----------
    model:
        A causal model with rotary embedding whose attention comes from Transformers' ``AttentionInterface``:
        Llama, Mistral, Mixtral, Qwen, Gemma, OLMo, Phi, SmolLM3, Granite, GLM, Cohere and their like. Three
        tokens are run through it to see how each layer rotates its queries and keys.
    window:
        w of `rattention.rattention`: w + 1 tokens are seen in full.
    layers:
        Which decoder layers, by number; all by default.
    calibration:
        Token ids ``[batch, length]``, integers, without padding, a few thousand of the kind of text that the
        model is for; they go through the model once, which no other thread may call then. The new norms then
        begin so that the model answers nearly as with sliding windows, and fine-tuning starts from there:
        local weights give rows the size that they had (least squares, for each head and column), the states'
        weights are 0. Without it both begin as 1.

    Returns
    -------
    A `Conversion`; printed, it says what was done, that fine-tuning is left to do, and how many bytes the
    caches have.

    Raises
    ------
    TypeError
        `model` is no `transformers.PreTrainedModel`, or other arguments hold no integers.
    ValueError
        The model has no such layers, or layers that are converted already or do what RAttention does not
        have: soft-capped scores, sinks, attention to both sides, other embeddings of positions, several
        calls of attention in one layer, states besides keys and values. `calibration` has another shape, ids
        that the model does not have, or leads to infinity or NaN. The model is then as it was.

    Notes
    -----
    All rotary types of Transformers are taken: default, linear, Llama 3.1, YaRN, longrope, dynamic, and
    partial ones. Where frequencies depend on the length of the text (dynamic, longrope), they are those of a
    text of window + 1 tokens, for the window is the longest distance that is scored. Layers without rotary
    embedding stay without. Of mixtures of experts only the attention changes.

    ``save_pretrained`` writes window and layers into the configuration, and ``from_pretrained`` makes the
    same model again once `rattention.hf` is imported; without that import it ignores the norms' weights.

    Train with ``use_cache=False`` and without dropout of attention weights. Position ids are ignored, except
    that packed sequences stay apart; generation with a cache runs on the CPU. Tokens in the cache can neither
    be removed nor hidden by a later mask.

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
    found = convertible(model)
    chosen = chosen_numbers("layers", layers, found)
    wanted = {index: found[index] for index in chosen}
    require_caches_of_keys(model, wanted)
    shapes = measured(model, wanted, width)
    ids = None if calibration is None else _token_ids(model, calibration)
    with taken_back_on_error(model, wanted.values()):
        _note(found[chosen[0]].config, width, shapes)
        for index, shape in shapes.items():
            become_converted(found[index], width, shape)
        register()
        model.set_attn_implementation(NAME)
        if ids is not None:
            _calibrate(model, [found[index] for index in shapes], ids)
        report = cache_report(model)
    added = sum(2 * shape.heads * shape.value_dim for shape in shapes.values())
    return Conversion(chosen, width, added, ids is not None, report)


def _token_ids(model: PreTrainedModel, given: Any) -> torch.Tensor:
    """`calibration`, on the device of the model."""
    came = f"a tensor of {given.dtype}" if isinstance(given, torch.Tensor) else type(given).__name__
    if not isinstance(given, torch.Tensor) or given.is_floating_point() or given.dtype in NO_IDS:
        raise TypeError(f"calibration must be a tensor of integers [batch, length], got {came}")
    if given.dim() != 2 or given.numel() == 0:
        raise ValueError(f"calibration must be [batch, length] with tokens, got shape {tuple(given.shape)}")
    ids = given.to(model.device, torch.int64)
    known = getattr(model.get_input_embeddings(), "num_embeddings", int(ids.max()) + 1)
    if not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise ValueError(
            f"calibration must hold token ids from 0 to {known - 1}, got {int(ids.min())} to {int(ids.max())}"
        )
    return ids


def _calibrate(model: PreTrainedModel, layers: Sequence[RAttentionModule], ids: torch.Tensor) -> None:
    """Set the norms' weights of the layers one after another, in one pass."""
    with evaluating(model), ExitStack() as stack:
        for layer in layers:
            layer.calibrating = True
            stack.callback(setattr, layer, "calibrating", False)
        decoder_of(model).base_model(input_ids=ids, use_cache=False)


def cache_report(model: PreTrainedModel, contexts: Sequence[int] = CONTEXTS) -> CacheReport:
    """Bytes of the caches of one sequence in a model that `convert` has converted, and before."""
    attentions = attentions_of(model)
    if not any(isinstance(m, RAttentionModule) for m in attentions.values()):
        raise ValueError(f"{type(model).__name__} has no converted layers: see rattention.hf.convert")
    caches = caches_of(model)
    original = [
        [_key_value_bytes(m, caches.get(index), context) for index, m in attentions.items()]
        for context in contexts
    ]
    constant = [_converted_bytes(m) if isinstance(m, RAttentionModule) else None for m in attentions.values()]
    converted = [
        sum(grown if fixed is None else fixed for grown, fixed in zip(sizes, constant, strict=True))
        for sizes in original
    ]
    return CacheReport(tuple(contexts), tuple(converted), tuple(sum(sizes) for sizes in original))


def _key_value_bytes(attention: Any, cache: Any, context: int) -> int:
    """Of plain attention; a sliding window of W keeps W - 1 tokens for the next."""
    kept = context
    if isinstance(cache, DynamicSlidingWindowLayer):
        kept = min(context, cache.sliding_window - 1)
    elif isinstance(cache, DummyLayer):  # another layer's keys
        kept = 0
    return int(2 * kept * _key_features(attention) * next(attention.parameters()).element_size())


def _key_features(attention: Any) -> int:
    if hasattr(attention, "k_proj"):
        return int(attention.k_proj.out_features)
    config = attention.config
    head_dim = getattr(attention, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int((getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head_dim)


def _converted_bytes(attention: RAttentionModule) -> int:
    shape, rotation = attention.shape, attention.shape.rotation
    return RAttentionCache(
        1,
        shape.kv_heads,
        shape.head_dim,
        attention.window,
        value_dim=shape.value_dim,
        rope_frequencies=None if rotation is None else rotation.rates.numpy(),
        dtype=str(next(attention.parameters()).dtype).removeprefix("torch."),
    ).nbytes


def _note(config: Any, window: int, shapes: dict[int, LayerShape]) -> None:
    """What `from_pretrained` needs, in the configuration; rotations once each, for layers share them."""
    noted = copy.deepcopy(getattr(config, KEPT_AS, None)) or {"layers": {}, "rotations": []}
    for index, shape in shapes.items():
        layer = asdict(shape) | {"window": window}
        rotation = layer.pop("rotation")
        if rotation is not None:
            rotation = {name: None if part is None else [*part] for name, part in rotation.items()}
            if rotation not in noted["rotations"]:
                noted["rotations"].append(rotation)
            rotation = noted["rotations"].index(rotation)
        noted["layers"][str(index)] = layer | {"rotation": rotation}
    setattr(config, KEPT_AS, noted)


def restore(model: PreTrainedModel) -> None:
    """Convert the layers again that the configuration of a new model says are converted."""
    noted = getattr(model.config, KEPT_AS, None)
    if not noted:
        return
    rotations = [Rotation.of(**rotation) for rotation in noted["rotations"]]
    attentions = attentions_of(model)
    for index, layer in noted["layers"].items():
        attention = attentions.get(int(index))
        if attention is None or isinstance(attention, RAttentionModule):
            continue
        given = dict(layer)
        window, at = given.pop("window"), given.pop("rotation")
        shape = LayerShape(**given, rotation=None if at is None else rotations[at])
        become_converted(attention, window, shape)
    register()
    model.config._attn_implementation = NAME


def _restore_when_made() -> None:
    """Let models restore their converted layers at the end of their initialiser, where `from_pretrained` has
    not read their weights yet."""
    finish = PreTrainedModel.post_init

    @functools.wraps(finish)
    def finished(self: PreTrainedModel) -> None:
        restore(self)
        finish(self)  # type: ignore[no-untyped-call]

    PreTrainedModel.post_init = finished  # type: ignore[method-assign]


_restore_when_made()
