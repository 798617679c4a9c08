"""Masks of Transformers as what the kernels take: causality, a window, segments and padding, never a table of
queries by keys where these suffice.

Transformers describes what a row may attend to by a function of positions, which its models ask for and hand
to their layers. That description alone decides here, as it does for the implementation "eager": not what a
module says of itself (``is_causal``, ``sliding_window``), which differs from it in several models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

Part = tuple[str, dict[str, Any]]

SOURCE = "transformers.masking_utils"
CAUSAL = "causal_mask_function"
PACKED = "packed_sequence_mask_function.<locals>.inner_mask"
WINDOW = "sliding_window_overlay.<locals>.inner_mask"
TWO_SIDED_WINDOW = "sliding_window_bidirectional_overlay.<locals>.inner_mask"
CHUNKED = "chunked_overlay.<locals>.inner_mask"
BLOCKS = "blockwise_overlay.<locals>.inner_mask"
EVERYTHING = "bidirectional_mask_function"
CONJUNCTION = "and_masks.<locals>.and_mask"
DISJUNCTION = "or_masks.<locals>.or_mask"
ENDLESS = 2**62
SEES_ALL: dict[str, Any] = {"causal": True, "window": None}
"""The pattern of the last row where it sees every key."""
REMAPPED = "remap_positions_for_packed_sequence.<locals>.inner_mask"
"""Positions within a segment increase by one: distances are those of the rows."""


@dataclass(eq=False)
class _Contents:
    """What a mask says, in one or more of three forms."""

    build: Callable[[], torch.Tensor]
    pattern: dict[str, Any] | None
    visible: torch.Tensor | None = None
    added: torch.Tensor | None = None


class PatternMask(torch.Tensor):
    """A mask ``[batch, 1, queries, keys]`` as the implementation "eager" makes it, with no memory of its own.

    `attention_options` is what the attention of this package reads. Any operation of PyTorch sees the numbers
    that are added to the scores, which are computed for the first of them, so that models may cut, join and
    add masks, and layers that compute attention themselves get what they would get from "eager".
    """

    keys: int | None
    """How many keys the pattern is about: less than the last size where a cache has room for later tokens;
    None where a cache holds some of them."""
    _contents: _Contents
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls,
        shape: tuple[int, ...],
        build: Callable[[], torch.Tensor],
        pattern: dict[str, Any] | None,
        keys: int | None,
        **options: Any,
    ) -> PatternMask:
        """`build` makes the table, bool, True = attend; with `pattern` None only the table can say it.
        `options` are dtype and device."""
        mask: PatternMask = torch.Tensor._make_wrapper_subclass(cls, shape, **options)
        mask._contents, mask.keys = _Contents(build, pattern), keys
        return mask

    @classmethod
    def _of(cls, like: PatternMask, keys: int | None) -> PatternMask:
        """Another with the same contents."""
        contents = like._contents
        mask = cls(like.shape, contents.build, None, keys, dtype=like.dtype, device=like.device)
        mask._contents = contents
        return mask

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)}, {self.pattern or 'a table'})"

    @property
    def pattern(self) -> dict[str, Any] | None:
        """Causality, window, segments and padding as options of `rattention.torch.attention`."""
        return self._contents.pattern

    def of_held_keys(self) -> PatternMask:
        """This mask for a cache that no longer holds all keys that the mask is about."""
        return self._of(self, None)

    def fits(self, query: torch.Tensor, key: torch.Tensor) -> bool:
        """Whether batch, queries and keys are those of the mask; a causal one may be for the first keys of a
        cache that has room for later tokens, or for a cache that holds some keys."""
        if self.shape[0] != query.shape[0] or self.shape[2] != query.shape[2]:
            return False
        causal = self.pattern is not None and self.pattern["causal"]
        return key.shape[2] == self.shape[3] or (causal and (self.keys is None or key.shape[2] > self.keys))

    def attention_options(self) -> dict[str, Any]:
        """Masks of `rattention.torch.attention`."""
        if self.pattern is not None:
            return self.pattern
        return {"attn_mask": self.visible() if self._contents.added is None else self._contents.added}

    def visible(self) -> torch.Tensor:
        """The table, bool ``[batch, 1, queries, keys]``, made once for all layers."""
        if self._contents.visible is None:
            self._contents.visible = self._contents.build().expand(self.shape)
        return self._contents.visible

    def added(self) -> torch.Tensor:
        """What "eager" adds to the scores: 0, or the least number of the dtype."""
        if self._contents.added is None:
            least = torch.finfo(self.dtype).min
            zero = torch.zeros((), dtype=self.dtype, device=self.device)
            self._contents.added = torch.where(self.visible(), zero, least)
        return self._contents.added

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            mask = args[0]
            return cls._of(mask, mask.keys)
        schema = function._schema
        shares_memory = schema.is_mutable or any(result.alias_info for result in schema.returns)

        def plain(mask: PatternMask) -> torch.Tensor:
            added = mask.added()
            if shares_memory:  # it may be written into from now on
                mask._contents.pattern = None
            return added

        args, kwargs = pytree.tree_map_only(cls, plain, (args, kwargs or {}))
        return function(*args, **kwargs)


def rattention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    use_vmap: bool = False,
    allow_is_bidirectional_skip: bool = False,
    **others: Any,
) -> torch.Tensor | None:
    """What `AttentionMaskInterface` calls: the mask of a model's layers, a `PatternMask` or within
    ``torch.compile`` a table. None where every key is seen, without causality, and the model takes that.

    Parameters
    ----------
    batch_size, q_length, kv_length:
        Sizes of queries and keys.
    q_offset, kv_offset:
        Positions of the first query and of the first key.
    mask_function:
        The pattern, as Transformers composes it. What the kernels cannot express becomes a table.
    attention_mask:
        Bool ``[batch, positions]`` from position 0 on, True = attend.
    dtype, device:
        Of the mask as PyTorch sees it.
    use_vmap:
        Whether parts of `mask_function` are a user's and take one position at a time.
    allow_is_bidirectional_skip:
        Whether the result may be None. Causal masks never are: models may extend them.
    others:
        Arguments for other implementations.
    """

    def table(first: Any, start: Any, use_vmap: bool) -> torch.Tensor:
        mask = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            first,
            start,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        assert mask is not None  # nothing may be skipped
        return mask

    if torch.compiler.is_compiling():  # its graphs have neither closures to look into nor numbers of a cache
        return table(q_offset, kv_offset, use_vmap)
    first, start = int(q_offset), int(kv_offset)
    sizes = (batch_size, 1, q_length, kv_length)
    build = partial(table, first, start, use_vmap=False)  # functions that are known take tensors of positions
    parts = list(_parts(mask_function))
    last = q_length == 1 and first + 1 == start + kv_length
    if last and _all_before(parts, kv_length) and not _padding(attention_mask, start, kv_length):
        return PatternMask(sizes, build, SEES_ALL, kv_length, dtype=dtype, device=device)
    parts, block_ids = _beside_blocks(parts)
    pattern = _pattern(parts, start, kv_length)
    keys = kv_length
    if pattern is not None:
        if pattern["causal"]:
            keys = min(kv_length, first + q_length - start)
        pattern = _with_blocks(pattern, block_ids, start, keys)
    if pattern is not None:
        pattern |= _placed(pattern, (batch_size, q_length, keys), first - start)
        pattern |= _padding(attention_mask, start, keys)
        if allow_is_bidirectional_skip and pattern == {"causal": False, "window": None}:
            return None
    mask = PatternMask(sizes, build, pattern, keys, dtype=dtype, device=device)
    if pattern is None and use_vmap:  # at once: within the dispatch of an operation, vmap fails
        mask._contents.visible = table(first, start, use_vmap).expand(sizes)
    return mask


def _pattern(parts: list[Part], start: int, count: int) -> dict[str, Any] | None:
    """Arguments of the kernels for a conjunction over `count` keys from position `start` on; None where they
    have none for it."""
    names = [name for name, _ in parts]
    segments = [_SEGMENTS[name](variables, start, count) for name, variables in parts if name in _SEGMENTS]
    reaches = [_REACH[name](variables) for name, variables in parts if name in _REACH]
    unknown = set(names) - {CAUSAL, EVERYTHING, REMAPPED} - _SEGMENTS.keys() - _REACH.keys()
    # Where positions begin anew, distances are those of the rows within one sequence only.
    if unknown or len(segments) > 1 or (REMAPPED in names and PACKED not in names):
        return None
    if any(side < 0 for reach in reaches for side in reach):
        return None
    before, after = (min(sides) for sides in zip(*reaches, (ENDLESS, ENDLESS), strict=True))
    causal = CAUSAL in names
    window = (before, 0 if causal else after) if reaches else None
    ids = {"segment_ids": segments[0].to(torch.int32)} if segments else {}
    return {"causal": causal, "window": window, **ids}


def _all_before(parts: list[Part], count: int) -> bool:
    """Whether a row sees the `count` keys up to its own."""
    return all(
        name == CAUSAL or (name == WINDOW and variables["sliding_window"] >= count)
        for name, variables in parts
    )


def _beside_blocks(parts: list[Part]) -> tuple[list[Part], torch.Tensor | None]:
    """The parts of a pattern without the blocks that see both sides, and the ids of those: "causal, or within
    a block", alone or within a window."""
    for at, (name, variables) in enumerate(parts):
        if name == DISJUNCTION and len(variables["mask_functions"]) == 2:
            base, other = (list(_parts(function)) for function in variables["mask_functions"])
            if [name for name, _ in other] == [BLOCKS] and (len(parts) == 1 or base == [(CAUSAL, {})]):
                return parts[:at] + base + parts[at + 1 :], other[0][1]["block_sequence_ids"]
    return parts, None


def _with_blocks(
    pattern: dict[str, Any], ids: torch.Tensor | None, start: int, count: int
) -> dict[str, Any] | None:
    """None where segments or a window cut blocks, one block is in several places, or lies beyond the keys
    there are."""
    if ids is None:
        return pattern
    known = ids[:, start : start + count]
    begins = (torch.diff(known, dim=1, prepend=known[:, :1] - 1) != 0) & (known >= 0)
    lengths = [row[row >= 0].unique(return_counts=True)[1] for row in known]
    longest = max((int(of.max()) for of in lengths if of.numel()), default=0)
    in_one_place = begins.sum(dim=1).tolist() == [of.numel() for of in lengths]
    reach = ENDLESS if pattern["window"] is None else pattern["window"][0]
    cut = "segment_ids" in pattern or longest > reach + 1 or bool((ids[:, start + count :] >= 0).any())
    if cut or not in_one_place:
        return None
    return pattern | {"block_ids": torch.nn.functional.pad(known, (0, count - known.shape[1]), value=-1)}


def _chunks(variables: dict[str, Any], start: int, count: int) -> torch.Tensor:
    padding: torch.Tensor = variables["left_padding"]
    positions = torch.arange(start, start + count, device=padding.device)
    return (positions - padding.reshape(-1, 1)).floor_divide(variables["chunk_size"])


_SEGMENTS: dict[str, Callable[[dict[str, Any], int, int], torch.Tensor]] = {
    PACKED: lambda variables, start, count: variables["packed_sequence_mask"],
    CHUNKED: _chunks,
}
"""Ids of keys from a pattern's variables, ``[batch, keys]``: rows attend within equal ones."""

_REACH: dict[str, Callable[[dict[str, Any]], tuple[int, int]]] = {
    WINDOW: lambda variables: (variables["sliding_window"] - 1, ENDLESS),
    TWO_SIDED_WINDOW: lambda variables: (variables["sliding_window"],) * 2,
}
"""Keys that a row sees before itself and after; Transformers counts the row's own in a one-sided window."""


def _placed(pattern: dict[str, Any], sizes: tuple[int, int, int], offset: int) -> dict[str, Any]:
    """Segments of the keys there are, and where the first row stands if the last is not at the last key."""
    batch, rows, keys = sizes
    ids = pattern.get("segment_ids")
    placed = {} if ids is None else {"segment_ids": ids[:, :keys].expand(batch, -1)}
    free = not (pattern["causal"] or pattern["window"] or placed)
    return placed if free or offset == keys - rows else placed | {"query_offset": offset}


def _padding(mask: torch.Tensor | None, start: int, count: int) -> dict[str, Any]:
    """A mask of `count` keys from position `start` on, where it hides any; keys that it does not reach are
    hidden."""
    if mask is None:
        return {}
    columns = mask[:, start : start + count].to(torch.bool)
    columns = torch.nn.functional.pad(columns, (0, count - columns.shape[1]))
    return {} if bool(columns.all()) else {"key_mask": columns}


def _parts(function: Callable[..., Any]) -> Iterator[Part]:
    """Name and variables of each pattern that `function` is the conjunction of."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if getattr(function, "__module__", None) != SOURCE:
        yield f"{getattr(function, '__module__', '')}.{name}", {}
        return
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    variables = {variable: cell.cell_contents for variable, cell in cells}
    if name == CONJUNCTION:
        for part in variables["mask_functions"]:
            yield from _parts(part)
        return
    yield name, variables
    if name == REMAPPED:
        yield from _parts(variables["mask_function"])
