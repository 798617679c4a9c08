"""Models of the sweep."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import transformers as tf
from torch.nn.modules.conv import _ConvNd
from transformers.models.auto import modeling_auto as auto

from tests.sweep.sizes import tiny

LARGEST = 40_000_000
"""Parameters: more means that sizes were left at their defaults."""
MAPPINGS = {
    "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "composite": auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "speech": auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    "base": auto.MODEL_MAPPING_NAMES,
}
SMALL = 0.1
"""Factors that begin at zero, or near it, would hide what they weight."""


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
    for module in model.modules():
        for part, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                inputs = parameter[0].numel() if isinstance(module, _ConvNd) else parameter.shape[-1]
                parameter.data.normal_(0, 1.3 / inputs**0.5)
            elif "bias" not in part and parameter.numel() and parameter.abs().max() < SMALL:
                parameter.data.uniform_(0.5, 1.0)
    return model


def output_of(model: tf.PreTrainedModel, inputs: dict[str, Any], **more: Any) -> torch.Tensor:
    """Logits, the last hidden states, or the first output of numbers of a model without them."""
    torch.manual_seed(2)  # some models mask at random, or add noise
    output = model(**inputs, **more)
    known = (getattr(output, name, None) for name in ("logits", "last_hidden_state"))
    return next(_numbers([part for part in known if part is not None] or output))


def _numbers(output: Any) -> Iterator[torch.Tensor]:
    """The tensors of an output that are not of indices."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        yield from _numbers(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _numbers(part)
