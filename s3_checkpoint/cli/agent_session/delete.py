"""`session delete`: a whole session removed, its subagents too."""

from __future__ import annotations

from pydantic import JsonValue

from s3_checkpoint.cli.agent_session.finding import ProjectOption, SessionArgument, find, sessions_in
from s3_checkpoint.cli.arguments import DryRunOption, OutputOption, YesOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import report, size
from s3_checkpoint.cli.session import Session, confirmed, session_command


@session_command
async def command(
    session: Session,
    *,
    session_id: SessionArgument,
    project: ProjectOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
) -> ExitCode | None:
    """Delete a whole session: its transcript and those of its subagents. Asks first."""
    async with opened(session.settings) as bucket:
        store = sessions_in(session, bucket)
        found = await find(store, session_id, project)
        what = f"session {found.session_id} of project {found.project_key}"
        counts = f"{found.subagents:,} subagents, {found.objects:,} objects, {size(found.bytes)}"
        if not (yes or dry_run or confirmed(session, f"Delete {what}: {counts}?")):
            return ExitCode.NO
        if not dry_run:
            await store.delete({"project_key": found.project_key, "session_id": found.session_id})
    row: dict[str, JsonValue] = {
        "project_key": found.project_key,
        "session_id": found.session_id,
        "subagents": found.subagents,
        "objects": found.objects,
        "bytes": found.bytes,
        "dry_run": dry_run,
    }
    report(session, output, f"{'would delete' if dry_run else 'deleted'} {what}: {counts}", row)
    return None
