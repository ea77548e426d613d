"""`runs`: which runs there are, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint.cli.arguments import LimitOption, OutputOption, SinceOption
from s3_checkpoint.cli.bucket import OpenBucket, opened
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import Column, ago, cut, when, write_rows
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.run_models import RunActivity, RunStatus

_FINDS = "Implies --long."


@session_command
async def command(
    session: Session,
    *,
    long: Annotated[
        bool,
        typer.Option("--long", "-l", help="With status, next nodes and newest step of each: 2 requests each, or 3."),
    ] = False,
    active: Annotated[bool, typer.Option("--active", help=f"Only runs with tasks that run next. {_FINDS}")] = False,
    status: Annotated[RunStatus | None, typer.Option("--status", help=f"Only runs of this status. {_FINDS}")] = None,
    node: Annotated[
        str | None, typer.Option("--node", help=f"Only runs in which this node runs next. {_FINDS}")
    ] = None,
    since: SinceOption = None,
    waiting_on: Annotated[
        list[str] | None,
        typer.Option(
            "--waiting-on",
            metavar="NODE",
            help=f"A run whose next node this is waits for a human; can be given several times. {_FINDS}",
        ),
    ] = None,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """List the runs in the bucket.

    A run is active while tasks run next, else finished; it is waiting where --waiting-on names a node that runs next.
    """
    if active and status not in (None, RunStatus.ACTIVE):
        raise CommandError(f"--active and --status {status.value if status else ''} exclude each other", ExitCode.USAGE)
    if status == RunStatus.WAITING and not waiting_on:
        raise CommandError("name the nodes at which runs wait: --status waiting --waiting-on NODE", ExitCode.USAGE)
    status = RunStatus.ACTIVE if active else status
    filtered = status is not None or node is not None or since is not None
    long = long or filtered or bool(waiting_on)
    columns = [Column("run_id", "RUN", whole=True)]
    if long:
        columns += [
            Column("newest_step", "NEWEST STEP", justify="right"),
            Column("last_modified", "STORED", when),
            Column("last_modified", "", ago),
            Column("status", "STATUS"),
            Column("next", "NEXT", lambda nodes: cut(", ".join(nodes), 30) or "–"),
        ]
    async with opened(session.settings) as bucket:
        if long:
            activities = bucket.admin.activity(
                waiting_on=waiting_on or (),
                status=status,
                node=node,
                since=datetime.now(UTC) - since if since is not None else None,
            )
            rows = _activities(cast("AsyncGenerator[RunActivity, None]", activities))
        else:
            rows = _ids(bucket)
        if await write_rows(session, rows, columns, output, reading="reading runs", limit=limit):
            return
        if filtered:
            session.note(f"no such runs in {session.where}")
            return
        threads = (await bucket.store.list(threads_prefix(session.settings.prefix), limit=1)).keys
        hint = ", but LangGraph threads: `s3-checkpoint threads` lists them" if threads else ""
        session.note(f"no runs in {session.where}{hint}")


async def _ids(bucket: OpenBucket) -> AsyncGenerator[dict[str, JsonValue], None]:
    async for run_id in bucket.admin.runs():
        yield {"run_id": str(run_id)}


async def _activities(activities: AsyncGenerator[RunActivity, None]) -> AsyncGenerator[dict[str, JsonValue], None]:
    async with aclosing(activities):
        async for activity in activities:
            stored = activity.last_modified
            yield {
                "run_id": str(activity.run_id),
                "status": activity.status.value if activity.status else None,
                "next": None if activity.next_nodes is None else [*activity.next_nodes],
                "newest_step": activity.newest_step,
                "last_modified": stored.isoformat() if stored else None,
            }
