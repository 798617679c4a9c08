"""Runs of rattention visualize, and the files that they leave."""

from __future__ import annotations

from rattention import cli


def visualized(arguments, capsys):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def files_in(folder):
    return {path.name for path in folder.iterdir()}


def figure_names(samples, layers, suffix, numbers=None):
    each = {
        f"sample{s}_layer{n}_{kind}.{suffix}"
        for s in range(samples)
        for n in (range(layers) if numbers is None else numbers)
        for kind in ("maps", "lines")
    }
    return each | {f"{name}.{suffix}" for name in ("distributions", "layers", "heads")}
