"""Mechanisms of a `SelfAttention` layer: a class of options for each row of `rattention.MECHANISMS`.

    >>> from rattention.nn import MultiTimescale, SelfAttention
    >>> layer = SelfAttention(32, heads=2, mechanism=MultiTimescale(timescales=[4, 64], adaptive=True))
    >>> layer.mechanism.timescales
    (4.0, 64.0)

Residual linear attention alone is no layer: it does not see the nearest tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from rattention._arguments import at_least, brief, positive, truth
from rattention.mechanisms.masks import window_bounds
from rattention.mechanisms.residual_linear import feature_map_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.mechanisms.masks import Window

DISTANCES = ("squared_euclidean", "euclidean", "cosine")


@dataclass(frozen=True)
class Mechanism:
    """Options of one mechanism; each value is checked, and errors name it."""

    name: ClassVar[str]
    """In `rattention.MECHANISMS`."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.default is not None:
                object.__setattr__(self, option.name, _CHECKS[option.name](option.name, value))

    def as_dict(self) -> dict[str, Any]:
        """Name and options as JSON has them; `SelfAttention` takes such a mapping, too."""
        values = asdict(self).items()
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in values}
        return {"mechanism": self.name, **options}


@dataclass(frozen=True, kw_only=True)
class _Rotary(Mechanism):
    rope_theta: float | None = None
    """Base of a rotary embedding of queries and keys, > 0; None is none."""


@dataclass(frozen=True, kw_only=True)
class _Windowed(Mechanism):
    window: Window = None
    """As in `rattention.attention`."""


@dataclass(frozen=True, kw_only=True)
class WithGravity(_Windowed):
    """Options of scores by gravity."""

    distance: str = "squared_euclidean"
    """``"squared_euclidean"`` ``|q - k|^2``, ``"euclidean"`` ``|q - k|``, or ``"cosine"`` ``1 - cos(q, k)``,
    where the cosine with a vector of length 0 is 0."""
    learn_exponent: bool = False
    """Whether each head learns the exponent, a positive one, of ``|q - k|`` or of ``sqrt(1 - cos)``."""
    softening: float = 1.0
    """Added to the distances, > 0; it bounds the scores."""


@dataclass(frozen=True, kw_only=True)
class WithTimescales(_Windowed):
    """Options of discounts by distance."""

    timescales: tuple[float, ...] = (4.0, 16.0, 64.0, 256.0)
    """Numbers of positions over which a weight decays by a factor of e, > 0."""
    learn: bool = True
    """Whether training changes them."""
    adaptive: bool = False
    """Whether every token sets how far back it looks: a learned linear gate of the token multiplies each
    timescale, for its row, by a factor from 1/e to e; 1 at first."""


@dataclass(frozen=True, kw_only=True)
class Softmax(_Rotary):
    """Every token sees everything, or under ``causal=True`` everything before it."""

    name: ClassVar[str] = "softmax"


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(_Rotary):
    """Softmax attention to the nearest tokens."""

    name: ClassVar[str] = "sliding_window"
    window: Window = field(kw_only=False)
    """As in `rattention.attention`: neighbours on each side, or ``(left, right)``."""


@dataclass(frozen=True, kw_only=True)
class MultiTimescale(WithTimescales, _Rotary):
    """Softmax attention at several timescales, each with heads of its own.

    Each timescale has its own query, key and value projections; the projection back is their decoder, a
    learned linear map from the outputs of all timescales, each an exponentially discounted (Laplace-like)
    view of the sequence, to the width of the tokens.
    """

    name: ClassVar[str] = "multi_timescale"


@dataclass(frozen=True, kw_only=True)
class Gravitational(WithGravity):
    """Weights from masses and distances; masses of every token for every head and the gravity of a head, all
    positive, are learned."""

    name: ClassVar[str] = "gravitational"


@dataclass(frozen=True, kw_only=True)
class GravitationalMultiTimescale(WithTimescales, WithGravity):
    """Gravitational attention at several timescales; masses, too, are those of a timescale."""

    name: ClassVar[str] = "gravitational_multi_timescale"


@dataclass(frozen=True, kw_only=True)
class RAttention(_Rotary):
    """A sliding window, and the state of all before it; the weights of its two norms are learned. Causal."""

    name: ClassVar[str] = "rattention"
    window: int = field(kw_only=False)
    """w of `rattention.rattention`, >= 0."""
    feature_map: str = "softmax"
    """Of the linear branch, ``"softmax"`` or ``"relu"``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("window", self.window, 0)


@dataclass(frozen=True, kw_only=True)
class Recurrent(Mechanism):
    """Options of states that decay. Causal; memory does not grow with the context."""

    convolution: int = 4
    """Rows of a causal convolution of queries, keys and values, each channel for itself, before SiLU; 0 is
    neither."""


@dataclass(frozen=True, kw_only=True)
class GatedLinear(Recurrent):
    """A state that a learned gate of every token lets decay: the core of Mamba2. A token writes its value
    times its step."""

    name: ClassVar[str] = "gated_linear"
    feature_map: str | None = None
    """Of queries and keys, as in `rattention.gated_linear_attention`: None, ``"softmax"`` or ``"relu"``."""


@dataclass(frozen=True, kw_only=True)
class GLA(Recurrent):
    """Gated Linear Attention (arXiv 2312.06635): a state with a learned gate for each key channel."""

    name: ClassVar[str] = "gla"
    convolution: int = 0
    """As in the other states that decay, but none by default, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class GatedDelta(Recurrent):
    """Gated DeltaNet: the state decays, and a token corrects what the state has for its key."""

    name: ClassVar[str] = "gated_delta"


@dataclass(frozen=True, kw_only=True)
class KimiDelta(Recurrent):
    """Kimi Delta Attention: the same with a gate for every channel of the keys."""

    name: ClassVar[str] = "kda"


BY_NAME: dict[str, type[Mechanism]] = {
    kind.name: kind
    for kind in (
        Softmax,
        SlidingWindow,
        MultiTimescale,
        Gravitational,
        GravitationalMultiTimescale,
        GatedLinear,
        GLA,
        GatedDelta,
        KimiDelta,
        RAttention,
    )
}


def rattention_pattern(window: int = 512, rope_theta: float = 10_000.0) -> list[Mechanism]:
    """Three layers of RAttention with rotary embedding to one of full attention without positions (arXiv
    2506.15545, section 4)."""
    return [*3 * [RAttention(window, rope_theta=rope_theta)], Softmax()]


def as_mechanism(value: Mechanism | str | Mapping[str, Any]) -> Mechanism:
    """A mechanism from itself, its name, or what its `as_dict` gives."""
    if isinstance(value, Mechanism):
        return value
    if not isinstance(value, str | Mapping):
        raise TypeError(f"mechanism must be a name or an object such as nn.Softmax(), got {brief(value)}")
    options = {"mechanism": value} if isinstance(value, str) else dict(value)
    name = options.pop("mechanism", None)
    if not isinstance(name, str) or name not in BY_NAME:
        raise ValueError(f"mechanism must be one of {', '.join(BY_NAME)}, got {brief(name)}")
    there = {option.name: option for option in fields(BY_NAME[name])}
    unknown = sorted(options.keys() - there.keys())
    if unknown:
        allowed = ", ".join(there)
        raise ValueError(f"mechanism {name!r} has no option {', '.join(unknown)}; it has {allowed}")
    missing = [n for n, option in there.items() if option.default is MISSING and n not in options]
    if missing:
        example = f"rattention.nn.{BY_NAME[name].__name__}({missing[0]}=...)"
        raise ValueError(f"mechanism {name!r} needs a {missing[0]}: give {example}")
    return BY_NAME[name](**options)


Pattern = Mechanism | str | Sequence[Mechanism | str | Mapping[str, Any]]


def as_pattern(pattern: Pattern) -> list[Mechanism]:
    """The mechanisms of a sequence of layers, or the one of all."""
    if isinstance(pattern, Mechanism | str):
        return [as_mechanism(pattern)]
    if not isinstance(pattern, Sequence):
        raise TypeError(f"pattern must be a mechanism or a sequence of them, got {brief(pattern)}")
    if not pattern:
        raise ValueError("pattern must have at least one layer")
    return [as_mechanism(layer) for layer in pattern]


def _window(name: str, value: Any) -> Window:
    window_bounds(value, causal=False)
    if isinstance(value, tuple | list):
        left, right = (None if side is None else int(side) for side in value)
        return left, right
    return int(value) if value is not None else at_least(name, value, 0)


def _timescales(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"{name} must be one or more positive numbers of positions, got {brief(values)}")
    return tuple(positive(name, value) for value in values)


def _distance(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in DISTANCES:
        raise ValueError(f"{name} must be one of {', '.join(DISTANCES)}, got {brief(value)}")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "rope_theta": positive,
    "window": _window,
    "timescales": _timescales,
    "learn": truth,
    "adaptive": truth,
    "distance": _distance,
    "learn_exponent": truth,
    "softening": positive,
    "convolution": lambda name, value: at_least(name, value, 0),
    "feature_map": lambda _, value: feature_map_name(value),
}
