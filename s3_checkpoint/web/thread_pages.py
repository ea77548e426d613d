"""What the page shows of LangGraph threads: as `run_pages` of runs, one namespace at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from pydantic import JsonValue

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph.thread_admin import ThreadAdmin
from s3_checkpoint.langgraph.thread_views import CheckpointView, ThreadActivity, changes_between
from s3_checkpoint.web.page_json import LIVE_STATE_BYTES, exact, fitting_fields, page_json

THREADS_SHOWN = 50
"""Threads of one part of the list."""
CHECKPOINTS_SHOWN = 40
"""Checkpoints of one part of a timeline."""


class ThreadPages:
    """The threads that `admin` sees."""

    def __init__(self, admin: ThreadAdmin) -> None:
        self._admin = admin

    async def threads(self, search: str, after: str) -> dict[str, Any]:
        """The ids of up to `THREADS_SHOWN` threads that begin with `search`, those behind `after`.

        Requests:
            Those of `ThreadAdmin.threads` for one page, or of `ThreadAdmin.find`.
        """
        found = await self._admin.find(search, limit=THREADS_SHOWN) if search else []
        last = None
        if not search:
            async with aclosing(cast("AsyncGenerator[str, None]", self._admin.threads(after=after or None))) as threads:
                async for thread_id in threads:
                    if len(found) == THREADS_SHOWN:
                        last = found[-1]
                        break
                    found.append(thread_id)
        return {"threads": [{"thread_id": thread_id} for thread_id in found], "next": last}

    async def activity(self, ids: Sequence[str]) -> dict[str, Any]:
        """Newest checkpoint, time, next nodes and status of up to `THREADS_SHOWN` threads.

        Requests:
            For each, those of `ThreadAdmin.activity` of one thread.
        """

        async def one(thread_id: str) -> ThreadActivity | None:
            return await anext(self._admin.activity(thread_id), None)

        found = await gather_bounded((one(thread_id) for thread_id in ids[:THREADS_SHOWN]), limit=16)
        return {
            "threads": [
                {
                    "thread_id": activity.thread_id,
                    "step": activity.step,
                    "last_modified": activity.saved_at.isoformat() if activity.saved_at else None,
                    "status": activity.status.value if activity.status else "unknown",
                    "next": [*(activity.next or ())],
                }
                for activity in found
                if activity is not None
            ]
        }

    async def timeline(
        self, thread_id: str, namespace: str, *, after: str | None, before: str | None
    ) -> dict[str, Any]:
        """The last checkpoints of one namespace, oldest first, or those behind or before one.

        Requests:
            Those of `ThreadAdmin.history` for the checkpoints shown and one before them; with neither `after` nor
            `before`, those of `ThreadAdmin.namespaces`.
        """
        views: list[CheckpointView] = []
        found = self._admin.history(thread_id, namespace=namespace, limit=CHECKPOINTS_SHOWN + 1, before=before)
        async with aclosing(cast("AsyncGenerator[CheckpointView, None]", found)) as history:
            async for view in history:
                views.append(view)
                if view.id == after:
                    break
        views.reverse()
        has_earlier = len(views) > CHECKPOINTS_SHOWN or (after is not None and bool(views) and views[0].id == after)
        pairs = list(zip([None, *views], views, strict=False))[1 if has_earlier else 0 :]
        answer: dict[str, Any] = {
            "thread_id": thread_id,
            "namespace": namespace,
            "steps": [_row(earlier, view) for earlier, view in pairs],
            "earlier": has_earlier and after is None,
        }
        if after is None and before is None:
            answer["namespaces"] = await self._admin.namespaces(thread_id)
            if views:
                answer["status"] = views[-1].status.value
        return answer

    async def state(self, thread_id: str, namespace: str, checkpoint_id: str) -> dict[str, Any]:
        """What a checkpoint holds: values, pending writes, metadata; and what its delta channels are rebuilt from."""
        if not checkpoint_id:
            raise InvalidArgumentError("step", "", "must be the id of a checkpoint")
        view = await self._admin.checkpoint(thread_id, checkpoint_id, namespace=namespace)
        if view is None:
            return {"left_out": True, "hint": "This checkpoint is no longer stored."}
        deltas = await self._admin.delta_writes(view)
        held: dict[str, JsonValue] = {
            "values": {**view.values},
            "writes": [write.as_row() for write in view.writes],
            "metadata": view.metadata,
        }
        state = exact(held | ({"delta_channels": deltas} if deltas else {}))
        size = len(page_json(state))
        if size > LIVE_STATE_BYTES:
            hint = f"{size:,} bytes of JSON are too many to be shown; s3-checkpoint thread show writes them"
            return {"left_out": True, "hint": hint}
        return {"state": state}


def _row(earlier: CheckpointView | None, view: CheckpointView) -> dict[str, Any]:
    """A checkpoint as the timeline shows a step."""
    changes = changes_between(earlier, view) if earlier else []
    waiting = [{"node_name": f"waits: {write.node or 'a task'}", "payload": write.value} for write in view.interrupts]
    step = "–" if view.step is None else str(view.step)
    return fitting_fields(
        {
            "id": view.id,
            "label": f"step {step}, {view.source or 'checkpoint'}",
            "short": step,
            "step": step,
            "last_modified": view.saved_at.isoformat(),
            "size": view.size,
            "encoding": None,
            "origin": None,
            "active": [*({"node_name": node, "payload": None} for node in view.next or ()), *waiting],
            "changes": [
                change.as_row(root) | ({"at": ["values", *change.path]} if root == "$" else {})
                for root, change in changes
            ],
            "missing_before": None,
            "pause_s": (view.saved_at - earlier.saved_at).total_seconds() if earlier else 0.0,
            "stored": [
                f"checkpoint {view.id}",
                *([f"parent {view.parent_id}"] if view.parent_id else []),
                *(["encrypted"] if view.encrypted else []),
                f"{len(view.writes)} pending writes",
            ],
        }
    )
