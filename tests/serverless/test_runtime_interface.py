"""The handler under the real Lambda runtime interface client: cold, warm, raising, and out of time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from s3_checkpoint import S3Settings, SyncS3Checkpointer
from s3_checkpoint.superstep_queue import SuperstepMessage
from tests.serverless.conftest import Queue
from tests.serverless.lambda_app import Count
from tests.serverless.runtime_api import Function, Invocation

pytest.importorskip("awslambdaric")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the client is for Linux")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def function(settings: S3Settings, sqs: Any, queue: Queue, log: Path) -> Iterator[Function]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "S3_CHECKPOINT_QUEUE_URL": queue.url,
    }
    with log.open("wb") as stream:
        running = Function("tests.serverless.lambda_app.handler", environment, log=stream)
        yield running
        running.close()


@pytest.fixture
def stored(settings: S3Settings) -> Iterator[SyncS3Checkpointer[Count]]:
    with SyncS3Checkpointer(Count, settings) as checkpointer:
        yield checkpointer


def lines(log: Path) -> list[dict[str, Any]]:
    """What the function logged of our own, as CloudWatch would get it."""
    found = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return [line for line in found if "outcome" in line]


def carry_on(function: Function, queue: Queue, *, until: int = 20, time_out_s: float = 30) -> list[Invocation]:
    """Invokes for each message, and deletes those that did not fail, as the event source does."""
    made: list[Invocation] = []
    while len(made) < until and (records := queue.receive()):
        invocation = function.invoke({"Records": records}, time_out_s=time_out_s)
        made.append(invocation)
        if invocation.kind == "response" and not invocation.answer["batchItemFailures"]:
            queue.delete(records[0])
        else:  # its visibility time-out has passed
            queue.client.change_message_visibility(
                QueueUrl=queue.url, ReceiptHandle=records[0]["receiptHandle"], VisibilityTimeout=0
            )
    return made


def begin(queue: Queue, **state: Any) -> UUID:
    run_id = uuid4()
    queue.send(SuperstepMessage.begin(run_id, Count(**state)).model_dump_json())
    return run_id


def test_one_cold_start_then_warm_invocations_on_one_client(
    function: Function, queue: Queue, log: Path, stored: SyncS3Checkpointer[Count]
) -> None:
    run_id = begin(queue, n=0)

    made = carry_on(function, queue)

    assert [invocation.kind for invocation in made] == ["response"] * 5
    assert function.started == 1
    state = stored.load(run_id)
    assert state is not None
    assert state.pids == [made[0].pid] * 4
    told = lines(log)
    assert [line["outcome"] for line in told] == ["opened", *["committed"] * 4, "finished"]
    assert [line["request_count"] for line in told[1:]] == [3, 4, 4, 4, 4]
    assert {line["run_id"] for line in told[1:]} == {str(run_id)}
    assert {line["requestId"] for line in told[1:]} == {invocation.request_id for invocation in made}


def test_an_invocation_that_raises_leaves_the_next_one_a_working_client(
    function: Function, queue: Queue, log: Path, stored: SyncS3Checkpointer[Count], tmp_path: Path
) -> None:
    """What is no SQS event fails the invocation; a task that raises fails its message, which comes again."""
    run_id = begin(queue, trouble="raises", marker=str(tmp_path / "raised"))
    first = carry_on(function, queue, until=1)

    no_event = function.invoke({"source": "aws.events"})
    rest = carry_on(function, queue)

    assert first[0].kind == "response"
    assert no_event.kind == "error"
    assert no_event.answer["errorType"] == "InvalidArgumentError"
    failures = [invocation.answer["batchItemFailures"] for invocation in rest]
    assert [len(failed) for failed in failures] == [1, 0, 0, 0, 0]
    assert function.started == 1
    assert [line["outcome"] for line in lines(log)].count("opened") == 1
    state = stored.load(run_id)
    assert state is not None
    assert state.n == 4
    failed_line = next(line for line in lines(log) if line["outcome"] == "failed")
    assert failed_line["run_id"] == str(run_id)
    assert failed_line["errorType"] == "RuntimeError"


def test_a_superstep_that_waits_too_long_is_given_back_in_time(
    function: Function, queue: Queue, log: Path, stored: SyncS3Checkpointer[Count], tmp_path: Path
) -> None:
    """The function answers before its deadline, so Lambda has nothing to end, and stays warm."""
    run_id = begin(queue, trouble="waits for ever", marker=str(tmp_path / "waited"))
    carry_on(function, queue, until=1)

    late = carry_on(function, queue, until=1, time_out_s=3)
    rest = carry_on(function, queue)

    assert late[0].kind == "response"
    assert len(late[0].answer["batchItemFailures"]) == 1
    assert [invocation.kind for invocation in rest] == ["response"] * 4
    assert function.started == 1
    assert [line["outcome"] for line in lines(log)] == [
        "opened",
        "committed",
        "timed-out",
        *["committed"] * 3,
        "finished",
    ]
    assert stored.list(run_id) == [0, 1, 2, 3, 4]


def test_a_function_that_lambda_ends_loses_nothing(
    function: Function, queue: Queue, log: Path, stored: SyncS3Checkpointer[Count], tmp_path: Path
) -> None:
    """A task that blocks cannot be cancelled: the environment is ended, a new one does the superstep."""
    run_id = begin(queue, trouble="blocks", marker=str(tmp_path / "blocked"))
    carry_on(function, queue, until=1)

    ended = carry_on(function, queue, until=1, time_out_s=3)
    rest = carry_on(function, queue)

    assert ended[0].kind == "timed out"
    assert [invocation.kind for invocation in rest] == ["response"] * 4
    assert function.started == 2
    state = stored.load(run_id)
    assert state is not None
    assert state.pids == [rest[0].pid] * 4
    assert [line["outcome"] for line in lines(log)].count("opened") == 2
