"""Dataclasses from plain mappings, with errors that name what is wrong and what is allowed."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rattention._arguments import MOST_SHOWN, as_float, brief

Settings = TypeVar("Settings")


def from_mapping(form: type[Settings], data: Mapping[Any, Any], where: str) -> Settings:
    """An object of a dataclass; fields that `data` does not have keep their defaults.

    ValueError begins with `where` and names unknown keys and values of another type, and what is allowed.
    """
    hints = get_type_hints(form)
    names = [f.name for f in fields(form)]  # type: ignore[arg-type]
    unknown = [str(name) for name in data if name not in names]
    if unknown:
        raise ValueError(
            f"{where}: unknown key {', '.join(unknown)[:MOST_SHOWN]}; there are {', '.join(names)}"
        )
    values = {name: _converted(hints[name], value, f"{where}: {name}") for name, value in data.items()}
    try:
        return form(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _converted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type asked for; ValueError where it is another."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(parts, value, where)
    if origin is Literal:
        return _choice(parts, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {brief(value)}")
        return tuple(_converted(parts[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be settings by name, got {brief(value)}")
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    return _scalar(hint, value, where)


def _one_of(parts: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in parts:
        return None
    *others, last = (part for part in parts if part is not type(None))
    for part in others:
        try:
            return _converted(part, value, where)
        except ValueError:
            continue
    return _converted(last, value, where)


def _choice(parts: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in parts:
        raise ValueError(f"{where} must be one of {', '.join(map(str, parts))}, got {brief(value)}")
    return value


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Numbers, texts and paths. A number without a point, such as 1e-4, is a text to YAML 1.1."""
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    right = {
        float: isinstance(value, int | float) and not isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        Path: isinstance(value, str | Path),
    }.get(hint, isinstance(value, hint))
    if not right:
        names = {
            float: "a number",
            int: "a whole number",
            bool: "true or false",
            str: "a text",
            Path: "a path",
        }
        raise ValueError(f"{where} must be {names.get(hint, hint)}, got {brief(value)}")
    return as_float(value) if hint is float else Path(value) if hint is Path else value
