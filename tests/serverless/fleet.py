"""Many worker processes that start at once: forked, before any thread, from one process that has imported everything.

`python -m tests.serverless.fleet QUEUE_URL` starts a worker for each line on its standard input. Workers tell what they
did in JSON lines on standard output. When the input ends, or this process does, they end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import uuid
from typing import Any

import boto3
from pydantic import BaseModel

import s3_checkpoint._s3.client  # noqa: F401 - imported before the fork
from s3_checkpoint import END, HALT, Graph, Next, Task
from s3_checkpoint.aws_lambda import sqs_handler
from tests.serverless.conftest import KEYS, Context, record_of

LAST = 3
"""The step at which every run is finished."""
WIDTH = 3


class Sum(BaseModel):
    factor: int
    random: bool
    """Whether a superstep that is done twice comes to another content."""
    total: int = 0
    trail: list[str] = []
    """A mark of each task, in the order in which they merged."""

    def mark(self, task: Task) -> str:
        return uuid.uuid4().hex if self.random else task.idempotency_key


async def spread(state: Sum, task: Task) -> Next:
    return Next((0, state.mark(task)), [("work", index + 1) for index in range(WIDTH)])


async def work(state: Sum, task: Task) -> Next:
    assert isinstance(task.payload, int)
    return Next((state.factor * task.payload, state.mark(task)), "join" if task.index == 0 else HALT)


async def join(state: Sum, task: Task) -> Next:
    return Next((0, state.mark(task)), END)


def apply(state: Sum, update: tuple[int, str]) -> Sum:
    return state.model_copy(update={"total": state.total + update[0], "trail": [*state.trail, update[1]]})


GRAPH = Graph(start="spread", nodes={"spread": spread, "work": work, "join": join}, apply=apply)


def tell(**told: object) -> None:
    """A line, at once: a killed worker leaves a whole line or none."""
    os.write(1, (json.dumps(told) + "\n").encode())


class Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told = vars(record)
        if "deliveries" in told:
            names = ("run_id", "step", "outcome", "request_count", "deliveries", "error_code")
            tell(pid=os.getpid(), **{name: told.get(name) for name in names})


def serve(queue_url: str) -> None:
    """One worker: polls, invokes, deletes."""
    parent = os.getppid()
    logger = logging.getLogger("fleet")
    logger.setLevel(logging.INFO)
    logger.addHandler(Teller())
    handler = sqs_handler(GRAPH, Sum, queue_url=queue_url, resend_delay_s=2, logger=logger)
    origin = queue_url[: queue_url.index("/", 8)]
    client: Any = boto3.client("sqs", endpoint_url=origin, region_name="us-east-1", **KEYS)
    while os.getppid() == parent:
        answer = client.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1, AttributeNames=["All"])
        for message in answer.get("Messages", ()):
            if not handler({"Records": [record_of(message)]}, Context.of(30))["batchItemFailures"]:
                client.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


def main() -> None:
    """Forks a worker for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody collects them
    workers = []
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(sys.argv[1])
            finally:
                os._exit(1)
        workers.append(pid)
        tell(started=pid)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
