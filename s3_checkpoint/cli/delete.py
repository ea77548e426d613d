"""`delete`: a whole run removed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint.cli.arguments import DryRunOption, OutputOption, RunArgument, YesOption, grace_option
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import report, size
from s3_checkpoint.cli.removed import removed_counts
from s3_checkpoint.cli.session import Session, confirmed, session_command


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    grace: Annotated[
        timedelta,
        grace_option(
            "Leave active snapshots younger than this that a commit in progress may need; 0s if no worker runs."
        ),
    ] = GRACE,
    output: OutputOption = None,
) -> ExitCode | None:
    """Delete a whole run: all steps, snapshots and namespaces. Asks first. Stop the run's workers before."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run)
        with session.counter("listing"):
            planned = await bucket.admin.delete(keys.run_id, dry_run=True, grace=grace)
        if not planned.states + planned.snapshots + planned.left:
            raise await bucket.no_steps(keys)
        objects = planned.states + planned.snapshots
        question = f"Delete run {keys.run_id}: {planned.states:,} steps, {objects:,} objects, {size(planned.bytes)}?"
        if not (yes or dry_run or confirmed(session, question)):
            return ExitCode.NO
        with session.counter("deleting"):
            deleted = planned if dry_run else await bucket.admin.delete(keys.run_id, grace=grace)
    verb = "would delete" if dry_run else "deleted"
    objects = deleted.states + deleted.snapshots
    told = f"{verb} run {keys.run_id}: {objects:,} objects, {size(deleted.bytes)}"
    report(session, output, told, {"run_id": str(keys.run_id), **removed_counts(deleted)})
    if deleted.left:
        session.note(
            f"{deleted.left:,} active snapshots are left: a commit in progress may need them. "
            "Delete again in an hour, or with --grace 0s once no worker runs"
        )
    return None
