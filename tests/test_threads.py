"""Rows T1 and T2: many Python threads at once, and the GIL released while the kernels run."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import Mechanism, Sizes, by_rule

PYTHON_THREADS = 16

CASES = {
    "full": (Sizes(heads=4, rows=130), {}),
    "causal": (Sizes(heads=4, rows=300, dim=24), {"causal": True}),
    "window": (Sizes(batch=2, rows=700, dim=8), {"causal": True, "window": 64}),
    "shared heads": (Sizes(heads=8, kv_heads=2, rows=100), {"window": (20, 3)}),
    "long": (Sizes(heads=1, rows=1300, dim=40), {"causal": True}),
    "short": (Sizes(heads=1, rows=1, keys=200), {}),
}


def all_results(mechanism: Mechanism, inputs, options):
    """Everything a mechanism computes, as one flat list of arrays."""
    full = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions())
    alone = mechanism.metrics(**mechanism.map_inputs(inputs), **options)
    plain = mechanism.forward(**inputs, **options)
    arrays = [full.output, full.lse, plain, *(a for _, a in full.metrics), *(a for _, a in alone)]
    rows = mechanism.rows(**mechanism.map_inputs(inputs), rows=[0, -1], **options)
    return [*arrays, rows, mechanism.pooled(**mechanism.map_inputs(inputs), shape=(20, 30), **options)]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.row("T1")
@by_rule
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_python_threads_share_inputs(mechanism, case, threads, use_threads):
    """16 threads with the same inputs at once: the bits of a serial run."""
    sizes, options = CASES[case]
    inputs = mechanism.draw(sizes, dtype="bfloat16" if case == "window" else "float32")
    use_threads(threads)
    expected = all_results(mechanism, inputs, options)
    barrier = threading.Barrier(PYTHON_THREADS)

    def work(_):
        barrier.wait()
        for _ in range(4):
            assert_same(all_results(mechanism, inputs, options), expected)

    with ThreadPoolExecutor(PYTHON_THREADS) as pool:
        list(pool.map(work, range(PYTHON_THREADS)))


@pytest.mark.row("T1")
@by_rule
def test_python_threads_with_problems_of_their_own(mechanism, use_threads):
    """Different sizes, masks and failures side by side, and a thread that keeps changing the thread count."""
    problems = [(mechanism.draw(sizes), options) for sizes, options in CASES.values()]
    expected = [all_results(mechanism, *problem) for problem in problems]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for n in (1, 2, 3, 0):
                use_threads(n)

    def work(i):
        which = i % len(problems)
        for _ in range(4):
            assert_same(all_results(mechanism, *problems[which]), expected[which])
            with pytest.raises(ValueError, match="log_discount"):
                mechanism.forward(**problems[which][0], log_discount=np.nan)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        with ThreadPoolExecutor(PYTHON_THREADS) as pool:
            list(pool.map(work, range(PYTHON_THREADS)))
    finally:
        stop.set()
        changer.join()


@pytest.mark.row("T1")
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_is_kept(threads, use_threads):
    use_threads(threads)
    assert ra.get_num_threads() == threads
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ra.get_num_threads).result() == threads
    use_threads(0)
    assert ra.get_num_threads() >= 1


@pytest.mark.row("T1")
@pytest.mark.parametrize(
    ("n", "error"),
    [(-1, ValueError), (4097, ValueError), (2**70, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_numbers_of_threads_that_are_none(n, error):
    with pytest.raises(error, match="n must be"):
        ra.set_num_threads(n)


def spin_rate(call) -> float:
    """How often a pure Python loop in another thread goes round in a second while call() runs."""
    started, done, rates = threading.Event(), threading.Event(), []

    def spin():
        started.set()
        ticks, start = 0, time.perf_counter()
        while not done.is_set():
            ticks += 1
        rates.append(ticks / (time.perf_counter() - start))

    thread = threading.Thread(target=spin)
    thread.start()
    started.wait()
    call()
    done.set()
    thread.join()
    return rates[0]


@pytest.mark.row("T2")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@by_rule
@pytest.mark.parametrize("call", ["forward", "fused", "metrics", "rows", "map"])
def test_the_gil_is_released(mechanism, call, dtype, use_threads):
    """Python goes on at half its free rate or more while a kernel runs; with the GIL held it would stop."""
    use_threads(1)
    inputs = mechanism.draw(Sizes(heads=1, rows=2500, dim=64), dtype=dtype)
    of_map = mechanism.map_inputs(inputs)
    calls = {
        "forward": lambda: mechanism.forward(**inputs),
        "fused": lambda: mechanism.forward(**inputs, metrics=ra.MetricOptions()),
        "metrics": lambda: mechanism.metrics(**of_map),
        "rows": lambda: mechanism.rows(**of_map, rows=range(2500)),
        "map": lambda: mechanism.pooled(**of_map),
    }
    shares = []
    for _ in range(20):  # other processes may take the second processor for a while
        free = spin_rate(lambda: time.sleep(0.05))
        shares.append(spin_rate(lambda: [calls[call]() for _ in range(3)]) / free)
        if shares[-1] >= 0.5:
            return
    pytest.fail(f"a Python thread got {max(shares):.2f} of its free rate at best")
