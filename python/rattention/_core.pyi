"""The C++ core of rattention. Its functions check shapes; the Python package checks types."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rattention._metrics import MetricOptions

__version__: str

def set_num_threads(n: int) -> None: ...
def share_openmp_team() -> None: ...
def get_num_threads() -> int: ...
def record_task_times() -> None: ...
def recorded_task_times() -> list[list[float]]: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def onednn_version() -> str | None: ...
def bf16_peak(seconds: float, threads: int) -> float: ...
def fma_peak(seconds: float, threads: int) -> float: ...

class ScoreOptions:
    def __init__(
        self,
        *,
        left: int,
        right: int,
        query_offset: int,
        scale: float,
        key_mask: NDArray[np.bool_] | None = None,
        segment_ids: NDArray[np.int64] | None = None,
        attn_mask: NDArray[Any] | None = None,
        log_discount: NDArray[np.float32] | None = None,
        block_ids: NDArray[np.int64] | None = None,
        sinks: NDArray[np.float32] | None = None,
        relative_bias: NDArray[np.float32] | None = None,
        softcap: float | None = None,
        query_mass: NDArray[Any] | None = None,
        key_mass: NDArray[Any] | None = None,
        gravity: NDArray[np.float32] | None = None,
        eps: float = 0.0,
        exponent: NDArray[np.float32] | None = None,
    ) -> None: ...

def attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: ScoreOptions,
    metrics: MetricOptions | None,
    return_lse: bool,
) -> tuple[NDArray[Any], NDArray[np.float64] | None, NDArray[Any] | None, dict[str, NDArray[Any]] | None]: ...
def attention_of_tensors(
    exchange: Any, query: Any, key: Any, value: Any, causal: bool, scale: float | None
) -> NDArray[Any]: ...
def attention_metrics(
    query: NDArray[Any], key: NDArray[Any], options: ScoreOptions, metrics: MetricOptions
) -> dict[str, NDArray[Any]]: ...
def attention_rows(
    query: NDArray[Any],
    key: NDArray[Any],
    rows: NDArray[np.int64],
    options: ScoreOptions,
    lse: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]: ...
def attention_map(
    query: NDArray[Any],
    key: NDArray[Any],
    options: ScoreOptions,
    shape: tuple[int, int],
    rows: tuple[int, int],
    keys: tuple[int, int],
    lse: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]: ...
def attention_segments(
    query: NDArray[Any],
    key: NDArray[Any],
    options: ScoreOptions,
    row_edges: NDArray[np.int64],
    key_edges: NDArray[np.int64],
    lse: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]: ...
def attention_top_keys(
    query: NDArray[Any],
    key: NDArray[Any],
    options: ScoreOptions,
    count: int,
    rows: tuple[int, int],
    lse: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def attention_distances(
    query: NDArray[Any],
    key: NDArray[Any],
    options: ScoreOptions,
    edges: NDArray[np.int64],
    lse: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]: ...
def attention_backward(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: ScoreOptions,
    output: NDArray[Any],
    lse: NDArray[np.float64],
    grad_output: NDArray[Any],
    grad_lse: NDArray[np.float32] | None = None,
    output_rest: NDArray[Any] | None = None,
    of_mask: bool = False,
) -> dict[str, NDArray[np.float32]]: ...

class FeatureMap:
    softmax: ClassVar[FeatureMap]
    relu: ClassVar[FeatureMap]
    none: ClassVar[FeatureMap]
    __members__: ClassVar[dict[str, FeatureMap]]
    def __init__(self, value: int) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __int__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class LinearOptions:
    def __init__(
        self,
        *,
        window: int,
        feature_map: FeatureMap = ...,
        log_gate: NDArray[np.float32] | None = None,
        scale: float = 1.0,
        initial_state: NDArray[np.float32] | None = None,
        key_mask: NDArray[np.bool_] | None = None,
        segment_ids: NDArray[np.int64] | None = None,
    ) -> None: ...

class DeltaOptions:
    def __init__(
        self,
        *,
        log_gate: NDArray[np.float32],
        beta: NDArray[np.float32] | None = None,
        scale: float,
        normalize: bool = False,
        initial_state: NDArray[np.float32] | None = None,
        key_mask: NDArray[np.bool_] | None = None,
        segment_ids: NDArray[np.int64] | None = None,
    ) -> None: ...

def gated_delta_rule(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: DeltaOptions,
    return_state: bool = False,
    keep: bool = False,
) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.int32] | None]: ...
def gated_delta_step(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    log_gate: NDArray[np.float32],
    beta: NDArray[np.float32] | None,
    state: NDArray[np.float32],
    scale: float,
    normalize: bool,
    key_mask: NDArray[np.bool_] | None,
) -> NDArray[Any]: ...
def gated_delta_step_of_tensors(
    exchange: Any,
    query: Any,
    key: Any,
    value: Any,
    log_gate: Any,
    beta: Any,
    state: NDArray[np.float32],
    scale: float | None,
    normalize: bool,
) -> NDArray[Any]: ...
def gated_delta_rule_backward(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: DeltaOptions,
    grad_output: NDArray[Any],
    grad_state: NDArray[np.float32] | None = None,
    kept: NDArray[np.int32] | None = None,
) -> dict[str, NDArray[np.float32]]: ...
def stretch_tokens(group: int) -> int: ...
def residual_linear_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: LinearOptions,
    return_state: bool = False,
    keep: bool = False,
) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.int32] | None]: ...
def residual_linear_attention_backward(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: LinearOptions,
    grad_output: NDArray[Any],
    grad_state: NDArray[np.float32] | None = None,
    kept: NDArray[np.int32] | None = None,
) -> dict[str, NDArray[np.float32]]: ...
def rattention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: LinearOptions,
    *,
    scale: float,
    rope: NDArray[np.float64] | None,
    eps: float,
    local_norm_weight: NDArray[np.float32] | None = None,
    linear_norm_weight: NDArray[np.float32] | None = None,
    return_state: bool = False,
    keep: bool = False,
) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.int32] | None]: ...
def rattention_backward(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: LinearOptions,
    grad_output: NDArray[Any],
    *,
    scale: float,
    rope: NDArray[np.float64] | None,
    eps: float,
    local_norm_weight: NDArray[np.float32] | None = None,
    linear_norm_weight: NDArray[np.float32] | None = None,
    grad_state: NDArray[np.float32] | None = None,
    kept: NDArray[np.int32] | None = None,
) -> dict[str, NDArray[np.float32]]: ...
def rotary(
    x: NDArray[Any],
    theta: float,
    first_position: int,
    dims: int,
    *,
    positions: NDArray[np.int64] | None = None,
    table: NDArray[np.float32] | None = None,
    interleaved: bool = False,
    back: bool = False,
) -> NDArray[Any]: ...

class RAttentionCache:
    def __init__(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int,
        window: int,
        feature_map: FeatureMap,
        rope: NDArray[np.float64] | None,
        dtype: str,
    ) -> None: ...
    def lengths(self) -> NDArray[np.int64]: ...
    def nbytes(self) -> int: ...
    def copy(self) -> RAttentionCache: ...
    def restore(self, snapshot: RAttentionCache) -> None: ...
    def recent_keys(self) -> NDArray[Any]: ...
    def write(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]: ...
    def read(
        self,
        lengths: NDArray[Any],
        keys: NDArray[Any],
        values: NDArray[Any],
        states: NDArray[Any],
        excesses: NDArray[Any],
    ) -> None: ...
    def step(
        self,
        query: NDArray[Any],
        key: NDArray[Any],
        value: NDArray[Any],
        scale: float,
        local_norm_weight: NDArray[np.float32] | None,
        linear_norm_weight: NDArray[np.float32] | None,
        eps: float,
        lengths: NDArray[np.int64] | None,
    ) -> NDArray[Any]: ...

class Activation:
    none: ClassVar[Activation]
    gelu: ClassVar[Activation]
    gelu_tanh: ClassVar[Activation]
    relu: ClassVar[Activation]
    silu: ClassVar[Activation]
    __members__: ClassVar[dict[str, Activation]]
    def __init__(self, value: int) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __int__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Linear:
    def __init__(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        activation: Activation = ...,
    ) -> None: ...
    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]: ...

def layer_norm(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    eps: float,
    residual: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def embedding_sum(
    lookups: list[tuple[str, NDArray[np.float32], NDArray[np.int64]]],
) -> NDArray[np.float32]: ...
def draw_listops(
    seed: int,
    first: int,
    count: int,
    *,
    min_length: int,
    max_length: int,
    max_depth: int,
    max_args: int,
    operator_share: float,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]: ...
