"""The option --threads: every subcommand that runs models sets it for the kernels and for PyTorch."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import rattention as ra
import torch
from rattention.cli import main
from rattention.cli.options import Computed

from tests.processes import run_python

STOPPED = {
    "compress": ("compress", "--budget", "0"),
    "visualize": ("visualize", "--dpi", "0"),
    "ad train": ("ad", "train", "--steps", "0"),
    "ad evaluate": ("ad", "evaluate", "--model", "none.safetensors"),
}
"""Command lines that are wrong in what is looked at after the threads."""


@pytest.fixture(autouse=True)
def threads_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    ra.set_num_threads(0)
    torch.set_num_threads(before)


@pytest.mark.parametrize("command", STOPPED)
@pytest.mark.parametrize("threads", [1, 3])
def test_both_have_as_many(command, threads):
    assert main([*STOPPED[command], "--threads", str(threads)]) == 2
    assert (torch.get_num_threads(), ra.get_num_threads()) == (threads, threads)


@pytest.mark.parametrize("command", STOPPED)
def test_negative_numbers(command, capsys):
    assert main([*STOPPED[command], "--threads", "-1"]) == 2
    assert "--threads must be >= 0, got -1" in capsys.readouterr().err


def test_zero_changes_nothing():
    torch.set_num_threads(3)
    Computed(threads=0).use_threads()
    assert torch.get_num_threads() == 3


def test_without_pytorch():
    """Where it is missing, and where it is not wanted, only the kernels are set."""
    code = """
        import sys
        from rattention.cli.options import Computed
        import rattention as ra
        Computed(threads=3).use_threads(pytorch=False)
        assert "torch" not in sys.modules
        sys.modules["torch"] = None
        Computed(threads=2).use_threads()
        print(ra.get_num_threads())
    """
    assert run_python(code).split() == ["2"]
