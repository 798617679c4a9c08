"""Models and inputs of the sweep."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import transformers as tf
from transformers.models.auto import modeling_auto as auto

from tests.sweep.sizes import tiny

LARGEST = 40_000_000
"""Parameters: more means that sizes were left at their defaults."""
LENGTH = 17
PADDED = 5
"""Padding of the second sequence."""

MAPPINGS = {
    "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "composite": auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "speech": auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    "base": auto.MODEL_MAPPING_NAMES,
}


def classes() -> dict[str, tuple[str, str]]:
    """Kind and type of every class, by its name; of base models those whose type has no other class."""
    found: dict[str, tuple[str, str]] = {}
    types: set[str] = set()
    for kind, mapping in MAPPINGS.items():
        for model_type, names in mapping.items():
            name = names if isinstance(names, str) else names[0]
            if name not in found and not (kind == "base" and model_type in types):
                found[name] = kind, model_type
                types.add(model_type)
    return found


def build(name: str, model_type: str, kind: str) -> tf.PreTrainedModel:
    """With weights that leave no attention uniform, on "eager"."""
    if model_type == "vits":
        raise NotImplementedError("the length of its sound is random, too")
    torch.manual_seed(0)
    config_class = getattr(tf, name).config_class or tf.CONFIG_MAPPING[model_type]
    decoder = kind == "causal" and "is_decoder" in vars(config_class())
    config = tiny(config_class, **({"is_decoder": True} if decoder else {}))
    config._attn_implementation = "eager"
    with torch.device("meta"):
        numbers = sum(p.numel() for p in getattr(tf, name)(copy.deepcopy(config)).parameters())
    if numbers > LARGEST:
        raise NotImplementedError(f"{numbers} parameters")
    model = getattr(tf, name)(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.3 / parameter.shape[-1] ** 0.5)
    return model


def padding(side: str) -> torch.Tensor:
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, :PADDED] = 0
    return mask if side == "left" else mask.flip(1)


def tokens(batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, 95, (2, length), generator=generator)[:batch]


def inputs_of(
    model: tf.PreTrainedModel, pictures: bool = False
) -> Iterator[tuple[str, dict[str, Any], torch.Tensor | None]]:
    """Name, inputs, with `pictures` beside the text, and which rows of the output count, ``[batch, rows]``;
    None: all."""
    main = model.main_input_name
    if main not in ("input_ids", "inputs_embeds"):
        yield "two", _signals(model), None
        return
    ids = tokens()
    base = {"decoder_input_ids": tokens(length=9)} if model.config.is_encoder_decoder else {}
    ends = None
    if pictures:
        base["pixel_values"] = _pictures(model.config.vision_config)
        ends = getattr(model.config, "text_config", model.config).eos_token_id
    yield "two", {"input_ids": ids, **base}, None
    yield "one", {"input_ids": ids[:1], **{n: t[:1] for n, t in base.items()}}, None
    for side in ("left", "right"):
        mask = padding(side)
        text = ids.masked_fill(mask == 0, 0)
        if pictures and isinstance(ends, int):  # such models read their last token
            text[:, -1] = text[1, LENGTH - PADDED - 1] = ends
            text[1] *= mask[1]
        yield side, {"input_ids": text, "attention_mask": mask, **base}, None if base else mask.bool()


def _signals(model: tf.PreTrainedModel) -> dict[str, torch.Tensor]:
    """Pictures or sound."""
    config, main = model.config, model.main_input_name
    generator = torch.Generator().manual_seed(1)
    if main == "pixel_values":
        return {main: _pictures(config)}
    if main == "input_features":
        shape: tuple[int, ...] = (
            2,
            getattr(config, "num_mel_bins", 16),
            2 * getattr(config, "max_source_positions", 128),
        )
    elif main == "input_values":
        shape = (2, 400)
    else:
        raise NotImplementedError(f"inputs {main}")
    inputs = {main: torch.randn(shape, generator=generator)}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens(length=9)
    return inputs


def _pictures(config: tf.PreTrainedConfig) -> torch.Tensor:
    size = getattr(config, "image_size", 16)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(
        2, getattr(config, "num_channels", 3), height, width, generator=torch.Generator().manual_seed(1)
    )


def output_of(model: tf.PreTrainedModel, inputs: dict[str, Any], **more: Any) -> torch.Tensor:
    """Logits, or the first output of a model without them."""
    output = model(**inputs, **more)
    logits = getattr(output, "logits", None)
    first = output[0] if logits is None else logits
    if not isinstance(first, torch.Tensor):
        raise NotImplementedError(f"output {type(first).__name__}")
    return first
