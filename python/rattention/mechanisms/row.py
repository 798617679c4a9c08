"""What a row of the table of mechanisms says: its functions, their arguments and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rattention.mechanisms.masks import Masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rattention.mechanisms.results import LinearResult


@dataclass(frozen=True)
class Argument:
    """An argument of a mechanism's functions; where it is optional, its default is in their signature."""

    name: str
    kind: Literal["array", "per head", "per query", "number", "integer", "flag", "choice", "table"]
    """``"per head"`` is a number, or an array ``[heads]``; ``"per query"`` the same or an array
    ``[batch, heads, query_length]``; ``"choice"`` one of a few strings;
    ``"table"`` an array of any real dtype."""
    shape: tuple[str, ...] = ()
    """Of an array, in attributes of `Sizes`. The arrays that have a length share one dtype, that of the
    output; all others are float32. Where it says ``kv_heads``, key_mass and initial_state may have
    ``heads``; a log_gate may have ``head_dim`` as well; where an initial_state has ``head_dim``, that is
    twice as much with a feature map."""
    optional: bool = False
    differentiable: bool = False
    """Whether the backward function returns its gradient, a float32 array of the argument's shape
    (``[heads]`` for numbers); those of optional arguments without a default only
    where they were given."""


@dataclass(frozen=True)
class Functions:
    """One set of functions, all with the same arguments besides `masks`, through which mechanisms run."""

    family: ClassVar[Literal["softmax", "linear"]]
    masks: ClassVar[tuple[str, ...]]
    """Options that hide keys; of them a float attn_mask alone is differentiable, where it is asked for."""
    second: ClassVar[str]
    """The flag of `forward` that asks for its second result, through which gradients flow, too."""

    forward: Callable[..., Any]
    """The output ``[batch, heads, query_length, value_dim]``."""
    backward: Callable[..., dict[str, Any]]
    """Gradients of ``sum(output * grad_output)`` by the argument's name."""
    reference: Callable[..., Any]
    """The definition, in float64 NumPy with the whole map in memory. A tuple that begins with the output."""
    arguments: tuple[Argument, ...]
    """In the order of the signature."""
    has_rope: bool
    """Whether a rotary embedding may turn what is scored: the scores are dot products."""
    metrics: Callable[..., Any] | None = None
    """Metrics of the map; it and the next five take all arguments of `forward` but the values, by name, and
    are None where there is no map: in the linear family."""
    rows: Callable[..., Any] | None = None
    """The weights of a few query rows, which it takes as ``rows``."""
    map: Callable[..., Any] | None = None
    """The map, mean-pooled; takes ``shape``, and ranges as ``rows`` and ``keys``."""
    segments: Callable[..., Any] | None = None
    """What segments of rows give to segments of keys; takes ``query_edges`` and ``key_edges``."""
    top_keys: Callable[..., Any] | None = None
    """The largest weights of each row; takes ``count``, and a range as ``rows``."""
    distances: Callable[..., Any] | None = None
    """The mass by distance; takes ``edges``."""

    def gradients(self, grad_output: Any, **arguments: Any) -> dict[str, Any]:
        """Gradients of ``sum(output * grad_output)`` by name, for the arguments of `forward`."""
        return self.backward(grad_output, **arguments)


class SoftmaxFunctions(Functions):
    """Weights that sum to 1. Forward passes its result to backward::

    result = forward(**inputs, return_lse=True)                # an AttentionResult
    gradients = backward(grad_output, **inputs, result=result, grad_lse=None)
    """

    family = "softmax"
    masks = Masks._fields
    second = "return_lse"

    def gradients(self, grad_output: Any, **arguments: Any) -> dict[str, Any]:
        """Those gradients, after a forward pass."""
        return self.backward(grad_output, **arguments, result=self.forward(**arguments, return_lse=True))


@dataclass(frozen=True)
class LinearFunctions(Functions):
    """A state of fixed size. Backward needs nothing of forward, but computes less with what it kept::

    output, state = forward(**inputs, return_state=True)       # a LinearResult
    gradients = backward(grad_output, **inputs, grad_state=None, kept=keeping(**inputs).kept)
    """

    keeping: Callable[..., LinearResult] = field(kw_only=True)
    """Forward that also keeps what backward would compute again."""
    kept: Callable[..., int] = field(kw_only=True)
    """How many numbers that is, from the shapes of query and key, value_dim and whether there is an initial
    state."""
    kept_of_channels: Callable[..., int] | None = field(default=None, kw_only=True)
    """The same where a log_gate has head_dim, if that makes a difference."""

    def numbers_kept(self, arguments: Mapping[str, Any]) -> int:
        """How many numbers `keeping` keeps of these arrays or tensors."""
        query, key, value, gates = (arguments.get(n) for n in ("query", "key", "value", "log_gate"))
        per_channel = gates is not None and gates.ndim == 4
        count = self.kept_of_channels if per_channel and self.kept_of_channels else self.kept
        started = arguments["initial_state"] is not None
        return count(query.shape, key.shape, value.shape[3], started)  # type: ignore[union-attr]

    def state_heads(self, query_shape: Sequence[int], key_shape: Sequence[int]) -> int:
        """Heads of the final state without an initial one."""
        start = next(a for a in self.arguments if a.name == "initial_state")
        return query_shape[1] if "heads" in start.shape else key_shape[1]

    family = "linear"
    masks = ("key_mask", "segment_ids")
    second = "return_state"


@dataclass(frozen=True)
class Sizes:
    """Sizes of one problem with as many queries as keys; `window` counts neighbours to the left, None is
    all."""

    batch: int
    heads: int
    length: int
    head_dim: int
    value_dim: int
    kv_heads: int
    window: int | None = None
    causal: bool = True

    @property
    def features(self) -> int:
        """Elements of phi(query) in the linear family."""
        return 2 * self.head_dim

    query_length = key_length = property(lambda self: self.length)
    """The length, as the softmax family calls it."""

    @property
    def distances(self) -> int:
        """Entries of a relative bias that reaches over half the length."""
        return 2 * (self.length // 2) + 1

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs over batch and heads."""
        n, w = self.length, self.length if self.window is None else min(self.window, self.length)
        if not self.causal:
            return self.batch * self.heads * (n * n if w == n else n * (2 * w + 1) - w * (w + 1))
        return self.batch * self.heads * (n * (w + 1) - w * (w + 1) // 2 if w < n else n * (n + 1) // 2)


@dataclass(frozen=True)
class Mechanism:
    """One row of the table."""

    name: str
    formula: str
    source: str
    functions: Functions
    parameters: tuple[str, ...]
    """The differentiable arguments that this mechanism is called with."""
    options: dict[str, Any]
    """What makes this mechanism of its function, such as a window."""
    flops: Callable[[Sizes], int]
    """Multiplications and additions of the forward pass; exponentials, divisions and roots count as one. The
    linear family is counted token by token, the fewest there are."""

    family = property(lambda self: self.functions.family)
    """``"softmax"`` (weights that sum to 1) or ``"linear"`` (a state of fixed size)."""
    forward = property(lambda self: self.functions.forward)
    """The public function."""
    backward = property(lambda self: self.functions.backward)
    """Its gradients."""
    reference = property(lambda self: self.functions.reference)
    """The slow float64 reference that defines it."""
    gradients = property(lambda self: self.functions.gradients)
    """Gradients of ``sum(output * grad_output)`` by name, for the arguments of `forward`."""
    has_rope = property(lambda self: self.functions.has_rope)
    """Whether a rotary embedding may turn its queries and keys: its scores are dot products."""

    @property
    def needs_window(self) -> bool:
        """Whether the mechanism requires a window."""
        return "window" in self.options

    @property
    def causal_only(self) -> bool:
        """Whether no row can see what comes after it, whatever the options."""
        return "causal" not in self.functions.masks

    def argument(self, name: str) -> Argument:
        """One of its functions' arguments."""
        return next(a for a in self.functions.arguments if a.name == name)
