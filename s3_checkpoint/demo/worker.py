"""A worker process: polls the queue as Lambda's event source does, and hands each message to the Lambda handler.

`python -m s3_checkpoint.demo.worker QUEUE_URL`, with the settings of the checkpointer in the environment. It tells what
it does in JSON lines on standard output. After each task it waits for the line `go` on standard input, so that the
stage can kill it in the middle of a superstep for certain. It ends, whatever it is doing, when its input ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import Any, TypeVar
from urllib.parse import urlsplit

from s3_checkpoint.aws_lambda import SqsHandler, sqs_handler
from s3_checkpoint.demo.graph import CENSUS, Census
from s3_checkpoint.graph import Graph, Next, Task

StateT = TypeVar("StateT")

TIME_OUT_S = 20.0
"""What Lambda would be configured with: the longest an invocation may take."""
POLL_S = 1
FIELDS = ("run_id", "step", "outcome", "duration_ms", "request_count", "message_id", "deliveries", "error_code")


def tell(event: str, **fields: object) -> None:
    """One JSON line on standard output."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Gate:
    """Lets tasks pass one by one, as lines come in on standard input."""

    def __init__(self) -> None:
        self._waiting: deque[concurrent.futures.Future[None]] = deque()

    def listen(self) -> None:
        """Lets the task that has waited longest pass at each line; ends the process with the last one."""
        for _ in sys.stdin:
            self._waiting.popleft().set_result(None)
        os._exit(0)

    async def passed(self, task: Task) -> None:
        """Tells of the task, and waits."""
        leave: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._waiting.append(leave)
        tell("task", step=task.step, node=task.node_name, index=task.index)
        await asyncio.wrap_future(leave)


def watched(graph: Graph[StateT], gate: Gate) -> Graph[StateT]:
    """The same graph, each task of which passes the gate when its work is done."""

    def watch(name: str) -> Any:
        async def node(state: StateT, task: Task) -> Next:
            result = await graph.nodes[name](state, task)
            await gate.passed(task)
            return result

        return node

    return Graph(start=graph.start, nodes={name: watch(name) for name in graph.nodes}, apply=graph.apply)


class Teller(logging.Handler):
    """Passes on what the handler logs of each message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tells the structured part, and the text."""
        fields = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        tell("log", text=record.getMessage(), **fields)


class Invocation:
    """The part of Lambda's context that handlers use."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + TIME_OUT_S

    def get_remaining_time_in_millis(self) -> int:
        """Until the invocation would be ended."""
        return int((self._ends - time.monotonic()) * 1000)


def poll(client: Any, queue_url: str, handler: SqsHandler[Any]) -> None:
    """Takes one message, invokes, and deletes it unless the handler reports it as failed; for ever."""
    while True:
        answer = client.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=1, WaitTimeSeconds=POLL_S, AttributeNames=["All"]
        )
        for message in answer.get("Messages", ()):
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
            }
            failed = handler({"Records": [record]}, Invocation())["batchItemFailures"]
            if not failed:
                client.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


def main() -> None:
    """Works until standard input ends."""
    from botocore.session import Session

    from s3_checkpoint._s3.sdk_internals import read_faster

    queue_url = sys.argv[1]
    gate = Gate()
    threading.Thread(target=gate.listen, daemon=True).start()
    logger = logging.getLogger("s3_checkpoint.demo")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Teller())
    # In doubt, a message waits 2 s: longer than these supersteps take.
    handler = sqs_handler(watched(CENSUS, gate), Census, queue_url=queue_url, resend_delay_s=2, logger=logger)
    parts = urlsplit(queue_url)
    session = Session()
    read_faster(session.get_component("data_loader"))
    client = session.create_client(  # the queue is on this machine, and takes any credentials
        "sqs",
        endpoint_url=f"{parts.scheme}://{parts.netloc}",
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",  # noqa: S106
    )
    tell("ready")
    poll(client, queue_url, handler)


if __name__ == "__main__":
    main()
