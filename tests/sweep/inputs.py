"""Inputs of the sweep: what the forward pass of a class takes, by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import torch
import transformers as tf

from tests.sweep.models import output_of
from tests.sweep.signals import LENGTH, MAKERS, OPTIONAL

PADDED = 5
"""Padding of the second sequence."""
TEXTS = ("input_ids", "inputs_embeds", "inputs")

Inputs = dict[str, Any]


def padding(side: str) -> torch.Tensor:
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, :PADDED] = 0
    return mask if side == "left" else mask.flip(1)


def inputs_of(model: tf.PreTrainedModel) -> Iterator[tuple[str, Inputs, torch.Tensor | None]]:
    """Name, inputs, and which rows of the output count, ``[batch, rows]``; None: all."""
    names = inspect.signature(model.forward).parameters
    main = model.main_input_name
    text = "input_ids" in names and (main not in names or main in TEXTS)
    base = _first_that_runs(model, _layouts(model, names, text))
    if not text:
        yield "two", base, None
        return
    ids = base.pop("input_ids")
    pictures = "pixel_values" in base
    ends = getattr(model.config.get_text_config(), "eos_token_id", None)
    yield "two", {"input_ids": ids, **base}, None
    if all(isinstance(value, torch.Tensor) and len(value) == 2 for value in base.values()):
        yield "one", {"input_ids": ids[:1], **{name: value[:1] for name, value in base.items()}}, None
    if "attention_mask" not in names or ids.dim() != 2:
        return
    for side in ("left", "right"):
        mask = padding(side)
        text = ids.masked_fill(mask == 0, 0)
        if pictures and isinstance(ends, int):  # such models read their last token
            text[:, -1] = text[1, LENGTH - PADDED - 1] = ends
            text[1] *= mask[1]
        yield side, {"input_ids": text, "attention_mask": mask, **base}, mask.bool()


def _first_that_runs(model: tf.PreTrainedModel, layouts: Iterable[Inputs]) -> Inputs:
    """The first inputs that a model takes; if it takes none, the error is that of the first."""
    first: Exception | None = None
    for inputs in layouts:
        try:
            with torch.no_grad():
                output_of(model, inputs)
        except Exception as error:
            first = first or error
        else:
            return inputs
    raise first or NotImplementedError(f"inputs {model.main_input_name}")


def _layouts(model: tf.PreTrainedModel, parameters: Any, text: bool) -> Iterator[Inputs]:
    """What a model may need, the least first."""
    main = model.main_input_name
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    first = "input_ids" if text else main
    if first in parameters and first not in needed:
        needed.insert(0, first)
    if unknown := [name for name in needed if name not in MAKERS]:
        raise NotImplementedError(f"inputs {', '.join(unknown)}")
    if model.config.is_encoder_decoder and "decoder_input_ids" in parameters:
        needed.append("decoder_input_ids")
    for optional in ((), *OPTIONAL):
        if set(optional) <= set(parameters) - set(needed):
            names = [*needed, *optional]
            for values in product(*(MAKERS[name](model.config, parameters) for name in names)):
                yield dict(zip(names, values, strict=True))
