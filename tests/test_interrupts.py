"""Row T7: Ctrl-C ends a call that would take long, and leaves everything as before or as after it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.extras import needs
from tests.processes import run_python

INTERRUPT = """
import os, signal, threading, time
import numpy as np
import rattention as ra
from rattention.mechanisms.rattention import rattention_backward
from rattention.mechanisms.residual_linear import residual_linear_attention_backward
from rattention.mechanisms.softmax import attention_backward

ra.set_num_threads(2)

def rows(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

small = rows(1, 4, 500, 16)
before = ra.attention(small, small, small, causal=True)

def seconds_until_heard(call, after=0.2):
    '''From Ctrl-C, `after` seconds into the call, to its KeyboardInterrupt.'''
    sent = []
    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(after, send)
    timer.start()
    try:
        call()
        timer.join()
        time.sleep(0.1)
    except KeyboardInterrupt:
        return time.perf_counter() - sent[0]
    raise AssertionError("the call was over before")
"""

CALLS = {
    "forward": "x = rows(1, 8, 50_000, 64)\ncall = lambda: ra.attention(x, x, x)",
    "one head": "x = rows(1, 1, 150_000, 64)\ncall = lambda: ra.attention(x, x, x)",
    "window": "x = rows(1, 8, 100_000, 64)\ncall = lambda: ra.attention(x, x, x, causal=True, window=20_000)",
    "backward of one head": """
        x = rows(1, 1, 60_000, 64)
        result = ra.AttentionResult(x, np.zeros((1, 1, 60_000), np.float32), None)
        call = lambda: attention_backward(x, x, x, x, result, causal=True)
    """,
    "metrics": "x = rows(1, 8, 50_000, 64)\ncall = lambda: ra.attention_metrics(x, x)",
    "metrics of a mask": """
        x, mask = rows(1, 1, 16_000, 4), np.ones((16_000, 16_000), bool)
        call = lambda: [ra.attention_metrics(x, x, attn_mask=mask) for _ in range(100)]
    """,
    "map": "x = rows(1, 8, 50_000, 64)\ncall = lambda: ra.attention_map(x, x)",
    "linear": """
        x = np.broadcast_to(rows(1, 1, 1, 64), (1, 1, 400_000, 64))
        call = lambda: [ra.residual_linear_attention(x, x, x, window=0) for _ in range(100)]
    """,
    "linear backward": """
        x = np.broadcast_to(rows(1, 1, 1, 64), (1, 1, 400_000, 64))
        call = lambda: [residual_linear_attention_backward(x, x, x, x, window=0) for _ in range(100)]
    """,
    "rattention": "x = rows(1, 4, 200_000, 64)\ncall = lambda: ra.rattention(x, x, x, window=20_000)",
    "rattention backward": """
        x = rows(1, 4, 200_000, 64)
        call = lambda: rattention_backward(x, x, x, x, window=20_000)
    """,
}


def run_interrupted(code: str) -> str:
    """Prints the seconds until Ctrl-C was heard: the best of three, because machines are busy."""
    return run_python(
        INTERRUPT
        + dedent(code)
        + dedent("""
            seconds = 9
            for _ in range(3):
                seconds = min(seconds, seconds_until_heard(call))
                if seconds < 1:
                    break
            assert seconds < 1, seconds
            np.testing.assert_array_equal(ra.attention(small, small, small, causal=True), before)
        """)
    )


@pytest.mark.row("T7")
@pytest.mark.parametrize("case", CALLS)
def test_ctrl_c_is_heard_within_a_second(case):
    run_interrupted(CALLS[case])


@pytest.mark.row("T7")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_ctrl_c_within_torch(backward):
    """Also where autograd calls: PyTorch lets the exception through."""
    needs("torch")
    run_interrupted(f"""
        import torch, rattention.torch
        def call():
            for _ in range(100):
                x = [torch.from_numpy(rows(1, 4, 2_000, 64)).requires_grad_({backward}) for _ in range(3)]
                y = rattention.torch.attention(*x, causal=True)
                if {backward}:
                    y.sum().backward()
    """)


@pytest.mark.row("T7")
@pytest.mark.parametrize("after", [0.05, 0.2, 0.6])
def test_a_cache_is_as_before_or_as_after(after):
    """Whenever the prompt is interrupted: all of it or none of it has joined the cache."""
    run_python(
        INTERRUPT
        + dedent(f"""
            prompt = np.tile(rows(1, 2, 64, 32), (1, 1, 4_000, 1))
            def cache():
                return ra.RAttentionCache(1, 2, 32, 3_000, rope_theta=1e4)
            def contents(cache):
                return cache._core.write()
            interrupted, never = cache(), cache()
            for part in (interrupted, never):
                ra.rattention_step(*(prompt[:, :, :100],) * 3, part)
            try:
                seconds_until_heard(lambda: ra.rattention_step(prompt, prompt, prompt, interrupted), {after})
            except AssertionError:
                pass
            if interrupted.lengths[0] != 100:
                ra.rattention_step(*(prompt,) * 3, never)
            for got, wanted in zip(contents(interrupted), contents(never)):
                np.testing.assert_array_equal(got, wanted)
            outputs = [ra.rattention_step(*(prompt[:, :, :50],) * 3, part) for part in (interrupted, never)]
            np.testing.assert_array_equal(*outputs)
        """)
    )


@pytest.mark.row("T7")
def test_interrupted_calls_keep_no_memory():
    run_python(
        INTERRUPT
        + dedent("""
            from tests.processes import resident_bytes
            x = rows(1, 8, 50_000, 64)  # its output takes 98 MiB
            call = lambda: ra.attention(x, x, x)
            seconds_until_heard(call, 0.1)
            before = resident_bytes()
            for _ in range(5):
                seconds_until_heard(call, 0.1)
            assert resident_bytes() - before < 50 << 20
        """)
    )


@pytest.mark.row("T7")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_handlers_that_go_on_may_compute(dtype):
    """A handler that does not raise is called within the call, and neither disturbs the other."""
    run_python(
        INTERRUPT
        + dedent(f"""
            from tests.mechanisms import MECHANISMS, Sizes
            x = MECHANISMS[0].draw(Sizes(heads=4, rows=9_000, dim=64), dtype="{dtype}")
            expected = ra.attention(**x)
            computed = []
            def hear(*_):
                computed.append(ra.attention(small, small, small, causal=True))
            signal.signal(signal.SIGALRM, hear)
            signal.setitimer(signal.ITIMER_REAL, 0.07, 0.07)
            for _ in range(3):
                assert (ra.attention(**x) == expected).all()
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert computed
            assert all((got == before).all() for got in computed)
        """)
    )


@pytest.mark.row("T7")
def test_only_the_main_thread_is_interrupted():
    """As Python has it: calls of other threads go on."""
    run_python(
        INTERRUPT
        + dedent("""
            x = rows(1, 4, 12_000, 64)
            expected = ra.attention(x, x, x)
            results = []
            thread = threading.Thread(target=lambda: results.append(ra.attention(x, x, x)))
            def call():
                thread.start()
                ra.attention(*(rows(1, 8, 50_000, 64),) * 3)
            seconds_until_heard(call)
            thread.join()
            assert (results[0] == expected).all()
        """)
    )
