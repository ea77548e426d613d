"""What the page shows of runs: lists by parts, statuses for what is shown, timelines without their states."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.keys import MAX_STEP, RunKeys, check_run_id, check_step, parse_run_prefix, runs_prefix
from s3_checkpoint._runs.retention import namespaces_of
from s3_checkpoint._runs.step_listing import page_from
from s3_checkpoint._views.run_views import Damaged, RunViews, fork_rows, timeline_row
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.web.page_json import LIVE_STATE_BYTES, exact, fitting_fields, page_json

RUNS_SHOWN = 50
"""Runs of one part of the list: 1 LIST."""
STEPS_SHOWN = 40
"""Steps of one part of a timeline: 1 GET each."""


class RunPages:
    """The runs that `checkpointer`, whose state type is any JSON, sees; one with a node of `waiting_on` next waits."""

    def __init__(
        self, checkpointer: S3Checkpointer[Any], max_state_bytes: int, *, waiting_on: Collection[str] = ()
    ) -> None:
        self._checkpointer = checkpointer
        self._waiting_on = waiting_on
        self.store: ObjectStore = checkpointer.objects.store
        self._admin: RunAdmin[Any] = RunAdmin(checkpointer)
        self._views = RunViews(checkpointer, max_state_bytes)

    async def runs(self, search: str, after: str) -> dict[str, Any]:
        """The ids of up to `RUNS_SHOWN` runs that begin with `search`, those greater than `after`.

        Requests:
            1 LIST, at any number of runs.
        """
        prefix = self._checkpointer.prefix
        head = runs_prefix(prefix)
        begins = search.strip().lower()
        if not all(char in "0123456789abcdef-" for char in begins) or len(begins) > 36:
            return {"runs": [], "next": None}
        # "0" follows "/": behind everything under the last run shown.
        start_after = f"{head}{check_run_id(after)}0" if after else ""
        page = await self.store.list(head + begins, start_after=start_after, delimiter="/", limit=RUNS_SHOWN)
        found = [str(run_id) for group in page.prefixes if (run_id := parse_run_prefix(prefix, group)) is not None]
        return {"runs": [{"run_id": run_id} for run_id in found], "next": found[-1] if page.next_token else None}

    async def activity(self, ids: Sequence[str]) -> dict[str, Any]:
        """Newest step, time, next nodes and status of up to `RUNS_SHOWN` runs.

        Requests:
            For each, those of `RunAdmin.activity_of`.
        """
        calls = (self._admin.activity_of(run_id, waiting_on=self._waiting_on) for run_id in ids[:RUNS_SHOWN])
        return {
            "runs": [
                {
                    "run_id": str(one.run_id),
                    "newest_step": exact(one.newest_step),
                    "last_modified": one.last_modified.isoformat() if one.last_modified else None,
                    "status": one.status.value if one.status else "unknown",
                    "next": [*(one.next_nodes or ())],
                }
                for one in await gather_bounded(calls, limit=16)
            ]
        }

    async def timeline(
        self, run_id: str, namespace: str, *, after: str | None, before: str | None, around: str | None
    ) -> dict[str, Any]:
        """A part of a run's timeline, oldest first: the last steps, or those behind, before or around a step.

        Requests:
            Those of finding the steps; 1 GET per step shown, and 1 for the one before (2 where the tasks are not
            inline). With neither `after` nor `before`, the LISTs of the floor and of the namespaces.
        """
        run = self._keys(run_id, namespace)
        numbers = await self._numbers(run, after=after, before=before, around=around)
        first_shown = 1 if after is not None or len(numbers) > STEPS_SHOWN else 0
        damaged: list[Damaged] = []
        rows = []
        async with aclosing(self._views.pairs(run, numbers, damaged)) as pairs:
            async for earlier, view in pairs:
                row = timeline_row(run, earlier, view)
                del row["state"]
                rows.append(fitting_fields(row))
        shown = [row for row in rows if not (first_shown and row["step"] == exact(numbers[0]))]
        answer: dict[str, Any] = {
            "run_id": str(run.run_id),
            "namespace": run.namespace,
            "steps": shown,
            "earlier": bool(first_shown) and after is None,
            "damaged": [{"step": exact(one.step), "error": str(one.error)} for one in damaged],
        }
        if after is None and before is None:
            answer["pruned_up_to"] = exact(await self._checkpointer.index.floor(run))
            answer["namespaces"] = await namespaces_of(self.store, self._keys(run_id, ""))
        return answer

    async def state(self, run_id: str, namespace: str, step: str) -> dict[str, Any]:
        """The state of a step, or where to download it if it is too large to be shown. 1 GET, as a rule."""
        run, number = self._keys(run_id, namespace), _step(step)
        view = await self._views.step(run, number)
        if view is None:
            return {"left_out": True, "hint": "This step is no longer stored."}
        value = exact(view.state)
        href = f"/api/run/download?id={run.run_id}&namespace={quote(namespace, safe='')}&step={number}"
        size = len(page_json(value))
        if size > LIVE_STATE_BYTES:
            hint = f"{size:,} bytes of JSON are too many to be shown; download it."
            return {"left_out": True, "hint": hint, "href": href}
        return {"state": value}

    async def download(self, run_id: str, namespace: str, step: str) -> tuple[str, str]:
        """A file name, and the state as JSON. 1 GET, as a rule."""
        run, number = self._keys(run_id, namespace), _step(step)
        view = await self._views.step(run, number)
        if view is None:
            raise InvalidArgumentError("step", step[:80], "is not stored")
        return f"{run.run_id}-{number}.json", page_json(view.state)

    async def forks(self, run_id: str) -> dict[str, Any]:
        """The forks of a run, among the first runs; see `RunViews.forks` for the requests."""
        found, searched = await self._views.forks(check_run_id(run_id))
        return {"forks": exact(fork_rows(found)), "searched": searched}  # type: ignore[arg-type]

    async def _numbers(self, run: RunKeys, *, after: str | None, before: str | None, around: str | None) -> list[int]:
        """The steps to be read, ascending: those to be shown, and the one before them if there is one."""
        most = STEPS_SHOWN + 1
        if not self.store.ordered:
            return _part(await self._checkpointer.index.steps(run), most, after=after, before=before, around=around)
        if after is not None:
            return (await page_from(self.store, run, _step(after), limit=most)).steps[:most]
        if around is not None and around.isascii() and around.isdigit():
            first = max(0, min(int(around), MAX_STEP) - STEPS_SHOWN // 2)
            found = (await page_from(self.store, run, first, limit=most)).steps[:most]
            if len(found) == most:
                return found
        end = None if before is None else _step(before)
        steps: list[int] = []
        async with aclosing(self._checkpointer.index.backwards(run)) as backwards:
            async for step in backwards:
                if end is None or step < end:
                    steps.append(step)
                if len(steps) == most:
                    break
        return steps[::-1]

    def _keys(self, run_id: str, namespace: str) -> RunKeys:
        return RunKeys(self._checkpointer.prefix, check_run_id(run_id), namespace)


def _step(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_STEP))):
        raise InvalidArgumentError("step", repr(text)[:80], "must be a number")
    return check_step(int(text))


def _part(steps: list[int], most: int, *, after: str | None, before: str | None, around: str | None) -> list[int]:
    """The same of all steps of the run: of a directory bucket, which lists in no order."""
    if after is not None:
        from_here = _step(after)
        return [step for step in steps if step >= from_here][:most]
    end = len(steps)
    if before is not None:
        end = sum(step < _step(before) for step in steps)
    elif around is not None and around.isascii() and around.isdigit():
        end = min(len(steps), sum(step <= int(around) for step in steps) + STEPS_SHOWN // 2)
    return steps[max(0, end - most) : end]
