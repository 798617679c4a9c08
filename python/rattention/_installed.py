"""What is installed beside the kernels: the packages of each extra, by the metadata of this installation."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from rattention import _core

EXTRAS = {
    "cli": "the command line",
    "plots": "figures",
    "models": "a BERT from its files",
    "pdf": "rattention paper --pdf",
    "demo": "cli, plots, models and pdf together",
    "torch": "differentiable operations and modules",
    "hf": "models of Transformers",
    "inspect": "what models attend to, and compression",
    "explore": "a page to walk through a document's attention",
    "studies": "mechanisms compared, dark rooms",
    "all": "all of the above",
    "bench": "comparing with other libraries",
    "test": "the tests",
    "dev": "work on rattention itself",
}
"""What each extra of ``pyproject.toml`` is for."""
FOR_DEVELOPERS = ("bench", "test", "dev")

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(\[(?P<parts>[\w,\s-]+)\])?\s*(?P<versions>[^;]*?)\s*;"
    r".*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]"
)


@dataclass(frozen=True)
class Requirement:
    """One line of an extra."""

    package: str
    extra: str
    wanted: str
    """Versions that will do, such as ``>=2.5``."""
    parts: tuple[str, ...] = ()
    """Other extras that the line brings, where the package is rattention itself."""

    @property
    def version(self) -> str | None:
        """The installed version, None where there is none."""
        return installed_version(self.package)

    @property
    def met(self) -> bool:
        """Whether a version is installed that will do."""
        return self.version is not None and all(
            _compares(self.version, bound.strip()) for bound in self.wanted.split(",") if bound.strip()
        )


@cache
def requirements() -> tuple[Requirement, ...]:
    """What the extras consist of; empty where rattention runs without having been installed."""
    try:
        lines = metadata.requires("rattention") or []
    except metadata.PackageNotFoundError:
        return ()
    found = (_REQUIREMENT.fullmatch(line) for line in lines)
    return tuple(
        Requirement(
            match["name"],
            match["extra"],
            match["versions"].strip("() "),
            tuple(part.strip() for part in (match["parts"] or "").split(",") if part.strip()),
        )
        for match in found
        if match
    )


def packages(*extras: str) -> tuple[Requirement, ...]:
    """What these extras and those that they include ask for, each package once and under the extra that names
    it."""
    wanted = set().union(*(including(extra) for extra in extras))
    order = [*EXTRAS]
    lines = sorted((r for r in requirements() if r.extra in wanted), key=lambda r: order.index(r.extra))
    named: dict[str, Requirement] = {}
    for line in lines:
        if not line.parts:
            named.setdefault(line.package, line)
    return tuple(named.values())


def including(extra: str) -> set[str]:
    """The extra itself and all that it includes."""
    inner = [part for r in requirements() if r.extra == extra for part in r.parts]
    return {extra}.union(*(including(part) for part in inner))


def for_users() -> tuple[Requirement, ...]:
    """The packages of all extras but those for developers."""
    return packages(*(extra for extra in EXTRAS if extra not in FOR_DEVELOPERS))


def lacking() -> dict[str, list[str]]:
    """Extras that are not complete, with the packages that they name and that are missing or too old."""
    missing: dict[str, list[str]] = {}
    for requirement in requirements():
        if not requirement.parts and not requirement.met:
            missing.setdefault(requirement.extra, []).append(requirement.package)
    return missing


def versions() -> dict[str, str]:
    """Versions of Python, NumPy, rattention and of the optional packages that are there."""
    found = {"python": platform.python_version(), "rattention": str(_core.__version__)}
    for name in ("numpy", *(requirement.package for requirement in for_users())):
        version = installed_version(name)
        if version is not None:
            found[name] = version
    return found


def installed_version(package: str) -> str | None:
    """Of a distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compares(version: str, bound: str) -> bool:
    """Whether a version keeps a bound of the kinds that the extras use: ``>=2.5``, ``<6``, ``==19.1.7``."""
    operator = bound.rstrip("0123456789. ")
    ours, theirs = _release(version), _release(bound.removeprefix(operator))
    return {">=": ours >= theirs, "<": ours < theirs, "==": ours == theirs, "<=": ours <= theirs}[operator]


def _release(version: str) -> tuple[int, ...]:
    """The numbers of ``2.13.0+cpu`` and ``5.0rc1``, without zeros at the end."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, re.sub(r"(\.0+)+$", "", match[0]).split("."))) if match else ()
