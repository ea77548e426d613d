"""`diff`: what changed between two steps."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_checkpoint._concurrency.gather import both
from s3_checkpoint._views.run_views import changes_between
from s3_checkpoint.cli.arguments import ExitCodeOption, FullChangesOption, NamespaceOption, OutputOption, RunArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.changes import write_changes
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    before: Annotated[int, typer.Argument(metavar="STEP", min=0, help="The earlier step.")],
    after: Annotated[int, typer.Argument(metavar="STEP", min=0, help="The later step.")],
    exit_code: ExitCodeOption = False,
    full: FullChangesOption = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Compare two steps of a run by JSON path: state under `$`, the tasks that run next under `$active`."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        old, new = await both(bucket.view(keys, before), bucket.view(keys, after))
    changes = changes_between(old, new)
    await write_changes(session, changes, output, full=full, same=f"steps {before} and {after} hold the same")
    return ExitCode.NO if exit_code and changes else None
