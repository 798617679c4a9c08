"""Rows M6, M7 and M9: nobody's memory but one's own, and none of it kept."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import Sizes, by_rule
from tests.processes import run_python


class Tracked(np.ndarray):
    """An array that can be watched by a weak reference."""


def tracked(inputs):
    return {name: array.view(Tracked) for name, array in inputs.items()}


@pytest.mark.row("M6")
@by_rule
@pytest.mark.parametrize("rows", [1, 70])
def test_results_share_no_memory_with_inputs(mechanism, rows):
    inputs = mechanism.draw(Sizes(rows=rows))
    results = mechanism.forward(**inputs, return_lse=True, metrics=ra.MetricOptions())
    arrays = [results.output, results.lse, *(array for _, array in results.metrics)]
    for i, array in enumerate(arrays):
        assert array.flags.writeable
        for other in [*inputs.values(), *arrays[:i]]:
            assert not np.shares_memory(array, other)


@pytest.mark.row("M6")
@by_rule
def test_one_array_as_query_key_and_value(mechanism):
    inputs = mechanism.draw(Sizes(rows=70))
    same = inputs | dict.fromkeys(("query", "key", "value"), inputs["query"])
    copies = {name: array.copy() for name, array in same.items()}
    np.testing.assert_array_equal(mechanism.forward(**same), mechanism.forward(**copies))


@pytest.mark.row("M6")
@by_rule
@pytest.mark.parametrize("name", ["query", "key"])
def test_inputs_changed_by_a_thread_meanwhile(mechanism, name):
    """No crash, and still means of values, whichever weights come out."""
    inputs = mechanism.draw(Sizes(heads=4, rows=500))
    stop = threading.Event()

    def change():
        rng = np.random.default_rng(0)
        while not stop.is_set():
            inputs[name][:, :, rng.integers(500)] *= np.float32(-1)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            got = mechanism.forward(**inputs, metrics=ra.MetricOptions())
            assert np.abs(got.output).max() <= np.abs(inputs["value"]).max() * 1.001
    finally:
        stop.set()
        thread.join()


@pytest.mark.row("M7")
@by_rule
def test_inputs_die_with_their_last_user(mechanism):
    inputs = tracked(mechanism.draw(Sizes(rows=70)))
    references = [weakref.ref(array) for array in inputs.values()]
    kept = mechanism.forward(**inputs, return_lse=True, metrics=ra.MetricOptions())
    copy = kept.output.copy()
    del inputs
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    np.testing.assert_array_equal(kept.output, copy)


@pytest.mark.row("M7")
@by_rule
def test_inputs_deleted_during_the_call(mechanism):
    """The caller's last reference goes while the kernel runs."""
    sizes = Sizes(heads=4, rows=900, dim=32)
    expected = mechanism.forward(**mechanism.draw(sizes))
    container, taken = [mechanism.draw(sizes)], threading.Event()

    def clear():
        taken.wait()
        time.sleep(0.001)
        container.clear()

    def take():
        inputs = container[0]
        taken.set()
        return inputs

    thread = threading.Thread(target=clear)
    thread.start()
    got = mechanism.forward(**take())
    thread.join()
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(mechanism.forward(**mechanism.draw(sizes)), expected)


FAILURES = {
    "wrong length": {"key_mask": np.ones((1, 3), bool)},
    "wrong mask": {"attn_mask": np.ones((3, 3), np.float32)},
    "wrong number": {"log_discount": float("nan")},
}


@pytest.mark.row("M7")
@by_rule
@pytest.mark.parametrize("options", [{}, *FAILURES.values()], ids=["success", *FAILURES])
def test_reference_counts_stay_flat(mechanism, options):
    inputs = tracked(mechanism.draw(Sizes(rows=20)))
    watched = [*inputs.values(), *(v for v in options.values() if isinstance(v, np.ndarray))]

    def call():
        try:
            mechanism.forward(**inputs, **options, metrics=ra.MetricOptions())
        except ValueError:
            assert options
        else:
            assert not options

    call()
    gc.collect()
    before = [sys.getrefcount(array) for array in watched]
    for _ in range(200):
        call()
    gc.collect()
    assert [sys.getrefcount(array) for array in watched] == before


LEAK = """
    import gc
    import numpy as np
    import rattention as ra
    from tests.mechanisms import MECHANISMS, Sizes
    from tests.processes import resident_bytes

    mechanism = next(m for m in MECHANISMS if m.name == {name!r})
    ra.set_num_threads(1)  # on a busy machine threads wait for each other longer than such small calls take
    inputs = mechanism.draw(Sizes(heads=2, rows=40, dim=16))
    of_map = mechanism.map_inputs(inputs)
    mask = np.ones((40, 40), bool)
    calls = {{
        "forward": lambda **o: mechanism.forward(**inputs, **o, metrics=ra.MetricOptions(), return_lse=True),
        "metrics": lambda **o: mechanism.metrics(**of_map, **o),
        "rows": lambda **o: mechanism.rows(**of_map, rows=[0, -1], **o),
        "map": lambda **o: mechanism.pooled(**of_map, shape=(7, 9), **o),
    }}
    call = calls[{call!r}]

    def ten_calls():
        for _ in range(5):
            call(attn_mask=mask)
            try:
                call(attn_mask=mask[:, :39])
            except ValueError:
                continue
            raise AssertionError

    for _ in range(200):
        ten_calls()
    gc.collect()
    before = resident_bytes()
    for _ in range(1000):
        ten_calls()
    gc.collect()
    print(resident_bytes() - before)
"""


@pytest.mark.row("M9")
@by_rule
@pytest.mark.parametrize("call", ["forward", "metrics", "rows", "map"])
def test_ten_thousand_calls_leak_nothing(mechanism, call):
    """Half of them fail."""
    growth = int(run_python(LEAK.format(name=mechanism.name, call=call)))
    assert growth < 2**20
