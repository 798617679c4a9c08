"""Rows Z: large problems, impossible ones, and memory that runs out."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rattention as ra
from numpy.lib.stride_tricks import as_strided

from tests.mechanisms import Sizes, by_rule
from tests.processes import run_python


@pytest.mark.row("Z1")
@by_rule
@pytest.mark.parametrize("window", [(16, 0), (8, 8)], ids=str)
def test_more_scores_than_an_int32_counts(mechanism, window):
    """L * L > 2**31, but the window keeps the work small; sampled rows against float64."""
    length = 50_000
    inputs = mechanism.draw(Sizes(heads=1, rows=length, dim=8))
    start = time.perf_counter()
    got = mechanism.forward(**inputs, window=window, metrics=ra.MetricOptions())
    assert time.perf_counter() - start < 10
    for i in [0, 1, 7, 40_000, length - 9, *np.random.default_rng(0).integers(0, length, 50), length - 1]:
        keys = slice(max(0, i - window[0]), i + window[1] + 1)
        part = {name: a[:, :, [i] if "query" in name else keys] for name, a in inputs.items()}
        offset = i - keys.start
        expected = mechanism.reference(**part, query_offset=offset, metrics=ra.MetricOptions(received=False))
        np.testing.assert_allclose(got.output[:, :, [i]], expected.output, rtol=0, atol=3e-6)
        np.testing.assert_allclose(got.metrics.entropy[:, :, [i]], expected.metrics.entropy, atol=3e-6)
        assert got.metrics.max_position[0, 0, i] == expected.metrics.max_position[0, 0, 0] + keys.start


def endless(*shape):
    """An array of any shape that is one number in memory."""
    return as_strided(np.ones(1, np.float32), shape, (0,) * len(shape))


IMPOSSIBLE = {
    # elements of the output: 2**65, which is 2 modulo 2**64
    "output": ((2**15, 2**15, 2**15, 1), (2**15, 1, 1, 1), 2**20),
    # 2**61 elements, 2**63 bytes
    "bytes": ((1, 1, 2**30, 1), (1, 1, 1, 1), 2**31),
    # no overflow, and yet beyond any address space
    "memory": ((1, 1, 2**48, 1), (1, 1, 1, 1), 1),
}


@pytest.mark.row("Z3")
@by_rule
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_outputs_that_cannot_be(mechanism, case):
    query, key, value_dim = IMPOSSIBLE[case]
    arrays = {"query": endless(*query), "key": endless(*key), "value": endless(*key[:3], value_dim)}
    with pytest.raises((MemoryError, ValueError)):
        mechanism.forward(**mechanism.complete(arrays))


@pytest.mark.row("Z3")
@by_rule
def test_metrics_that_cannot_be(mechanism):
    arrays = {"query": endless(2**20, 2**20, 2**20, 1), "key": endless(2**20, 1, 1, 1)}
    with pytest.raises((MemoryError, ValueError)):
        mechanism.metrics(**mechanism.complete(arrays))


@pytest.mark.row("Z3")
@by_rule
def test_received_that_cannot_be(mechanism):
    arrays = {"query": endless(2**10, 2**10, 1, 1), "key": endless(2**10, 1, 2**45, 1)}
    with pytest.raises((MemoryError, ValueError)):
        mechanism.metrics(**mechanism.complete(arrays))


@pytest.mark.row("Z3")
@by_rule
def test_rows_and_maps_that_cannot_be(mechanism):
    rows = as_strided(np.zeros(1, np.int64), (2**10,), (0,))
    few = mechanism.complete({"query": endless(1, 2**20, 1, 1), "key": endless(1, 1, 2**40, 1)})
    with pytest.raises((MemoryError, ValueError)):
        mechanism.rows(**few, rows=rows)
    many = mechanism.complete({"query": endless(2**20, 2**20, 2**20, 1), "key": endless(2**20, 1, 1, 1)})
    with pytest.raises((MemoryError, ValueError)):
        mechanism.pooled(**many)


OUT_OF_MEMORY = """
    import resource
    import numpy as np
    import rattention as ra
    from tests.mechanisms import MECHANISMS, Sizes
    from tests.processes import resident_bytes

    mechanism = next(m for m in MECHANISMS if m.name == {name!r})
    ra.set_num_threads({threads})
    inputs = mechanism.draw(Sizes(heads={heads}, rows={rows}, dim={dim}))
    call = {{
        "output": lambda: mechanism.forward(**inputs, window=(4, 0)),
        "all": lambda: mechanism.forward(**inputs, window=(4, 0), metrics=ra.MetricOptions()).output,
        "rows": lambda: mechanism.rows(**mechanism.map_inputs(inputs), rows=range(40)),
        "map": lambda: mechanism.pooled(**mechanism.map_inputs(inputs), shape=(2000, 2000), window=(4, 0)),
    }}[{call!r}]
    tiny = mechanism.draw(Sizes(heads=8, rows=9, dim=4))
    mechanism.forward(**tiny)

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    failures = 0
    for extra in range(0, 4000):
        resource.setrlimit(resource.RLIMIT_AS, (resident_bytes("VmSize") + extra * 2**18, hard))
        try:
            got = call()
            break
        except MemoryError:
            failures += 1
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    np.testing.assert_array_equal(got, call())
    mechanism.forward(**tiny)
    print(failures)
"""


RUNS = [
    ("output", 1, 2, 20_000, 64),
    ("all", 2, 2, 20_000, 64),
    ("all", 4, 8, 600, 256),
    ("rows", 2, 4, 30_000, 8),
    ("map", 2, 2, 20_000, 64),
]


@pytest.mark.row("Z4")
@by_rule
@pytest.mark.parametrize(("call", "threads", "heads", "rows", "dim"), RUNS)
def test_memory_runs_out(mechanism, call, threads, heads, rows, dim):
    """However much is missing: a MemoryError, and the next call works. The limit grows until one succeeds."""
    code = OUT_OF_MEMORY.format(
        name=mechanism.name, call=call, threads=threads, heads=heads, rows=rows, dim=dim
    )
    failures = int(run_python(code))
    assert failures > 0 or rows < 1_000  # so few rows may find room in what is free already


PEAK = """
    import rattention as ra
    from tests.mechanisms import MECHANISMS, Sizes
    from tests.processes import peak_beyond

    mechanism = next(m for m in MECHANISMS if m.name == {name!r})
    inputs = mechanism.draw(Sizes(heads=1, rows={rows}, dim=64))
    results = []
    row_metrics = {rows} * (8 * 4 + 8 + 4)
    options = {options}
    of_map, ends = mechanism.map_inputs(inputs), [0, {rows}]
    calls = {{
        "forward": (lambda: mechanism.forward(**inputs, **options), inputs["query"].nbytes),
        "fused": (
            lambda: mechanism.forward(**inputs, **options, metrics=ra.MetricOptions()),
            inputs["query"].nbytes + row_metrics,
        ),
        "metrics": (lambda: mechanism.metrics(**mechanism.map_inputs(inputs), **options), row_metrics),
        "map": (lambda: mechanism.pooled(**mechanism.map_inputs(inputs), **options), 4 * 256 * 256),
        "segments": (lambda: mechanism.segments(**of_map, query_edges=ends, key_edges=ends, **options), 4),
        "distances": (lambda: mechanism.distances(**of_map, edges=range({rows}), **options), 4 * {rows}),
        "top_keys": (lambda: mechanism.top_keys(**of_map, k=16, **options), {rows} * 16 * 12),
    }}
    call, returned = calls[{call!r}]
    print(peak_beyond(lambda: results.append(call()), returned))
"""


@pytest.mark.row("Z5")
@by_rule
@pytest.mark.parametrize("call", ["forward", "fused", "metrics", "map"])
@pytest.mark.parametrize(
    ("rows", "options"),
    [(65_536, {"causal": True, "window": 512}), (16_384, {"causal": True})],
    ids=["65536 windowed", "16384"],
)
def test_peak_memory(mechanism, call, rows, options):
    """Beyond inputs and outputs less than 64 MiB, where the map would take 1 to 17 GB."""
    code = PEAK.format(name=mechanism.name, call=call, rows=rows, options=options)
    assert int(run_python(code)) < 64 * 2**20


@pytest.mark.row("Z5")
@by_rule
def test_peak_memory_of_rows(mechanism):
    """O(rows * n): ten rows of a map of 65,536 x 65,536."""
    code = f"""
        from tests.mechanisms import MECHANISMS, Sizes
        from tests.processes import peak_beyond

        mechanism = next(m for m in MECHANISMS if m.name == {mechanism.name!r})
        inputs = mechanism.map_inputs(mechanism.draw(Sizes(heads=1, rows=65_536, dim=64)))
        results = []
        call = lambda: results.append(mechanism.rows(**inputs, rows=range(10)))
        print(peak_beyond(call, 10 * 65_536 * 4))
    """
    assert int(run_python(code)) < 64 * 2**20
