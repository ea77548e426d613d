"""`active`: the tasks that run next."""

from __future__ import annotations

from pydantic import JsonValue

from s3_checkpoint._concurrency.gather import each
from s3_checkpoint.cli.arguments import NamespaceOption, OutputOption, RunArgument, StepOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import Column, one_line, write_rows
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    step: StepOption = None,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """List the tasks that run next after a step, by default the newest: node and payload."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        view = await bucket.view(keys, step)
    rows: list[dict[str, JsonValue]] = [task.model_dump(mode="json") for task in view.active]
    columns = [Column("node_name", "NODE"), Column("payload", "PAYLOAD", one_line)]
    if not await write_rows(session, each(rows), columns, output):
        session.note(f"no active tasks after step {view.step} of run {keys.run_id}")
