"""`runs`, `steps`, `show`, `active`, `history`: what is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

import typer
from pydantic import JsonValue
from rich.text import Text

from s3_checkpoint._concurrency.gather import each
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.retention import namespaces_of
from s3_checkpoint._views.run_views import Damaged, StepView
from s3_checkpoint.cli.bucket import OpenBucket, no_steps, opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import (
    LINES_SHOWN,
    Column,
    Format,
    NamespaceOption,
    OutputOption,
    ago,
    as_json,
    chosen,
    cut,
    foreign,
    size,
    styled_json,
    when,
    write_document,
    write_rows,
)
from s3_checkpoint.cli.session import CommandError, Session, command
from s3_checkpoint.models import RunActivity

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the beginning of one.")]
StepOption = Annotated[
    int | None, typer.Option("--step", "-s", min=0, help="Step number.", show_default="the newest step")
]
FullOption = Annotated[bool, typer.Option("--full", help="On a terminal, show all of a long state, in the pager.")]

_STEP = Column("step", "STEP", justify="right", style="bold")
_TIME = Column("last_modified", "STORED", when)
_SIZE = Column("size", "SIZE", size, justify="right")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("runs")(runs)
    app.command("steps")(steps)
    app.command("show")(show)
    app.command("active")(active)
    app.command("history")(history)


@command
async def runs(
    session: Session,
    *,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="With the newest step of each and its time: 2 requests more per run.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after this many.")] = None,
    output: OutputOption = None,
) -> None:
    """List the runs in the bucket."""
    columns = [Column("run_id", "RUN")]
    if long:
        columns += [
            Column("newest_step", "NEWEST STEP", justify="right"),
            Column("last_modified", "STORED", when),
            Column("last_modified", "", ago),
        ]
    async with opened(session.settings) as bucket, aclosing(_runs(bucket, long=long, limit=limit)) as rows:
        if not await write_rows(session, rows, columns, output):
            session.note(f"no runs in {where(session)}")


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


def where(session: Session) -> str:
    """The bucket and prefix, for messages."""
    return f"s3://{session.settings.bucket}/{session.settings.prefix}".rstrip("/")


@command
async def steps(
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
            raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
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
        await write_rows(session, each(rows), [_STEP, _TIME, _SIZE], output)
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


@command
async def show(
    session: Session,
    *,
    run: RunArgument,
    step: StepOption = None,
    full: FullOption = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Show a step of a run, by default the newest: its state, the tasks that run next, and how it was stored."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        view = await bucket.view(keys, step)
    if chosen(session, output, in_pipe=Format.JSON) != Format.TABLE:
        write_document(session, view.as_row(keys.run_id), output)
        return
    for name, value in _facts(keys, view):
        session.out.print(Text.assemble((f"{name:<9}", "bold"), foreign(value)), soft_wrap=True)
    session.out.print()
    _show_json(session, view.state, full=full)


def _facts(keys: RunKeys, view: StepView) -> list[tuple[str, str]]:
    wrote = "commit" if view.committed else "save"
    stored = f"{when(view.last_modified.isoformat())}, {size(view.size)}"
    facts = [
        ("run", str(keys.run_id)),
        ("step", str(view.step)),
        ("stored", f"{stored}, by {wrote}, schema version {view.schema_version}"),
        ("next", ", ".join(task.node_name for task in view.active) or "no active tasks"),
    ]
    if view.origin is not None:
        facts.append(("fork of", f"run {view.origin.run_id}, step {view.origin.step}"))
    return facts


def _show_json(session: Session, value: JsonValue, *, full: bool) -> None:
    """A state on a terminal: in the pager when all of it is asked for, else cut, with a note that says so."""
    lines = as_json(value, indent=True).split("\n")
    if full and len(lines) > session.out.height:
        with session.out.pager(styles=True):
            session.out.print(styled_json("\n".join(lines)))
        return
    shown = [line if full or len(line) <= 2000 else f"{line[:2000]}…" for line in lines]
    if not full and len(shown) > LINES_SHOWN:
        shown = shown[:LINES_SHOWN]
    text = "\n".join(shown)
    session.out.print(styled_json(text) if shown == lines else Text(text), soft_wrap=True)
    if shown != lines:
        session.note(f"cut: {len(shown):,} of {len(lines):,} lines; --full shows all, --output json writes all")


@command
async def active(
    session: Session,
    *,
    run: RunArgument,
    step: StepOption = None,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """List the tasks that run next after a step, by default the newest: node and payload."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        view = await bucket.view(keys, step)
    rows: list[dict[str, JsonValue]] = [task.model_dump(mode="json") for task in view.active]
    columns = [Column("node_name", "NODE"), Column("payload", "PAYLOAD", _one_line)]
    if not await write_rows(session, each(rows), columns, output):
        session.note(f"no active tasks after step {view.step} of run {keys.run_id}")


def _one_line(value: JsonValue) -> str:
    return cut(as_json(value))


@command
async def history(
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
            raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
        wanted = numbers[::-1] if every else numbers[: -limit - 1 : -1]
        columns = [
            _STEP,
            _TIME,
            _SIZE,
            Column("active", "NEXT", lambda tasks: cut(", ".join(task["node_name"] for task in tasks) or "–", 30)),
            Column("state", "STATE", _one_line),
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


def tell_pruned(session: Session, floor: int | None) -> None:
    """Says how far the run has been pruned, if it has been."""
    if floor is not None:
        session.note(f"pruned up to step {floor}: what is not listed up to there was removed, not lost")


def tell_damaged(session: Session, damaged: list[Damaged]) -> ExitCode | None:
    """Names the steps that were left out because they cannot be read; the exit code that says so, or None."""
    for one in damaged:
        session.note(f"left out step {one.step}: {one.error}")
    return ExitCode.UNREADABLE if damaged else None
