"""Draws the pictures of the mechanisms into docs/pictures: ``python docs/pictures.py``.

64 tokens whose queries and keys change slowly, so that neighbours are similar; tokens 40 to 51 repeat tokens
8 to 19. Row i of a picture shows the weight that token i gives each token j, computed by the kernels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra
from matplotlib import rc_context
from matplotlib.figure import Figure
from rattention._files import save_figure
from rattention.mechanisms.gravitational import gravitational_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "pictures"
LENGTH, DIM, WINDOW = 64, 16, 12
EVERY = np.arange(LENGTH)

Maps = dict[str, "NDArray[Any]"]


def main(folder: Path) -> None:
    """Draw all of them."""
    folder.mkdir(exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rattention", "font.size": 9}):
        for draw in (masks, softmax, gravity, linear, delta, rattention):
            save_figure(folder / f"{draw.__name__}.svg", _figure(draw(_tokens())))


def _tokens() -> NDArray[np.float32]:
    """``[1, 1, length, dim]``, queries and keys in one."""
    path = np.cumsum(np.random.default_rng(0).standard_normal((LENGTH, DIM)), axis=0)
    path[40:52] = path[8:20]
    return np.float32(1.2 * path / np.sqrt((path**2).mean(axis=-1, keepdims=True)))[None, None]


def masks(x: NDArray[np.float32]) -> Maps:
    """Who may see whom: weights of equal scores."""
    same = np.zeros_like(x)
    texts = np.repeat([0, 1, 2], [24, 16, 24])[None]
    image = np.where((EVERY >= 20) & (EVERY < 36), 0, -1)[None]
    return {
        "causal=True": _seen(same, causal=True),
        f"causal=True, window={WINDOW}": _seen(same, causal=True, window=WINDOW),
        f"window={WINDOW}": _seen(same, window=WINDOW),
        "causal=True, segment_ids": _seen(same, causal=True, segment_ids=texts),
        "causal=True, block_ids": _seen(same, causal=True, block_ids=image),
        "causal=True, key_mask": _seen(same, causal=True, key_mask=EVERY[None] >= 10),
    }


def _seen(x: NDArray[np.float32], **options: Any) -> NDArray[Any]:
    return ra.attention_rows(x, x, EVERY, **options)[0, 0] > 0


def softmax(x: NDArray[np.float32]) -> Maps:
    """What scores of dot products give."""
    return {
        "softmax": ra.attention_rows(x, x, EVERY, causal=True)[0, 0],
        f"window={WINDOW}": ra.attention_rows(x, x, EVERY, causal=True, window=WINDOW)[0, 0],
        "log_discount=ln 0.9": ra.attention_rows(x, x, EVERY, causal=True, log_discount=np.log(0.9))[0, 0],
    }


def gravity(x: NDArray[np.float32]) -> Maps:
    """Token 24 is heavy."""
    mass = np.ones((1, 1, LENGTH), np.float32)
    heavy = np.where(EVERY == 24, np.float32(3), mass)
    rows = {"gravity": 20.0, "eps": 4.0, "causal": True}
    return {
        "equal masses": gravitational_rows(x, x, mass, mass, EVERY, **rows)[0, 0],
        "token 24 is three times as heavy": gravitational_rows(x, x, mass, heavy, EVERY, **rows)[0, 0],
        "the same, log_discount=ln 0.9": gravitational_rows(
            x, x, mass, heavy, EVERY, log_discount=np.log(0.9), **rows
        )[0, 0],
    }


def linear(x: NDArray[np.float32]) -> Maps:
    """The output for values that are 1 for one token and 0 for all others."""
    values, gate = _one_hot(), np.zeros((1, 1, LENGTH), np.float32)
    return {
        f"residual linear, window={WINDOW}": ra.residual_linear_attention(x, x, values, window=WINDOW)[0, 0],
        "no gate": ra.gated_linear_attention(x, x, values, gate)[0, 0],
        "gate 0.9": ra.gated_linear_attention(x, x, values, gate + np.float32(np.log(0.9)))[0, 0],
    }


def delta(x: NDArray[np.float32]) -> Maps:
    """The same, with a state that is corrected."""
    gate, beta = np.zeros((1, 1, LENGTH), np.float32), np.full((1, 1, LENGTH), 0.3, np.float32)
    half = np.repeat([0, np.log(0.5)], DIM // 2).astype(np.float32)
    channels = np.tile(half, (1, 1, LENGTH, 1))
    gates = {
        "no gate": gate,
        "gate 0.9": gate + np.float32(np.log(0.9)),
        "half of the channels 0.5": channels,
    }
    return {
        name: ra.gated_delta_rule(x, x, _one_hot(), log_gate, beta, normalize=True)[0, 0]
        for name, log_gate in gates.items()
    }


def rattention(x: NDArray[np.float32]) -> Maps:
    """Both branches."""
    near = ra.attention_rows(x, x, EVERY, causal=True, window=WINDOW)[0, 0]
    far = ra.residual_linear_attention(x, x, _one_hot(), window=WINDOW)[0, 0]
    return {
        f"the window, w={WINDOW}": near,
        "the state": far,
        "who sees what": 1.0 * (near > 0) + 0.3 * (far > 0),
    }


def _one_hot() -> NDArray[np.float32]:
    return np.eye(LENGTH, dtype=np.float32)[None, None]


def _figure(maps: Maps) -> Figure:
    """Maps side by side, each with its own scale: black is its largest weight."""
    rows = len(maps) // 3
    figure = Figure(figsize=(8.1, 2.9 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(rows, 3))
    for axes, (title, weights) in zip(panels, maps.items(), strict=True):
        shown = np.sqrt(np.abs(weights.astype(float)))
        axes.imshow(shown, cmap="Greys", vmin=0, vmax=np.quantile(shown, 0.998), interpolation="nearest")
        axes.set(title=title, xlabel="key j", ylabel="query i")
        axes.set_xticks(range(0, LENGTH, 16))
        axes.set_yticks(range(0, LENGTH, 16))
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
