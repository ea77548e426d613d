"""`diff`: what changed between two steps."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import JsonValue
from rich.text import Text

from s3_checkpoint._concurrency.gather import both, each
from s3_checkpoint._format.json_diff import Change
from s3_checkpoint._printable import printable
from s3_checkpoint._views.run_views import changes_between
from s3_checkpoint.cli.arguments import LINES_SHOWN, Format, NamespaceOption, OutputOption, RunArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import as_json, chosen, cut, write_rows
from s3_checkpoint.cli.session import Session, session_command

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    before: Annotated[int, typer.Argument(metavar="STEP", min=0, help="The earlier step.")],
    after: Annotated[int, typer.Argument(metavar="STEP", min=0, help="The later step.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything differs.")] = False,
    full: Annotated[bool, typer.Option("--full", help=f"On a terminal, more than {LINES_SHOWN} changes.")] = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Compare two steps of a run by JSON path: state under `$`, the tasks that run next under `$active`."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        old, new = await both(bucket.view(keys, before), bucket.view(keys, after))
    changes = changes_between(old, new)
    if chosen(session, output) == Format.TABLE:
        shown = changes if full else changes[:LINES_SHOWN]
        for root, change in shown:
            session.out.print(_as_text(root, change), soft_wrap=True)
        if len(shown) < len(changes):
            session.note(f"cut: {len(shown)} of {len(changes):,} changes; --full shows all, --output jsonl writes all")
    else:
        await write_rows(session, each([change.as_row(root) for root, change in changes]), [], output)
    if not changes:
        session.note(f"steps {before} and {after} hold the same")
    return ExitCode.NO if exit_code and changes else None


def _as_text(root: str, change: Change) -> Text:
    sign, style = _SIGNS[change.kind]
    text = Text.assemble((printable(f"{sign} {change.where(root)}"), style), ": ")
    if change.kind != "added":
        text.append(_short(change.before), "red")
    if change.kind == "changed":
        text.append(" → ")
    if change.kind != "removed":
        text.append(_short(change.after), "green")
    return text


def _short(value: JsonValue) -> str:
    return cut(as_json(value), 200)
