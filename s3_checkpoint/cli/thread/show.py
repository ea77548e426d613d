"""`thread show`: one checkpoint of a thread."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import JsonValue

from s3_checkpoint.cli.arguments import (
    CheckpointOption,
    Format,
    FullOption,
    NamespaceOption,
    OutputOption,
    ThreadArgument,
)
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import as_json, chosen, cut, show_fields, show_json, size, when, write_document
from s3_checkpoint.cli.session import Session, session_command

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import CheckpointView, WriteView

_NAMESPACES_SHOWN = 10


@session_command
async def command(
    session: Session,
    *,
    thread: ThreadArgument,
    checkpoint: CheckpointOption = None,
    full: FullOption = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Show a checkpoint of a thread, by default the newest: values, next nodes, interrupts, pending writes.

    Read without the application: messages and types of its own are their fields, and what has no such form is shown as
    its type and size. Nothing is unpickled. Channels that are rebuilt from writes (delta channels) are shown by those.
    """
    async with opened(session.settings) as bucket:
        thread_id = await bucket.thread(thread)
        found = await bucket.checkpoint_id(thread_id, checkpoint, namespace) if checkpoint is not None else None
        view = await bucket.threads.checkpoint(thread_id, found, namespace=namespace)
        if view is None:
            raise await bucket.no_checkpoints(thread_id, namespace)
        delta = await bucket.threads.delta_writes(view)
        table = chosen(session, output, in_pipe=Format.JSON) == Format.TABLE
        names = await bucket.threads.namespaces(thread_id) if table else []
    if not table:
        status: JsonValue = view.status.value if checkpoint is None else None
        write_document(session, {**view.as_row(), "status": status, "delta": delta}, output)
        return
    show_fields(session, _fields(view, newest=checkpoint is None))
    shown: dict[str, JsonValue] = {**view.values, **{f"{name} (rebuilt from)": value for name, value in delta.items()}}
    show_json(session, shown, full=full)
    others = [name for name in names if name != namespace]
    for name in others[:_NAMESPACES_SHOWN]:
        session.note(
            f"also: --namespace {shlex.quote(name)}" if name else "also: the graph itself, without --namespace"
        )
    if len(others) > _NAMESPACES_SHOWN:
        session.note(f"and {len(others) - _NAMESPACES_SHOWN:,} namespaces more")


def _fields(view: CheckpointView, *, newest: bool) -> Iterator[tuple[str, str]]:
    yield "thread", view.thread_id
    if view.namespace:
        yield "namespace", f" {view.namespace}"
    yield "id", view.id
    yield "parent", view.parent_id or "none: the thread begins here"
    step = "step unknown" if view.step is None else f"step {view.step}"
    yield "saved", f"{when(view.saved_at.isoformat())}, {size(view.size)}, {step}, by {view.source or 'unknown'}"
    if view.encrypted:
        yield "encrypted", " values and next nodes cannot be read without the application's key"
    if newest:
        yield "status", view.status.value
    if view.next is not None:
        yield "next", ", ".join((view.remaining if newest else view.next) or ()) or "no nodes"
    for write in view.writes:
        yield _field(write)


def _field(write: WriteView) -> tuple[str, str]:
    from s3_checkpoint.langgraph.thread_views import ERROR, INTERRUPT, asked

    node, value = write.node or write.task_id, cut(as_json(write.value), 200)
    if write.channel == INTERRUPT:
        return "waits", f"{node}: {', '.join(cut(as_json(one), 200) for one in asked(write.value))}"
    if write.channel == ERROR:
        return "failed", f"{node}: {value}"
    return "written", f"{node} → {write.channel}: {value}"
