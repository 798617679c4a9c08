"""What was observed: arrays, a table, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import plots
from rattention._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

PER_KEY = ("received",)
_EACH = "read them one by one from .passes"
PANELS = ("entropy", "local_concentration", "long_range", "retention")
"""What `Observation.figure` shows where it was measured."""


class Pass:
    """The metrics of one forward pass: ``this["entropy"]`` is ``[layers, batch, heads, tokens]``.

    In generation the first pass holds the prompt, and each later one a token.
    """

    def __init__(self) -> None:
        """Empty."""
        self.layers: dict[int, dict[str, NDArray[Any]]] = {}
        """By layer and name, ``[batch, heads, tokens]``; received is ``[batch, heads, keys]``."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A metric of all layers that were called; ValueError where their lengths differ (see `layers`)."""
        arrays = [self.layers[layer][name] for layer in sorted(self.layers)]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"{name} has different shapes in the layers of this pass, {sorted(shapes)}: read them one "
                "by one from .layers"
            )
        return np.stack(arrays)


class Observation:
    """The metrics of a model's attention, as `observe` measured them.

    ``this["entropy"]`` is a float32 array ``[layers, batch, heads, tokens]``; the tokens of all forward
    passes follow one another, so that after a generation there is one number for each token of the prompt
    and each generated one but the last, which the model has not read.
    """

    def __init__(self, modules: tuple[str, ...], layers: tuple[int, ...], names: tuple[str, ...]) -> None:
        """Without any pass."""
        self.modules = modules
        """Names of the model's attention modules, in the order in which layers are counted."""
        self.layers = layers
        """The layers observed."""
        self.names = names
        """The metrics measured."""
        self.passes: list[Pass] = []
        """What each forward pass gave. A pass ends when a layer is called again."""

    def add(self, layer: int, metrics: dict[str, NDArray[Any]]) -> None:
        """Take what one call of a layer gave."""
        if not self.passes or layer in self.passes[-1].layers:
            self.passes.append(Pass())
        self.passes[-1].layers[layer] = metrics

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A metric in all passes.

        Raises
        ------
        KeyError
            It was not measured.
        ValueError
            No pass was observed, or passes that do not go together: read `passes` one by one.
        """
        if name not in self.names:
            raise KeyError(f"{name} was not measured; there are {', '.join(self.names)}")
        if not self.passes:
            raise ValueError("nothing was observed yet: no layer of the model has been called")
        if len(self.passes) > 1 and name in PER_KEY:
            raise ValueError(
                f"{name} is per key, and {len(self.passes)} passes have keys of their own: {_EACH}"
            )
        kinds = {(tuple(sorted(p.layers)), p[name].shape[:3]) for p in self.passes}
        if len(kinds) > 1:
            raise ValueError(f"the passes have other layers or batch sizes: {_EACH}")
        return np.concatenate([p[name] for p in self.passes], axis=3)

    def per_head(self, name: str) -> NDArray[np.float64]:
        """The mean over batch and tokens that are no padding, ``[layers, heads]``."""
        return _mean(self[name], (1, 3))

    def per_token(self, name: str) -> NDArray[np.float64]:
        """The mean over batch and heads, ``[layers, tokens]``; NaN where all sequences have padding."""
        return _mean(self[name], (1, 2))

    def to_frame(self) -> DataFrame:
        """A pandas frame: a row for each layer, batch, head and token, a column for each metric that has one
        number per token."""
        names = [name for name in self.names if name not in PER_KEY]
        if not names:
            raise ValueError("nothing with one number per token was measured")
        columns = {name: self[name] for name in names}
        shape = columns[names[0]].shape
        layers, *others = np.indices(shape, dtype=np.int32)
        index = [np.asarray(self._called())[layers], *others]
        labels = dict(zip(("layer", "batch", "head", "token"), index, strict=True))
        flat = {name: array.reshape(-1) for name, array in (labels | columns).items()}
        frame: DataFrame = require("pandas").DataFrame(flat)
        return frame

    def plot_heads(self, name: str, *, ax: Axes | None = None) -> Axes:
        """A map of `per_head`."""
        label = plots.label_of(name)
        return plots.plot_head_map(self.per_head(name), label=label, layers=self._called(), ax=ax)

    def plot_tokens(self, name: str, *, ax: Axes | None = None) -> Axes:
        """`per_token` of every layer along the tokens; a rule stands where generation begins."""
        prompt = next(iter(self.passes[0].layers.values()))[name].shape[2] if len(self.passes) > 1 else None
        values = self.per_token(name)
        return plots.plot_tokens(values, self._called(), label=plots.label_of(name), prompt=prompt, ax=ax)

    def figure(self, *, title: str = "") -> Figure:
        """Maps of the metrics by layer and head: entropy, local concentration, long range and retention where
        they were measured, else the first ones that were."""
        names = [name for name in PANELS if name in self.names] or list(self.names[:4])
        maps = {name: self.per_head(name) for name in names}
        return plots.maps_figure(maps, layers=self._called(), title=title)

    def _called(self) -> list[int]:
        return sorted(self.passes[0].layers)


def _mean(values: NDArray[Any], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Without NaN; NaN where there is nothing else."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(axis=axes, dtype=np.float64)
    count = there.sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
