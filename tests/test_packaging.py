"""What is installed, what importing it costs and brings, and how it fails where it cannot run."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import rattention
from rattention import _core

from tests.instruction_sets import LEVELS

PACKAGE = Path(rattention.__file__).parent
CORE = Path(_core.__file__)
"""Elsewhere than the package where that is installed in place, for development."""
CHECKOUT = Path(__file__).resolve().parents[1]
DENSE_LIBRARIES = ["libdnnl.so.3"] if _core.onednn_version() else []
"""What computes dense layers, where the core does not."""

needs_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")


def python(
    code: str, interpreter: str | Path = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(interpreter), "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


def test_one_version_everywhere() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    assert rattention.__version__ == _core.__version__ == project["version"]


@pytest.mark.row("B4")
def test_import_brings_numpy_and_nothing_else() -> None:
    done = python(
        "import sys, numpy.typing; before = set(sys.modules); import rattention;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["rattention"]


def test_import_takes_less_than_300_ms() -> None:
    """Of the processor's time, which a busy machine stretches less, without that of NumPy."""
    clock = "time.process_time()"
    code = f"import time, numpy; t = {clock}; import rattention; print({clock} - t)"
    seconds = [float(python(code).stdout) for _ in range(7)]
    assert statistics.median(seconds) < 0.3, seconds


@needs_readelf
def test_libraries_are_found_beside_the_module_only() -> None:
    """One libdnnl beside _core; no OpenMP runtime, which a process must not have twice."""
    dynamic = subprocess.run(["readelf", "-d", CORE], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", dynamic) == ["$ORIGIN" for _ in DENSE_LIBRARIES]
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert {*DENSE_LIBRARIES, "libgomp.so.1"} <= set(needed)
    assert [path.name for path in CORE.parent.rglob("lib*.so*")] == DENSE_LIBRARIES


@pytest.mark.row("B4")
def test_a_machine_without_libgomp_is_told_what_to_install(tmp_path: Path) -> None:
    """The module of this copy of the package asks for a library that no machine has."""
    copy = tmp_path / "rattention"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so*", "__pycache__"))
    for name in DENSE_LIBRARIES:
        (copy / name).symlink_to(CORE.parent / name)
    (copy / CORE.name).write_bytes(CORE.read_bytes().replace(b"libgomp.so.1\0", b"libgomp.so.0\0"))
    first = "import sys; from importlib.machinery import PathFinder; sys.meta_path.insert(0, PathFinder);"
    done = python(f"{first} import rattention", PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
    assert done.returncode == 1
    assert "ImportError: rattention needs the OpenMP runtime libgomp" in done.stderr
    assert "apt-get install libgomp1" in done.stderr
    assert str(copy) in done.stderr


@pytest.mark.row("B4")
def test_an_unknown_instruction_set_is_an_import_error() -> None:
    done = python("import rattention", RATTENTION_MAX_ISA="avx1024")
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError")
    for word in ("RATTENTION_MAX_ISA", "avx1024", *LEVELS):
        assert word in message


@pytest.mark.row("B2")
@pytest.mark.parametrize("cap", [*LEVELS, ""])
def test_the_cap_on_instructions_holds(cap: str) -> None:
    done = python(
        "import rattention as ra; print(ra.show_config()['instruction_set'])", RATTENTION_MAX_ISA=cap
    )
    assert LEVELS.index(done.stdout.strip()) <= LEVELS.index(cap or LEVELS[-1])


LEAN = """
import importlib.util, numpy as np, rattention as ra
assert importlib.util.find_spec("torch") is None
q = np.random.default_rng(0).standard_normal((1, 2, 300, 16), np.float32)
out, _, metrics = ra.attention(q, q, q, causal=True, window=64, metrics=ra.MetricOptions())
assert out.shape == q.shape and np.isfinite(out).all()
assert (metrics.entropy >= 0).all() and metrics.entropy.max() <= np.log(65) + 1e-5
print(ra.__file__)
"""
"""Kernels and metrics, in an environment of NumPy alone."""


def fresh_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def pip(interpreter: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [interpreter, "-m", "pip", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def source_distribution(folder: Path, interpreter: Path) -> Path:
    """Made from the files that version control knows, and one that a build has left."""
    tree = folder / "tree"
    (tree / "build" / "cpp").mkdir(parents=True)
    (tree / "build" / "cpp" / "isa.cpp.o").touch()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, tree / name)
    pip(interpreter, "install", "-q", "scikit-build-core>=0.11")
    done = subprocess.run(
        [interpreter, "-c", "from scikit_build_core.build import build_sdist; print(build_sdist('..'))"],
        capture_output=True,
        text=True,
        cwd=tree,
        check=True,
    )
    return folder / done.stdout.split()[-1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.row("B4")
def test_source_distribution_installs_without_torch(tmp_path: Path) -> None:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("needs a git checkout")
    sdist = source_distribution(tmp_path, fresh_environment(tmp_path / "builder"))
    with tarfile.open(sdist) as source:
        names = [name.partition("/")[2] for name in source.getnames()]
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "CMakeLists.txt"} <= set(names)
    assert not [name for name in names if re.search(r"\.so(\.|$)|^benchmarks/|^\.ci/|^build/", name)]

    interpreter = fresh_environment(tmp_path / "clean")
    pip(interpreter, "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", sdist)
    (wheel,) = (tmp_path / "wheels").glob("rattention-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    libraries = [name for name in names if re.search(r"\.so(\.|$)", name)]
    expected = [f"rattention/{name.partition('.')[0]}" for name in ("_core", *DENSE_LIBRARIES)]
    assert sorted(name.partition(".")[0] for name in libraries) == expected
    assert not [name for name in names if not re.match(r"rattention(-[\w.]+\.dist-info)?/", name)]

    pip(interpreter, "install", "-q", wheel)
    installed = re.findall(r"^(.+)==", pip(interpreter, "list", "--format=freeze"), re.MULTILINE)
    assert set(installed) - {"pip", "setuptools"} == {"numpy", "rattention"}
    done = python(LEAN, interpreter, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "clean")
