"""Studies: their settings in YAML, their folders, and ``rattention lra run``."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.extras import needs

needs("studies")

import pyarrow.parquet
import yaml
from rattention.cli import main
from rattention.studies.lra import SequenceClassifier, Study, Text, new_name, run_study

from tests.lra_runs import SIZE, STUDY, everything, lines, without_times
from tests.processes import REPOSITORY
from tests.reviews import write_parquet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """The command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        code = main(["lra", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def config(tmp_path):
    STUDY.save(tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


class TestFolder:
    def test_everything_is_written(self, tmp_path):
        told = []
        results = run_study(STUDY, tmp_path / "out", told.append)
        assert [r["mechanism"] for r in results] == ["softmax", "rattention"]
        assert len([line for line in told if "test accuracy" in line]) == 2
        out = tmp_path / "out"
        assert Study.load(out / "study.yaml") == STUDY
        environment = json.loads((out / "environment.json").read_text("utf-8"))
        assert set(environment) == {"created", "hardware", "versions", "threads"}
        assert environment["versions"]["rattention"]
        settings = yaml.safe_load((out / "runs" / "listops-rattention-0" / "run.yaml").read_text("utf-8"))
        assert settings["mechanism"] == "rattention"
        assert settings["training"]["batch"] == 16
        assert settings["data"]["max_length"] == 30

    def test_all_data_are_checked_before_training(self, tmp_path):
        """A task that cannot be loaded stops the study before any other is trained."""
        study = replace(STUDY, tasks=("listops", "text"), data={"text": Text(str(tmp_path / "none"))})
        study = study.with_data(listops=STUDY.data["listops"])
        told = []
        with pytest.raises(ValueError, match=r"none' is no folder.*; or leave text out: --tasks listops$"):
            run_study(study, tmp_path / "out", told.append)
        assert told == ["listops: checking the data", "text: checking the data"]
        assert not (tmp_path / "out" / "runs").exists()

    def test_tables_hold_all_lines(self, tmp_path):
        run_study(STUDY, tmp_path / "out")
        runs = tmp_path / "out" / "runs"
        for name in ("metrics", "attention"):
            table = pyarrow.parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
            expected = []
            for mechanism in ("rattention", "softmax"):
                named = {"task": "listops", "mechanism": mechanism, "seed": 0}
                path = runs / f"listops-{mechanism}-0" / f"{name}.jsonl"
                expected += [named | line for line in lines(path, without=())]
            assert table == expected

    def test_goes_on_and_takes_more(self, tmp_path):
        """Finished runs stay as they are; more mechanisms and seeds join them."""
        first = replace(STUDY, mechanisms=("rattention",))
        (before,) = run_study(first, tmp_path / "out")
        results = run_study(replace(STUDY, seeds=(1, 0)), tmp_path / "out")
        assert [(r["mechanism"], r["seed"]) for r in results] == [
            ("softmax", 1),
            ("rattention", 1),
            ("softmax", 0),
            ("rattention", 0),
        ]
        assert results[3] == before
        study = Study.load(tmp_path / "out" / "study.yaml")
        assert study.mechanisms == ("rattention", "softmax")
        assert study.seeds == (0, 1)

    def test_another_study(self, tmp_path):
        run_study(replace(STUDY, mechanisms=("softmax",)), tmp_path / "out")
        other = replace(STUDY, training=replace(STUDY.training, batch=4), model=replace(SIZE, dim=32))
        with pytest.raises(
            ValueError,
            match=r"holds another study, with model\.dim 16 instead of 32; training\.batch 16 instead of 4",
        ):
            run_study(other, tmp_path / "out")

    def test_no_results(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("", "utf-8")
        with pytest.raises(ValueError, match=r"holds no study \(there is no study\.yaml\)"):
            run_study(STUDY, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_unreadable_study(self, tmp_path):
        (tmp_path / "study.yaml").write_text("{", "utf-8")
        with pytest.raises(ValueError, match=r"study\.yaml cannot be read as YAML"):
            run_study(STUDY, tmp_path)

    def test_unreadable_result(self, tmp_path):
        run_study(replace(STUDY, mechanisms=("softmax",)), tmp_path)
        (tmp_path / "runs" / "listops-softmax-0" / "result.json").write_text("{", "utf-8")
        with pytest.raises(ValueError, match=r"result\.json cannot be read.*remove it"):
            run_study(STUDY, tmp_path)

    def test_unwritable(self, tmp_path):
        (tmp_path / "taken").write_text("", "utf-8")
        with pytest.raises(OSError, match="cannot write there"):
            run_study(STUDY, tmp_path / "taken" / "out")

    def test_two_at_once(self, tmp_path):
        """The second is refused and says who is there; the first goes on."""
        code = """
            import sys, time
            from pathlib import Path
            from rattention.studies.kit.folder import locked
            with locked(Path(sys.argv[1])):
                print("held", flush=True)
                time.sleep(60)
        """
        command = [sys.executable, "-c", "\n".join(line[12:] for line in code.splitlines()), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout.readline() == "held\n"
                with pytest.raises(ValueError, match=rf"in use by another run \(process {holder.pid}\)"):
                    run_study(STUDY, tmp_path)
            finally:
                holder.kill()
        assert len(run_study(STUDY, tmp_path)) == 2

    def test_names_of_new_folders(self):
        assert new_name().startswith("results_20")

    def test_full_disk(self, tmp_path, monkeypatch):
        """Whichever library meets it: an error that says so, and what was finished stays."""
        from rattention.studies.lra import training

        before = run_study(replace(STUDY, mechanisms=("softmax",)), tmp_path)
        no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with_torch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        safetensors = RuntimeError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )
        for owner, name, fault in (
            (training, "save_checkpoint", no_room),
            (SequenceClassifier, "save", safetensors),
            (SequenceClassifier, "save", with_torch),
            (training, "write_json", no_room),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, raising(fault))
                with pytest.raises(
                    OSError, match=r"cannot be written any more .*are kept; make room and run the same"
                ):
                    run_study(STUDY, tmp_path)
        assert run_study(STUDY, tmp_path)[0] == before[0]

    def test_small_disk(self, tmp_path):
        """A real one: files may not grow beyond 30 kB."""
        code = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from rattention.cli import main; import rattention.studies.lra.training\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        STUDY.save(tmp_path / "c.yaml")
        arguments = (
            "lra",
            "run",
            "--config",
            tmp_path / "c.yaml",
            "--out",
            tmp_path / "out",
            "--threads",
            "1",
        )
        run_study(
            replace(
                STUDY,
                mechanisms=("softmax",),
            ),
            tmp_path / "cached",
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode != 0
        assert "cannot be written any more" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(run_study(STUDY, tmp_path / "out")) == 2


class TestCommand:
    def test_runs_and_goes_on(self, run, config, tmp_path):
        code, out, err = run("run", "--config", config, "--out", "res", "--mechanisms", "softmax")
        assert code == 0, err
        assert "ListOps (majority class" in out
        assert "did not learn" in out or "majority class" in out
        assert "softmax" in out
        assert "Saved in res. Open res/report.html" in " ".join(out.split())
        code, out, err = run(
            "run", "--out", "res", "--mechanisms", "gravitational_multi_timescale,rattention", "--json"
        )
        assert code == 0, err
        found = json.loads(out)
        assert found["folder"] == "res"
        assert [result["mechanism"] for result in found["results"]] == [
            "gravitational_multi_timescale",
            "rattention",
        ]
        code, _, err = run("run", "--out", "res")
        assert code == 0
        assert err.count("finished before") == 3

    def test_overrides(self, run, config):
        code, _, err = run(
            *("run", "--config", config, "--out", "res", "--mechanisms", "softmax", "--seeds", "4"),
            *("--epochs", 1, "--batch", 8, "--learning-rate", 0.01, "--patience", 2, "--match-parameters"),
            *("--length", 60, "--samples", 40),
        )
        assert code == 0, err
        study = Study.load("res/study.yaml")
        assert study.training == replace(STUDY.training, epochs=1, batch=8, learning_rate=0.01, patience=2)
        assert study.model == replace(SIZE, match_parameters=True)
        assert study.seeds == (4,)
        listops = study.data["listops"]
        assert (listops.min_length, listops.max_length, listops.train) == (10, 60, 40)
        assert (study.data["text"].length, study.data["text"].train) == (60, 40)
        assert (study.data["images"].size, study.data["images"].train) == (7, 40)

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (("run", "--tasks", "pictures"), "unknown task 'pictures': there are listops, text, images"),
            (
                ("run", "--mechanisms", "softmax,linear"),
                "unknown mechanism 'linear': there are softmax",
            ),
            (("run", "--seeds", "one"), "--seeds must be whole numbers"),
            (("run", "--seeds", "-1"), "seeds must be between 0 and 4294967295, got -1"),
            (("run", "--preset", "large"), "--preset"),
            (("run", "--preset", "smoke", "--config", "c.yaml"), "--preset and --config both name a study"),
            (("run", "--config", "none.yaml"), "none.yaml cannot be read"),
            (("run", "--epochs", "0"), "epochs must be >= 1, got 0"),
            (("run", "--learning-rate", "nan"), "learning_rate must be"),
            (("run", "--threads", "-1"), "--threads must be >= 0"),
            (("run", "--tasks", "text", "--imdb", "no/such/folder"), "no/such/folder"),
            (("data", "--tasks", "pictures"), "unknown task 'pictures'"),
        ],
    )
    def test_mistakes_give_one_line_and_code_2(self, run, argv, said):
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1

    def test_data(self, run, config):
        code, out, err = run("data", "--config", config)
        assert code == 0, err
        assert "listops: " in out
        code, out, _ = run("data", "--config", config, "--json")
        (described,) = json.loads(out)
        assert described["samples"] == {"train": 48, "validation": 16, "test": 16}
        assert described["lengths"]["train"]["max"] < 30
        assert sum(described["label_shares"]["test"]) == pytest.approx(1)
        assert described["classes"] == 10

    def test_data_by_words(self, run, tmp_path):
        write_parquet(tmp_path / "imdb")
        replace(STUDY, tasks=("text",), data={"text": Text(validation=4)}).save(tmp_path / "text.yaml")
        words = ("data", "--config", tmp_path / "text.yaml", "--imdb", tmp_path / "imdb", "--json")
        (by_bytes,), (by_words,) = (
            json.loads(run(*words, "--level", level)[1]) for level in ("bytes", "words")
        )
        assert (by_bytes["vocabulary"], by_bytes["samples"]["train"]) == (257, 16)
        assert by_words["vocabulary"] < 40
        assert by_words["lengths"]["train"]["max"] < 8 < by_bytes["lengths"]["train"]["max"]

    def test_ctrl_c(self, run, config, tmp_path):
        """Exit code 130 and one line; the same command goes on, to the same numbers."""
        command = [
            sys.executable,
            "-m",
            "rattention",
            "lra",
            "run",
            "--config",
            str(config),
            "--threads",
            "1",
        ]
        options = ["--mechanisms", "softmax", "--epochs", "40", "--out"]
        with subprocess.Popen([*command, *options, "broken"], stderr=subprocess.PIPE, text=True) as process:
            wait_for(tmp_path / "broken" / "runs" / "listops-softmax-0" / "metrics.jsonl")
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1]
        assert (process.returncode, err.splitlines()[-1]) == (130, "rattention: interrupted")
        for folder in ("broken", "whole"):
            code, _, err = run("run", "--config", config, *options, folder)
            assert code == 0, err
        broken, whole = (
            everything(tmp_path / folder / "runs" / "listops-softmax-0") for folder in ("broken", "whole")
        )
        assert broken == whole
        assert without_times(broken["result"]) == without_times(whole["result"])


def raising(error):
    def call(*_args, **_kwargs):
        raise error

    return call


def wait_for(path, seconds=240):
    """Until the file has a line."""
    until = time.monotonic() + seconds
    while not (path.exists() and path.read_text("utf-8")):
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.02)
