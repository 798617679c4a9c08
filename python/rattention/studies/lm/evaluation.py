"""Losses of a model: by position, by how far back a token's n-gram was seen, and on tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rattention._models import evaluating
from rattention.studies.lm import mqar, occurrences, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rattention.nn import LanguageModel
    from rattention.studies.lm.corpus import CorpusData
    from rattention.studies.lm.settings import Evaluation, Recall

AT_ONCE = 8192
"""Tokens of a batch."""


def sequences_of(split: NDArray[np.integer[Any]], context: int, count: int) -> NDArray[np.int64]:
    """At most `count` stretches of a split, evenly spaced, without overlap, ``[count, context + 1]``."""
    count = min(count, len(split) // (context + 1))
    starts = np.linspace(0, len(split) - context - 1, count).astype(np.int64)
    return np.stack([split[start : start + context + 1] for start in starts]).astype(np.int64)


def token_losses(
    model: LanguageModel, sequences: NDArray[np.int64], *, bfloat16: bool = False
) -> NDArray[np.float64]:
    """Nats of every token but the first, ``[sequences, context]``."""
    found, rows = [], max(1, AT_ONCE // sequences.shape[1])
    with evaluating(model), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for start in range(0, len(sequences), rows):
            tokens = torch.from_numpy(sequences[start : start + rows])
            logits = model(tokens[:, :-1]).float()
            losses = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
            found.append(losses.double().numpy())
    return np.concatenate(found)


def described(
    losses: NDArray[np.float64],
    sequences: NDArray[np.int64],
    bytes_per_token: NDArray[np.float64],
    evaluation: Evaluation,
    windows: Sequence[int] = (),
) -> dict[str, Any]:
    """Bits per byte of the whole context and of its second half, by position, and by reach.

    Parameters
    ----------
    losses:
        Nats ``[sequences, context]`` of ``sequences[:, 1:]``.
    windows:
        Are bounds of classes of reaches, see `occurrences`.
    """
    context = losses.shape[1]
    sizes, second = bytes_per_token[sequences[:, 1:]], slice(context // 2, None)
    stretches = np.array_split(np.arange(context), min(evaluation.positions, context))
    return {
        "context": context,
        "sequences": len(sequences),
        "bits_per_byte": _bits(losses, sizes),
        "second_half_bits_per_byte": _bits(losses[:, second], sizes[:, second]),
        "by_position": [
            {"position": int(part[0]) + 1, "bits_per_byte": _bits(losses[:, part], sizes[:, part])}
            for part in stretches
        ],
        "by_reach": _by_reach(losses, sequences, evaluation.order, tuple(windows)),
    }


def _bits(losses: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    return float(losses.sum() / math.log(2) / sizes.sum())


def _by_reach(
    losses: NDArray[np.float64], sequences: NDArray[np.int64], order: int, windows: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Tokens and bits of the second half by the class of their reach; ``reach`` is the class's largest, None
    where the n-gram has not occurred."""
    context = losses.shape[1]
    bounds = occurrences.bounds_of(context, windows)
    half = 1 + context // 2
    reach = np.stack([occurrences.reaches(row, order)[half:] for row in sequences])
    kinds = occurrences.classes(reach, bounds).ravel()
    counts = np.bincount(kinds, minlength=len(bounds) + 1)
    bits = np.bincount(kinds, losses[:, half - 1 :].ravel() / math.log(2), minlength=len(bounds) + 1)
    return [
        {"reach": bound, "tokens": int(tokens), "bits": float(sum_)}
        for bound, tokens, sum_ in zip([None, *bounds], counts, bits, strict=True)
    ]


def outside(by_reach: list[dict[str, Any]], window: int) -> float:
    """Mean bits per token of those whose n-gram was last seen outside a window, NaN where there is none."""
    far = [row for row in by_reach if row["reach"] is not None and row["reach"] > window]
    tokens = sum(row["tokens"] for row in far)
    return sum(row["bits"] for row in far) / tokens if tokens else math.nan


def validation_loss(model: LanguageModel, data: CorpusData, context: int, evaluation: Evaluation) -> float:
    """Mean nats per token on the validation split."""
    sequences = sequences_of(data.validation, context, evaluation.validation_sequences)
    return float(token_losses(model, sequences).mean())


def recalled(
    model: LanguageModel, recall: Recall, pairs: int, windows: Sequence[int], seed: int
) -> dict[str, Any]:
    """Share of queries that are answered, and by how far back the value stands; the mean loss in nats."""
    generator = np.random.default_rng([seed, 1])
    drawn = mqar.draw(generator, recall.test_sequences, recall.length, pairs, recall.vocabulary)
    asked = drawn.labels != mqar.NO_LABEL
    right, nats, rows = [], [], max(1, AT_ONCE // recall.length)
    with evaluating(model):
        for start in range(0, len(asked), rows):
            part = slice(start, start + rows)
            logits = model(torch.from_numpy(drawn.tokens[part])).float()[torch.from_numpy(asked[part])]
            labels = torch.from_numpy(drawn.labels[part][asked[part]])
            right.append((logits.argmax(dim=-1) == labels).numpy())
            nats.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().numpy())
    answers, gaps = np.concatenate(right), drawn.gaps[asked]
    bounds = occurrences.bounds_of(recall.length, tuple(windows))
    kinds = np.searchsorted(bounds, gaps)
    return {
        "accuracy": float(answers.mean()),
        "loss": float(np.concatenate(nats).mean()),
        "by_gap": [
            {
                "gap": bound,
                "queries": int((kinds == i).sum()),
                "right": int(answers[kinds == i].sum()),
            }
            for i, bound in enumerate(bounds)
        ],
    }


def task_scores(
    model: LanguageModel, data: CorpusData, task: str, length: int, samples: int, seed: int
) -> dict[str, Any]:
    """Of a task at one length: the share of answers that are right in every token, and by how many bits the
    answer is likelier than in the control."""
    right = gained = 0.0
    with evaluating(model):
        for i in range(samples):
            generator = np.random.default_rng([seed, 2, i])
            sample = tasks.draw(task, generator, length, data.test, data.encode)
            tokens, count = torch.from_numpy(sample.tokens), sample.answer_length
            logits = model(tokens[:, :-1])[:, -count:].float()
            answer = tokens[:, -count:]
            right += float((logits.argmax(dim=-1) == answer)[0].all())
            losses = torch.nn.functional.cross_entropy(logits.mT, answer, reduction="none").sum(dim=1)
            gained += float(losses[1] - losses[0]) / math.log(2)
    return {"task": task, "length": length, "accuracy": right / samples, "bits_gained": gained / samples}
