"""Keys and values of one layer, of which only some are held, with the positions of their tokens, and what
fills and cuts them in models of `rattention.nn`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rattention._metrics import MetricOptions
from rattention.compression.compressing import Compression, LayerUse
from rattention.compression.past import Attention, Kept, Past, most_kept
from rattention.compression.strategies import Strategy
from rattention.inspect.hooks import alone
from rattention.mechanisms.softmax import attention_metrics
from rattention.mechanisms.softmax_maps import attention_rows
from rattention.nn import SelfAttention, Softmax, TransformerEncoder
from rattention.nn.attention import LayerCache
from rattention.nn.decoding import DecodingCache, KeyValueCache, Rows
from rattention.torch.checks import as_array
from rattention.torch.rotary import rotary

RECENT = 64
"""Newest query rows that choose what is kept when a single token leads to a cut; of a prompt all rows do."""


Row = list[torch.Tensor]
"""What is held of one sequence, ``[heads, tokens, ...]``: key, value, position and, where there are any, log
sizes."""


class Held:
    """What a layer holds of the tokens it has seen.

    After a pass of several tokens that leaves more than the budget, and after a pass of one token that leaves
    more than budget and slack, what is held is cut to the budget. Padding counts as no token, and is the
    first thing to go. Each sequence has its own budget, as if it were alone.
    """

    def __init__(self, plan: Compression, use: LayerUse) -> None:
        self.plan, self.use = plan, use
        self._set([torch.empty(0)] * 3, Rows())
        self.shown: torch.Tensor | None = None
        """Bool ``[batch, held]``, False for padding; None is all."""
        self.seen = 0
        """Tokens so far, padding among them: the position of the next."""
        self._tokens: list[int] = []
        """Tokens so far of each sequence, without padding."""
        self._queries: list[torch.Tensor] = []
        self._cut_before = False

    @property
    def nbytes(self) -> int:
        """Bytes of everything held, remembered queries among it."""
        tensors = [self.key, self.value, self.position, self.log_size, self.shown, *self._queries]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """New tokens, ``[batch, kv_heads, tokens, dim]``; `show` must follow."""
        if key.device.type != "cpu":
            raise ValueError(f"caches are compressed on the CPU, keys are on {key.device}")
        batch, heads, count, _ = key.shape
        position = torch.arange(self.seen, self.seen + count, dtype=torch.int32).expand(batch, heads, count)
        new = [key, value, position]
        if self.log_size is not None:
            new.append(torch.zeros(batch, heads, count))
        if self.seen > 0 and (key.requires_grad or self.key.requires_grad):  # which writing would lose
            self._set([torch.cat(pair, dim=2) for pair in zip(self._rows.tensors(), new, strict=True)])
        else:
            self._rows.append(new)
            self._set(self._rows.tensors(), self._rows)
        self.seen += count

    def _set(self, tensors: list[torch.Tensor], rows: Rows | None = None) -> None:
        """Hold these tensors, which are those of `rows` or of new ones."""
        if rows is None:
            rows = Rows()
            rows.append(tensors)
        self._rows = rows
        self.key, self.value, self.position = tensors[:3]
        """``[batch, kv_heads, held, dim]``, position int32 without dim; padding first, new tokens last."""
        self.log_size = tensors[3] if len(tensors) > 3 else None
        """Float32 ``[batch, kv_heads, held]``, added to the scores; None is 0."""

    def show(self, mask: torch.Tensor | None, count: int) -> None:
        """Which of all tokens seen are no padding, bool ``[batch, seen]``; `count` of them were new."""
        batch, _, held, _ = self.key.shape
        self._tokens = [self.seen] * batch if mask is None else mask.sum(dim=1).tolist()
        if not self._cut_before:  # what is held is the end of what was seen
            self.shown = None if mask is None else mask[:, -held:]
        elif mask is not None or self.shown is not None:
            before = self.key.new_ones((batch, held - count), dtype=torch.bool)
            new = before.new_ones((batch, count)) if mask is None else mask[:, -count:]
            self.shown = torch.cat([before if self.shown is None else self.shown, new], dim=1)

    def masks(self, heads: int) -> dict[str, Any]:
        """Options of `rattention.torch.attention` for queries of `heads` heads, besides causality."""
        masks = {}
        if self.shown is not None:
            masks["key_mask"] = self.shown
        if self.log_size is not None:
            per_query_head = self.log_size.repeat_interleave(heads // self.log_size.shape[1], dim=1)
            masks["attn_mask"] = per_query_head[:, :, None]
        return masks

    def attended(self, query: torch.Tensor, scale: float | None) -> None:
        """Take the queries ``[batch, heads, tokens, head_dim]`` that have just attended; cut where due."""
        began = time.perf_counter()
        self._queries.append(query.detach())
        allowed = [most_kept(self.plan.budget, tokens) for tokens in self._tokens]
        held = self.key.shape[2]
        there = [held] * len(allowed) if self.shown is None else self.shown.sum(dim=1).tolist()
        slack = self.plan.slack if query.shape[2] == 1 else 0
        due = [count > limit + slack for count, limit in zip(there, allowed, strict=True)]
        if any(due):
            self._cut([limit if now else None for limit, now in zip(allowed, due, strict=True)], scale)
            self._queries.clear()
        else:
            self._forget_queries()
        held = self.key.shape[2]
        one = (self.key[:, :, :1].nbytes + self.value[:, :, :1].nbytes) if held else 0
        use = self.use
        use.seen, use.held, use.nbytes, use.full_nbytes = self.seen, held, self.nbytes, one * self.seen
        use.seconds += time.perf_counter() - began

    def reorder(self, sequences: torch.Tensor) -> None:
        """Keep these sequences, in this order; numbers may repeat."""
        if self.seen == 0:
            return
        self._set([tensor[sequences] for tensor in self._rows.tensors()])
        self.shown = None if self.shown is None else self.shown[sequences]
        self._queries = [query[sequences] for query in self._queries]

    def _forget_queries(self) -> None:
        """All but the newest rows, or but the newest alone where the strategy looks at none."""
        most = RECENT if self.plan.strategy.needs_queries else 1
        if sum(query.shape[2] for query in self._queries) > 2 * most or len(self._queries) > 2 * most:
            self._queries = [torch.cat(self._queries, dim=2)[:, :, -most:].clone()]

    def _cut(self, counts: list[int | None], scale: float | None) -> None:
        """Each sequence to its count of tokens; None leaves one as it is."""
        most = max(RECENT, self._queries[-1].shape[2])
        queries = torch.cat(self._queries, dim=2)[:, :, -most:]
        rows, masses = [], []
        for sequence, count in enumerate(counts):
            row, query = [tensor[sequence] for tensor in self._rows.tensors()], queries[sequence]
            if self.shown is not None:
                shown = self.shown[sequence]
                row, query = [tensor[:, shown] for tensor in row], query[:, shown[-query.shape[1] :]]
            if count is not None:
                row, mass = _cut_row(row, query, count, self.plan.strategy, scale)
                masses.append(mass)
            rows.append(row)
        self._hold(rows)
        self._cut_before = True
        self.use.cuts += 1
        self.use.positions, self.use.mass_kept = self.position.numpy().copy(), float(np.mean(masses))

    def _hold(self, rows: list[Row]) -> None:
        """These sequences, the shorter ones padded at their beginning."""
        counts = [row[0].shape[1] for row in rows]
        longest = max(counts)
        shown = torch.arange(longest) >= longest - torch.tensor(counts)[:, None]
        self.shown = None if bool(shown.all()) else shown
        if any(len(row) > 3 for row in rows):
            rows = [row if len(row) > 3 else [*row, torch.zeros(row[0].shape[:2])] for row in rows]
        columns = zip(*rows, strict=True)
        self._set([torch.stack([_padded(tensor, longest) for tensor in column]) for column in columns])


def _padded(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Zeros before the tokens of ``[heads, tokens]`` or ``[heads, tokens, dim]``."""
    missing = length - tensor.shape[1]
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (missing, 0)) if missing else tensor


def _cut_row(
    row: Row, query: torch.Tensor, count: int, strategy: Strategy, scale: float | None
) -> tuple[Row, float]:
    """`count` tokens of a sequence, and the share of the newest row's attention that they keep."""
    past = _past(row, query, scale)
    kept = strategy.keep(past, count)
    mass = mass_kept(past, kept, _numbers(query[:, -1]), scale)
    indices = torch.from_numpy(np.ascontiguousarray(kept.indices))
    chosen = [tensor[torch.arange(len(tensor))[:, None], indices] for tensor in row]
    if kept.key is not None:
        chosen[0] = torch.from_numpy(kept.key).to(row[0].dtype)
    if kept.value is not None:
        chosen[1] = torch.from_numpy(kept.value).to(row[1].dtype)
    if kept.log_size is not None:
        chosen[3:] = [torch.from_numpy(kept.log_size)]
    return chosen, mass


def _past(row: Row, query: torch.Tensor, scale: float | None) -> Past:
    """`query` ``[heads, rows, head_dim]`` are the rows of the newest tokens."""
    key, value, log_size = row[0], row[1], row[3].numpy() if len(row) > 3 else None
    options: dict[str, Any] = {"causal": True, "scale": scale}
    if log_size is not None:
        options["attn_mask"] = np.repeat(log_size, len(query) // len(key), axis=0)[None, :, None]
    queries, keys = as_array(query[None]), as_array(key[None])

    def measure(kind: Attention) -> NDArray[np.float32]:
        if kind == "query":
            weights = attention_rows(queries, keys, [-1], **options)[0, :, 0]
        else:
            received = attention_metrics(queries, keys, metrics=MetricOptions(), **options).received
            assert received is not None
            weights = received[0]
        return weights.reshape(len(key), -1, weights.shape[1]).mean(axis=1)  # type: ignore[no-any-return]

    return Past(_numbers(key), _numbers(value), log_size=log_size, measure=measure)


def mass_kept(past: Past, kept: Kept, query: NDArray[np.float32], scale: float | None) -> float:
    """The denominator of a query's softmax over what is kept as a share of that over the past, mean of heads.

    `query` is ``[query heads, head_dim]``. Of tokens that were chosen it is the sum of their weights. Of
    clusters it is what stands for them: at most 1 for means, while representatives may get more.
    """
    grouped = query.reshape(past.heads, -1, query.shape[1]) * (scale or query.shape[1] ** -0.5)
    chosen = past.only(kept.indices)
    keys = chosen.key if kept.key is None else kept.key
    sizes = chosen.log_size if kept.log_size is None else kept.log_size
    full, part = (
        _log_sum(grouped @ k.transpose(0, 2, 1), size)
        for k, size in ((past.key, past.log_size), (keys, sizes))
    )
    return float(np.exp(part - full).mean())


def _log_sum(scores: NDArray[np.float32], log_size: NDArray[np.float32] | None) -> NDArray[np.float64]:
    weighed = scores if log_size is None else scores + log_size[:, None]
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp.reduce(weighed.astype(np.float64), axis=2)  # type: ignore[no-any-return]


def _numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().numpy()


class _CompressedCache(LayerCache):
    """The past of one layer, some of it."""

    def __init__(self, held: Held) -> None:
        self.held = held

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.held.seen

    @property
    def nbytes(self) -> int:
        return self.held.nbytes

    def attend(
        self,
        layer: SelfAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
    ) -> torch.Tensor:
        """Attention to what is held and to the new tokens; then the cut, where it is due."""
        held = self.held
        query, key = rotary(query, key, theta=layer.rope_theta, first_position=held.seen)
        held.append(key, value)
        held.show(None, query.shape[2])
        heads = layer.softmax_family(query, held.key, held.value, **rule, **held.masks(query.shape[1]))
        held.attended(query, None)
        return heads


@contextmanager
def compressing(model: torch.nn.Module, plan: Compression) -> Iterator[None]:
    """`rattention.compress` for modules that hold a `TransformerEncoder`."""
    encoders = [(n, part) for n, part in model.named_modules() if isinstance(part, TransformerEncoder)]
    uses = [_uses(name, encoder) for name, encoder in encoders]
    plan.layers.extend(use for group in uses for use in group.values())
    if not plan.layers:
        raise ValueError(
            f"{type(model).__name__} has no causal layers of full softmax attention, whose caches grow"
        )
    with alone(model), ExitStack() as hooks:
        for (_, encoder), group in zip(encoders, uses, strict=True):
            hook = encoder.register_forward_pre_hook(partial(_swap, plan, group), with_kwargs=True)
            hooks.callback(hook.remove)
        yield


def _uses(name: str, encoder: TransformerEncoder) -> dict[int, LayerUse]:
    """A `LayerUse` for each layer whose cache can be compressed, by number."""
    return {
        index: LayerUse(f"{name}.layers.{index}.attention".lstrip("."))
        for index, layer in enumerate(encoder.attention_layers())
        if isinstance(layer.mechanism, Softmax) and layer.causal
    }


def _swap(plan: Compression, uses: dict[int, LayerUse], *call: Any) -> None:
    """Compressed caches take the place of those that grow, before an encoder runs."""
    cache: DecodingCache | None = call[-1].get("cache")
    if cache is not None:
        for index, use in uses.items():
            cache.layers[index] = _compressed(cache.layers[index], plan, use)


def _compressed(layer: LayerCache, plan: Compression, use: LayerUse) -> LayerCache:
    if isinstance(layer, _CompressedCache):
        layer.held.plan, layer.held.use = plan, use
    elif isinstance(layer, KeyValueCache):
        own = _CompressedCache(Held(plan, use))
        if len(layer.kept) > 0:
            own.held.append(*layer.kept.tensors())
        return own
    return layer
