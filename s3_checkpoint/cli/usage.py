"""`usage`: what is stored, and what it costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

import typer
from pydantic import JsonValue

from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint._runs.retention import objects_under
from s3_checkpoint.cli.arguments import OutputOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import Column, ago, size, write_rows
from s3_checkpoint.cli.session import Session, session_command

PRICE = 0.023


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
    """Show what each run takes in the bucket, and LangGraph's threads together, and what storing it costs a month.

    Storage of current versions only: requests, transfer, and noncurrent versions of a versioned bucket come on top.
    """
    columns = [
        Column("run_id", "RUN"),
        Column("steps", "STEPS", justify="right"),
        Column("objects", "OBJECTS", justify="right"),
        Column("bytes", "SIZE", size, justify="right"),
        Column("usd_per_month", "$/MONTH", _dollars, justify="right"),
        Column("last_modified", "LAST WRITE", ago, justify="right"),
    ]
    total = {"runs": 0, "objects": 0, "bytes": 0}
    async with opened(session.settings) as bucket:

        async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
            async for one in bucket.admin.usage():
                total["runs"] += 1
                total["objects"] += one.objects
                total["bytes"] += one.bytes
                yield {
                    "run_id": str(one.run_id),
                    "steps": one.steps,
                    "objects": one.objects,
                    "bytes": one.bytes,
                    "usd_per_month": one.bytes / 1e9 * price,
                    "last_modified": one.last_modified.isoformat(),
                }

        await write_rows(session, rows(), columns, output)
        threads = threads_prefix(session.settings.prefix)
        sizes = [listed.size async for listed in objects_under(bucket.store, threads)]
    if sizes:
        session.note(f"LangGraph threads: {len(sizes):,} objects, {size(sum(sizes))}")
    stored = total["bytes"] + sum(sizes)
    session.note(
        f"{session.where}: {total['runs']:,} runs, {total['objects'] + len(sizes):,} objects, {size(stored)}, "
        f"about ${_dollars(stored / 1e9 * price)} a month for storage at ${price} per GB"
    )


def _dollars(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 1 else f"{amount:.6f}"
