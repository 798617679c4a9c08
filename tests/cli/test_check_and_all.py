"""rattention check and all, and how wide the text of every command is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rattention._installed import for_users

from tests.extras import needs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


class TestCheck:
    def test_json(self, run: Run) -> None:
        code, out, err = run("check", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["kernel"]["ok"]
        assert found["hardware"]["instruction_set"]
        assert {entry["package"] for entry in found["packages"]} == {each.package for each in for_users()}
        assert next(e for e in found["packages"] if e["package"] == "rich")["version"]

    def test_text(self, run: Run) -> None:
        code, out, _ = run("check")
        assert code == 0
        for needed in ("agrees with the reference", "instruction set", "threads", "onednn", "Models"):
            assert needed in out

    def test_models_in_the_hub_cache(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, kind in (("models--org--mine", "bert"), ("models--org--other", "gpt2")):
            folder = tmp_path / "hub" / name / "snapshots" / "0"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
        for name, damaged in (("models--org--cut", "{"), ("models--org--list", "[]")):
            folder = tmp_path / "hub" / name / "snapshots" / "0"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(damaged, "utf-8")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        names = [m["name"] for m in json.loads(run("check", "--json")[1])["models"]]
        assert "org/mine" in names
        assert not {"org/other", "org/cut", "org/list"} & {*names}


class TestAll:
    def test_collects_every_part(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        code, out, err = run(
            "all", "--model", model, "--text", text, "--lengths", "30,60", "--json", "--out", "o"
        )
        assert code == 0, err
        data = json.loads(out)
        assert list(data) == ["check", "demo", "paper"]
        assert data["demo"]["model"]["layers"] == 2
        assert (tmp_path / "o" / "degradation.json").is_file()
        assert "not run, because they take minutes: rattention visualize, compress, ad, lra" in err

    def test_simple_takes_the_place_of_a_demo_that_failed(self, run: Run, tmp_path: Path) -> None:
        code, out, err = run("all", "--model", "./no/such", "--lengths", "60", "--json")
        assert code == 2
        data = json.loads(out)
        assert data["demo"] is None
        assert data["simple"]["model"]["synthetic"]
        assert (tmp_path / "figs" / "degradation" / "simple" / "degradation.json").is_file()
        assert data["paper"]
        assert "demo did not finish" in err


class TestWidth:
    """Nothing but paths and examples is wider than the terminal."""

    @pytest.mark.parametrize("columns", [80, 60])
    @pytest.mark.parametrize(
        "argv",
        [
            ("check",),
            ("demo", "--lengths", "30,60"),
            ("demo", "--simple", "--lengths", "60,120,...,480"),
            ("paper",),
            ("visualize", "--samples", "2", "--length", "20", "--dpi", "30", "--no-report"),
            ("compress", "--model", "bert", "--prefix", "30"),
            *(((*name.split(), "--help")) for name in ("demo", "visualize", "ad train", "lra run", "lra")),
        ],
        ids=" ".join,
    )
    def test_lines_fit(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, model: str, argv: tuple[str, ...], columns: int
    ) -> None:
        needs("cli", "inspect")
        monkeypatch.setenv("COLUMNS", str(columns))
        if argv[0] in ("demo", "visualize", "compress") and not {"--simple", "--help"} & {*argv}:
            argv = (*(word for word in argv if word not in ("--model", "bert")), "--model", model)
        code, out, err = run(*argv)
        assert code == 0, err
        wide = [line for line in out.splitlines() if len(line) > columns]
        assert not [line for line in wide if "/" not in line and not line.startswith("  rattention ")]
