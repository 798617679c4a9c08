"""What a task is, and its data: sequences of different lengths with a label each, in splits and batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from rattention.studies.lra.bag import fitted_accuracy, log_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from rattention.studies.lra.settings import Training

SPLITS = ("train", "validation", "test")

Sample = TypeVar("Sample")


class TaskSettings(Protocol):
    """What the data of a task are made with: a frozen dataclass."""

    def load(self) -> TaskData:
        """Make or read the data; what takes long is cached on the disk.

        ValueError says in one line what is wrong with the source or the numbers.
        """

    def scaled(self, length: int | None, samples: int | None) -> Self:
        """With sequences of at most `length` tokens and `samples` to train on; None leaves them."""


@dataclass(frozen=True)
class Task:
    """A row of `rattention.studies.lra.TASKS`."""

    label: str
    """The name in tables and figures."""
    settings: type[Any]
    """A class of `TaskSettings`; its defaults are the full size."""
    presets: Mapping[str, Any] = field(default_factory=dict)
    """Settings by the name of a preset; the defaults elsewhere."""
    training: Mapping[str, Training] = field(default_factory=dict)
    """The training by the name of a preset, where it is not that of all tasks."""
    usual: bool = True
    """Whether a study has the task unless tasks are named."""


@dataclass(frozen=True, eq=False)
class Split:
    """Sequences of tokens with a label each. ValueError where the arrays do not fit each other."""

    tokens: NDArray[np.integer[Any]]
    """All sequences, one behind the other; 0 is padding and not among them."""
    offsets: NDArray[np.int64]
    """Where each sequence begins, and the end, ``[samples + 1]``."""
    labels: NDArray[np.int64]
    """``[samples]``."""

    def __post_init__(self) -> None:
        ends = self.offsets.shape == (len(self.labels) + 1,) and self.offsets[-1] == len(self.tokens)
        if not ends or self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to the {len(self.tokens)} tokens, one more than the "
                f"{len(self.labels)} labels"
            )

    @classmethod
    def of(cls, sequences: Iterable[ArrayLike], labels: ArrayLike, dtype: type = np.uint8) -> Split:
        """From a list of sequences."""
        rows: list[NDArray[Any]] = [np.asarray(sequence, dtype) for sequence in sequences]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, dtype), *rows]), offsets, np.asarray(labels, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence."""
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> tuple[NDArray[np.integer[Any]], int]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]], int(self.labels[index])

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Split:
        """Some of the samples, in that order."""
        chosen = np.asarray(indices, np.int64)
        return Split.of((self[i][0] for i in chosen), self.labels[chosen], self.tokens.dtype.type)


@dataclass(frozen=True, eq=False)
class TaskData:
    """What models of one task are trained and tested on."""

    name: str
    vocabulary: int
    """Tokens, with 0 for padding."""
    classes: int
    train: Split
    validation: Split
    test: Split
    token_names: tuple[str, ...] | None = None
    """What tokens are called in figures, by number."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            split = getattr(self, name)
            if not len(split):
                raise ValueError(f"the {name} split of {self.name} is empty")
            if not split.lengths.all():
                raise ValueError(f"the {name} split of {self.name} has a sequence without tokens")

    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(int(getattr(self, name).lengths.max()) for name in SPLITS)

    def label_shares(self) -> dict[str, list[float]]:
        """How often each label occurs, as a share of each split."""
        counts = {name: np.bincount(getattr(self, name).labels, minlength=self.classes) for name in SPLITS}
        return {name: (own / own.sum()).tolist() for name, own in counts.items()}

    def majority_accuracy(self) -> float:
        """Test accuracy of always giving the most frequent label of the training samples."""
        most = int(np.bincount(self.train.labels, minlength=self.classes).argmax())
        return float((self.test.labels == most).mean())

    @cached_property
    def bag_accuracy(self) -> float:
        """Test accuracy of logistic regression on how often each token occurs; fitted once for all runs."""
        splits: list[Split] = [getattr(self, name) for name in SPLITS]
        return fitted_accuracy(
            *((log_counts(s.tokens, s.lengths, self.vocabulary), s.labels) for s in splits)
        )


def held_out(known: list[Sample], unseen: list[Sample], validation: int) -> dict[str, list[Sample]]:
    """Samples by split, where the first of those to train on are for validation."""
    return {"train": known[validation:], "validation": known[:validation], "test": unseen}


def collate(split: Split, indices: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """The samples as tensors: ``tokens`` ``[batch, longest]`` (int64, 0 after a sequence), ``lengths`` and
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
