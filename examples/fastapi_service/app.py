"""A service whose runs wait for an approval, and that resumes unfinished runs when it starts.

    pip install 's3-checkpoint' fastapi uvicorn
    S3_CHECKPOINT_BUCKET=my-bucket uvicorn app:app

    curl localhost:8000/runs --json '{"topics": ["tea", "rain"]}'
    curl localhost:8000/runs/RUN-ID
    curl localhost:8000/runs/RUN-ID/approval --json '{"step": 2, "approved": true}'

Any number of instances can run at the same time: two that resume the same run do the same superstep, and one of them
commits it. An instance that is killed loses nothing but the superstep it was at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from s3_checkpoint import (
    END,
    HALT,
    CheckpointError,
    Graph,
    Next,
    RunAdmin,
    S3Checkpointer,
    Send,
    Task,
    connect,
    run_to_end,
)
from s3_checkpoint.object_store import ObjectStore

logger = logging.getLogger("survey")


class Survey(BaseModel):
    """The state of a run."""

    topics: list[str]
    notes: dict[str, str] = {}
    approved: bool | None = None
    text: str = ""


async def plan(state: Survey, task: Task) -> Next:
    """One task per topic; the superstep after them writes."""
    return Next(None, [*(Send("research", topic) for topic in state.topics), "wait"])


async def research(state: Survey, task: Task) -> Next:
    """Where a model or a tool is called. A task can run more than once: hand on `task.idempotency_key`."""
    await asyncio.sleep(0)
    return Next({"notes": {task.payload: f"about {task.payload}"}}, HALT)


async def wait(state: Survey, task: Task) -> Next:
    """Leads to `publish` when all of the superstep is done."""
    return Next(None, "publish")


async def publish(state: Survey, task: Task) -> Next:
    """Runs once the approval is there."""
    text = "; ".join(state.notes[topic] for topic in state.topics) if state.approved else "withdrawn"
    return Next({"text": text}, END)


def apply(state: Survey, update: dict[str, Any]) -> Survey:
    """Notes are gathered; another field is replaced."""
    if "notes" in update:
        update = {"notes": state.notes | update["notes"]}
    return state.model_copy(update=update)


GRAPH = Graph(start="plan", nodes={"plan": plan, "research": research, "wait": wait, "publish": publish}, apply=apply)


class NewRun(BaseModel):
    """The body of `POST /runs`."""

    topics: list[str]


class Approval(BaseModel):
    """The body of `POST /runs/{run_id}/approval`."""

    step: int
    """At which the run waits, as `GET /runs/{run_id}` tells it."""
    approved: bool


class Service:
    """Runs at work in this process."""

    def __init__(self, checkpointer: S3Checkpointer[Survey]) -> None:
        self.checkpointer = checkpointer
        self._tasks: set[asyncio.Task[None]] = set()

    async def resume_unfinished(self) -> None:
        """Starts every run that is neither finished nor waiting; the runs of instances that are gone among them."""
        async for run_id in RunAdmin(self.checkpointer).runs():
            at = await self.checkpointer.resume(run_id)
            if at is not None and {task.node_name for task in at.active}.isdisjoint({END, "publish"}):
                logger.info("resuming run %s at step %d", run_id, at.step)
                self.start(run_id)

    def start(self, run_id: UUID, **arguments: Any) -> None:
        """Works on the run until it ends or waits, while requests are answered."""
        task = asyncio.create_task(self._work(run_id, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, run_id: UUID, arguments: dict[str, Any]) -> None:
        try:
            await run_to_end(self.checkpointer, GRAPH, run_id, interrupt_before=["publish"], **arguments)
        except CheckpointError as error:
            logger.warning("run %s stopped; the next start resumes it: %s", run_id, error)

    async def stop(self) -> None:
        """Cancels what is at work: the next start resumes it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def create_app(store: ObjectStore | None = None) -> FastAPI:
    """The application; with a `store`, instead of the bucket of the settings."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect(Survey, store=store) as checkpointer:  # one client for the whole process
            app.state.service = service = Service(checkpointer)
            await service.resume_unfinished()
            yield
            await service.stop()

    app = FastAPI(lifespan=lifespan)

    @app.post("/runs", status_code=202)
    async def begin(new: NewRun) -> dict[str, UUID]:
        run_id = uuid4()
        app.state.service.start(run_id, initial=Survey(topics=new.topics))
        return {"run_id": run_id}

    @app.get("/runs/{run_id}")
    async def show(run_id: UUID) -> dict[str, Any]:
        at = await app.state.service.checkpointer.resume(run_id)
        if at is None:
            raise HTTPException(404)
        return {"step": at.step, "next": [task.node_name for task in at.active], "state": at.state}

    @app.post("/runs/{run_id}/approval", status_code=202)
    async def approve(run_id: UUID, approval: Approval) -> None:
        """Counts once, however often it is sent: a second answer to the same step is superseded."""
        app.state.service.start(run_id, resume_from=approval.step, update={"approved": approval.approved})

    return app


app = create_app()
