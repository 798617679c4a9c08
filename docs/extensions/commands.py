"""The command line's reference, from the parser itself."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import TYPE_CHECKING, Any

from rattention.cli.options import Command, Group
from rattention.cli.parser import ABOUT, COMMANDS, EXIT_CODES, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "reference/commands"
OPTION = re.compile(r"(?<![\w`-])(?:--[a-z][\w.-]*\w|[A-Z]+(?:_[A-Z]+)+(?:=\w+)?)")


def write_page(_app: Any, name: str, source: list[str]) -> None:
    """Called by Sphinx for the text of every page: this one goes on with what the parser knows."""
    if name == PAGE:
        source[0] = "\n\n".join([source[0], _paragraphs(EXIT_CODES), *_sections("rattention", ABOUT, 1)])


def _sections(prog: str, part: Group | type[Command], level: int) -> Iterator[str]:
    """A command, or a group and its commands after it."""
    if level > 1:
        yield f"{'#' * level} {prog}"
    yield _paragraphs(part.about if isinstance(part, Group) else part.__doc__ or "")
    yield _examples(prog, part.examples if isinstance(part, Group) else part.EXAMPLES)
    if isinstance(part, Group):
        for name, inner in (COMMANDS if part is ABOUT else part.parts).items():
            yield from _sections(f"{prog} {name}", inner, level + 1)
    else:
        yield from _options(Parser(prog, part))


def _paragraphs(text: str) -> str:
    return _marked("\n\n".join(" ".join(p.split()) for p in inspect.cleandoc(text).split("\n\n")))


def _marked(text: str) -> str:
    """With options, variables and the like as code."""
    return OPTION.sub(r"`\g<0>`", text.replace("*", "\\*"))


def _examples(prog: str, examples: tuple[str, ...]) -> str:
    return "\n".join(["```sh", *(f"{prog} {example}".rstrip() for example in examples), "```"])


def _options(parser: Parser) -> Iterator[str]:
    """Groups of options as lists of definitions, which a narrow screen shows as well."""
    for group in parser._action_groups:
        if group._group_actions:
            about = f": {_marked(group.description)}" if group.description else ""
            yield f"**{(group.title or '').capitalize()}**{about}"
            yield "\n\n".join(_definition(action) for action in group._group_actions)


def _definition(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or "arguments"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"`{names}{value}`\n:   {_marked((action.help or '').replace('%%', '%'))}"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", write_page)
    return {"parallel_read_safe": True}
