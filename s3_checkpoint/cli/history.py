"""`history`: back through a run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer
from pydantic import JsonValue

from s3_checkpoint._views.run_views import Damaged
from s3_checkpoint.cli.arguments import NamespaceOption, OutputOption, RunArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import SIZE, STEP, STORED, Column, cut, one_line, write_rows
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.cli.step_notes import tell_damaged, tell_pruned


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many steps back.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="Back to the first step.")] = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Go back through a run, newest step first: time, size, active tasks and state of each."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        numbers = await bucket.checkpointer.index.steps(keys)
        if not numbers:
            raise await bucket.no_steps(keys)
        wanted = numbers[::-1] if every else numbers[: -limit - 1 : -1]
        columns = [
            STEP,
            STORED,
            SIZE,
            Column("active", "NEXT", lambda tasks: cut(", ".join(task["node_name"] for task in tasks) or "–", 30)),
            Column("state", "STATE", one_line),
        ]
        damaged: list[Damaged] = []

        async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
            async with aclosing(bucket.views.steps(keys, wanted)) as views:
                async for view in views:
                    if isinstance(view, Damaged):
                        damaged.append(view)
                    else:
                        yield view.as_row(keys.run_id)

        await write_rows(session, rows(), columns, output)
        floor = await bucket.checkpointer.index.floor(keys)
    if len(wanted) < len(numbers):
        session.note(f"{len(wanted)} of {len(numbers):,} steps; --all shows all, --limit N more")
    tell_pruned(session, floor)
    return tell_damaged(session, damaged)
