"""`runs`: which runs there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint.cli.arguments import OutputOption
from s3_checkpoint.cli.bucket import OpenBucket, opened
from s3_checkpoint.cli.output import Column, ago, when, write_rows
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.models import RunActivity


@session_command
async def command(
    session: Session,
    *,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="With the newest step of each and its time: 2 requests more per run.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after this many.")] = None,
    output: OutputOption = None,
) -> None:
    """List the runs in the bucket."""
    columns = [Column("run_id", "RUN", whole=True)]
    if long:
        columns += [
            Column("newest_step", "NEWEST STEP", justify="right"),
            Column("last_modified", "STORED", when),
            Column("last_modified", "", ago),
        ]
    async with opened(session.settings) as bucket, aclosing(_runs(bucket, long=long, limit=limit)) as rows:
        if not await write_rows(session, rows, columns, output):
            threads = (await bucket.store.list(threads_prefix(session.settings.prefix), limit=1)).keys
            hint = ", but LangGraph threads: `s3-checkpoint threads` lists them" if threads else ""
            session.note(f"no runs in {session.where}{hint}")


async def _runs(bucket: OpenBucket, *, long: bool, limit: int | None) -> AsyncGenerator[dict[str, JsonValue], None]:
    count = 0
    if not long:
        async for run_id in bucket.admin.runs():
            yield {"run_id": str(run_id)}
            count += 1
            if count == limit:
                return
        return
    activities = cast("AsyncGenerator[RunActivity, None]", bucket.admin.activity())
    async with aclosing(activities):
        async for activity in activities:
            stored = activity.last_modified
            yield {
                "run_id": str(activity.run_id),
                "newest_step": activity.newest_step,
                "last_modified": stored.isoformat() if stored else None,
            }
            count += 1
            if count == limit:
                return
