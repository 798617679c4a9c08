"""Makes the README of this folder that of PyPI: links and pictures lead to the tag of the version on GitHub.

PyPI shows it where no other file is. The workflow that builds what is published calls this first. Python's
standard library is enough; calling it again changes nothing.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

LINK = re.compile(r"(?P<picture>!?)(?P<text>\[[^]]*\])\((?!https?:|#)(?P<target>[^)\s]+)\)")


def absolute(text: str, source: str, tag: str) -> str:
    """Markdown whose relative links lead to a tag of the repository at `source`."""
    pictures = source.replace("https://github.com/", "https://raw.githubusercontent.com/")

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if not match["picture"]:
            return f"{match['text']}({source}/blob/{tag}/{target})"
        served = "?sanitize=true" if target.endswith(".svg") else ""  # else it is sent as plain text
        return f"!{match['text']}({pictures}/{tag}/{target}{served})"

    return LINK.sub(link, text)


def main() -> None:
    """Rewrite the README of this folder."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    readme = Path(project["readme"])
    tag = f"v{project['version']}"
    readme.write_text(absolute(readme.read_text("utf-8"), project["urls"]["Source"], tag), "utf-8")


if __name__ == "__main__":
    main()
