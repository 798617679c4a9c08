"""From words to a subcommand with its options: tyro reads the dataclasses, this module chooses and helps."""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import tyro

from rattention import __version__
from rattention._arguments import require_seed
from rattention.cli.commands import COMMANDS, Command

ABOUT = """
Attention on CPUs, looked into: what models attend to, how that changes as their context grows, and what of it
may be dropped. Every subcommand has its own --help with examples.
"""
START = (
    "check          # what is installed, and what to install",
    "demo           # a real BERT from 50 to 500 tokens: table, summary, figures",
    "demo --simple  # the same story on synthetic numbers, with NumPy alone",
    "visualize      # maps, statistics and advice for a transformer that learns from histories",
    "compress       # what of its history may be dropped; --validate says at what cost",
)
EXIT_CODES = """
Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted. Results go to stdout,
progress and notes to stderr; NO_COLOR=1 gives plain text.
"""


def parse(argv: list[str]) -> Callable[[], int]:
    """What `argv` asks for, ready to be called; help and wrong usage are over and give the exit code.

    ValueError for what no command takes: empty values, and seeds that not all generators take.
    """
    if argv == ["--version"]:
        return _say_version
    _refuse_empty(argv)
    try:
        with _errors_in_one_line(argv):
            run, options = _read(argv, "rattention", COMMANDS, _help(ABOUT, "rattention", START))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        return lambda: code
    if hasattr(options, "seed"):
        require_seed("--seed", options.seed)
    return lambda: run(options)


def _refuse_empty(argv: list[str]) -> None:
    """An empty path would be the current folder, and no other option may be empty either."""
    for option, value in itertools.pairwise([*argv, "end"]):
        name, equals, given = option.partition("=")
        if name.startswith("--") and (value == "" or (equals and not given)):
            raise ValueError(f"{name} must not be empty: give it a value or leave it out")


def _say_version() -> int:
    print(f"rattention {__version__}")
    return 0


def _read(
    argv: list[str], prog: str, commands: Mapping[str, Command], description: str
) -> tuple[Callable[[Any], int], Any]:
    """What one of `commands` is to run, and with which options; of a command with parts, one of these."""
    if argv and argv[0] in commands:
        prog = f"{prog} {argv[0]}"
        command = commands[argv[0]]
        about = _help(inspect.cleandoc(command.options.__doc__ or ""), prog, command.examples)
        if command.run is None:
            return _read(argv[1:], prog, command.parts, about)
        return command.run, _tyro(command.options, prog, about, argv[1:])
    _tyro(_any_of(commands), prog, description, argv)
    _stop_without_command(prog)


def _tyro(form: Any, prog: str, description: str, args: list[str]) -> Any:
    return tyro.cli(
        form, prog=prog, description=description, args=args, config=(tyro.conf.FlagCreatePairsOff,)
    )


def _any_of(commands: Mapping[str, Command]) -> Any:
    """A union of all subcommands with one-line summaries, for the help and for wrong names."""
    union: Any = None
    for name, command in commands.items():
        summary = inspect.cleandoc(command.options.__doc__ or "").partition("\n")[0]
        form: Any = command.options
        member = Annotated[form, tyro.conf.subcommand(name, description=summary, prefix_name=False)]
        union = member if union is None else union | member
    return union


def _stop_without_command(prog: str) -> NoReturn:
    print(f"{prog}: a subcommand must come first (see {prog} --help)", file=sys.stderr)
    raise SystemExit(2)


def _help(about: str, prog: str, examples: tuple[str, ...]) -> str:
    """Hanging indents: tyro joins lines that begin with a letter and does not wrap what it joined."""
    paragraphs = [*about.strip().split("\n\n"), EXIT_CODES]
    wrapped = [textwrap.fill(" ".join(p.split()), 88, subsequent_indent="  ") for p in paragraphs]
    listed = "\n".join(f"  {prog} {example}" for example in examples)
    return "\n\n".join([*wrapped[:-1], f"Examples:\n{listed}", wrapped[-1]])


@contextlib.contextmanager
def _errors_in_one_line(argv: list[str]) -> Any:
    """Collect what is written to stderr; when parsing fails, say the gist of it in one line."""
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            yield
    except SystemExit as stop:
        if stop.code:
            print(f"rattention: {_gist(written.getvalue())}{_see(argv)}", file=sys.stderr)
        raise


def _gist(box: str) -> str:
    """The message in one of tyro's boxes: the lines up to the first rule, and the option it suggests."""
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row).strip(" \t│|") for row in box.splitlines()]
    rows = [row for row in rows if row]
    rules = [i for i, row in enumerate(rows) if re.fullmatch(r"[─╭╮╰╯\-+]+", row)]
    message = " ".join(rows[1 : rules[0]] if rules and rules[0] > 1 else rows)
    meant = next(
        (rows[i + 1].split()[0] for i, row in enumerate(rows[:-1]) if row.startswith("Perhaps you meant")), ""
    )
    return (message or "wrong usage") + (f" (perhaps you meant {meant})" if meant else "")


def _see(argv: list[str]) -> str:
    prog, commands = "rattention", dict(COMMANDS)
    for word in argv:
        if word not in commands:
            break
        prog, commands = f"{prog} {word}", dict(commands[word].parts)
    return f"; see {prog} --help"
