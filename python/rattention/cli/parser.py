"""From words to a command with its options: fields of dataclasses become arguments of argparse."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from rattention import __version__
from rattention.cli.ad import AD
from rattention.cli.all import All
from rattention.cli.check import Check
from rattention.cli.compress import Compress
from rattention.cli.demo import Demo
from rattention.cli.explore import Explore
from rattention.cli.lm import LM
from rattention.cli.lra import LRA
from rattention.cli.options import BASIC, Command, Group, Reads, one_of
from rattention.cli.paper import Paper
from rattention.cli.text import paragraph, text_width
from rattention.cli.visualize import Visualize

COMMANDS: dict[str, type[Command] | Group] = {
    "check": Check,
    "demo": Demo,
    "visualize": Visualize,
    "explore": Explore,
    "compress": Compress,
    "paper": Paper,
    "ad": AD,
    "lra": LRA,
    "lm": LM,
    "all": All,
}
"""Every command by name, in the order that ``rattention --help`` shows."""
ABOUT = Group(
    """Attention on CPUs: what models attend to, how that changes as their context grows, and what can be
    dropped.

    Every command has its own --help with examples.
    """,
    (
        "check          # what is installed, and what to install",
        "demo           # a real BERT from 50 to 500 tokens: table, summary, figures",
        "demo --simple  # the same on synthetic numbers, with NumPy alone",
        "visualize      # maps, statistics and advice for a transformer that learns from histories",
        "explore        # walk through the attention of a document in a browser",
        "compress       # what of its history may be dropped; --validate measures the cost",
    ),
    COMMANDS,
)
EXIT_CODES = """
Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted. Results go to stdout,
progress and notes to stderr; NO_COLOR=1 gives plain text.
"""


def parse(argv: list[str]) -> Callable[[], int]:
    """What `argv` asks for, ready to be called; ValueError for wrong usage."""
    if argv == ["--version"]:
        return lambda: _say(f"rattention {__version__}\n")
    prog, chosen, words = "rattention", ABOUT, argv
    while words and words[0] in chosen.parts:
        prog, found, words = f"{prog} {words[0]}", chosen.parts[words[0]], words[1:]
        if not isinstance(found, Group):
            try:
                return Parser(prog, found).options(words).run
            except SystemExit:  # after the help
                return lambda: 0
        chosen = found
    if words and words[0] not in ("-h", "--help"):
        close = _meant(words[0], [*chosen.parts])
        known = ", ".join(chosen.parts)
        raise ValueError(f"unknown command {words[0]!r}{close}: there are {known}; see {prog} --help")
    return lambda: _say(_group_help(prog, chosen))


def _say(text: str) -> int:
    print(text, end="")
    return 0


def _group_help(prog: str, group: Group) -> str:
    lines = [paragraph(_summary(part), " " * 14, first=f"  {name:12}") for name, part in group.parts.items()]
    return "\n\n".join(
        [_about(group.about), "\n".join(["commands:", *lines]), _epilog(prog, group.examples), ""]
    )


def _summary(part: Group | type[Command]) -> str:
    about = part.about if isinstance(part, Group) else part.__doc__ or ""
    return inspect.cleandoc(about).partition("\n")[0]


def _about(text: str) -> str:
    return "\n\n".join(paragraph(" ".join(p.split())) for p in inspect.cleandoc(text).split("\n\n"))


def _epilog(prog: str, examples: tuple[str, ...]) -> str:
    listed = "\n".join(f"  {prog} {example}" for example in examples)
    return f"examples:\n{listed}\n\n{paragraph(' '.join(EXIT_CODES.split()))}"


class Parser(argparse.ArgumentParser):
    """Reads the options of one command; every mistake is a ValueError."""

    def __init__(self, prog: str, command: type[Command]) -> None:
        super().__init__(
            prog,
            f"{prog} [options]",
            _about(command.__doc__ or ""),
            _epilog(prog, command.EXAMPLES),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=26, width=text_width()
            ),
            allow_abbrev=False,
            add_help=False,
        )
        self.command = command
        own, shared = self.add_argument_group("options"), self.add_argument_group("common options")
        kinds = get_type_hints(command, include_extras=True)
        for each in fields(command):
            kind, about = kinds[each.name], each.metadata["help"]
            if dataclasses.is_dataclass(kind):
                self._add_group(each.name, kind, about)
            elif each.metadata["positional"]:
                metavar = each.metadata["positional"]
                self.add_argument(each.name, nargs="*", type=Path, help=about, metavar=metavar)
            else:
                _add(shared if each.metadata["shared"] else own, each.name, kind, each.default, about)
        shared.add_argument("-h", "--help", action="help", help="Show this help and stop.")

    def _add_group(self, outer: str, kind: Any, about: str) -> None:
        """A dataclass within: ``--outer.inner``, with the docstrings of its attributes as help."""
        group = self.add_argument_group(outer, about)
        kinds, texts = get_type_hints(kind), _attribute_docstrings(kind)
        for each in fields(kind):
            _add(group, f"{outer}.{each.name}", kinds[each.name], each.default, texts[each.name])

    def options(self, words: list[str]) -> Command:
        """The command with the options that `words` give."""
        given, unknown = self.parse_known_args(_joined(words))
        if unknown:
            close = _meant(unknown[0].partition("=")[0], [*self._option_string_actions])
            self.error(f"unknown option {unknown[0]}{close}")
        kinds, values = get_type_hints(self.command), vars(given)
        for each in fields(self.command):
            kind: Any = kinds[each.name]
            if dataclasses.is_dataclass(kind):
                inner = {f.name: values.pop(f"{each.name}.{f.name}") for f in fields(kind)}
                values[each.name] = cast("Any", kind)(**inner)
            elif each.metadata["positional"]:
                values[each.name] = tuple(values[each.name])
        return self.command(**values)

    def error(self, message: str) -> Any:
        """Raise it, with the option first: argparse begins with "argument --x: "."""
        said = re.sub(r"^argument (\S+): ", r"\1 ", message)
        raise ValueError(f"{said}; see {self.prog} --help")


def _add(group: Any, name: str, kind: Any, default: Any, about: str) -> None:
    """One option: flags by whether they are on at first, others by the type of the field."""
    option, about = f"--{name.replace('_', '-')}", about.replace("%", "%%")
    if kind is bool:
        flag = option.replace("--", "--no-") if default else option
        group.add_argument(flag, dest=name, action="store_false" if default else "store_true", help=about)
        return
    reads, written = _reads(kind), _written(default)
    about = f"{about} Default: {written}." if written else about
    group.add_argument(option, dest=name, default=default, type=reads, metavar=reads.metavar, help=about)


def _written(default: Any) -> str:
    if isinstance(default, tuple):
        return "" if None in default else ",".join(map(str, default))
    return "" if default is None else str(default)


def _reads(kind: Any) -> Reads:
    """By the field's type, which may be optional."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Annotated:
            return cast("Reads", part.__metadata__[0])
        if get_origin(part) is Literal:
            return one_of(get_args(part))
        if part in BASIC:
            return BASIC[part]
    raise TypeError(f"no option can have the type {kind}")


def _joined(words: list[str]) -> list[str]:
    """``--rows -40:`` as ``--rows=-40:``, for argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for word in words:
        if joined and re.match(r"-[\d.]", word) and re.fullmatch(r"--[\w.-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _meant(wrong: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wrong, known, 1)
    return f" (perhaps you meant {close[0]})" if close else ""


def _attribute_docstrings(kind: type) -> dict[str, str]:
    """The strings that stand after the fields of a dataclass."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for here, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(following, ast.Expr):
            found[ast.unparse(here.target)] = " ".join(ast.literal_eval(following.value).split())
    return found
