"""`usage`: what is stored, and what it costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer
from pydantic import JsonValue

from s3_checkpoint._format.memory_keys import memories_prefix
from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint._runs.retention import objects_under
from s3_checkpoint.cli.agent_session.finding import sessions_in
from s3_checkpoint.cli.arguments import Format, OutputOption
from s3_checkpoint.cli.bucket import THREADS_EXTRA, OpenBucket, opened
from s3_checkpoint.cli.exit_codes import CommandError
from s3_checkpoint.cli.output import Column, ago, chosen, size, write_rows
from s3_checkpoint.cli.session import Session, session_command

PRICE = 0.023
_NAMES = {"session": "sessions", "memories": "memories"}
"""How those kinds are counted in the total that not every bucket has."""
Rows = AsyncGenerator[dict[str, JsonValue], None]


@session_command
async def command(
    session: Session,
    *,
    price: Annotated[
        float,
        typer.Option("--price", min=0, help="US dollars per GB and month; the default is S3 Standard in us-east-1."),
    ] = PRICE,
    output: OutputOption = None,
) -> None:
    """Show what each run, LangGraph thread and agent session takes in the bucket, all memories, and the cost a month.

    Storage of current versions only: requests, transfer, and noncurrent versions of a versioned bucket come on top.
    1 LIST per 1,000 objects, and 2 for each project of the Claude Agent SDK.
    """
    costs = [
        Column("objects", "OBJECTS", justify="right"),
        Column("bytes", "SIZE", size, justify="right"),
        Column("usd_per_month", "$/MONTH", _dollars, justify="right"),
        Column("last_modified", "LAST WRITE", ago, justify="right"),
    ]
    total = {"run": 0, "thread": 0, "session": 0, "memories": 0, "objects": 0, "bytes": 0}

    async def counted(rows: Rows) -> Rows:
        async with aclosing(rows):
            async for row in rows:
                kind, objects, stored = row["kind"], row["objects"], row["bytes"]
                assert isinstance(kind, str)  # noqa: S101 - as the functions below make them
                assert isinstance(objects, int)  # noqa: S101
                assert isinstance(stored, int)  # noqa: S101
                total[kind] += objects if kind == "memories" else 1
                total["objects"] += objects
                total["bytes"] += stored
                yield {**row, "usd_per_month": stored / 1e9 * price}

    async with opened(session.settings) as bucket:
        runs, threads = counted(_runs(bucket)), counted(_threads(session, bucket))
        sessions, memories = counted(_sessions(session, bucket)), counted(_memories(session, bucket))
        if chosen(session, output) == Format.TABLE:
            columns = [Column("run_id", "RUN", whole=True), Column("steps", "STEPS", justify="right"), *costs]
            if await write_rows(session, runs, columns, output, reading="listing runs"):
                session.out.print()
            columns = [Column("thread_id", "THREAD", whole=True), *costs]
            if await write_rows(session, threads, columns, output, reading="listing threads"):
                session.out.print()
            columns = [Column("session_id", "SESSION", whole=True), Column("project_key", "PROJECT"), *costs]
            if await write_rows(session, sessions, columns, output, reading="listing sessions"):
                session.out.print()
            columns = [Column("kind", "KIND", whole=True), *costs]
            await write_rows(session, memories, columns, output, reading="listing memories")
        else:
            await write_rows(session, _all(runs, threads, sessions, memories), [], output, reading="listing")
    others = "".join(f"{total[kind]:,} {name}, " for kind, name in _NAMES.items() if total[kind])
    session.note(
        f"{session.where}: {total['run']:,} runs, {total['thread']:,} threads, {others}{total['objects']:,} objects, "
        f"{size(total['bytes'])}, about ${_dollars(total['bytes'] / 1e9 * price)} a month for storage "
        f"at ${price} per GB"
    )


async def _all(*kinds: Rows) -> Rows:
    for rows in kinds:
        async with aclosing(rows):
            async for row in rows:
                yield row


async def _runs(bucket: OpenBucket) -> Rows:
    async for one in bucket.admin.usage():
        yield {
            "kind": "run",
            "run_id": str(one.run_id),
            "steps": one.steps,
            "objects": one.objects,
            "bytes": one.bytes,
            "last_modified": one.last_modified.isoformat(),
        }


async def _threads(session: Session, bucket: OpenBucket) -> Rows:
    """One row for each thread; without LangGraph's package, one for all of them."""
    prefix = threads_prefix(session.settings.prefix)
    if not (await bucket.store.list(prefix, limit=1)).keys:
        return
    try:
        admin = bucket.threads
    except CommandError:
        found = [listed async for listed in objects_under(bucket.store, prefix)]
        session.note(f"threads are counted together; to tell them apart: pip install '{THREADS_EXTRA}'")
        yield {
            "kind": "thread",
            "thread_id": None,
            "objects": len(found),
            "bytes": sum(listed.size for listed in found),
            "last_modified": max(listed.last_modified for listed in found).isoformat(),
        }
        return
    async for one in admin.usage():
        yield {
            "kind": "thread",
            "thread_id": one.thread_id,
            "objects": one.objects,
            "bytes": one.bytes,
            "last_modified": one.last_modified.isoformat(),
        }


async def _sessions(session: Session, bucket: OpenBucket) -> Rows:
    async for one in sessions_in(session, bucket).sessions():
        yield {
            "kind": "session",
            "project_key": one.project_key,
            "session_id": one.session_id,
            "objects": one.objects,
            "bytes": one.bytes,
            "last_modified": one.last_modified.isoformat(),
        }


async def _memories(session: Session, bucket: OpenBucket) -> Rows:
    """One row for all items of long-term memory; none without any."""
    found = [listed async for listed in objects_under(bucket.store, memories_prefix(session.settings.prefix))]
    if found:
        yield {
            "kind": "memories",
            "objects": len(found),
            "bytes": sum(listed.size for listed in found),
            "last_modified": max(listed.last_modified for listed in found).isoformat(),
        }


def _dollars(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 1 else f"{amount:.6f}"
