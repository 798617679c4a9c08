"""Runs of the comparison that are killed or interrupted go on to the same numbers."""

# ruff: noqa: E402
from __future__ import annotations

import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'lra'", exc_type=ImportError)
for _package in ("transformers", "accelerate", "tensorboard", "pyarrow", "yaml", "tqdm"):
    pytest.importorskip(_package, reason="needs the extra 'lra'", exc_type=ImportError)

from rattention.studies.lra.checkpoints import Lines, seal, whole_checkpoints
from rattention.studies.lra.running import do_run

from tests.lra_runs import everything, interrupt_in_step, lines, straight_run, tiny_run, tiny_task
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")

DEATHS = [
    ("step", 2),
    ("step", 13),
    ("line", 3),
    ("save", 8),
    ("seal", 1),
    ("seal", 3),
    ("clean up", 2),
    ("maps", 1),
]
"""Where a run is killed: at which call of what."""

DYING = """
import os, signal, sys
from pathlib import Path

import torch
from rattention.studies.lra import history, running, training
from tests.lra_runs import tiny_run, tiny_task

TARGETS = {
    "step": (training.Hooks, "on_step_end"),
    "seal": (training, "seal"),
    "save": (torch, "save"),
    "line": (history.Lines, "add"),
    "clean up": (training, "keep_only"),
    "maps": (running, "save_maps"),
}

def die(folder, place, left):
    owner, name = TARGETS[place]
    function = getattr(owner, name)

    def call(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, call)
    torch.set_num_threads(1)
    running.do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), folder)

for death in sys.argv[2:]:
    place, at = death.split(":")
    child = os.fork()
    if child == 0:
        try:
            die(Path(sys.argv[1]) / death, place, int(at))
        finally:
            os._exit(1)
    print(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a run for each of `DEATHS`, in which it was killed."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", DYING, str(folder), *(f"{place}:{at}" for place, at in DEATHS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(DEATHS), done.stderr
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return straight_run(tmp_path_factory.mktemp("straight"))


class TestInterrupted:
    @pytest.mark.parametrize(("place", "at"), DEATHS)
    def test_killed_and_taken_up(self, straight, killed, place, at):
        """Wherever SIGKILL hits, all numbers are those of a run without a break, to the bit."""
        folder = killed / f"{place}:{at}"
        assert not (folder / "result.json").exists()
        do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), folder)
        assert everything(folder) == everything(straight)
        assert not (folder / "checkpoints").exists()

    def test_ctrl_c(self, straight, tmp_path, monkeypatch):
        """Stops after the step, keeps the epochs before, and goes on from there."""
        interrupt_in_step(8, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 1
        monkeypatch.undo()
        do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), tmp_path / "run")
        assert everything(tmp_path / "run") == everything(straight)

    @pytest.mark.parametrize("harm", ["cut", "changed", "missing", "no seal"])
    def test_harmed_checkpoints_are_not_used(self, tmp_path, harm):
        for epoch in (1, 2):
            checkpoint = tmp_path / f"checkpoint-{epoch}"
            checkpoint.mkdir()
            (checkpoint / "weights").write_bytes(bytes(range(100)))
            (checkpoint / "state").write_text("{}")
            seal(checkpoint, epoch)
        assert list(whole_checkpoints(tmp_path)) in ([1, 2], [2, 1])
        weights = tmp_path / "checkpoint-2" / "weights"
        if harm == "cut":
            weights.write_bytes(weights.read_bytes()[:50])
        elif harm == "changed":
            weights.write_bytes(bytes(100))
        elif harm == "missing":
            weights.unlink()
        else:
            (tmp_path / "checkpoint-2" / "complete.json").unlink()
        assert list(whole_checkpoints(tmp_path)) == [1]

    def test_lines_end_where_one_is_cut(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"epoch": 1, "x": 1}\n{"epoch": 2, "x": 2}\n{"epoch": 3, "x"', "utf-8")
        table = Lines(path)
        assert table.epochs() == 2
        table.forget_after(1)
        table.add({"epoch": 2, "x": 5})
        assert [line["x"] for line in Lines(path).lines] == [1, 5]
