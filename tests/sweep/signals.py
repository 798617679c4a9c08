"""Pictures, sound and the like, by the names that forward passes have for them. Each maker yields the layouts
that a parameter of that name may have; the model decides which it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

GRIDS = ((1, 4, 8), (1, 4, 4))
"""Time, height and width in patches of two pictures that are packed into one sequence."""
LENGTH = 17
"""Tokens of a text."""
SHORT = 9
"""Tokens of a decoder."""
FRAMES = 64
"""Of sound, where a configuration does not say how many it takes."""
SAMPLES = 400

PARTS = {
    "picture": ("vision_config", "encoder", "backbone_config"),
    "sound": ("audio_config", "encoder_config", "encoder"),
}
"""Names of the parts of composite configurations."""
MELS = (
    "num_mel_bins",
    "feature_size",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "input_feat_size",
    "num_mel_channels",
    "num_mels",
    "input_channels",
)

Config = Any
Maker = Callable[[Config, Iterable[str]], list[Any]]


def tokens(batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(5, 95, (2, length), generator=_seed())[:batch]


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_seed())


def _number(config: Config, default: int, *names: str) -> int:
    """The first whole number that a configuration has under one of these names."""
    return next((n for name in names if type(n := getattr(config, name, None)) is int), default)


def _channels(config: Config) -> int:
    return _number(config, 3, "num_channels", "in_channels", "in_chans")


def _part(config: Config, kind: str) -> Config:
    """The part of a composite configuration that is about pictures or sound, or the whole."""
    return next((part for name in PARTS[kind] if (part := getattr(config, name, None)) is not None), config)


def _text(config: Config, parameters: Iterable[str]) -> list[torch.Tensor]:
    """Tokens alone, with codes of sound beside them, or with places for a picture."""
    layouts = [tokens()]
    if type(books := getattr(config, "num_codebooks", None)) is int:
        layouts.append(tokens()[..., None].expand(-1, -1, books + 1))
    if type(place := getattr(config, "image_token_id", None)) is int and place < 99:
        layouts.append(tokens().index_fill(1, torch.arange(_number(config, 4, "num_query_tokens")), place))
    return layouts


def _pixels(config: Config, parameters: Iterable[str]) -> list[torch.Tensor]:
    config = _part(config, "picture")
    if {"grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids"} & set(parameters):
        return _patches(config, parameters)
    size = getattr(config, "image_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else size
    shape = (_channels(config), height, width)
    frames = _number(config, 2, "num_frames", "frames_per_clip")
    if "target_sizes" in parameters:
        return [_random(1, shape[0], _number(config, 8, "patch_size"), 8 * sum(map(math.prod, GRIDS)))]
    return [_random(2, *shape), _random(2, frames, *shape), _random(2, 1, *shape)]


def _patches(config: Config, parameters: Iterable[str]) -> list[torch.Tensor]:
    """Of pictures of different sizes, flat or not, packed into one sequence or padded."""
    channels, size = _channels(config), _number(config, 8, "patch_size")
    times = _number(config, 1, "temporal_patch_size", "patch_temporal")
    packed, longest = sum(map(math.prod, GRIDS)), max(map(math.prod, GRIDS))
    flat = channels * size * size
    if {"spatial_shapes", "pixel_position_ids"} & set(parameters):
        return [_random(2, longest, flat)]
    merged = size * _number(config, 2, "spatial_merge_size")
    return [
        _random(packed, times * flat),
        _random(packed, flat),
        _random(packed, channels, size, size),
        _random(packed // 4, merged, merged, channels),
        _random(1, packed, flat),
        _random(packed, times, channels, size, size),
    ]


def _padded(*_: Any) -> list[torch.Tensor]:
    """Which patches are real, of pictures that are padded to the largest."""
    sizes = torch.tensor([math.prod(grid) for grid in GRIDS])
    return [(torch.arange(int(sizes.max())) < sizes[:, None]).long()]


def _positions(*_: Any) -> list[torch.Tensor]:
    """Column and row of every patch, -1 for padding."""
    longest = max(map(math.prod, GRIDS))
    positions = torch.full((len(GRIDS), longest, 2), -1)
    for row, (_, height, width) in enumerate(GRIDS):
        grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)
        positions[row, : len(grid)] = grid
    return [positions]


def _videos(config: Config, parameters: Iterable[str]) -> list[torch.Tensor]:
    return _pixels(config, parameters)[1:2]


def _mels(config: Config) -> int:
    mels = _number(config, _number(_part(config, "sound"), 16, *MELS), *MELS)
    return mels * _number(config, 1, "num_stacked_frames")


def _frames(config: Config) -> list[int]:
    most = _number(config, 0, "max_source_positions") or _number(
        _part(config, "sound"), 0, "max_source_positions"
    )
    return [2 * most, FRAMES, 8 * LENGTH] if most else [FRAMES, 8 * LENGTH]


def _features(config: Config, _: Iterable[str]) -> list[torch.Tensor]:
    return [
        layout
        for mels in (_mels(config), 128)
        for count in _frames(config)
        for layout in (_random(2, mels, count), _random(2, count, mels), _random(2, 1, count, mels))
    ]


def _all_frames(config: Config, _: Iterable[str]) -> list[torch.Tensor]:
    return [torch.ones(2, count, dtype=torch.bool) for count in _frames(config)]


def _sound(config: Config, _: Iterable[str]) -> list[torch.Tensor]:
    long = _number(config, FRAMES, "max_length")
    return [
        _random(2, SAMPLES),
        _random(2, 1, SAMPLES),
        _random(2, long, _mels(config)),
        *(_random(*shape) for shape in ((2, 1, 1920), (2, 1920))),
    ]


def _boxes(*_: Any) -> list[torch.Tensor]:
    """Left, top, right and bottom of every token's box."""
    corners = torch.randint(0, 100, (2, LENGTH, 2, 2), generator=_seed()).sort(dim=2).values.flatten(2)
    return [corners, corners / 100]


def _series(config: Config, _: Iterable[str]) -> list[torch.Tensor]:
    """Past values of time series, of one channel or of several."""
    long = _number(config, 32, "context_length")
    channels = _number(config, 1, "num_input_channels")
    return [_random(2, long + max(getattr(config, "lags_sequence", None) or [0])), _random(2, long, channels)]


def _times(config: Config, long: int) -> torch.Tensor:
    return _random(2, long, _number(config, 0, "num_time_features"))


def _hidden(config: Config, parameters: Iterable[str]) -> list[torch.Tensor]:
    if "grid_thw" in parameters:
        return _patches(config, parameters)
    return [_random(2, 1, SAMPLES), _random(2, LENGTH, _number(config, 32, "hidden_size"))]


def _grids(*_: Any) -> list[torch.Tensor]:
    return [torch.tensor(GRIDS)]


def _decoded(config: Config, _: Iterable[str]) -> list[torch.Tensor]:
    """Tokens of a decoder, or codes of sound in several channels."""
    decoder = getattr(config, "decoder_config", None) or config
    codes = tokens(length=SHORT)[..., None].expand(-1, -1, _number(decoder, 1, "num_channels"))
    return [codes, tokens(length=SHORT)] if codes.shape[-1] > 1 else [tokens(length=SHORT)]


MAKERS: dict[str, Maker] = {
    "input_ids": _text,
    "decoder_input_ids": _decoded,
    "qformer_input_ids": lambda *_: [tokens()],
    "inputs": lambda config, names: [tokens(), *_sound(config, names)],
    "pixel_values": _pixels,
    "prompt_pixel_values": _pixels,
    "prompt_masks": _pixels,
    "pixel_values_videos": _videos,
    "grid_thw": _grids,
    "image_grid_thw": _grids,
    "merge_sizes": lambda *_: [torch.full((len(GRIDS),), 1)],
    "target_sizes": lambda *_: [torch.tensor(GRIDS)[:, 1:]],
    "spatial_shapes": lambda *_: [torch.tensor(GRIDS)[:, 1:]],
    "pixel_attention_mask": _padded,
    "pixel_position_ids": _positions,
    "hidden_states": _hidden,
    "input_features": _features,
    "audio_mel": _features,
    "input_features_mask": _all_frames,
    "audio_mel_mask": lambda config, names: [~mask for mask in _all_frames(config, names)],
    "input_values": _sound,
    "latents": lambda config, _: [_random(2, _number(config, 32, "hidden_size"), LENGTH)],
    "bbox": _boxes,
    "image_embeds_position_mask": lambda *_: [(torch.arange(LENGTH) < 4).long().expand(2, -1)],
    "image_attention_mask": lambda *_: [torch.ones(2, LENGTH, count).long() for count in (1, 2, 4)],
    "states": lambda config, _: [_random(2, SHORT, _number(config, 17, "state_dim"))],
    "actions": lambda config, _: [_random(2, SHORT, _number(config, 4, "act_dim"))],
    "rewards": lambda *_: [_random(2, SHORT, 1)],
    "returns_to_go": lambda *_: [_random(2, SHORT, 1)],
    "timesteps": lambda *_: [torch.arange(SHORT).expand(2, -1)],
    "visual_feats": lambda config, _: [_random(2, 5, _number(config, 32, "visual_feat_dim"))],
    "visual_pos": lambda config, _: [_random(2, 5, 4).abs()],
    "query_embeds": lambda config, _: [_random(2, LENGTH, _number(config, 32, "hidden_size"))],
    "encoder_hidden_states": lambda config, _: [_random(2, 7, _number(config, 32, "encoder_hidden_size"))],
    "inputs_embeds": lambda config, _: [_random(2, LENGTH, _number(config, 32, "hidden_size"))],
    "noise_embeds": lambda config, _: [_random(2, LENGTH, _number(config, 32, "hidden_size"))],
    "context_hidden_states": lambda config, _: [
        _random(2, 7, layers * _number(config, 32, "hidden_size")) for layers in (1, 2, 5)
    ],
    "flattened_patches": lambda config, _: [
        torch.cat([torch.arange(1, 25).view(1, 12, 2).expand(2, -1, -1) % 9, _random(2, 12, 192)], -1)
    ],
    "past_values": _series,
    "past_time_features": lambda config, names: [_times(config, _series(config, names)[0].shape[1])],
    "future_time_features": lambda config, _: [_times(config, config.prediction_length)],
    "future_values": lambda config, _: [_random(2, config.prediction_length)],
    "past_values_padding": lambda config, _: [
        torch.zeros(2, _number(config, 32, "context_length"), dtype=torch.int64)
    ],
    "freq": lambda *_: [torch.zeros(2, 1, dtype=torch.int64)],
    "past_observed_mask": lambda config, names: [torch.ones_like(x) for x in _series(config, names)],
    "observed_mask": lambda config, names: [torch.ones_like(x) for x in _series(config, names)],
}
"""Layouts of a parameter, by its name."""

OPTIONAL: tuple[tuple[str, ...], ...] = (
    ("pixel_values",),
    ("bbox",),
    ("input_ids",),
    ("input_features",),
    ("input_values",),
    ("target_sizes",),
    ("input_features_mask",),
    ("future_values", "future_time_features"),
    ("pixel_values", "input_ids"),
    ("encoder_hidden_states",),
    ("visual_feats", "visual_pos"),
    ("pixel_values", "pixel_attention_mask", "spatial_shapes"),
    ("bbox", "pixel_values"),
    ("input_ids", "image_embeds_position_mask"),
    ("pixel_values", "image_attention_mask"),
    ("actions", "rewards", "returns_to_go", "timesteps"),
    ("input_features", "input_features_mask"),
)
"""Parameters with defaults that some classes need all the same."""
