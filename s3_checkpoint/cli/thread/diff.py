"""`thread diff`: what changed between two checkpoints."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, cast

import typer

from s3_checkpoint.cli.arguments import (
    ExitCodeOption,
    FullChangesOption,
    NamespaceOption,
    OutputOption,
    ThreadArgument,
)
from s3_checkpoint.cli.bucket import OpenBucket, opened
from s3_checkpoint.cli.changes import write_changes
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.session import Session, session_command

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from s3_checkpoint.langgraph import CheckpointView


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    before: Annotated[
        str | None,
        typer.Argument(
            metavar="[BEFORE]",
            help="The earlier checkpoint: its id, or how that begins or ends.",
            show_default="that at the end of the turn before the last",
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="[AFTER]", help="The later one.", show_default="the newest")
    ] = None,
    exit_code: ExitCodeOption = False,
    full: FullChangesOption = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Compare two checkpoints by JSON path: values under `$`, next nodes under `$next`, pending writes under `$writes`.

    Without checkpoints named: what the last turn changed, from the last input on.
    """
    async with opened(session.settings) as bucket:
        thread_id = await bucket.thread(thread)
        if before is None:
            old = await _end_of_turn_before(bucket, thread_id, namespace)
        else:
            old = await bucket.checkpoint_id(thread_id, before, namespace)
        new = None if after is None else await bucket.checkpoint_id(thread_id, after, namespace)
        changes = await bucket.threads.diff(thread_id, old, new, namespace=namespace)
    if before is None:
        _note_start(session, old)
    await write_changes(session, changes, output, full=full, same="both hold the same")
    return ExitCode.NO if exit_code and changes else None


def _note_start(session: Session, checkpoint_id: str | None) -> None:
    if checkpoint_id is None:
        session.note("since the thread began")
    elif session.err.is_terminal and session.err.width < len(f"since checkpoint {checkpoint_id}"):
        session.note("since checkpoint")
        session.note(checkpoint_id)
    else:
        session.note(f"since checkpoint {checkpoint_id}")


async def _end_of_turn_before(bucket: OpenBucket, thread_id: str, namespace: str) -> str | None:
    """The checkpoint that the last input was given to; None for the first one."""
    views = cast("AsyncGenerator[CheckpointView, None]", bucket.threads.history(thread_id, namespace=namespace))
    found = None
    async with aclosing(views):
        async for view in views:
            found = view
            if view.source == "input":
                break
    if found is None:
        raise await bucket.no_checkpoints(thread_id, namespace)
    return found.parent_id
