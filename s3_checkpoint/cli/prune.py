"""`prune`: old steps removed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint.cli.arguments import DryRunOption, OlderThanOption, OutputOption, check_prune, grace_option
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.removed import report_pruned
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run id, or the beginning of one.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run in the bucket.")] = False,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Keep this many newest steps.")] = None,
    older_than: OlderThanOption = None,
    grace: Annotated[
        timedelta,
        grace_option(
            "Keep whatever is younger. 0s is for runs whose workers are stopped: beside a worker, "
            "a pruned step could be committed again."
        ),
    ] = GRACE,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
) -> None:
    """Remove old steps of a run, or of every run with --all. The newest step of a run is never removed.

    Say what to keep with --keep-last, --older-than, or both: then a step goes only if both let it go. Safe while
    workers are committing. Namespaces of subgraphs are pruned by the same rule, each by itself.
    """
    check_prune("run", named=run is not None, every=every, rules=(keep_last, older_than))
    async with opened(session.settings) as bucket:
        if run is not None:
            keys = await bucket.run(run)
            with session.counter("pruning"):
                one = await bucket.admin.prune(
                    keys.run_id, keep_last=keep_last, older_than=older_than, grace=grace, dry_run=dry_run
                )
            if not one.kept + one.states:
                raise await bucket.no_steps(keys)
            report_pruned(
                session, one, output, f"run {one.run_id}", {"run_id": str(one.run_id), "steps": list(one.steps)}
            )
            return
        with session.counter("listing runs") as counter:
            total = len([None async for _ in bucket.admin.runs()])
            counter.now("pruning runs", total)
            removed = await bucket.admin.prune_all(
                keep_last=keep_last,
                older_than=older_than,
                grace=grace,
                dry_run=dry_run,
                on_run=lambda _: counter.add(),
            )
    report_pruned(session, removed, output, f"{removed.runs:,} runs in {session.where}", {"runs": removed.runs})
