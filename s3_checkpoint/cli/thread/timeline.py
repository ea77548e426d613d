"""`thread timeline`: a thread as a picture in the terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer
from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format, NamespaceOption, OutputOption, ThreadArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.drawing import Aside, Entry, change_counts, draw
from s3_checkpoint.cli.output import as_json, chosen, cut, write_long_document
from s3_checkpoint.cli.session import Session, session_command

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import CheckpointView

CHECKPOINTS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Moment:
    """A checkpoint of the timeline and what led to it, without its values."""

    id: str
    parent_id: str | None
    step: int | None
    source: str | None
    entry: Entry
    notes: tuple[Aside, ...]
    """What it waits for, and what failed."""


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many checkpoints back.")] = CHECKPOINTS_SHOWN,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Draw a thread: its checkpoints over time, with size, what changed, the nodes that run next, turns and forks."""
    async with opened(session.settings) as bucket:
        thread_id = await bucket.thread(thread)
        ids = await bucket.threads.checkpoint_ids(thread_id, namespace=namespace)
        if not ids:
            raise await bucket.no_checkpoints(thread_id, namespace)
        history = bucket.threads.history(thread_id, namespace=namespace, limit=limit)
        views = cast("AsyncGenerator[CheckpointView, None]", history)
        if chosen(session, output, in_pipe=Format.TABLE) == Format.TABLE:
            with session.counter("reading checkpoints", min(limit, len(ids))) as counter:
                moments: list[Moment] = []
                async for before, view in _in_pairs(views):
                    moments.append(_moment(before, view))
                    counter.add()
            moments.reverse()
            count = f"{len(ids):,}" if len(moments) == len(ids) else f"last {len(moments):,} of {len(ids):,}"
            draw(session, f"thread {thread_id}: {count} checkpoints", list(_lines(moments)))
        else:
            head: dict[str, JsonValue] = {"thread_id": thread_id, "namespace": namespace, "bucket": session.where}
            await write_long_document(session, head, "checkpoints", _rows(views), _nothing_more, output)
    if limit < len(ids):
        session.note(f"the last {limit} of {len(ids):,} checkpoints; --limit N shows more")


async def _in_pairs(
    views: AsyncGenerator[CheckpointView, None],
) -> AsyncGenerator[tuple[CheckpointView | None, CheckpointView], None]:
    """Each checkpoint, newest first, with its parent if that comes next: two are held at a time."""
    after: CheckpointView | None = None
    async with aclosing(views):
        async for view in views:
            if after is not None:
                yield (view if after.parent_id == view.id else None), after
            after = view
    if after is not None:
        yield None, after


async def _rows(views: AsyncGenerator[CheckpointView, None]) -> AsyncGenerator[dict[str, JsonValue], None]:
    from s3_checkpoint.langgraph.thread_views import changes_between

    async with aclosing(_in_pairs(views)) as pairs:
        async for before, view in pairs:
            changes = changes_between(before, view) if before is not None else []
            yield {**view.as_row(), "changes": [change.as_row(root) for root, change in changes]}


async def _nothing_more() -> dict[str, JsonValue]:
    return {"order": "newest first"}


def _moment(before: CheckpointView | None, view: CheckpointView) -> Moment:
    from s3_checkpoint.langgraph.thread_views import ERROR, asked, changes_between

    changes = changes_between(before, view) if before is not None else []
    nodes = "encrypted" if view.next is None else ", ".join(view.next) or "–"
    name = "–" if view.step is None else str(view.step)
    waits = (
        Aside("?", f"waits: {write.node or 'a task'}: {cut(as_json(value), 120)}", "yellow")
        for write in view.interrupts
        for value in asked(write.value)
    )
    failed = (
        Aside("✗", f"failed: {write.node or 'a task'}: {cut(as_json(write.value), 120)}", "red")
        for write in view.writes
        if write.channel == ERROR
    )
    entry = Entry(name, view.saved_at, view.size, change_counts(changes), cut(nodes, 400))
    return Moment(view.id, view.parent_id, view.step, view.source, entry, (*waits, *failed))


def _lines(moments: list[Moment]) -> Iterator[Entry | Aside]:
    steps = {moment.id: moment.step for moment in moments}
    before: Moment | None = None
    for moment in moments:
        if moment.source in ("input", "update", "fork"):
            yield Aside("→", {"input": "a new turn"}.get(moment.source, moment.source), "cyan")
        if before is not None and moment.parent_id != before.id:
            step = steps.get(moment.parent_id or "")
            origin = f"step {step}" if step is not None else f"checkpoint {moment.parent_id}"
            yield Aside("↳", f"from {origin}" if moment.parent_id else "from nothing", "cyan")
        yield moment.entry
        yield from moment.notes
        before = moment
