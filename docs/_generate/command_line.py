"""Write reference/cli.md: every verb and flag of the command line, read off its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from html import escape

import mkdocs_gen_files

from pipelines.cli.parser import build_parser

INTRODUCTION = """# Command line

`placeray VERB [options]`. Results go to stdout: a table, or one JSON object with `--json`. Progress and logs
go to stderr. The exit code of a command is explained on [Exit codes and error reasons](errors.md).

This page is made from the command line's own parser; `placeray VERB --help` prints the same, and
`placeray --version` the version.

"""


def verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def usage(parser: argparse.ArgumentParser) -> str:
    """Return the usage of a verb on one line, required arguments only."""
    words = [parser.prog]
    for action in parser._actions:
        flag = action.option_strings[-1:]
        if flag and action.required:
            words += [flag[0], str(action.metavar or action.dest.upper())]
        elif not flag and action.nargs == "?":
            words.append(f"[{action.metavar or action.dest}]")
        elif not flag:
            words.append(f"{action.metavar or action.dest}{' ...' if action.nargs == '+' else ''}")
    return " ".join([*words, "[options]"])


def row(action: argparse.Action) -> str:
    """Return one line of a table of flags."""
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    if action.choices:
        names += " " + "\\|".join(f"`{choice}`" for choice in action.choices)
    elif action.option_strings and action.nargs != 0:
        names += f" `{action.metavar or action.dest.upper()}`"
    about = (action.help or "") % {"default": action.default} if action.help else ""
    known = action.default not in (None, False, "", argparse.SUPPRESS)
    if known and "default" not in about:
        many = isinstance(action.default, tuple)
        shown = "..".join(str(n) for n in action.default) if many else action.default
        about += f"{'; ' if about else ''}default: {shown}"
    return f"| {names} | {escape(about, quote=False).replace('|', '&#124;')} |"


def page(parser: argparse.ArgumentParser) -> str:
    """Return the whole page."""
    text = INTRODUCTION
    for name, verb in verbs(parser):
        text += f"## {name}\n\n{verb.description}\n\n```\n{usage(verb)}\n```\n\n"
        text += "| argument | meaning |\n|---|---|\n"
        text += "\n".join(row(action) for action in verb._actions if action.dest != "help") + "\n\n"
        if verb.epilog:
            text += f"{verb.epilog}\n\n"
    return text


with mkdocs_gen_files.open("reference/cli.md", "w") as file:
    file.write(page(build_parser()))
