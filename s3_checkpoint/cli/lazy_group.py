"""Commands that are imported when they are called: `--help` of the whole shows names and summaries alone.

Knows typer's command classes, which it derives from as typer's documentation describes (the parameter `cls`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command by the name of its module, and the summary that a list of commands shows."""

    module: str
    """It has a function `command`, or one called as the command is."""
    summary: str


@dataclass(frozen=True, slots=True)
class Group:
    """Commands behind a first word: `thread show`, `thread history`."""

    summary: str
    commands: Mapping[str, Lazy]


Commands: TypeAlias = Mapping[str, Lazy | Group]


class _WithoutFlagTypes:
    """Help in which a flag has no type: `--long`, not `--long <bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_WithoutFlagTypes, TyperCommand):
    """A command of ours."""


class LazyGroup(_WithoutFlagTypes, TyperGroup):
    """A group whose commands are summaries until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Finds the command by its name, and imports it."""
        name, found, rest = super().resolve_command(ctx, args)
        module = getattr(found, "module", None)
        return name, found if module is None or name is None else load(name, module), rest


class _Summary(TyperCommand):
    """Takes the place of a command in a list of commands."""

    module = ""


def add(app: typer.Typer, commands: Commands) -> None:
    """Adds commands to `app`, whose class is `LazyGroup`; none of them is imported."""
    for name, one in commands.items():
        if isinstance(one, Group):
            group = typer.Typer(cls=LazyGroup, no_args_is_help=True, help=one.summary)
            add(group, one.commands)
            app.add_typer(group, name=name)
        else:
            summary = type("Summary", (_Summary,), {"module": one.module})
            app.command(name, help=one.summary, cls=summary)(_is_loaded_first)


def load(name: str, module: str) -> Any:
    """The command of this name, with its options and its whole help."""
    found: Callable[..., None] = import_module(module).command
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=Command)(found)
    return typer.main.get_command(alone)


def _is_loaded_first() -> None:
    raise NotImplementedError("a summary of a command is replaced by the command before it is called")
