"""The options of every command, from its argparse parser, as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from darknet_py.cli import COMMANDS, make_parser


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Command name → its parser."""
    return {name: _subparsers(make_parser([name]))[name] for name in COMMANDS}


def overview() -> str:
    """A table of all commands."""
    rows = [f"| [`{name}`]({name}.md) | {_sentence(summary)} |" for name, summary in COMMANDS.items()]
    return "\n".join(["| command | |", "|---|---|", *rows])


def options(command: str) -> str:
    """Usage and options of a command, and of its subcommands."""
    return "\n".join(_described(f"darknet-py {command}", command_parsers()[command]))


def _described(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:  # argparse has no public way to list its options
        rows = [
            f"| {_spelling(action)} | {_help(parser, action)} |"
            for action in group._group_actions
            if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
            and action.help != argparse.SUPPRESS
        ]
        if rows:
            yield from ("", f"### {_title(group.title)}", "", "| option | |", "|---|---|", *rows)
    for sub_name, sub in _subparsers(parser).items():
        yield from ("", f"## `{name} {sub_name}`", "", sub.description or "")
        yield from _described(f"{name} {sub_name}", sub)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _title(title: str | None) -> str:
    return {"positional arguments": "Arguments", "options": "Options", "optional arguments": "Options"}.get(
        title or "", (title or "")[:1].upper() + (title or "")[1:]
    )


def _spelling(action: argparse.Action) -> str:
    """`--option VALUE`, as the help prints it."""
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    if action.nargs == "?":
        value = f" [{_metavar(action)}]"
    elif action.nargs in ("*", "+"):
        value += " …"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return _sentence(text)


def _sentence(text: str) -> str:
    first = text.split(",")[0].split()[:1]
    if first and not (first[0] in ("cpu", "ema_alpha:") or "/" in first[0]):  # a value or a key keeps its spelling
        text = text[:1].upper() + text[1:]
    return text.replace("|", "\\|")
