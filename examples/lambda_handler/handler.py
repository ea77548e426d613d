"""A Lambda function of one's own: a checkpointer per container, one superstep per invocation.

The caller (Step Functions, a schedule, an HTTP client) invokes it with `{"run_id": …, "topics": […]}` until the answer
says `"finished": true`. It may invoke twice, time out, or come back a day later: each superstep is committed once.

For runs that drive themselves by a queue, use `s3_checkpoint.aws_lambda.sqs_handler` instead.
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel

from s3_checkpoint import END, HALT, Graph, Next, Send, SyncS3Checkpointer, Task, run_superstep


class Survey(BaseModel):
    """The state of a run."""

    topics: list[str]
    notes: dict[str, str] = {}


async def plan(state: Survey, task: Task) -> Next:
    """One task per topic."""
    return Next(None, [*(Send("research", topic) for topic in state.topics), "end"])


async def research(state: Survey, task: Task) -> Next:
    """Where a model or a tool is called."""
    return Next({task.payload: f"about {task.payload}"}, HALT)


async def end(state: Survey, task: Task) -> Next:
    """Ends the run when all of the superstep is done."""
    return Next(None, END)


def apply(state: Survey, update: dict[str, str]) -> Survey:
    """Notes are gathered."""
    return state.model_copy(update={"notes": state.notes | update})


GRAPH = Graph(start="plan", nodes={"plan": plan, "research": research, "end": end}, apply=apply)

# Outside the handler: opened by the first invocation, and kept between invocations.
checkpointer = SyncS3Checkpointer(Survey)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """One superstep of the run that the caller names, by any text."""
    run_id = uuid5(NAMESPACE_URL, event["run_id"])
    initial = Survey(topics=event["topics"]) if "topics" in event else None
    at = checkpointer.run(lambda opened: run_superstep(opened, GRAPH, run_id, initial=initial))
    return {"step": at.step, "finished": at.finished, "superseded": at.superseded, "notes": at.state.notes}
