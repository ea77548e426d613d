"""Arguments and options that several commands share."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from s3_checkpoint.cli.exit_codes import CommandError, ExitCode

LINES_SHOWN = 200
"""A state, a list of changes or of steps longer than this is cut on a terminal, with a note."""


class Format(StrEnum):
    """What rows are written as."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def duration(text: str | timedelta) -> timedelta:
    """A time span as people write it: 45s, 90m, 12h, 30d, 2w. `typer.BadParameter` for anything else."""
    if isinstance(text, timedelta):
        return text  # a default value comes through here too
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    try:
        return timedelta(**{units[unit]: float(number)})
    except (KeyError, ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time span such as 45s, 90m, 12h, 30d or 2w") from None


def check_prune(what: str, *, named: bool, every: bool, rules: tuple[int | None, timedelta | None]) -> None:
    """Raises `CommandError` unless a prune names either one `what` or all, and a rule of what to keep."""
    if named == every:
        raise CommandError(f"name a {what}, or give --all for every {what}", ExitCode.USAGE)
    if rules == (None, None):
        raise CommandError("say what to keep: --keep-last N, --older-than SPAN, or both", ExitCode.USAGE)


def grace_option(told: str) -> object:
    """The option `--grace` of a command, which says there what is spared for how long."""
    return typer.Option("--grace", parser=duration, metavar="SPAN", help=told, show_default="1h")


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the beginning of one.")]
StepOption = Annotated[
    int | None, typer.Option("--step", "-s", min=0, help="Step number.", show_default="the newest step")
]
FullOption = Annotated[bool, typer.Option("--full", help="On a terminal, show all of a long state, in the pager.")]
OutputOption = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="table (on a terminal), json, or jsonl: one object a line (in a pipe)."),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", help="A subgraph's namespace, instead of the graph itself.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ExitCodeOption = Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything differs.")]
FullChangesOption = Annotated[bool, typer.Option("--full", help=f"On a terminal, more than {LINES_SHOWN} changes.")]
LimitOption = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after this many.")]
OlderThanOption = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", parser=duration, metavar="SPAN", help="Remove only what is older than this: 45s, 90m, 12h, 30d."
    ),
]
ThreadArgument = Annotated[
    str, typer.Argument(metavar="THREAD", help="Thread id, or the beginning of one. In quotes if it has blanks.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", "-c", help="Checkpoint id, or how one begins or ends.", show_default="the newest checkpoint"
    ),
]
SinceOption = Annotated[
    timedelta | None,
    typer.Option(
        "--since", parser=duration, metavar="SPAN", help="Only what moved in this last time: 2h, 3d. Implies --long."
    ),
]
