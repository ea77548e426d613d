"""`threads`: which LangGraph threads there are, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, cast

import typer
from pydantic import JsonValue

from s3_checkpoint._format.keys import runs_prefix
from s3_checkpoint.cli.arguments import LimitOption, OutputOption, SinceOption
from s3_checkpoint.cli.bucket import OpenBucket, opened
from s3_checkpoint.cli.output import Column, ago, cut, one_line, when, write_rows
from s3_checkpoint.cli.session import Session, session_command


class Status(StrEnum):
    """The statuses of threads, as arguments."""

    INTERRUPTED = "interrupted"
    IN_ERROR = "in-error"
    ACTIVE = "active"
    IDLE = "idle"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"


@session_command
async def command(
    session: Session,
    *,
    long: Annotated[
        bool,
        typer.Option(
            "--long",
            "-l",
            help="With the newest checkpoint of each: status, next nodes, time. At least 2 requests each.",
        ),
    ] = False,
    status: Annotated[
        Status | None,
        typer.Option("--status", help="Only these; interrupted: a human's answer is waited for. Implies --long."),
    ] = None,
    node: Annotated[
        str | None, typer.Option("--node", help="Only those in which this node runs next. Implies --long.")
    ] = None,
    since: SinceOption = None,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """List LangGraph's threads in the bucket. Read without the application: no type of its own is imported."""
    long = long or status is not None or node is not None or since is not None
    columns = [Column("thread_id", "THREAD", whole=True)]
    if long:
        columns += [
            Column("status", "STATUS"),
            Column("next", "NEXT", lambda nodes: cut(", ".join(nodes), 30) or "–"),
            Column("waits_for", "WAITS FOR", _waits),
            Column("step", "STEP", justify="right"),
            Column("saved_at", "SAVED", when),
            Column("saved_at", "", ago),
        ]

    def wanted(row: dict[str, Any]) -> bool:
        saved = row["saved_at"]
        return (
            (status is None or row["status"] == status.value.replace("-", " "))
            and (node is None or node in (row["next"] or ()))
            and (since is None or (saved is not None and datetime.now(UTC) - datetime.fromisoformat(saved) <= since))
        )

    async with opened(session.settings) as bucket:
        looked_at = 0

        async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
            nonlocal looked_at
            async with aclosing(_rows(bucket, long=long)) as all_rows:
                async for row in all_rows:
                    looked_at += 1
                    if not long or wanted(row):
                        yield row

        count = await write_rows(session, rows(), columns, output, reading="reading threads", limit=limit)
        if not looked_at:
            await _say_empty(session, bucket)
        elif long and count < looked_at and limit is None:
            session.note(f"{count:,} of {looked_at:,} threads")


async def _rows(bucket: OpenBucket, *, long: bool) -> AsyncGenerator[dict[str, JsonValue], None]:
    if long:
        async with aclosing(cast("AsyncGenerator[Any, None]", bucket.threads.activity())) as activities:
            async for activity in activities:
                yield activity.as_row()
        return
    async with aclosing(cast("AsyncGenerator[str, None]", bucket.threads.threads())) as ids:
        async for thread_id in ids:
            yield {"thread_id": thread_id}


def _waits(values: list[JsonValue]) -> str:
    return one_line(values[0] if len(values) == 1 else [*values]) if values else "–"


async def _say_empty(session: Session, bucket: OpenBucket) -> None:
    runs = (await bucket.store.list(runs_prefix(session.settings.prefix), limit=1)).keys
    session.note(f"no threads in {session.where}" + (", but runs: `s3-checkpoint runs` lists them" if runs else ""))
