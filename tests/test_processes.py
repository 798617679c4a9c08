"""Rows T3 to T6: fork, other OpenMP users, the end of the interpreter, threads that cannot be started."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.extras import needs
from tests.processes import run_python

PROBLEM = """
import os, sys, time, threading, warnings
warnings.filterwarnings("ignore", message=".*fork.*")
import numpy as np
import rattention as ra
from tests.mechanisms import MECHANISMS, Sizes

mechanism = MECHANISMS[0]
inputs = mechanism.draw(Sizes(batch=2, heads=4, rows=700, dim=32))

def solve(_=None):
    return mechanism.forward(**inputs, causal=True, metrics=ra.MetricOptions()).output

def is_right(_=None):
    return bool((solve() == expected).all())

def threads():
    return len(os.listdir("/proc/self/task"))

ra.set_num_threads(4)
expected = solve()
"""

FORKS = {
    "os.fork": """
        pid = os.fork()
        if pid == 0:
            os._exit(0 if is_right() and ra.get_num_threads() == 4 == threads() else 1)
        assert os.waitpid(pid, 0)[1] == 0
    """,
    "Process": """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=lambda: sys.exit(not is_right())) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(10)
            assert child.exitcode == 0, child.exitcode
    """,
    "Pool": """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(is_right, range(8)).get(10) == [True] * 8
    """,
    "grandchild": """
        pid = os.fork()
        if pid == 0:
            fine = is_right()
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if is_right() else 1)
            os._exit(0 if fine and os.waitpid(grandchild, 0)[1] == 0 else 1)
        assert os.waitpid(pid, 0)[1] == 0
    """,
    "the child asks for threads": """
        pid = os.fork()
        if pid == 0:
            ra.set_num_threads(8)
            os._exit(0 if is_right() and ra.get_num_threads() == 8 == threads() else 1)
        assert os.waitpid(pid, 0)[1] == 0
    """,
    "while other threads compute": """
        stop = threading.Event()
        def work():
            while not stop.is_set():
                solve()
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if is_right() else 1)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
    """,
    "within a call, by a signal handler": """
        import signal
        pids = []
        signal.signal(signal.SIGALRM, lambda *_: pids.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        try:
            big = np.ones((1, 8, 7_000, 64), np.float32)
            ra.attention(big, big, big)
        except RuntimeError as error:
            os._exit(0 if pids == [0] and "forked" in str(error) and is_right() else 1)
        assert os.waitpid(pids[0], 0)[1] == 0
    """,
    "spawn": """
        import subprocess
        code = "import rattention as ra, sys; sys.exit(ra.get_num_threads() < 1)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    """,
}


def run_with_problem(code: str, **environment: str) -> str:
    return run_python(PROBLEM + dedent(code), timeout=40, **environment)


@pytest.mark.row("T3")
@pytest.mark.parametrize("case", FORKS)
def test_fork_after_a_parallel_call(case):
    """The child computes, and finishes; the parent still works with all its threads afterwards."""
    parent_still_works = "\nassert is_right()\nassert ra.get_num_threads() == 4\nprint('fine')"
    assert run_with_problem(dedent(FORKS[case]) + parent_still_works).strip() == "fine"


@pytest.mark.row("T3")
def test_data_loader_workers():
    needs("torch")
    code = """
        import torch
        class Data(torch.utils.data.Dataset):
            def __len__(self):
                return 6
            def __getitem__(self, i):
                return torch.tensor(is_right())
        workers = {"num_workers": 2, "timeout": 30, "multiprocessing_context": "fork"}
        loader = torch.utils.data.DataLoader(Data(), **workers)
        assert all(bool(batch.all()) for batch in loader)
    """
    run_with_problem(code)


OPENMP = """
def openmp_libraries():
    paths = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/lib" in line}
    return {p for p in paths if any(name in p for name in ("libgomp", "libiomp", "libomp"))}
"""

IMPORTS = {
    "rattention alone": "import rattention",
    "torch first": "import torch; torch.ones(600, 600) @ torch.ones(600, 600)",
    "torch last": "import rattention; import torch",
    "sklearn first": "import sklearn.cluster",
    "sklearn last": "import rattention; import sklearn.cluster",
    "torch and sklearn": "import sklearn.cluster; import rattention; import torch",
}


@pytest.mark.row("T4")
@pytest.mark.parametrize("case", IMPORTS)
def test_import_orders(case):
    """Right results in any order, one libgomp with torch; scikit-learn brings a renamed one of its own."""
    for name in ("torch", "sklearn"):
        if name in IMPORTS[case]:
            needs(name)
    code = IMPORTS[case] + "\n" + PROBLEM + OPENMP
    code += """
exact = mechanism.exact(inputs, causal=True)
assert abs(expected - exact).max() < 5e-6
print("\\n".join(sorted(openmp_libraries())))
"""
    libraries = run_python(code).split()
    renamed = [path for path in libraries if "scikit_learn.libs" in path]
    assert len(libraries) - len(renamed) == 1, libraries
    if "sklearn" not in IMPORTS[case]:
        assert not renamed


@pytest.mark.row("T4")
def test_torch_and_rattention_take_turns():
    """Each keeps its own number of threads, and its results."""
    needs("torch")
    code = """
        import torch
        torch.set_num_threads(2)
        a = torch.randn(500, 500, generator=torch.Generator().manual_seed(0))
        product = a @ a
        for _ in range(20):
            assert is_right()
            assert torch.equal(a @ a, product)
        assert torch.get_num_threads() == 2
        assert ra.get_num_threads() == 4
    """
    run_with_problem(code)


@pytest.mark.row("T4")
@pytest.mark.parametrize("count", ["1", "3"])
def test_omp_num_threads_is_the_default(count):
    code = "ra.set_num_threads(0); assert is_right(); print(ra.get_num_threads())"
    assert run_with_problem(code, OMP_NUM_THREADS=count).strip() == count


@pytest.mark.row("T4")
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend):
    """Inside other people's workers."""
    needs("sklearn")
    code = f"""
        from joblib import Parallel, delayed
        def work(i):
            import rattention as ra
            return ra.attention(*(inputs[n] for n in ("query", "key", "value")), causal=True)
        results = Parallel(n_jobs=2, backend={backend!r})(delayed(work)(i) for i in range(4))
        plain = mechanism.forward(**inputs, causal=True)
        assert all((r == plain).all() for r in results)
    """
    run_with_problem(code)


@pytest.mark.row("T4")
def test_threadpoolctl_reaches_it():
    """Limits set from outside hold for the default number of threads."""
    needs("sklearn")
    code = """
        from threadpoolctl import threadpool_limits
        ra.set_num_threads(0)
        with threadpool_limits(limits=1):
            assert ra.get_num_threads() == 1
            assert is_right()
    """
    run_with_problem(code)


ENDS = {
    "idle helpers": "",
    "a daemon in a call": """
        threading.Thread(target=lambda: [solve() for _ in range(10_000)], daemon=True).start()
        time.sleep(0.3)
    """,
    "sys.exit in a thread's call": """
        threading.Thread(target=solve).start()
        sys.exit(0)
    """,
    "os._exit": "os._exit(0)",
    "an exception": """
        import atexit
        atexit.register(lambda: solve())
    """,
}


@pytest.mark.row("T5")
@pytest.mark.parametrize("case", ENDS)
def test_the_interpreter_ends(case):
    """Whatever helpers and callers are doing then."""
    run_with_problem(ENDS[case])


UNSTARTABLE = {
    "address space": """
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (margin << 20),) * 2)
    """,
    "processes": """
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        if os.getuid() == 0:  # who has no such limit
            os.setuid(65534)
    """,
}


@pytest.mark.row("T6")
@pytest.mark.parametrize(
    ("case", "margin"), [("address space", m) for m in (1, 6, 12, 48, 160, 600)] + [("processes", 0)]
)
def test_threads_that_cannot_be_started(case, margin):
    """Fewer threads with the right answer, or an exception; the process goes on."""
    code = """
        import resource
        wanted = mechanism.forward(**inputs, causal=True)
        ra.set_num_threads(1)
        margin = {margin}
        {limit}
        ra.set_num_threads(64)
        answers = 0
        for _ in range(5):
            try:
                answers += bool((mechanism.forward(**inputs, causal=True) == wanted).all())
            except MemoryError as error:
                assert "out of memory" in str(error) or "allocate" in str(error), error
                answers += 1
        assert answers == 5
        if margin == 0:
            assert threads() < 64
        print("goes on")
    """
    limit = dedent(UNSTARTABLE[case]).strip().replace("\n", "\n" + 8 * " ")
    assert run_with_problem(code.format(limit=limit, margin=margin)).strip() == "goes on"


@pytest.mark.row("T6")
def test_the_first_call_finds_no_room_for_threads():
    """Stacks larger than the address space: no thread can be started at all."""
    code = """
        import resource, sys, numpy as np, rattention as ra
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30,) * 2)
        x = np.ones((1, 8, 600, 64), np.float32)
        ra.set_num_threads(8)
        assert np.allclose(ra.attention(x, x, x), 1)
        print(open("/proc/self/status").read().split("Threads:")[1].split()[0])
    """
    stack = f'ulimit -s {64 << 20}; exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["bash", "-c", stack, dedent(code)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "ulimit:" in done.stderr:
        pytest.skip("the limit of stacks cannot be raised here")
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
