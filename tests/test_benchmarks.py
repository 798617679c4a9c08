"""The benchmarks: their command line, and that no wrong answer is timed. No peer needs to be installed."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rattention as ra
from rattention import _core
from rattention.mechanisms.rattention import reference_rattention

from benchmarks import page, schedule, summary
from benchmarks.cases import CASES, generation, models
from benchmarks.clock import alternate
from benchmarks.inputs import random_inputs
from benchmarks.outcome import Figure, Samples, at_least, at_most, ratio
from benchmarks.peers import pytorch_encoder, transformers_layers, transformers_models
from benchmarks.peers.numpy_linear import step_after
from benchmarks.race import Peer, Runner, Setup, WrongAnswerError, race
from tests.extras import needs

ROOT = Path(__file__).parents[1]
WITHOUT_PEERS = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnxruntime", "onnx", "openvino", "transformers")))
from benchmarks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ALL = [case.name for case in CASES]
FEW = [
    "full-4096",
    "gated-delta-step",
    "model-metrics-4096",
    "bert-500",
    "training-window-4096",
    "hf-llama-512",
]
"""One that needs no peer, and one of each kind of peer."""
SETUP = Setup(length=4, threads=1, quick=True)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_PEERS, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_list_names_every_case():
    done = run("--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ALL


@pytest.mark.parametrize("names", [FEW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["a few", "all"])
def test_quick_check_without_peers(tmp_path, names):
    only = (argument for name in names for argument in ("--only", name))
    done = run("--quick", "--check", "--json", str(tmp_path / "new" / "out.json"), *only)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing: " in done.stdout
    assert "rattention[bench]" in done.stdout.splitlines()[-1]
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert list(written["cases"]) == names
    full = written["cases"]["full-4096"]
    assert "PyTorch SDPA" in full["missing"]
    assert full["samples"]["rattention"]["repetitions"] == len(full["samples"]["rattention"]["values"]) >= 3
    assert 0 < full["answers"]["NumPy reference"] < 1e-4
    assert not [figure for figure in full["figures"] if figure["against"].startswith("best")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "full-4096"),
        (["--only", "full-4096", "--only", "nothing-*"], "got 'nothing-*'"),
        (["--threads", "0"], "from 1 to"),
        (["--json", "benchmarks"], "is a folder"),
        (["--json", "/proc/nowhere/out.json"], "cannot write"),
    ],
)
def test_wrong_command_line(arguments, message):
    done = run("--quick", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_only_takes_several(tmp_path):
    done = run("--quick", "--only", "import", "--only", "cau*-4096", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads((tmp_path / "out.json").read_text())["cases"]) == ["causal-4096", "import"]


@pytest.mark.parametrize("name", ["gemma3", "t5"])
def test_models_of_transformers_give_the_answers_of_their_peers(name):
    """All settings: a race raises for wrong answers. Quick benchmarks do it for all models."""
    needs("hf")
    cases = [case for case in CASES if case.name.startswith(f"hf-{name}-") and "memory" not in case.name]
    assert len(cases) == len(summary.TIMES)
    for case in cases:
        outcome = case.measure(Setup(length=72, threads=1, quick=True))
        assert [figure.against for figure in outcome.figures] == [models.against(name)], outcome.missing


def test_sinks_in_the_eager_formula_for_some_heads_at_a_time():
    needs("hf")
    setup = Setup(length=transformers_layers.WHOLE + 2, threads=1, quick=True)
    assert models.forward("gpt-oss")(setup).figures


def test_a_model_with_another_window_is_noticed(monkeypatch):
    needs("hf")
    right = transformers_models.prefill

    def fault(setup, name, implementation, **options):
        narrow = {"sliding_window": 32} if implementation == "rattention" else {}
        return right(setup, name, implementation, **options, **narrow)

    monkeypatch.setattr(transformers_models, "prefill", fault)
    with pytest.raises(WrongAnswerError, match="sdpa"):
        models.forward("gemma3")(Setup(length=72, threads=1, quick=True))


def test_memory_of_a_layer_by_length():
    """gpt-oss, since its peer stores weights of n x n; against SDPA short texts need as much as ours."""
    needs("hf")
    outcome = models.memory("gpt-oss")(Setup(length=1024, threads=1, quick=True))
    figures = {figure.against: figure.value for figure in outcome.figures}
    assert all(size > 0 for size in outcome.details.values())
    assert figures["peak of eager over ours at 1024 tokens"] > 5


def made_up_run():
    """Ratios and bytes that differ; one peer does not fit, and one is missing."""
    cases = {}
    for i, name in enumerate(models.NAMES, 1):
        for j, case in enumerate(summary.TIMES.values(), 1):
            cases[case.format(name)] = {"figures": [{"unit": "x", "value": i + j / 10}]}
        sizes = {("rattention", 32768): i << 20, (models.against(name), 32768): i << 31}
        details = {f"bytes, {who}, {n} tokens": size for (who, n), size in sizes.items()}
        cases[summary.MEMORY.format(name)] = {"details": details}
    del cases["hf-t5-memory-32768"]["details"]["bytes, sdpa, 32768 tokens"]
    cases["hf-t5-512"] = {"figures": []}
    steps = [
        {"against": generation.step_name(dtype, context, cache), "value": i + j / 10}
        for i, (dtype, cache) in enumerate(product(generation.STEP_TOLERANCES, generation.STEP_CACHES), 7)
        for j, context in enumerate(generation.CONTEXTS, 1)
    ]
    cases["transformers-steps"] = {"figures": steps}
    versions = {"torch": "2.99", "transformers": "5.99"}
    machine = {"processor": "A Processor", "instruction_set": "avx2", "peers": versions}
    return {"machine": machine, "options": {"threads": 3}, "cases": cases}


def test_summary_shows_what_was_measured():
    text = summary.block(made_up_run())
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows, steps = lines[2:-6], lines[-6:]
    assert [row[0] for row in rows] == [models.title(name) for name in models.NAMES]
    assert steps[0] == ["dtype", "cache used with rattention", "1", "512", "4,096", "32,768"]
    assert steps[2:] == [
        ["float32", "`DynamicCache`", "7.1x", "7.2x", "7.3x", "7.4x"],
        ["float32", "`InPlaceCache`", "8.1x", "8.2x", "8.3x", "8.4x"],
        ["bfloat16", "`DynamicCache`", "9.1x", "9.2x", "9.3x", "9.4x"],
        ["bfloat16", "`InPlaceCache`", "10.1x", "10.2x", "10.3x", "10.4x"],
    ]
    assert rows[0][1:] == ["1.1x", "1.2x", "1.3x", "1.4x", "1 MiB; 2.0 GiB"]
    assert rows[-1][1:] == ["6.1x", "6.2x", "-", "6.4x", "6 MiB; does not fit"]
    assert "3 threads" in text
    assert "PyTorch 2.99" in text


def a_run(when, **cases):
    """A run of made-up cases: figures by case."""
    machine = {
        "processor": "A Processor",
        "instruction_set": "avx2",
        "when": when,
        "peers": {"torch": "2.99"},
    }
    versions = {"rattention": "0.1", "numpy": "2.9", "python": "3.11"}
    made = {
        name: {"figures": figures, "samples": {}, "missing": {"a peer": "not installed"}}
        for name, figures in cases.items()
    }
    return {"machine": machine | versions, "options": {"threads": 1}, "cases": made}


def test_page_shows_wins_losses_and_what_is_missing():
    def figure(against, value, unit="x", sign=None):
        goal = {"sign": sign, "limit": 1} if sign else None
        return {"against": against, "value": value, "unit": unit, "goal": goal, "ours": 0.002, "theirs": 3.0}

    figures = [
        figure("slow", 1500),
        figure("fast", 0.5),
        figure("equal", 0.995),
        figure("a part of ours", 0.9, sign="<="),
        figure("best: fast", 0.5),
        figure("FMA peak, 9 GFLOP/s", 80, "%"),
    ]
    text = page.page(
        {"old.json": a_run("2026-01-01", other=[]), "new.json": a_run("2026-02-02", work=figures)}
    )
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[2] == ["other", "a peer", "", "", "missing"]
    assert rows[5:] == [
        ["work", "slow", "2 ms", "3 s", "1,500x"],
        ["fast", "2 ms", "3 s", "**0.5x**"],
        ["equal", "2 ms", "3 s", "0.995x"],
        ["a part of ours", "2 ms", "3 s", "0.9 times as long"],
        ["share of peak", "2 ms", "", "80 %"],
        ["a peer", "", "", "missing"],
    ]
    assert "1 thread," in text


def test_page_is_that_of_the_runs():
    assert page.PAGE.read_text("utf-8") == page.page(page.runs())


def test_summary_is_drawn(tmp_path):
    needs("matplotlib")
    summary.draw(made_up_run(), tmp_path / "models.svg")
    picture = (tmp_path / "models.svg").read_text()
    assert len(picture) < 50_000
    assert all(text in picture for text in ("6.1x", "1.2x", "Llama-3.2-1B", "tokens"))


def test_growth_is_drawn(tmp_path):
    done = run("--quick", "--growth", str(tmp_path / "growth.svg"), "--json", str(tmp_path / "growth.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "</svg>" in (tmp_path / "growth.svg").read_text()
    written = json.loads((tmp_path / "growth.json").read_text())["growth"]
    assert list(written) == ["sliding window", "residual linear", "RAttention"]
    assert all(seconds > 0 for times in written.values() for seconds in times.values())


@pytest.mark.parametrize("tokens", [2, 5, 9, 10, 37])
def test_a_step_after_tokens_that_repeat(tokens):
    """The short cut of the case decode-1M against all rows of the reference."""
    inputs = random_inputs(5, heads=2, head_dim=4)
    came = np.append(np.arange(tokens) % 5, 0)
    options = {"window": 3, "rope_theta": 1e4}
    expected, _ = reference_rattention(*(array[:, :, came] for array in inputs), **options)
    np.testing.assert_allclose(step_after(inputs, tokens, 3, 1e4), expected[:, :, -1:], atol=1e-12)


def test_other_work_is_timed_and_not_compared():
    peer = Peer("other", lambda: runner(np.zeros(2)), at_least(0), comparable=False)
    outcome = race(SETUP, runner(np.ones(2)), [peer], tolerance=0)
    assert [figure.against for figure in outcome.figures] == ["other"]
    assert outcome.answers == {}


def test_maps_that_do_not_fit_are_left_out():
    needs("torch")
    layer, impossible = {"mechanism": "gravitational"}, Setup(length=1 << 20, threads=1, quick=True)
    with pytest.raises(ImportError, match=r"its maps take 1441792\.0 GiB, and less memory is free"):
        pytorch_encoder.plain(impossible, layer)
    pytorch_encoder.plain(SETUP, layer).call()


def runner(value: np.ndarray) -> Runner:
    return Runner(lambda: value, lambda result: {"output": result})


@pytest.mark.parametrize("fault", ["value", "nan", "infinity", "shape", "dtype"])
def test_a_wrong_answer_is_not_timed(fault):
    right = np.array([1.0, np.nan, -np.inf, 2.0], np.float32)
    wrong = {
        "value": np.array([1.0, np.nan, -np.inf, 2.01], np.float32),
        "nan": np.array([1.0, 3.0, -np.inf, 2.0], np.float32),
        "infinity": np.array([1.0, np.nan, np.inf, 2.0], np.float32),
        "shape": np.array([1.0, np.nan, -np.inf], np.float32),
        "dtype": np.array([1, 0, 0, 2]),
    }[fault]
    race(SETUP, runner(right), [Peer("same", lambda: runner(right.copy()))], tolerance=1e-3)
    with pytest.raises(WrongAnswerError):
        race(SETUP, runner(wrong), [Peer("other", lambda: runner(right))], tolerance=1e-3)


def test_a_part_we_do_not_answer_is_refused():
    theirs = Runner(lambda: np.ones(2), lambda result: {"output": result, "more": result})
    with pytest.raises(WrongAnswerError, match="more"):
        race(SETUP, runner(np.ones(2)), [Peer("other", lambda: theirs)], tolerance=1e-3)


def test_best_peer_needs_all_of_them():
    def missing() -> Runner:
        raise ImportError("not here")

    one = Peer("one", lambda: runner(np.ones(2)))
    alone = race(SETUP, runner(np.ones(2)), [one], tolerance=0, best=at_least(0))
    assert [figure.against for figure in alone.figures] == ["one", "best: one"]
    incomplete = race(SETUP, runner(np.ones(2)), [one, Peer("two", missing)], tolerance=0, best=at_least(0))
    assert [figure.against for figure in incomplete.figures] == ["one"]
    assert incomplete.missing == {"two": "not here"}


def test_a_goal_is_met_by_both_ratios():
    theirs, ours = Samples((2.0, 2.0, 9.0)), Samples((1.0, 2.0, 6.0))
    assert ratio(theirs, ours) == (1.0, 1.5)
    assert Figure("peer", 1.4, "x", at_least(1.3), pairwise=1.31).met
    assert not Figure("peer", 1.4, "x", at_least(1.3), pairwise=1.29).met
    assert not Figure("peer", 1.2, "x", at_most(1.3), pairwise=1.31).met
    assert Figure("peer", 1.2, "x").met is None


def test_samples_are_taken_in_alternation():
    order: list[str] = []
    samplers = {name: lambda name=name: float(len(order.append(name) or order)) for name in "abc"}
    samples = alternate(samplers, budget=0, least=2)
    assert "".join(order) == "abc" + "abc" + "bca"
    assert {name: len(s.values) for name, s in samples.items()} == {"a": 2, "b": 2, "c": 2}


def test_schedules_on_paper():
    """Tasks go in order to whoever is free, loops follow each other, and parts wait for the part before."""
    assert schedule.makespan([[3.0, 1.0, 1.0, 1.0]], 2, 0, 0) == 3.0
    assert schedule.makespan([[2.0, 2.0, 2.0], [1.0]], 2, 0, 0) == 5.0
    assert schedule.makespan([[2.0, 2.0]], 2, 1, 2) == 2.0
    assert schedule.makespan([[4.0, 1.0]], 2, 1, 2) == 4.0  # passed on at 2 and 4
    assert schedule.makespan([[4.0, 1.0]], 2, 2, 2) == 4.0
    assert schedule.makespan([[1.0, 4.0, 2.0]], 3, 1, 2) == 4.0


def test_task_times_are_those_of_the_loops():
    inputs = random_inputs(300, heads=3)
    ra.set_num_threads(3)
    loops = schedule.recorded(lambda: ra.attention(*inputs), 3)
    assert len(loops) == 1
    assert len(loops[0]) >= 3
    assert all(0 < seconds < 1 for seconds in loops[0])
    assert _core.recorded_task_times() == []
