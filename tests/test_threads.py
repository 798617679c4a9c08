"""Rows T1, T2 and M10: many Python threads at once, the GIL released, arrays that change meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rattention as ra
from rattention import _core

from tests.mechanisms import Mechanism, Sizes, by_rule
from tests.processes import run_python

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
    of_map = mechanism.map_inputs(inputs) | options
    ends = [0, of_map["query"].shape[2]]
    parts = [
        mechanism.rows(**of_map, rows=[0, -1]),
        mechanism.pooled(**of_map, shape=(20, 30)),
        mechanism.segments(**of_map, query_edges=ends, key_edges=[0, of_map["key"].shape[2]]),
        mechanism.distances(**of_map, edges=[0, 3, 90]),
        *mechanism.top_keys(**of_map, k=4),
    ]
    return [*arrays, *parts]


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


@pytest.mark.row("T1")
def test_recordings_of_tasks_are_the_own_of_a_thread():
    """Each of 8 threads records its own calls, while the others record theirs."""
    x = np.ones((1, 2, 64, 8), np.float32)

    def record(calls):
        for _ in range(50):
            _core.record_task_times()
            for _ in range(calls):
                ra.attention(x, x, x)
            assert len(_core.recorded_task_times()) == calls

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(1, 9)))


@pytest.mark.row("T1")
def test_callers_share_their_helpers():
    """16 callers with 8 threads each make 7 helpers, not 112."""
    run_python("""
        import os, threading
        import numpy as np
        import rattention as ra

        x = np.ones((1, 16, 512, 16), np.float32)
        ra.set_num_threads(8)
        gate, leave = threading.Barrier(17), threading.Event()

        def work():
            ra.attention(x, x, x)
            gate.wait()
            leave.wait()

        before = len(os.listdir("/proc/self/task"))
        callers = [threading.Thread(target=work) for _ in range(16)]
        for caller in callers:
            caller.start()
        gate.wait()
        assert len(os.listdir("/proc/self/task")) == before + 16 + 7
        leave.set()
        for caller in callers:
            caller.join()
    """)


@pytest.mark.row("T1")
def test_idle_helpers_take_no_time():
    run_python("""
        import time
        import numpy as np
        import rattention as ra

        x = np.ones((1, 8, 300, 16), np.float32)
        ra.set_num_threads(8)
        ra.attention(x, x, x)
        time.sleep(0.1)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.02
    """)


@pytest.mark.row("T1")
def test_one_snapshot_restores_many_caches():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 2, 300, 32), dtype=np.float32)
    cache = ra.RAttentionCache(1, 2, 32, 16)
    ra.rattention_step(q, k, v, cache)
    snapshot = cache.snapshot()
    expected = ra.rattention_step(q, k, v, cache)

    def restore(_):
        for _ in range(100):
            own = ra.RAttentionCache(1, 2, 32, 16)
            own.restore(snapshot)
        np.testing.assert_array_equal(ra.rattention_step(q, k, v, own), expected)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(restore, range(8)))


SPOILED = {
    "segment ids of scores": (
        "array, other = ids, many",
        "x = rows(1, 1, 3_000, 8)\nfor _ in range(20): ra.attention(x, x, x, causal=True, segment_ids=array)",
    ),
    "segment ids and metrics": (
        "array, other = ids, many",
        "x = rows(1, 1, 3_000, 8)\nfor _ in range(5): ra.attention_metrics(x, x, segment_ids=array)",
    ),
    "segment ids of the core's states": (
        "array, other = ids, many",
        "x = rows(1, 1, 3_000, 8)\n"
        "for _ in range(300):\n"
        "    options = _core.LinearOptions(window=-1, segment_ids=array)\n"
        "    _core.residual_linear_attention(x, x, x, options, keep=True)",
    ),
    "segment ids of both branches": (
        "array, other = ids, many",
        "x = rows(1, 2, 3_000, 8)\nfor _ in range(30): ra.rattention(x, x, x, window=16, segment_ids=array)",
    ),
    "padding": (
        "array, other = ids > 0, many > 700",
        "x = rows(1, 2, 3_000, 8)\n"
        "for _ in range(5):\n"
        "    ra.attention(x, x, x, key_mask=array, metrics=ra.MetricOptions(received=True))\n"
        "    ra.residual_linear_attention(x, x, x, window=3, key_mask=array)",
    ),
    "a dense mask": (
        "array, other = np.ones((1_000, 1_000), bool), np.tril(np.ones((1_000, 1_000), bool))",
        "x = rows(1, 2, 1_000, 8)\n"
        "for _ in range(10): ra.attention(x, x, x, attn_mask=array, metrics=ra.MetricOptions(received=True))",
    ),
    "token ids": (
        "array, other = np.zeros(300_000, np.int64), np.full(300_000, 2**40)",
        "table = rows(1, 1, 10, 64)[0, 0]\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        _core.embedding_sum([('ids', table, array)])\n"
        "    except ValueError:\n"
        "        pass",
    ),
    "rows": (
        "array, other = np.zeros(100_000, np.int64), np.full(100_000, 2**40)",
        "x = rows(1, 1, 8, 8)\n"
        "options = _core.ScoreOptions(left=-1, right=-1, query_offset=0, scale=1)\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        _core.attention_rows(x, x, array, options)\n"
        "    except ValueError:\n"
        "        pass",
    ),
}


@pytest.mark.row("M10")
@pytest.mark.parametrize("case", SPOILED)
def test_arrays_that_another_thread_changes(case):
    """Whatever the answer then is, memory that is not the call's is neither read nor written."""
    arrays, calls = SPOILED[case]
    code = """
import threading
import numpy as np
import rattention as ra
from rattention import _core

def rows(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

ids = np.zeros((1, 3_000), np.int64)
many = np.arange(3_000)[None] // 2
ARRAYS
kept, stop = array.copy(), threading.Event()

def spoil():
    while not stop.is_set():
        array[...] = other
        array[...] = kept

spoiler = threading.Thread(target=spoil)
spoiler.start()
try:
    CALLS
finally:
    stop.set()
    spoiler.join()
"""
    run_python(code.replace("ARRAYS", arrays).replace("CALLS", calls.replace("\n", "\n    ")))


@pytest.mark.row("H10")
@pytest.mark.parametrize("name", ["gravity", "exponent", "log_discount"])
def test_the_core_checks_numbers_per_head(name):
    """Shorter arrays than heads, or of another dtype, would be read beyond their end."""
    from rattention import _core

    x, mass = np.ones((1, 4, 3, 8), np.float32), np.ones((1, 4, 3), np.float32)
    right = {"gravity": np.ones(4, np.float32), "exponent": np.ones(4, np.float32)}
    for wrong in (np.ones(1, np.float32), np.ones(4, np.float16), np.ones(8, np.float32)[::2]):
        options = _core.ScoreOptions(
            left=-1,
            right=-1,
            query_offset=0,
            scale=1,
            query_mass=mass,
            key_mass=mass,
            eps=1.0,
            **(right | {name: wrong}),
        )
        with pytest.raises(ValueError, match=name):
            _core.attention(x, x, x, options, None, False)


@pytest.mark.row("T1")
def test_a_limit_that_falls_while_helpers_are_started():
    """By another thread: fewer helpers take part, and the call ends."""
    code = """
        import threading, time, numpy as np, rattention as ra
        x = np.ones((1, 8, 256, 16), np.float32)
        end = threading.Event()
        def lower():
            while not end.is_set():
                ra.set_num_threads(1)
                time.sleep(2e-4)
        thread = threading.Thread(target=lower)
        thread.start()
        begin, calls = time.monotonic(), 0
        while time.monotonic() < begin + 2:
            ra.set_num_threads(64)
            assert np.allclose(ra.attention(x, x, x), 1)
            calls += 1
        end.set()
        thread.join()
        print(calls > 3)
    """
    assert run_python(code, timeout=60).strip() == "True"
