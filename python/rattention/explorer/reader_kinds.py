"""Models that read texts: from a string to a `Reading`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._extras import require
from rattention._models import kind_of
from rattention.explorer.document import Document
from rattention.explorer.generation import (
    Generation,
    cannot_generate,
    continued,
    require_causal,
    require_room,
    spelled,
)
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

    def require_goes_on(self, text: str, generation: Generation) -> None:
        """ValueError where the model cannot generate, or has no positions for text and answer."""
        raise cannot_generate(f"{self.name} ({type(self.model).__name__})")

    def go_on(
        self, text: str, generation: Generation, title: str = "", progress: Progress = no_progress
    ) -> Reading:
        """The reading of a text and of what the model appends to it, in one pass.

        ValueError as in `require_goes_on`.
        """
        self.require_goes_on(text, generation)
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
        self._writer = model
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                "tokenizer must be a fast one of Transformers, which tells where tokens stand, got "
                f"{type(tokenizer).__name__}"
            )
        self._tokenizer = tokenizer

    def tokens(self, text: str) -> tuple[Sample, NDArray[np.int32]]:  # noqa: D102
        ids, spans = self._encoded(text, self._positions)
        return self._sample(ids), spans

    def require_goes_on(self, text: str, generation: Generation) -> None:  # noqa: D102
        require_causal(self._writer, self.name)
        require_room(generation, len(self._prompt(text)[0]), self._positions)

    def go_on(  # noqa: D102
        self, text: str, generation: Generation, title: str = "", progress: Progress = no_progress
    ) -> Reading:
        self.require_goes_on(text, generation)
        ids, spans = self._prompt(text)
        answer = continued(self._writer, ids, generation, progress)
        added, places = spelled(self._tokenizer, ids, answer, len(text))
        few = f"the model ended its text after {len(answer)} of {generation.tokens} tokens"
        document = Document(
            text + added,
            np.concatenate([spans, places]),
            title,
            (few,) if len(answer) < generation.tokens else (),
            generated=len(ids),
            how=generation.how,
        )
        return read(self.model, self._sample(ids + answer), document, name=self.name, progress=progress)

    @property
    def _positions(self) -> int | None:
        return getattr(self.model.config, "max_position_embeddings", None)

    def _prompt(self, text: str) -> tuple[list[int], NDArray[np.int32]]:
        """The whole text, without the token by which some tokenizers end it."""
        ids, spans = self._encoded(text, None)
        if ids and ids[-1] == self._tokenizer.eos_token_id and spans[-1, 0] == spans[-1, 1]:
            ids, spans = ids[:-1], spans[:-1]
        if not ids:
            raise ValueError("the text holds no token that the model knows")
        return ids, spans

    def _encoded(self, text: str, most: int | None) -> tuple[list[int], NDArray[np.int32]]:
        cut = {} if most is None else {"truncation": True, "max_length": most}
        encoded = self._tokenizer(text, return_offsets_mapping=True, verbose=False, **cut)
        return encoded["input_ids"], np.array(encoded["offset_mapping"], np.int32).reshape(-1, 2)

    def _sample(self, ids: list[int]) -> Sample:
        inputs = {"input_ids": require("torch").tensor([ids], dtype=require("torch").long)}
        if "use_cache" in getattr(self.model.config, "to_dict", dict)():
            inputs["use_cache"] = False
        return Sample("text", (), inputs)


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
