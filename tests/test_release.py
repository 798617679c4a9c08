"""The scripts that make releases, each in a folder of its own; and what names the version and the address."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "release.py"
README = ROOT / "scripts" / "pypi_readme.py"
CHANGELOG = """# Changelog

## [0.2.0] - unreleased

### Added

- Something.

## [0.1.0] - 2026-01-01

- Everything.
"""


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(
        ["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def release(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *options], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rattention"\nversion = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "user.name", "Someone")
    git(tmp_path, "config", "user.email", "someone@example.org")
    commit(tmp_path)
    git(tmp_path, "tag", "v0.1.0")
    return tmp_path


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Work")


def test_a_dry_run_changes_nothing(repository: Path) -> None:
    done = release(repository, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "0.2.0 can be released" in done.stdout
    assert (repository / "CHANGELOG.md").read_text() == CHANGELOG
    assert git(repository, "tag") == "v0.1.0"


def test_a_release_dates_the_changelog_and_sets_a_tag(repository: Path) -> None:
    done = release(repository)
    assert done.returncode == 0, done.stderr
    assert "git push origin main v0.2.0" in done.stdout
    assert re.search(
        r"^## \[0\.2\.0\] - \d{4}-\d\d-\d\d$", git(repository, "show", "v0.2.0:CHANGELOG.md"), re.M
    )
    assert git(repository, "status", "--porcelain") == ""
    again = release(repository)
    assert again.returncode == 1
    assert "not newer than the released v0.2.0" in again.stderr


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("pyproject.toml", "0.2.0", "0.1.0", "not newer than the released v0.1.0"),
        ("pyproject.toml", "0.2.0", "0.3.0", "must be '## [0.3.0] - unreleased'"),
        ("pyproject.toml", "0.2.0", "0.2.0rc1", "three numbers"),
        ("CHANGELOG.md", "unreleased", "2026-02-02", "must be '## [0.2.0] - unreleased'"),
        ("CHANGELOG.md", "- Something.", "", "says nothing of version 0.2.0"),
    ],
)
def test_what_must_be_mended_first(repository: Path, file: str, before: str, after: str, said: str) -> None:
    path = repository / file
    path.write_text(path.read_text().replace(before, after))
    commit(repository)
    refused(repository, said)


def test_changes_and_other_branches_are_refused(repository: Path) -> None:
    (repository / "new").touch()
    refused(repository, "no commit has")
    commit(repository)
    git(repository, "checkout", "-qb", "other")
    refused(repository, "not on other")


def refused(repository: Path, said: str) -> None:
    commits = git(repository, "rev-parse", "HEAD")
    done = release(repository)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert git(repository, "rev-parse", "HEAD") == commits


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    newest = re.search(r"^## \[(.+)\] - ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]


def test_one_address_of_the_repository() -> None:
    address = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]
    files = [
        ROOT / "CITATION.cff",
        *ROOT.glob("*.md"),
        *ROOT.glob("notebooks/*.*"),
        *ROOT.rglob(".github/**/*.yml"),
    ]
    named = {
        found
        for path in files
        for found in re.findall(
            r"github\.com/[\w.-]+/rattention\b|github/[\w.-]+/rattention\b", path.read_text("utf-8")
        )
    }
    assert {name.rpartition("github")[2].removeprefix(".com") for name in named} == {
        address.rpartition("github.com")[2]
    }


def test_links_of_the_readme_lead_to_the_tag(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for _ in range(2):  # again it changes nothing
        subprocess.run([sys.executable, README], cwd=tmp_path, check=True)
    text = (tmp_path / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [target for target in targets if not target.startswith("https://")] == []
    tag, hosts = f"v{project['version']}", ("github.com", "raw.githubusercontent.com")
    own = re.compile(rf"https://({'|'.join(hosts)})/rattention/rattention/(?:blob/)?{tag}/([^?#]+)")
    found = [match.groups() for match in map(own.match, targets) if match]
    assert {host for host, _ in found} == set(hosts)
    assert [path for _, path in found if not (ROOT / path).exists()] == []
    assert "transformers.svg?sanitize=true)" in text
