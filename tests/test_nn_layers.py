"""Dense layers, layer norm and embeddings as Python sees them; a model shared by threads and forks."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rattention as ra
from rattention import _core
from rattention.models import Bert

from tests.bert_folder import gelu, write_folder
from tests.extras import needs
from tests.instruction_sets import capped, every_isa
from tests.processes import run_python

Activation = _core.Activation


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(out_features, in_features, activation=Activation.none):
    return _core.Linear(floats(out_features, in_features, seed=1), floats(out_features, seed=2), activation)


@pytest.fixture
def default_threads():
    yield
    ra.set_num_threads(0)


@pytest.mark.row("N13")
@pytest.mark.parametrize("rows", [1, 17, 129, 500])
@pytest.mark.parametrize(("out_features", "in_features"), [(384, 384), (1000, 64), (96, 1536)])
def test_threads_change_no_bit(default_threads, rows, out_features, in_features):
    layer, x = linear(out_features, in_features, Activation.gelu), floats(rows, in_features)
    results = []
    for threads in (1, 2, 3, 7):
        ra.set_num_threads(threads)
        results += [layer(x), layer(x)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.row("S2")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_stays_one(bad):
    x = floats(200, 48)
    good = linear(70, 48)(x)
    x[131, 5] = bad
    got = linear(70, 48)(x)
    others = np.arange(200) != 131
    assert not np.isfinite(got[131]).any()
    np.testing.assert_array_equal(got[others], good[others])


@pytest.mark.row("N9")
@pytest.mark.parametrize("x", [-1e30, -40.0, -6.0, -1e-3, 0.0, 1e-30, 5.5, 40.0, 1e30])
def test_gelu_far_out(x):
    """Exactly zero or the identity where the normal distribution has run out."""
    layer = _core.Linear(np.ones((1, 1), np.float32), None, Activation.gelu)
    got = layer(np.full((1, 1), x, np.float32))[0, 0]
    want = gelu(np.float64(np.float32(x)))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.row("N12")
def test_denormals_cost_no_time():
    """Each would cost a hundred cycles, were it not taken for zero."""
    layer, x = linear(768, 768), floats(256, 768)

    def seconds(inputs):
        start = time.perf_counter()
        layer(inputs)
        return time.perf_counter() - start

    layer(x)
    usual = min(seconds(x) for _ in range(20))
    tiny = np.copysign(np.float32(1e-40), x)
    assert min(seconds(tiny) for _ in range(20)) < 2 * usual


X, WEIGHT, BIAS = floats(3, 4), floats(5, 4), floats(5)
IDS = np.array([0, 2])
BAD_CALLS = {
    "input too narrow": (
        lambda: _core.Linear(WEIGHT, BIAS)(X[:, :3].copy()),
        ValueError,
        r"x must have shape \(rows, 4\)",
    ),
    "input of rank 1": (lambda: _core.Linear(WEIGHT, BIAS)(X[0]), ValueError, "x must have shape"),
    "input strided": (lambda: _core.Linear(WEIGHT, BIAS)(X[:, ::-1]), TypeError, "incompatible"),
    "input float64": (lambda: _core.Linear(WEIGHT, BIAS)(X.astype(float)), TypeError, "incompatible"),
    "weight of rank 1": (lambda: _core.Linear(BIAS, None), ValueError, "weight must have shape"),
    "weight empty": (lambda: _core.Linear(WEIGHT[:0], None), ValueError, "none of them 0"),
    "bias too short": (lambda: _core.Linear(WEIGHT, BIAS[:4]), ValueError, r"bias must have shape \(5,\)"),
    "norm bias": (lambda: _core.layer_norm(X, X[0], BIAS, 1e-5), ValueError, "bias must have shape"),
    "norm input": (lambda: _core.layer_norm(X, BIAS, BIAS, 1e-5), ValueError, "x must have shape"),
    "residual rows": (lambda: _core.layer_norm(X, X[0], X[0], 1e-5, X[:2]), ValueError, "as many rows"),
    "residual width": (
        lambda: _core.layer_norm(X, X[0], X[0], 1e-5, floats(3, 3)),
        ValueError,
        "residual must have",
    ),
    "no tables": (lambda: _core.embedding_sum([]), ValueError, "at least one table"),
    "index beyond": (
        lambda: _core.embedding_sum([("word", X, IDS + 1)]),
        ValueError,
        r"word must lie in \[0, 2\], got 3",
    ),
    "index negative": (
        lambda: _core.embedding_sum([("word", X, -IDS)]),
        ValueError,
        "word must lie in .* got -2",
    ),
    "tables of two widths": (
        lambda: _core.embedding_sum([("a", X, IDS), ("b", WEIGHT[:, :3].copy(), IDS)]),
        ValueError,
        "b",
    ),
    "indices of two lengths": (
        lambda: _core.embedding_sum([("a", X, IDS), ("b", X, IDS[:1])]),
        ValueError,
        "b must be as",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_rows():
    assert linear(5, 4)(X[:0]).shape == (0, 5)
    assert _core.layer_norm(X[:0], X[0], X[0], 1e-5).shape == (0, 4)
    assert _core.embedding_sum([("word", X, IDS[:0])]).shape == (0, 4)


def test_weights_are_copied():
    weight, bias = floats(5, 4), floats(5)
    layer = _core.Linear(weight, bias)
    want = layer(X)
    weight[:], bias[:] = np.nan, np.nan
    np.testing.assert_array_equal(layer(X), want)


@pytest.mark.row("B2")
@every_isa
def test_instruction_sets(isa):
    """In a child, because a cap is read once."""
    code = """
        import numpy as np
        from rattention import _core
        rng = np.random.default_rng(0)
        for rows, wide, deep in [(1, 3, 5), (50, 384, 384), (130, 1000, 70), (500, 768, 768)]:
            x, w, b = (rng.standard_normal(s).astype(np.float32) for s in [(rows, deep), (wide, deep), wide])
            want = x.astype(float) @ w.T.astype(float) + b
            error = abs(_core.Linear(w, b)(x) - want).max()
            assert error < 1e-6 * deep, (rows, wide, deep, error)
    """
    run_python(code, **capped(isa))


@pytest.mark.row("Z4")
def test_out_of_memory_is_an_error_and_no_more():
    code = """
        import resource
        import numpy as np
        from rattention import _core
        layer = _core.Linear(np.ones((4096, 8), np.float32), None)
        x = np.ones((40000, 8), np.float32)
        usual = layer(x[:50])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
        try:
            layer(x)
        except MemoryError:
            print("MemoryError", (layer(x[:50]) == usual).all())
    """
    assert run_python(code, OMP_NUM_THREADS="2") == "MemoryError True\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    needs("models")
    return Bert.from_pretrained(write_folder(tmp_path_factory.mktemp("bert")))


def batches():
    rng = np.random.default_rng(4)
    return [rng.integers(5, 22, (1 + i % 3, 1 + 7 * i % 64)) for i in range(48)]


def run(model, ids):
    output = model(ids, metrics=ra.MetricOptions())
    return [output.last_hidden_state, output.pooler_output, *(layer.entropy for layer in output.metrics)]


def assert_same(got, want):
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.row("T1")
def test_sixteen_threads_share_a_fresh_model(tmp_path):
    """Fresh, so that the threads also race to make what is made when first needed."""
    needs("models")
    folder, inputs = write_folder(tmp_path), batches()
    want = [run(Bert.from_pretrained(folder), ids) for ids in inputs]
    shared = Bert.from_pretrained(folder)
    with ThreadPoolExecutor(16) as pool:
        for got, expected in zip(pool.map(lambda ids: run(shared, ids), inputs * 3), want * 3, strict=True):
            assert_same(got, expected)


@pytest.mark.row("T1")
def test_sixteen_threads_share_a_tokenizer(model):
    needs("models")
    lengths = [3 + i % 30 for i in range(160)]
    with ThreadPoolExecutor(16) as pool:
        for length, got in zip(
            lengths, pool.map(lambda n: model.encode("cat " * 40, max_length=n), lengths), strict=True
        ):
            assert got.input_ids.shape == (1, length)


def ticks_during(work):
    """How often another thread gets to count while `work` runs once, per second."""
    count, done = 0, threading.Event()

    def spin():
        nonlocal count
        while not done.is_set():
            count += 1

    thread = threading.Thread(target=spin)
    thread.start()
    start = time.perf_counter()
    work()
    elapsed = time.perf_counter() - start
    done.set()
    thread.join()
    return count / elapsed


WIDE = floats(2048, 2048)
TALL = floats(30000, 2048)
LONG_CALLS = {
    "dense layer": lambda: _core.Linear(WIDE, None)(WIDE),
    "layer norm": lambda: _core.layer_norm(TALL, WIDE[0], WIDE[0], 1e-5),
    "embeddings": lambda: _core.embedding_sum([("row", WIDE, np.arange(2048))] * 600),
}


@pytest.mark.row("T2")
@pytest.mark.parametrize("work", LONG_CALLS.values(), ids=LONG_CALLS)
def test_other_threads_run_meanwhile(default_threads, work):
    """At half the rate or more that a call of the standard library leaves them, one that releases the GIL."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two processors")
    ra.set_num_threads(1)
    work()
    shares = []
    for _ in range(10):  # other processes may take the second processor for a while
        usual = ticks_during(lambda: hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 100_000))
        shares.append(ticks_during(work) / usual)
        if shares[-1] >= 0.5:
            return
    pytest.fail(f"a spinning thread got only these shares of its usual rate: {shares}")


def run_in_child(model, inputs, queue):
    queue.put([run(model, ids) for ids in inputs])


@pytest.mark.row("T3")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [2, 8])
def test_fork_after_the_model_ran(default_threads, model, threads):
    """The parent's threads do not live on in the child, and neither may what was prepared for them."""
    inputs = batches()[:8]
    ra.set_num_threads(threads)
    want = [run(model, ids) for ids in inputs[:4]]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=run_in_child, args=(model, inputs, queue))
    child.start()
    try:
        got = queue.get(timeout=10)
    finally:
        child.join(10)
        child.kill()
    assert child.exitcode == 0
    want += [run(model, ids) for ids in inputs[4:]]
    for ours, theirs in zip(got, want, strict=True):
        assert_same(ours, theirs)


@pytest.mark.row("T3")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_pool_of_forked_workers(model):
    inputs = batches()[:8]
    want = [model(ids).last_hidden_state for ids in inputs]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        tasks = [pool.apply_async(forward, (model.name, ids)) for ids in inputs]
        for task, expected in zip(tasks, want, strict=True):
            np.testing.assert_array_equal(task.get(timeout=10), expected)


def forward(folder, ids):
    return Bert.from_pretrained(folder)(ids).last_hidden_state
