"""The function that the runtime interface client runs in tests: counts to four, with trouble on demand, once."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from s3_checkpoint import END, Graph, Next, Task
from s3_checkpoint.aws_lambda import sqs_handler


class Count(BaseModel):
    n: int = 0
    trouble: str = ""
    """What happens the first time a superstep of the run is at work."""
    marker: str = ""
    """A file that is there once it has happened."""
    pids: list[int] = []


async def add(state: Count, task: Task) -> Next:
    """One more."""
    if state.trouble and not await asyncio.to_thread(Path(state.marker).exists):
        await asyncio.to_thread(Path(state.marker).touch)
        if state.trouble == "raises":
            raise RuntimeError("the tool is down")
        if state.trouble == "waits for ever":
            await asyncio.Event().wait()
        if state.trouble == "blocks":
            time.sleep(600)  # noqa: ASYNC251 - a mistake that no cancelling reaches: Lambda has to end it
    return Next(os.getpid(), "add" if state.n < 3 else END)


def apply(state: Count, update: int) -> Count:
    """Keeps who did it."""
    return state.model_copy(update={"n": state.n + 1, "pids": [*state.pids, update]})


handler = sqs_handler(Graph(start="add", nodes={"add": add}, apply=apply), Count, stop_before_s=1)
