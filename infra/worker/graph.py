"""The worker's graph. Put yours here: nodes, a state, and how an update is merged into it.

plan ──> research, once per topic ──> write
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from s3_checkpoint import END, HALT, Graph, Next, Send, Task


class Survey(BaseModel):
    """The state: what to look into, what was found, and in the end the text."""

    topics: list[str] = ["tea", "rain", "trains"]
    notes: dict[str, str] = {}
    text: str = ""


async def plan(state: Survey, task: Task) -> Next:
    """One task per topic; the superstep after them writes."""
    return Next(None, [*(Send("research", topic) for topic in state.topics), "wait"])


async def research(state: Survey, task: Task) -> Next:
    """Stands for a call of a model or a tool: give it `task.idempotency_key`, since a task can run more than once."""
    return Next({"notes": {task.payload: f"a note about {task.payload}"}}, HALT)


async def wait(state: Survey, task: Task) -> Next:
    """Leads to `write`, whose superstep begins when all of these are done."""
    return Next(None, "write")


async def write(state: Survey, task: Task) -> Next:
    """Sums up, and ends the run."""
    return Next({"text": "; ".join(state.notes[topic] for topic in state.topics)}, END)


def apply(state: Survey, update: dict[str, Any]) -> Survey:
    """Notes are gathered; another field is replaced."""
    if "notes" in update:
        update = {"notes": state.notes | update["notes"]}
    return state.model_copy(update=update)


GRAPH = Graph(start="plan", nodes={"plan": plan, "research": research, "wait": wait, "write": write}, apply=apply)
