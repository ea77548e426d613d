"""`thread history`: back through a thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, cast

import typer
from pydantic import JsonValue

from s3_checkpoint.cli.arguments import NamespaceOption, OutputOption, ThreadArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import SIZE, Column, cut, one_line, when, write_rows
from s3_checkpoint.cli.session import Session, session_command

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import CheckpointView


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many checkpoints back.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="Back to the first checkpoint.")] = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Go back through a thread, newest checkpoint first: time, size, next nodes and values of each."""
    columns = [
        Column("checkpoint_id", "CHECKPOINT", whole=True),
        Column("step", "STEP", justify="right", style="bold"),
        Column("source", "SOURCE"),
        Column("saved_at", "SAVED", when),
        SIZE,
        Column("next", "NEXT", lambda nodes: cut(", ".join(nodes) or "–", 30)),
        Column("values", "VALUES", one_line),
    ]
    async with opened(session.settings) as bucket:
        thread_id = await bucket.thread(thread)
        views = bucket.threads.history(thread_id, namespace=namespace, limit=None if every else limit + 1)
        more = [False]

        async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
            count = 0
            async with aclosing(cast("AsyncGenerator[CheckpointView, None]", views)) as found:
                async for view in found:
                    if count == limit and not every:
                        more[0] = True
                        return
                    yield view.as_row()
                    count += 1

        if not await write_rows(session, rows(), columns, output, reading="reading checkpoints"):
            raise await bucket.no_checkpoints(thread_id, namespace)
        if more[0]:
            total = len(await bucket.threads.checkpoint_ids(thread_id, namespace=namespace))
            session.note(f"{limit} of {total:,} checkpoints; --all shows all, --limit N more")
