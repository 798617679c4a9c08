"""What models are trained on: batches that depend on the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from rattention.studies.kit import distributed
from rattention.studies.lm import mqar, tasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention.studies.lm.corpus import CorpusData
    from rattention.studies.lm.settings import Recall


class Batches(Protocol):
    """The batches of a training."""

    def __call__(self, step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """``tokens`` and ``labels`` ``[rows, length]`` of this rank in a step, and what is recorded."""


def own_rows(batch: int) -> slice:
    """The rows of a batch that this rank takes; ValueError where the ranks cannot share them equally."""
    ranks = distributed.world_size()
    if batch % ranks:
        raise ValueError(f"batch must be a multiple of the {ranks} processes, got {batch}")
    return slice(distributed.rank(), None, ranks)


@dataclass(frozen=True, eq=False)
class TextBatches:
    """Sequences at random offsets of the training split, some of them tasks."""

    data: CorpusData
    context: int
    batch: int
    seed: int
    task_share: float = 0.0

    def __call__(self, step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Batches`; the offsets are recorded, -1 for tasks."""
        generator = np.random.default_rng([self.seed, step])
        offsets = generator.integers(len(self.data.train) - self.context, size=self.batch)
        offsets[generator.random(self.batch) < self.task_share] = -1
        mine = range(self.batch)[own_rows(self.batch)]
        rows = np.stack([self._row(int(offsets[row]), [self.seed, step, row]) for row in mine])
        tokens = torch.from_numpy(rows)
        return {"tokens": tokens[:, :-1], "labels": tokens[:, 1:]}, {"offsets": offsets.tolist()}

    def _row(self, offset: int, seed: list[int]) -> NDArray[np.int64]:
        if offset >= 0:
            row: NDArray[np.int64] = self.data.train[offset : offset + self.context + 1].astype(np.int64)
            return row
        generator = np.random.default_rng(seed)
        task = str(generator.choice(tasks.NAMES))
        sample = tasks.draw(task, generator, self.context + 1, self.data.train, self.data.encode)
        first: NDArray[np.int64] = sample.tokens[0]
        return first


@dataclass(frozen=True, eq=False)
class RecallBatches:
    """Sequences of the recall task, never the same twice."""

    recall: Recall
    pairs: int
    seed: int

    def __call__(self, step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Batches`."""
        generator, batch = np.random.default_rng([self.seed, step]), self.recall.training.batch
        drawn = mqar.draw(generator, batch, self.recall.length, self.pairs, self.recall.vocabulary)
        rows = own_rows(batch)
        arrays = {"tokens": drawn.tokens[rows], "labels": drawn.labels[rows]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, {}
