"""`thread copy`: a thread under another id."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_checkpoint.cli.arguments import ThreadArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    target: Annotated[str, typer.Argument(metavar="NEW_ID", help="The id of the copy.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where there is a thread with this id: completes a copy cut short.")
    ] = False,
) -> None:
    """Copy a thread under another id, inside the bucket: every namespace, checkpoint and pending write, oldest first.

    Nothing is downloaded. Requests: 1 LIST per 1,000 objects, and 1 COPY for each.
    """
    async with opened(session.settings) as bucket:
        source = await bucket.thread(thread)
        if not force and (await bucket.threads.find(target, limit=1)) == [target]:
            raise CommandError(f"there is a thread {target!r} already; --force copies into it", ExitCode.CONFLICT)
        with session.counter(f"copying {source!r}"):
            await bucket.threads.copy(source, target)
        copied = await bucket.threads.delete(target, dry_run=True)
    session.note(f"thread {target!r}: {copied.checkpoints:,} checkpoints, {copied.objects:,} objects")
