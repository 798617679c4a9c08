"""Makes a release of what is checked out: dates the changelog's newest section, commits that, and sets a tag.

The version is that of ``pyproject.toml``. Nothing is pushed: the last line says how, and GitHub's workflow
``release.yml`` builds and publishes what the tag names. Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tomllib
from pathlib import Path

UNRELEASED = "unreleased"
"""In the heading of the changelog's newest section, in place of a date."""
HEADING = re.compile(r"^## \[(?P<version>[^]]+)\] - (?P<date>\S+)$", re.MULTILINE)


class NotReadyError(Exception):
    """What must be mended before a release."""


def git(*arguments: str, folder: Path) -> str:
    """What git prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReadyError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def numbers(version: str) -> tuple[int, ...]:
    """The version X.Y.Z as numbers, to compare."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise NotReadyError(f"the version in pyproject.toml must be three numbers, X.Y.Z, got {version}")
    return tuple(map(int, version.split(".")))


def check_tree(folder: Path, version: str) -> None:
    """The branch is main, everything is committed, and the version is newer than all before."""
    branch = git("rev-parse", "--abbrev-ref", "HEAD", folder=folder)
    if branch != "main":
        raise NotReadyError(f"releases are made on the branch main, not on {branch}")
    if changed := git("status", "--porcelain", folder=folder):
        raise NotReadyError(f"there are changes that no commit has:\n{changed}")
    for tag in git("tag", "--list", "v*", folder=folder).split():
        if re.fullmatch(r"v\d+\.\d+\.\d+", tag) and numbers(tag[1:]) >= numbers(version):
            raise NotReadyError(
                f"version {version} is not newer than the released {tag}: raise it in pyproject.toml"
            )


def dated(changelog: str, version: str, date: str) -> str:
    """The changelog with a date in its newest section, which must be that of `version`."""
    headings = list(HEADING.finditer(changelog))
    if not headings or (headings[0]["version"], headings[0]["date"]) != (version, UNRELEASED):
        raise NotReadyError(f"the newest section of CHANGELOG.md must be '## [{version}] - {UNRELEASED}'")
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    if not re.search(r"^- ", changelog[headings[0].end() : end], re.MULTILINE):
        raise NotReadyError(f"CHANGELOG.md says nothing of version {version}")
    start, stop = headings[0].span("date")
    return changelog[:start] + date + changelog[stop:]


def release(folder: Path, dry_run: bool) -> str:
    """Do it, or only check that it can be done; what was done, in words."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    version, path = project["version"], folder / "CHANGELOG.md"
    numbers(version)
    check_tree(folder, version)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    changelog = dated(path.read_text("utf-8"), version, date)
    if dry_run:
        return f"Version {version} can be released: its changelog would say {date}, its tag be v{version}."
    path.write_text(changelog, "utf-8")
    git("commit", "-m", f"Release {version}", "CHANGELOG.md", folder=folder)
    git("tag", "-a", f"v{version}", "-m", f"rattention {version}", folder=folder)
    return f"Version {version} is tagged. Publish it with: git push origin main v{version}"


def main() -> int:
    """Exit code 1 with one line of explanation where something must be mended first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, change nothing")
    options = parser.parse_args()
    try:
        print(release(Path.cwd(), options.dry_run))
    except NotReadyError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
