"""`thread prune`: old checkpoints removed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint.cli.arguments import DryRunOption, OlderThanOption, OutputOption, check_prune, grace_option
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.cli.thread.removed import report_pruned


@session_command
async def command(
    session: Session,
    *,
    thread: Annotated[
        str | None, typer.Argument(metavar="[THREAD]", help="Thread id, or the beginning of one.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every thread in the bucket.")] = False,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=1, help="Keep this many newest checkpoints of each namespace.")
    ] = None,
    older_than: OlderThanOption = None,
    grace: Annotated[
        timedelta,
        grace_option(
            "How long a large value that nothing refers to any more stays. 0s is for threads whose workers are stopped."
        ),
    ] = GRACE,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
) -> None:
    """Remove old checkpoints of a thread, or of every thread with --all. The newest of a namespace is never removed.

    Say what to keep with --keep-last, --older-than, or both: then a checkpoint goes only if both let it go. What delta
    channels are rebuilt from stays. Namespaces of a subgraph's calls go with the checkpoint that made the call. Safe
    while workers run. Large values that nothing refers to any more are marked, and removed by the next prune that comes
    --grace later.
    """
    check_prune("thread", named=thread is not None, every=every, rules=(keep_last, older_than))
    async with opened(session.settings, grace) as bucket:
        admin = bucket.threads
        if thread is not None:
            thread_id = await bucket.thread(thread)
            with session.counter("pruning"):
                one = await admin.prune(thread_id, keep_last=keep_last, older_than=older_than, dry_run=dry_run)
            report_pruned(session, [one], output, f"thread {thread_id}", {"thread_id": thread_id})
            return
        with session.counter("listing threads") as counter:
            total = len([None async for _ in admin.threads()])
            counter.now("pruning threads", total)
            removed = await admin.prune_all(
                keep_last=keep_last, older_than=older_than, dry_run=dry_run, on_thread=lambda _: counter.add()
            )
    report_pruned(session, removed, output, f"{len(removed):,} threads in {session.where}", {"threads": len(removed)})
