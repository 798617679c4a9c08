"""One rank of RAttention over several processes, which counts the bytes it sends.

``torchrun --nproc-per-node=4 -m benchmarks.traffic_probe FILE LENGTH...``; rank 0 writes FILE, JSON: for
every length of the whole sequence the bytes each rank sent for one forward and backward pass. Linux only,
as it reads /proc: what the process handed to the kernel, gloo's own headers counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from rattention._files import write_json
from rattention.torch.distributed import context_parallel_rattention

from benchmarks.inputs import HEAD_DIM, HEADS

WINDOW = 512


def main(file: Path, lengths: list[int]) -> None:
    dist.init_process_group("gloo")
    by_length = {length: _gathered(sent(length)) for length in lengths}
    if dist.get_rank() == 0:
        write_json(file, by_length)
    dist.destroy_process_group()


def sent(length: int) -> int:
    """Bytes this rank sends, of a sequence of `length`."""
    inputs = torch.randn(3, 1, HEADS, length // dist.get_world_size(), HEAD_DIM).requires_grad_()
    dist.barrier()  # its messages, and those that set up connections, are before the count
    before = _written()
    output = context_parallel_rattention(*inputs, window=WINDOW, rope_theta=1e4)
    output.sum().backward()
    return _written() - before


def _written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _gathered(number: int) -> list[int]:
    everybody = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, torch.tensor([number]))
    return [int(tensor) for tensor in everybody]


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])
