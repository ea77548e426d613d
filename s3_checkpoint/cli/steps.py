"""`steps`: when each step of a run was stored."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import JsonValue

from s3_checkpoint._concurrency.gather import each
from s3_checkpoint._runs.retention import namespaces_of
from s3_checkpoint.cli.arguments import LINES_SHOWN, Format, NamespaceOption, OutputOption, RunArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import SIZE, STEP, STORED, chosen, size, write_rows
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    every: Annotated[bool, typer.Option("--all", help=f"On a terminal, more than the last {LINES_SHOWN}.")] = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """List the steps of a run, oldest first: when each was stored, and how big it is; and its subgraphs' namespaces."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        infos = await bucket.checkpointer.index.infos(keys)
        if not infos:
            raise await bucket.no_steps(keys)
        shown = infos[-LINES_SHOWN:] if session.out.is_terminal and output is None and not every else infos
        rows: list[dict[str, JsonValue]] = [
            {
                "run_id": str(keys.run_id),
                "step": info.step,
                "last_modified": info.last_modified.isoformat(),
                "size": info.size,
            }
            for info in shown
        ]
        await write_rows(session, each(rows), [STEP, STORED, SIZE], output)
        if chosen(session, output) == Format.TABLE:
            total = sum(info.size for info in infos)
            session.note(f"run {keys.run_id}: {len(infos):,} steps, {size(total)}")
            if len(shown) < len(infos):
                session.note(f"cut: the last {len(shown)} of {len(infos):,} steps; --all shows all")
            for name in await namespaces_of(bucket.store, keys):
                if name != namespace:
                    session.note(
                        f"also: --namespace {name!r}" if name else "also: the graph itself, without --namespace"
                    )
