"""`usage`: what is stored, and what it costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3_checkpoint._format.memory_keys import memories_prefix
from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint._runs.retention import objects_under
from s3_checkpoint.cli.agent_session.finding import sessions_in
from s3_checkpoint.cli.arguments import Format, OutputOption
from s3_checkpoint.cli.bucket import THREADS_EXTRA, OpenBucket, opened
from s3_checkpoint.cli.exit_codes import CommandError
from s3_checkpoint.cli.output import Column, ago, chosen, size, write_rows
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.run_models import RunUsage

if TYPE_CHECKING:
    from s3_checkpoint.claude import SessionInfo
    from s3_checkpoint.langgraph import ThreadUsage

PRICE = 0.023
_NAMES = {"session": "sessions", "memories": "memories"}
"""How those kinds are counted in the total that not every bucket has."""
Rows = AsyncGenerator[dict[str, Any], None]


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
                total[row["kind"]] += row["objects"] if row["kind"] == "memories" else 1
                total["objects"] += row["objects"]
                total["bytes"] += row["bytes"]
                yield {**row, "usd_per_month": row["bytes"] / 1e9 * price}

    async with opened(session.settings) as bucket:
        kinds: dict[str, tuple[Rows, list[Column]]] = {
            "runs": (_runs(bucket), [Column("run_id", "RUN", whole=True), Column("steps", "STEPS", justify="right")]),
            "threads": (_threads(session, bucket), [Column("thread_id", "THREAD", whole=True)]),
            "sessions": (
                _sessions(session, bucket),
                [Column("session_id", "SESSION", whole=True), Column("project_key", "PROJECT")],
            ),
            "memories": (_memories(bucket), [Column("kind", "KIND", whole=True)]),
        }
        if chosen(session, output) == Format.TABLE:
            for kind, (rows, columns) in kinds.items():
                found = await write_rows(session, counted(rows), [*columns, *costs], output, reading=f"listing {kind}")
                if found and kind != "memories":
                    session.out.print()
        else:
            every = counted(_all(*(rows for rows, _ in kinds.values())))
            await write_rows(session, every, [], output, reading="listing")
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


def _row(one: RunUsage | ThreadUsage | SessionInfo, **names: object) -> dict[str, Any]:
    return {**names, "objects": one.objects, "bytes": one.bytes, "last_modified": one.last_modified.isoformat()}


async def _runs(bucket: OpenBucket) -> Rows:
    async for one in bucket.admin.usage():
        yield _row(one, kind="run", run_id=str(one.run_id), steps=one.steps)


async def _threads(session: Session, bucket: OpenBucket) -> Rows:
    """One row for each thread; without LangGraph's package, one for all of them."""
    prefix = threads_prefix(session.settings.prefix)
    if not (await bucket.store.list(prefix, limit=1)).keys:
        return
    try:
        admin = bucket.threads
    except CommandError:
        session.note(f"threads are counted together; to tell them apart: pip install '{THREADS_EXTRA}'")
        async for together in _together(bucket, prefix):
            yield {"kind": "thread", "thread_id": None, **together}
        return
    async for one in admin.usage():
        yield _row(one, kind="thread", thread_id=one.thread_id)


async def _sessions(session: Session, bucket: OpenBucket) -> Rows:
    async for one in sessions_in(session, bucket).sessions():
        yield _row(one, kind="session", project_key=one.project_key, session_id=one.session_id)


async def _memories(bucket: OpenBucket) -> Rows:
    """One row for all items of long-term memory; none without any."""
    async for together in _together(bucket, memories_prefix(bucket.checkpointer.prefix)):
        yield {"kind": "memories", **together}


async def _together(bucket: OpenBucket, prefix: str) -> Rows:
    """One row for all objects under `prefix`; none without any."""
    found = [listed async for listed in objects_under(bucket.store, prefix)]
    if found:
        yield {
            "objects": len(found),
            "bytes": sum(listed.size for listed in found),
            "last_modified": max(listed.last_modified for listed in found).isoformat(),
        }


def _dollars(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 1 else f"{amount:.6f}"
