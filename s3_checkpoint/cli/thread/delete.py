"""`thread delete`: a whole thread removed."""

from __future__ import annotations

from s3_checkpoint.cli.arguments import DryRunOption, OutputOption, ThreadArgument, YesOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import report, size
from s3_checkpoint.cli.session import Session, confirmed, session_command
from s3_checkpoint.cli.thread.removed import removed_counts


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
) -> ExitCode | None:
    """Delete a whole thread: all namespaces, checkpoints, writes and values. Asks first. Stop its workers before."""
    async with opened(session.settings) as bucket:
        thread_id = await bucket.thread(thread)
        planned = await bucket.threads.delete(thread_id, dry_run=True)
        counts = f"{planned.checkpoints:,} checkpoints, {planned.objects:,} objects, {size(planned.bytes)}"
        if not (yes or dry_run or confirmed(session, f"Delete thread {thread_id!r}: {counts}?")):
            return ExitCode.NO
        with session.counter("deleting"):
            deleted = planned if dry_run else await bucket.threads.delete(thread_id)
    told = f"{'would delete' if dry_run else 'deleted'} thread {thread_id}: {counts}"
    report(session, output, told, {"thread_id": thread_id, **removed_counts([deleted])})
    return None
