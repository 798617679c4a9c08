"""Tensors that grow by a few rows at a time, such as keys and values while a model generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_ROOM = 16
"""Rows for which there is room at least, whenever there is no room left."""


class Rows:
    """Several tensors ``[batch, heads, rows, ...]`` that grow at the end and lose rows at the front.

    Joining old and new rows for every token takes longer than attending to them. Here they are copied only
    when the room is used up, which is then a quarter of the rows, so that a token costs the copies of four
    others at most. Rows once given out by `tensors` are not written to again.
    """

    def __init__(self) -> None:
        """None."""
        self._buffers: list[torch.Tensor] = []
        self._first = self._end = 0

    def __len__(self) -> int:
        """Rows there are."""
        return self._end - self._first

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, without the room for more."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        """The rows of each tensor, as views."""
        return [buffer[:, :, self._first : self._end] for buffer in self._buffers]

    def append(self, new: Sequence[torch.Tensor]) -> None:
        """As many rows for each tensor. Not for gradients, which writing would lose."""
        if self._buffers:
            self._write(new)
        else:
            self._replace(list(new))

    def keep_last(self, count: int) -> None:
        """Drop all rows but the last `count`; their memory is given back when it is much."""
        self._first = max(self._first, self._end - count)
        if self._buffers and self._buffers[0].shape[2] > count + _room(count + 1) + 1:
            self._replace([tensor.clone() for tensor in self.tensors()])

    def _replace(self, tensors: list[torch.Tensor]) -> None:
        self._buffers, self._first, self._end = tensors, 0, tensors[0].shape[2]

    def _write(self, new: Sequence[torch.Tensor]) -> None:
        count = new[0].shape[2]
        if not self._has_room(count):
            rows, held = len(self) + count, self.tensors()
            self._replace([_with_room(tensor, rows + _room(rows)) for tensor in held])
            self._end = rows - count
        for buffer, tensor in zip(self._buffers, new, strict=True):
            buffer[:, :, self._end : self._end + count] = tensor
        self._end += count

    def _has_room(self, count: int) -> bool:
        """Tensors of inference mode cannot be written to outside."""
        writable = torch.is_inference_mode_enabled() or not self._buffers[0].is_inference()
        return writable and self._end + count <= self._buffers[0].shape[2]


def _room(rows: int) -> int:
    return max(LEAST_ROOM, rows // 4)


def _with_room(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """A copy of `tensor` with space for `rows` rows in all."""
    wide = tensor.new_empty((*tensor.shape[:2], rows, *tensor.shape[3:]))
    wide[:, :, : tensor.shape[2]] = tensor
    return wide
