"""Runs of the comparison that are killed or interrupted go on to the same numbers."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.studies.kit.settings import read_lines
from rattention.studies.kit.training import last_checkpoint, save_checkpoint
from rattention.studies.lra.training import do_run

from tests.lra_runs import everything, interrupt_in_step, lines, straight_run, tiny_run, tiny_task
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")

DEATHS = [
    ("step", 2),
    ("step", 13),
    ("save", 3),
    ("checkpoint", 1),
    ("checkpoint", 3),
    ("rename", 7),
    ("clean up", 2),
    ("line", 3),
    ("line", 6),
    ("maps", 1),
]
"""Where a run is killed: at which call of what."""

DYING = """
import os, signal, sys
from pathlib import Path

import torch
from rattention.studies.lra import training
from tests.lra_runs import tiny_run, tiny_task

TARGETS = {
    "step": (training.ClassifierTrainer, "after_step"),
    "checkpoint": (training, "save_checkpoint"),
    "save": (torch, "save"),
    "rename": (os, "replace"),
    "line": (training, "write_lines"),
    "clean up": (training, "remove_all_but"),
    "maps": (training, "save_maps"),
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
    training.do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), folder)

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

    @pytest.mark.parametrize("harm", ["cut", "changed", "missing", "empty", "other"])
    def test_harmed_checkpoints_are_not_used(self, tmp_path, harm):
        for epoch in (9, 10):
            save_checkpoint(tmp_path / f"epoch-{epoch}.pt", {"epoch": epoch, "weights": torch.ones(100)})
        path = tmp_path / "epoch-10.pt"
        assert last_checkpoint(tmp_path)[1]["epoch"] == 10
        content = path.read_bytes()
        harmed = {
            "cut": content[:-100],
            "changed": content.replace(torch.ones(2).numpy().tobytes(), bytes(8), 1),
            "empty": b"",
            "other": content[:4] + b"another file" + content[-4:],
        }
        if harm == "missing":
            path.unlink()
        else:
            assert harmed[harm] != content
            path.write_bytes(harmed[harm])
        found, state = last_checkpoint(tmp_path)
        assert (found, state["epoch"]) == (tmp_path / "epoch-9.pt", 9)
        found.unlink()
        assert last_checkpoint(tmp_path) == (None, {})

    def test_an_earlier_checkpoint_gives_the_same_numbers(self, straight, tmp_path, monkeypatch):
        interrupt_in_step(18, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), tmp_path / "run")
        monkeypatch.undo()
        checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
        assert [path.name for path in checkpoints] == ["epoch-2.pt", "epoch-3.pt"]
        checkpoints[1].write_bytes(checkpoints[1].read_bytes()[:-1])
        do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), tmp_path / "run")
        assert everything(tmp_path / "run") == everything(straight)

    def test_damaged_lines_are_named(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"epoch": 1, "x": 1}\n{"x": 2}\n{"epoch": 3, "x": 3}\n{"epoch": 4, "x"', "utf-8")
        lines, damaged = read_lines(path, ("epoch",))
        assert [line["x"] for line in lines] == [1, 3]
        assert damaged == [2, 4]
