"""Several processes on this machine: a sequence, or a batch, over 2 and 4 ranks; ranks that end or hang."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from tests.extras import needs
from tests.processes import REPOSITORY

needs("torch")

from benchmarks.inputs import HEAD_DIM, HEADS
from benchmarks.traffic_probe import WINDOW
from tests.distributed_worker import OPTIONS

EXACT = [*(case for case in OPTIONS if case not in ("bfloat16", "autocast")), "pairs_of_ranks", "two_layers"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TIMEOUT = 3
"""Seconds a rank waits for another one in the tests of faults."""


def torchrun(ranks, *program):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*launcher, *program],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[2, 4], ids="{} ranks".format)
def found(request, tmp_path_factory):
    """What every rank has found."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(request.param, "-m", "tests.distributed_worker", str(folder))
    ranks = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    assert len(ranks) == request.param
    return ranks


@pytest.mark.parametrize("case", EXACT)
def test_equal_to_one_process(found, case):
    """Outputs and all gradients."""
    assert max(rank[case] for rank in found) < 1e-5


@pytest.mark.parametrize("case", ["bfloat16", "autocast"])
def test_equal_to_one_process_in_bfloat16(found, case):
    """To its rounding; that the messages carry something shows in the other cases."""
    assert max(rank[case] for rank in found) < 2e-2


def test_what_is_sent_does_not_grow(found):
    """Beyond the ends and the states of the docstring only headers and the numbers that are compared."""
    ends = 4 * HEADS * WINDOW * 2 * HEAD_DIM
    states = (1 + math.ceil(math.log2(len(found) - 1))) * 4 * HEADS * 2 * HEAD_DIM * HEAD_DIM
    for once, twice in (rank["bytes_sent"] for rank in found):
        assert abs(twice - once) < 100
        assert twice < 2 * (ends + states) + 10_000
    assert found[0]["bytes_sent"][0] >= ends


def test_data_parallel_gradients(found):
    assert max(rank["data_parallel"] for rank in found) < 1e-6


def test_nothing_is_left_of_a_group_that_was_destroyed(found):
    """A thread of gloo that still runs when the interpreter ends can abort it."""
    assert not [name for rank in found for name in rank["threads left"] if "gloo" in name]


REFUSED = {
    "one rank's type": "TypeError: key must be a torch.Tensor, got list",
    "one rank's shape": "ValueError: value has shape",
}
DISAGREED = {
    "heads": "ValueError: heads must be the same on all ranks: 2 on rank 0, 1 on rank",
    "window": "ValueError: window must be the same on all ranks",
    "dtype": "ValueError: whether the dtype is bfloat16 must be the same on all ranks",
    "gradients": "ValueError: whether key or value need gradients must be the same",
    "short slice": "ValueError: slices must have at least window = 4 positions, rank",
    "device": "ValueError: query, key and value must be on the CPU, got meta",
    "option": "ValueError: eps must be > 0, got",
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_rank_refuses(found, case):
    """It says why, and the others do not wait for it."""
    *others, last = (rank["refusals"][case] for rank in found)
    assert last.startswith(REFUSED[case])
    assert set(others) == {
        f"RuntimeError: rank {len(others)} has refused its arguments; the error there says why"
    }


@pytest.mark.parametrize("case", DISAGREED)
def test_all_ranks_refuse(found, case):
    assert all(rank["refusals"][case].startswith(DISAGREED[case]) for rank in found)


def test_the_example_runs(tmp_path):
    import rattention.torch.distributed as documented

    program = tmp_path / "train.py"
    program.write_text(dedent(documented.__doc__.partition("::\n\n")[2]))
    lines = re.findall(r"rank (\d): (.*?), gradient (\d+\.\d\d)", torchrun(2, str(program)))
    assert [(rank, shape) for rank, shape, _ in sorted(lines)] == [(r, "(1, 4, 2048, 32)") for r in "01"]
    assert len({gradient for _, _, gradient in lines}) == 1


def test_without_a_process_group():
    import torch
    from rattention.torch.distributed import context_parallel_rattention

    with pytest.raises(ValueError, match="process group has not been initialized"):
        context_parallel_rattention(*torch.zeros(3, 1, 2, 8, 4), window=2)


FAULT = """
    import os, signal, sys, time
    from datetime import timedelta
    import torch
    import torch.distributed as dist
    from rattention.torch.distributed import context_parallel_rattention

    rank, ranks, seconds, store, fault, moment = *map(int, sys.argv[1:4]), *sys.argv[4:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    group = dist.new_group(timeout=timedelta(seconds=seconds))

    def reached(now):
        if (rank, now) == (1, moment):
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)

    inputs = torch.randn(3, 1, 2, 16, 8).requires_grad_()
    dist.barrier()
    reached("before forward")
    output = context_parallel_rattention(*inputs, window=4, group=group)
    reached("before backward")
    output.sum().backward()
"""


@pytest.mark.parametrize(
    ("fault", "moment"),
    [("dies", "before forward"), ("dies", "before backward"), ("hangs", "before backward")],
)
def test_a_lost_rank_ends_the_others(tmp_path, fault, moment):
    """With an error, soon after the timeout of the group at the latest."""
    arguments = (str(TIMEOUT), f"file://{tmp_path}/store", fault, moment)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", dedent(FAULT), str(rank), "3", *arguments],
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    begin = time.perf_counter()
    try:
        for rank in (0, 2):
            _, error = processes[rank].communicate(timeout=60)
            assert processes[rank].returncode != 0
            message = f"RuntimeError: rank {rank} could not exchange"
            assert message in error, error
            assert "a process has ended or has not answered" in error
        assert processes[1].poll() == (-9 if fault == "dies" else None)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert time.perf_counter() - begin < 50
