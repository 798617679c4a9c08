"""Batches of sequences of about the same length, so that little of them is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rattention.studies.lra.data import Split


def collate(split: Split, indices: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """The samples as tensors: ``tokens`` ``[batch, longest]`` (int64, 0 behind a sequence), ``lengths`` and
    ``labels`` ``[batch]``."""
    rows = [torch.from_numpy(split[i][0].astype(np.int64)) for i in indices]
    return {
        "tokens": pad_sequence(rows, batch_first=True),
        "lengths": torch.from_numpy(split.lengths[indices]),
        "labels": torch.from_numpy(split.labels[indices]),
    }


def in_order_of_length(split: Split, batch: int) -> list[NDArray[np.int64]]:
    """Indices of all samples in batches, longest first, the same each time: for evaluation."""
    return _cut(np.argsort(-split.lengths, kind="stable"), batch)


def _cut(order: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    return [order[i : i + batch] for i in range(0, len(order), batch)]


@dataclass
class TrainingBatches:
    """An epoch's batches, drawn from the seed and the epoch alone, so that a resumed training draws the same.

    Each rank of several takes its share of every batch; all ranks together see what one alone would see.
    """

    dataset: Split
    batch: int
    """Samples in a batch, of all ranks together."""
    seed: int
    rank: int
    ranks: int
    pool: int = 50
    """Batches whose sequences are sorted together: shuffled enough, and alike in length."""
    epoch: int = 0
    """The epoch whose batches come next, from 0."""

    def __len__(self) -> int:
        return len(_even(np.arange(len(self.dataset)), self.batch, self.ranks))

    def __iter__(self) -> Iterator[dict[str, torch.Tensor | float]]:
        """This rank's samples of every batch, with what they weigh: gradients are averaged over ranks, which
        may have a sample more or less than others."""
        for indices in self.indices():
            own = indices[self.rank :: self.ranks]
            share = len(own) * self.ranks / len(indices)
            yield {**collate(self.dataset, own), "share": share}

    def indices(self) -> list[NDArray[np.int64]]:
        """Of the samples of every batch."""
        generator, lengths = np.random.default_rng((self.seed, self.epoch)), self.dataset.lengths
        pools = _cut(generator.permutation(len(lengths)), self.pool * self.batch)
        pools = [pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools]
        batches = _even(np.concatenate(pools), self.batch, self.ranks)
        return [batches[i] for i in generator.permutation(len(batches))]


def _even(order: NDArray[np.int64], batch: int, ranks: int) -> list[NDArray[np.int64]]:
    """Batches of which each rank gets something: a rest that is too small joins the batch before it."""
    batches = _cut(order, batch)
    if len(batches) > 1 and len(batches[-1]) < ranks:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
