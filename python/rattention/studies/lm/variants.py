"""Language models that differ in how their layers attend, with equal numbers of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rattention.nn import GatedDelta, GatedLinear, LanguageModel, RAttention, SlidingWindow, Softmax
from rattention.studies.kit.settings import require_name
from rattention.studies.lm.branches import BranchAttention, Branches

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.nn.mechanisms import Mechanism
    from rattention.studies.lm.settings import ModelSize

Layer = "Mechanism | Branches"

LAYERS: dict[str, Callable[[int, float], Mechanism | Branches]] = {
    "full": lambda window, theta: Softmax(rope_theta=theta),
    "window": lambda window, theta: SlidingWindow(window, rope_theta=theta),
    "rattention": lambda window, theta: RAttention(window, rope_theta=theta),
    "window_normed": lambda window, theta: Branches(window, join="local"),
    "linear": lambda window, theta: Branches(None),
    "gated_linear": lambda window, theta: GatedLinear(feature_map="softmax"),
    "gated_delta": lambda window, theta: GatedDelta(),
    "rattention_gated": lambda window, theta: Branches(window, gate="state"),
    "rattention_as_window": lambda window, theta: RAttention(window, rope_theta=theta),
    "rattention_relu": lambda window, theta: RAttention(window, rope_theta=theta, feature_map="relu"),
    "rattention_identity": lambda window, theta: Branches(window, feature_map="identity"),
    "rattention_no_norms": lambda window, theta: Branches(window, norm="none"),
    "rattention_norm_of_sum": lambda window, theta: Branches(window, norm="sum"),
    "rattention_shared_norm": lambda window, theta: Branches(window, norm="shared"),
    "rattention_split_heads": lambda window, theta: Branches(window, join="split"),
    "rattention_rope_both": lambda window, theta: Branches(window, rope="both"),
    "rattention_gated_sum": lambda window, theta: Branches(window, gate="branch"),
}
"""By name, the layer with a window and a base of its rotary embedding."""

LABELS = {
    "full": "Full attention",
    "window": "Sliding window",
    "rattention": "RAttention",
    "window_normed": "Sliding window, normed",
    "linear": "Residual linear alone",
    "gated_linear": "Scalar gate",
    "gated_delta": "Gated DeltaNet",
    "rattention_gated": "RAttention, state gated",
    "rattention_as_window": "RAttention, begun as its window",
    "rattention_relu": "RAttention, ReLU",
    "rattention_identity": "RAttention, identity",
    "rattention_no_norms": "RAttention, no norms",
    "rattention_norm_of_sum": "RAttention, norm of the sum",
    "rattention_shared_norm": "RAttention, one norm for both",
    "rattention_split_heads": "RAttention, heads split",
    "rattention_rope_both": "RAttention, RoPE on both",
    "rattention_gated_sum": "RAttention, gated residual",
}
"""What tables and figures call them."""

AS_WINDOW = "rattention_as_window"
"""RAttention whose norms begin as `begin_as_windows` says, from scratch and after a conversion."""
WINDOWLESS = ("full", "linear", "gated_linear", "gated_delta")
MATCHED_WITHIN = 0.005
"""Share by which the parameters of two mechanisms may differ."""
MLP_STEP = 8
"""Widths of MLPs are multiples of this: others leave vector registers half empty."""


@dataclass(frozen=True)
class Variant:
    """A mechanism, its window, and whether every fourth layer is global."""

    mechanism: str
    window: int | None = None
    """None for mechanisms without one."""
    layout: str = "pure"
    """``"pure"``: all layers alike. ``"3:1"``: every fourth is full attention without positions, as in the
    paper."""

    def __post_init__(self) -> None:
        require_name("mechanism", self.mechanism, LAYERS)
        require_name("layout", self.layout, ("pure", "3:1"))
        if (self.window is None) != (self.mechanism in WINDOWLESS):
            needs = "takes no" if self.mechanism in WINDOWLESS else "needs a"
            raise ValueError(f"mechanism {self.mechanism!r} {needs} window, got {self.window}")

    @property
    def name(self) -> str:
        """In names of files."""
        window = "" if self.window is None else f"-w{self.window}"
        return f"{self.mechanism}{window}{'' if self.layout == 'pure' else '-3to1'}"

    @property
    def family(self) -> str:
        """What shares a learning rate: everything but the window."""
        return Variant(self.mechanism, None if self.window is None else 0, self.layout).name

    @property
    def label(self) -> str:
        """In tables and figures."""
        window = "" if self.window is None else f", window {self.window}"
        return f"{LABELS[self.mechanism]}{window}{'' if self.layout == 'pure' else ', 3:1'}"

    def pattern(self, theta: float) -> list[Mechanism | Branches]:
        """Its layers, to be repeated."""
        layer = LAYERS[self.mechanism](self.window or 0, theta)
        return [layer] if self.layout == "pure" else [layer, layer, layer, Softmax()]


BASELINE = Variant("full")


def model_of(variant: Variant, size: ModelSize, vocabulary: int) -> LanguageModel:
    """A model with its first weights, whose MLPs are as wide as `matched_mlp` says."""
    return _made(variant, replace(size, mlp_dim=matched_mlp(variant, size, vocabulary)), vocabulary)


def _made(variant: Variant, size: ModelSize, vocabulary: int) -> LanguageModel:
    pattern = variant.pattern(size.rope_theta)
    plain = [RAttention(layer.window or 0) if isinstance(layer, Branches) else layer for layer in pattern]
    model = LanguageModel(
        vocabulary,
        size.dim,
        size.heads,
        size.depth,
        kv_heads=size.kv_heads,
        pattern=plain,
        head_dim=size.head_dim,
        mlp_dim=size.mlp_dim,
        qk_norm=size.qk_norm,
    )
    for index, block in enumerate(model.encoder.layers):
        layer = pattern[index % len(pattern)]
        if isinstance(layer, Branches):
            block.attention = BranchAttention(size, layer)
    return model


def parameters(variant: Variant, size: ModelSize, vocabulary: int) -> int:
    """How many a model has with exactly this size, without any memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in _made(variant, size, vocabulary).parameters())


def matched_mlp(variant: Variant, size: ModelSize, vocabulary: int) -> int:
    """The width of the MLPs that gives as many parameters as full attention has, within `MATCHED_WITHIN`."""
    more = parameters(variant, size, vocabulary) - (wanted := parameters(BASELINE, size, vocabulary))
    if abs(more) <= MATCHED_WITHIN * wanted:
        return size.mlp_dim
    units = more / (2 * size.dim * size.depth)
    return max(MLP_STEP, size.mlp_dim - MLP_STEP * round(units / MLP_STEP))
