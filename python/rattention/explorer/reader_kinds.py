"""Models that read texts: from a string to a `Reading`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._extras import require
from rattention._models import kind_of
from rattention.explorer.document import Document
from rattention.explorer.reading import Progress, Reading, no_progress, read
from rattention.inspect import Sample


class Reader:
    """A model with its way from text to tokens."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        self.name = name

    def read(self, text: str, title: str = "", progress: Progress = no_progress) -> Reading:
        """The reading of a text, of as much as the model has positions for.

        ValueError where the text holds no token or the model cannot be looked into.
        """
        sample, spans = self.tokens(text)
        if not len(spans):
            raise ValueError("the text holds no token that the model knows")
        cut = int(spans[:, 1].max())
        remarks = []
        if text[cut:].strip():
            remarks.append(f"the model has {len(spans)} positions: {len(text) - cut} characters are left out")
        document = Document(text[:cut], spans, title, tuple(remarks))
        return read(self.model, sample, document, name=self.name, progress=progress)

    def tokens(self, text: str) -> tuple[Sample, NDArray[np.int32]]:
        """What the model is called with, and the characters of each token."""
        raise NotImplementedError


class BertReader(Reader):
    """A `rattention.models.Bert`."""

    def tokens(self, text: str) -> tuple[Sample, NDArray[np.int32]]:  # noqa: D102
        encoding = self.model.encode([text])
        return Sample("text", (encoding,)), np.array(encoding.offsets[0], np.int32).reshape(-1, 2)


class TransformersReader(Reader):
    """A model of Transformers with its fast tokenizer, which knows where tokens stand."""

    def __init__(self, model: Any, name: str, tokenizer: Any) -> None:
        base = getattr(model, "base_model", model)  # without a head, whose logits of every token nobody reads
        super().__init__(base, name)
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                "tokenizer must be a fast one of Transformers, which tells where tokens stand, got "
                f"{type(tokenizer).__name__}"
            )
        self._tokenizer = tokenizer

    def tokens(self, text: str) -> tuple[Sample, NDArray[np.int32]]:  # noqa: D102
        torch = require("torch")
        most = getattr(self.model.config, "max_position_embeddings", None)
        encoded = self._tokenizer(
            text, return_offsets_mapping=True, truncation=most is not None, max_length=most, verbose=False
        )
        ids = torch.tensor([encoded["input_ids"]], dtype=torch.long)
        inputs = {"input_ids": ids}
        if "use_cache" in getattr(self.model.config, "to_dict", dict)():
            inputs["use_cache"] = False
        return Sample("text", (), inputs), np.array(encoded["offset_mapping"], np.int32).reshape(-1, 2)


class BytesReader(Reader):
    """A model of `rattention.nn` that reads the bytes of a text, as UTF-8."""

    def tokens(self, text: str) -> tuple[Sample, NDArray[np.int32]]:  # noqa: D102
        torch = require("torch")
        sizes = [len(character.encode("utf-8")) for character in text]
        first = np.repeat(np.arange(len(text)), sizes)
        spans = np.stack([first, first + 1], 1).astype(np.int32)
        return Sample("text", (torch.tensor([list(text.encode("utf-8"))]),)), spans


def reader_of(model: Any, tokenizer: Any = None, name: str = "") -> Reader:
    """How `model` reads texts.

    A `rattention.models.Bert` brings its tokenizer, a model of Transformers needs one, and another module of
    PyTorch reads bytes. TypeError for other objects, ValueError for a tokenizer that does not fit.
    """
    kind = kind_of(model)
    if kind == "bert":
        return BertReader(model, name or model.name)
    title = name or getattr(model, "name_or_path", "") or type(model).__name__
    if kind == "transformers":
        return TransformersReader(model, title, tokenizer)
    if kind != "torch":
        raise TypeError(
            "model must be a transformers.PreTrainedModel, a rattention.models.Bert or a torch.nn.Module "
            f"with layers of rattention.nn, got {type(model).__name__}"
        )
    if tokenizer is not None:
        raise ValueError("tokenizer is for models of Transformers: this one reads bytes")
    return BytesReader(model, title)
