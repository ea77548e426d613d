"""The SQS handler: one superstep per message, and whatever dies or comes twice, the run continues once."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator
from typing_extensions import TypedDict

from s3_checkpoint import (
    END,
    ActiveSnapshot,
    ConfigurationError,
    Graph,
    InvalidArgumentError,
    Next,
    S3Settings,
    StateEncodingError,
    SyncS3Checkpointer,
    Task,
    connect,
)
from s3_checkpoint._format.foreign_errors import for_log
from s3_checkpoint._format.message_json import decoded
from s3_checkpoint.aws_lambda import SqsHandler, sqs_handler
from s3_checkpoint.superstep_queue import SuperstepMessage
from tests.serverless.conftest import Context, Queue

STEPS = 4


class Count(BaseModel):
    n: int = 0
    said: list[str] = []


class Hooks:
    """What a test wants to happen inside the node: text that it returns becomes the update."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.before_return: Callable[[Task], Any] | None = None


class Larger(Count):
    """A subclass of the handler's type, with a field of its own."""

    more: int = 7


class Mark(BaseModel, frozen=True):
    n: int


class Nearer(Mark, frozen=True):
    by: int


class Marks(TypedDict):
    one: Larger
    many: set[Nearer | Mark]


def graph_with(hooks: Hooks) -> Graph[Count]:
    """`add` four times; `review` waits for a human where a test says so."""

    async def add(state: Count, task: Task) -> Next:
        hooks.ran.append(task.step)
        said = await hooks.before_return(task) if hooks.before_return is not None else None
        if said is not None:
            return Next(said, "add")
        return Next(1, "add" if state.n + 1 < STEPS else "review")

    async def review(state: Count, task: Task) -> Next:
        return Next("reviewed", END)

    def apply(state: Count, update: int | str) -> Count:
        if isinstance(update, int):
            return state.model_copy(update={"n": state.n + update})
        return state.model_copy(update={"said": [*state.said, update]})

    return Graph(start="add", nodes={"add": add, "review": review}, apply=apply)


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def new_handler(settings: S3Settings, queue: Queue, hooks: Hooks) -> Iterator[Callable[..., SqsHandler[Count]]]:
    made = []

    def make(**options: Any) -> SqsHandler[Count]:
        options = {"settings": settings, "queue_url": queue.url, "resend_delay_s": 1, **options}
        made.append(sqs_handler(graph_with(hooks), Count, **options))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


@pytest.fixture
def handler(new_handler: Callable[..., SqsHandler[Count]]) -> SqsHandler[Count]:
    return new_handler()


@pytest.fixture
def run_id() -> UUID:
    return uuid4()


@pytest.fixture
def stored(settings: S3Settings) -> Iterator[SyncS3Checkpointer[Count]]:
    with SyncS3Checkpointer(Count, settings) as checkpointer:
        yield checkpointer


def begin(run_id: UUID) -> str:
    return SuperstepMessage.begin(run_id, Count()).model_dump_json()


def at(run_id: UUID, step: int) -> str:
    return SuperstepMessage(run_id=run_id, step=step).model_dump_json()


def failed(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def delivered(body: str) -> dict[str, Any]:
    """A record of a message that never was in the queue."""
    message_id = str(uuid4())
    attributes = {"ApproximateReceiveCount": "1"}
    return {"messageId": message_id, "receiptHandle": "r", "body": body, "attributes": attributes}


def work(handler: SqsHandler[Count], queue: Queue) -> int:
    """Handles messages until none is left, delayed ones too; returns how many there were."""
    handled = 0
    while sum(queue.counts()):
        records = queue.receive(wait_s=10)
        answer = handler({"Records": records}, Context.of(30))
        assert failed(answer) == []
        queue.delete(records[0])
        handled += 1
    return handled


def outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["outcome"] for record in caplog.records if "outcome" in vars(record)]


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All of it, as a handler prints it, and what it could print of `extra`."""
    formatter = logging.Formatter()
    assert caplog.records
    return "\n".join(f"{formatter.format(record)} {vars(record)}" for record in caplog.records)


async def ends(state: Any, task: Task) -> Next:
    return Next(None, END)


@pytest.fixture(autouse=True)
def all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "s3_checkpoint.aws_lambda")


def test_a_run_goes_from_message_to_message_until_it_is_finished(
    handler: SqsHandler[Count],
    queue: Queue,
    run_id: UUID,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One message, one step, one line in the log with what it did; two PUTs and the reads of resume, on one client."""
    queue.send(begin(run_id))

    handled = work(handler, queue)

    assert handled == STEPS + 2
    assert stored.load(run_id) == Count(n=STEPS, said=["reviewed"])
    assert stored.list(run_id) == [*range(STEPS + 2)]
    assert outcomes(caplog) == ["opened", *["committed"] * (STEPS + 1), "finished"]
    lines = [vars(record) for record in caplog.records if "step" in vars(record)]
    assert [line["step"] for line in lines] == [*range(STEPS + 2)]
    assert {line["run_id"] for line in lines} == {str(run_id)}
    assert [line["request_count"] for line in lines] == [3, *[4] * (STEPS + 1)]
    assert all(line["duration_ms"] > 0 and line["deliveries"] == 1 for line in lines)
    assert queue.counts() == (0, 0)


def test_a_late_duplicate_is_dropped_without_work_and_without_a_message(
    handler: SqsHandler[Count], queue: Queue, run_id: UUID, hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (begin(run_id), at(run_id, 0), at(run_id, 1)):
        handler({"Records": [delivered(body)]}, Context.of(30))
    assert hooks.ran == [1, 2]
    assert queue.counts() == (3, 0)

    for body in (begin(run_id), at(run_id, 0)):
        assert failed(handler({"Records": [delivered(body)]}, Context.of(30))) == []

    assert hooks.ran == [1, 2]
    assert queue.counts() == (3, 0)
    assert outcomes(caplog)[-2:] == ["superseded", "superseded"]
    assert vars(caplog.records[-1])["request_count"] == 3  # 1 GET, 2 HEADs


@pytest.mark.parametrize(("snapshots", "puts"), [("always", 2), ("when_large", 1)])
def test_each_kind_of_message_costs_what_it_says_in_a_cold_process(
    new_handler: Callable[..., SqsHandler[Count]],
    settings: S3Settings,
    queue: Queue,
    run_id: UUID,
    snapshots: str,
    puts: int,
) -> None:
    """Every message goes to a process that has never seen the run."""
    settings = settings.model_copy(update={"snapshot_objects": snapshots})

    def cost(body: str) -> Counter[str]:
        sent: Counter[str] = Counter()
        handler = new_handler(settings=settings, on_request=lambda event: sent.update([event.operation]))
        assert failed(handler({"Records": [delivered(body)]}, Context.of(30))) == []
        return sent

    assert cost(begin(run_id)) == {"ListObjectsV2": 1, "PutObject": puts}
    for step in range(2):
        assert cost(at(run_id, step)) == {"GetObject": 1, "HeadObject": 1, "PutObject": puts}
    assert queue.counts() == (3, 0)
    assert cost(at(run_id, 0)) == {"GetObject": 1, "HeadObject": 2}  # the run is past the next step too
    assert queue.counts() == (3, 0)
    assert cost(at(run_id, 1)) == {"GetObject": 1, "HeadObject": 2}  # it is not: was the next message ever sent?
    assert (sum(queue.counts()), queue.sent_late()) == (4, 1)


def test_a_message_before_an_interrupt_or_the_end_is_never_sent_again(
    new_handler: Callable[..., SqsHandler[Count]], queue: Queue, run_id: UUID, hooks: Hooks
) -> None:
    """The tasks in the next step's metadata tell; no HEAD of the step after it, and no message in doubt."""
    sent: Counter[str] = Counter()
    handler = new_handler(interrupt_before=["review"], on_request=lambda event: sent.update([event.operation]))
    for body in (begin(run_id), *(at(run_id, step) for step in range(STEPS))):
        handler({"Records": [delivered(body)]}, Context.of(30))
    before = queue.counts()
    sent.clear()

    assert failed(handler({"Records": [delivered(at(run_id, STEPS - 1))]}, Context.of(30))) == []
    assert sent == {"GetObject": 1, "HeadObject": 1}
    assert queue.counts() == before

    answer = SuperstepMessage.resume(run_id, STEPS).model_dump_json()
    assert failed(handler({"Records": [delivered(answer)]}, Context.of(30))) == []
    sent.clear()
    assert failed(handler({"Records": [delivered(answer)]}, Context.of(30))) == []
    assert sent == {"GetObject": 1, "HeadObject": 1}
    assert queue.counts() == before


def test_a_crash_between_commit_and_send_does_not_end_the_run(
    new_handler: Callable[..., SqsHandler[Count]],
    sqs: Any,
    run_id: UUID,
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
) -> None:
    """The message comes again, finds its step committed, and sends the next one all the same."""
    lost = Queue(sqs)
    handler = new_handler(queue_url=lost.url)
    records = [delivered(begin(run_id))]
    sqs.delete_queue(QueueUrl=lost.url)

    first = handler({"Records": records}, Context.of(30))  # commits, and cannot send
    committed = stored.list(run_id)
    sqs.create_queue(QueueName=lost.url.rpartition("/")[2])
    second = handler({"Records": records}, Context.of(30))

    assert (failed(first), committed) == ([records[0]["messageId"]], [0])
    assert failed(second) == []
    assert lost.counts() == (0, 1)  # in doubt, so with a delay
    assert work(handler, lost) == STEPS + 1
    assert stored.load(run_id) == Count(n=STEPS, said=["reviewed"])
    assert hooks.ran == [1, 2, 3, 4]


@pytest.mark.parametrize("content", ["the same", "different"])
def test_of_two_workers_at_one_message_one_commits_and_the_others_doubt_dies_out(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    run_id: UUID,
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
    content: str,
) -> None:
    """One message for each worker, never more; the one in doubt comes late, and leads to none."""
    together = threading.Barrier(2)

    async def meets(task: Task) -> str | None:
        await asyncio.to_thread(together.wait, 20)
        return None if content == "the same" else str(uuid4())

    handlers = [new_handler(), new_handler()]
    handlers[0]({"Records": [delivered(begin(run_id))]}, Context.of(30))
    (record,) = queue.receive()
    hooks.before_return = meets

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda handler: handler({"Records": [record]}, Context.of(30)), handlers))
    hooks.before_return = None

    assert [failed(answer) for answer in answers] == [[], []]
    assert sorted(outcomes(caplog)[-2:]) == ["committed", "superseded"]
    assert (sum(queue.counts()), queue.sent_late()) == (2, 1)
    queue.delete(record)
    steps = STEPS + (2 if content == "the same" else 3)
    assert work(handlers[0], queue) == steps - 1  # the rest of the run's, and the one in doubt
    assert queue.counts() == (0, 0)
    assert stored.list(run_id) == [*range(steps)]


def test_a_second_delivery_costs_two_requests_and_no_node_while_the_lease_is_held(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    hooks: Hooks,
    run_id: UUID,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first in a process; then one. The record stays in the queue, and the run continues once."""
    requests: list[str] = []
    first = new_handler(lease_ttl_s=20)
    second = new_handler(lease_ttl_s=20, on_request=lambda event: requests.append(event.operation))
    first({"Records": [record_of_begin(queue, run_id)]}, Context.of(60))
    [record] = queue.receive(wait_s=5)
    inside, proceed = threading.Event(), threading.Event()

    async def wait(task: Task) -> None:
        inside.set()
        await asyncio.to_thread(proceed.wait, 30)

    hooks.before_return = wait
    with ThreadPoolExecutor() as pool:
        working = pool.submit(first, {"Records": [record]}, Context.of(60))
        assert inside.wait(30)
        with caplog.at_level(logging.INFO, "s3_checkpoint.aws_lambda"):
            again = [second({"Records": [record]}, Context.of(60)) for _ in range(2)]
        proceed.set()
        done = working.result(30)

    failed = {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert again == [failed, failed]
    assert sorted(requests) == ["GetObject", "GetObject", "PutObject"]
    assert hooks.ran == [1]
    assert done == {"batchItemFailures": []}
    held = [entry for entry in caplog.records if getattr(entry, "outcome", "") == "held"]
    assert [entry.levelname for entry in held] == ["INFO", "INFO"]
    hooks.before_return = None
    assert second({"Records": [record]}, Context.of(60)) == {"batchItemFailures": []}
    assert hooks.ran == [1]


def record_of_begin(queue: Queue, run_id: UUID) -> dict[str, Any]:
    queue.send(SuperstepMessage.begin(run_id, Count()).model_dump_json())
    return queue.receive(wait_s=5)[0]


def test_a_lease_is_never_longer_than_the_invocation(
    new_handler: Callable[..., SqsHandler[Count]], queue: Queue, hooks: Hooks, run_id: UUID, settings: S3Settings
) -> None:
    """A worker that Lambda ends blocks nobody for longer than it could have worked."""
    handler = new_handler(lease_ttl_s=900, stop_before_s=0)
    handler({"Records": [record_of_begin(queue, run_id)]}, Context.of(60))
    seen: list[float] = []

    async def look(task: Task) -> None:
        async with connect(Count, settings) as checkpointer:
            stored = await checkpointer.objects.store.get(f"runs/{run_id}/lease.json", max_bytes=10_000)
            assert stored is not None
            seen.append(json.loads(stored.body)["ttl_s"])

    hooks.before_return = look
    handler({"Records": queue.receive(wait_s=5)}, Context.of(40))

    assert len(seen) == 1
    assert 30 < seen[0] <= 40


def test_duplicates_never_multiply(
    handler: SqsHandler[Count], queue: Queue, run_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """Five copies of every message there ever was: each leads to one message at most, and all come to an end."""
    for _ in range(5):
        queue.send(begin(run_id))
        for step in range(STEPS + 1):
            queue.send(at(run_id, step))

    handled = 0
    while sum(queue.counts()):
        records = queue.receive(wait_s=10)
        if failed(handler({"Records": records}, Context.of(30))):  # ahead of the run: comes again
            queue.client.change_message_visibility(
                QueueUrl=queue.url, ReceiptHandle=records[0]["receiptHandle"], VisibilityTimeout=0
            )
        else:
            queue.delete(records[0])
        handled += 1
        assert sum(queue.counts()) <= 5 * (STEPS + 2)
        assert handled < 20 * (STEPS + 2)

    written = [outcome for outcome in outcomes(caplog) if outcome in ("committed", "finished")]
    assert len(written) >= STEPS + 2
    commits = [vars(record) for record in caplog.records if vars(record).get("request_count", 0) == 4]
    assert sorted(line["step"] for line in commits) == [*range(1, STEPS + 2)]


POISON = {
    "not JSON": ("{", "of an unreadable message", "Invalid JSON"),
    "not a message": ('{"run": 1}', "of an unreadable message", "run_id"),
    "another message": ('{"run_id": "RUN", "step": 1, "stpe": 2}', "RUN", "stpe"),
    "neither beginning nor continuing": ('{"run_id": "RUN"}', "RUN", "give initial to begin a run, step to continue"),
    "a state that does not fit": ('{"run_id": "RUN", "initial": {"n": "many"}}', "RUN", "valid integer"),
    "an answer to no question": ('{"run_id": "RUN", "step": 0, "update": 1}', "RUN", "update goes with resume_from"),
    "an answer of the time when it could count twice": (
        '{"run_id": "RUN", "resume": true, "step": 3}',
        "RUN",
        "made by SuperstepMessage.resume",
    ),
    "an answer and a beginning": ('{"run_id": "RUN", "resume_from": 1, "initial": {}}', "RUN", "one of them"),
    "a step that is no whole number": ('{"run_id": "RUN", "step": 1.5}', "RUN", "step"),
    "a run that is none": ('{"run_id": "035", "step": 1}', "of an unreadable message", "run_id"),
    "an SNS envelope": (
        '{"Type": "Notification", "TopicArn": "arn:aws:sns:…", "Message": "{}"}',
        "of an unreadable message",
        "turn on raw message delivery",
    ),
    "an EventBridge event": (
        '{"version": "0", "source": "my.app", "detail-type": "x", "detail": {}}',
        "of an unreadable message",
        "an input path or transformer",
    ),
    "an S3 notification": ('{"Records": [{"eventSource": "aws:s3"}]}', "of an unreadable message", "another service"),
    "an S3 test event": (
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
        "of an unreadable message",
        "an S3 test event",
    ),
    "JSON inside a string": ('"{\\"run_id\\": \\"RUN\\"}"', "of an unreadable message", "encoded twice"),
    "an array": ('[{"run_id": "RUN"}]', "of an unreadable message", "an object is expected, not an array"),
    "NaN": ('{"run_id": "RUN", "initial": {"n": NaN}}', "of an unreadable message", "NaN is not JSON"),
    "a member twice": ('{"run_id": "RUN", "step": 1, "step": 2}', "of an unreadable message", "twice"),
    "nested without end": ("[" * 100_000, "of an unreadable message", "nested too deeply"),
}


@pytest.mark.parametrize("name", POISON)
def test_poison_ends_in_the_dead_letter_queue_with_a_line_that_says_which_run_and_why(
    name: str,
    new_handler: Callable[..., SqsHandler[Count]],
    sqs: Any,
    run_id: UUID,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    body, run, why = (text.replace("RUN", str(run_id)) for text in POISON[name])
    dead = Queue(sqs)
    redrive = json.dumps({"deadLetterTargetArn": dead.arn(), "maxReceiveCount": 2})
    queue = Queue(sqs, VisibilityTimeout="0", RedrivePolicy=redrive)
    handler = new_handler(queue_url=queue.url)
    message_id = queue.send(body)

    for _ in range(2):
        assert failed(handler({"Records": queue.receive()}, Context.of(30))) == [message_id]

    assert queue.receive() == []
    assert [record["body"] for record in dead.receive()] == [body]
    line = caplog.records[-1]
    assert line.levelno == logging.ERROR
    assert f"run {run}: superstep failed at delivery 2" in line.getMessage()
    assert why in line.getMessage()
    assert vars(line)["outcome"] == "failed"
    assert vars(line)["message_id"] == message_id
    assert stored.list(run_id) == []


@pytest.mark.parametrize(
    "body",
    [
        lambda run_id: SuperstepMessage.begin(run_id, Larger()),
        lambda run_id: SuperstepMessage(run_id=run_id, initial=Larger()),
        lambda run_id: SuperstepMessage.model_validate_json(SuperstepMessage.begin(run_id, Larger()).model_dump_json()),
    ],
    ids=["begin", "made", "read"],
)
def test_a_state_of_a_subclass_is_refused_rather_than_stored_without_its_fields(
    body: Callable[[UUID], SuperstepMessage],
    handler: SqsHandler[Count],
    run_id: UUID,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Story: without `state_type` the state was sent whole, and stored without what only the subclass has."""
    record = delivered(body(run_id).model_dump_json())

    answer = handler({"Records": [record]}, Context.of(30))

    assert failed(answer) == [record["messageId"]]
    assert "give state_type to begin; nothing was written. path=`$.more`" in caplog.records[-1].getMessage()
    assert stored.list(run_id) == []


def test_an_update_of_a_subclass_is_refused_rather_than_applied_without_its_fields(
    new_handler: Callable[..., SqsHandler[Count]], run_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """In a list, too; and where the handler reads updates as they are, nothing is lost and nothing refused."""
    record = delivered(SuperstepMessage.resume(run_id, 0, [Count(), Larger()]).model_dump_json())

    new_handler(update_type=list[Count])({"Records": [record]}, Context.of(30))
    refused = caplog.records[-1].getMessage()
    taken = new_handler(update_type=list[Larger])({"Records": [record]}, Context.of(30))

    assert "path=`$[1].more`" in refused
    assert failed(taken) == []


def test_a_state_that_its_type_reads_whole_is_taken_whatever_it_inherits(
    settings: S3Settings, queue: Queue, run_id: UUID
) -> None:
    """A handler of the subclass; sets in any order; a generic model."""
    state = {"one": Larger(), "many": {Mark(n=1), Nearer(n=2, by=3)}}
    graph: Graph[Any] = Graph(start="end", nodes={"end": ends}, apply=lambda state, update: state)
    handler = sqs_handler(graph, Marks, settings=settings, queue_url=queue.url)

    answer = handler({"Records": [delivered(SuperstepMessage.begin(run_id, state).model_dump_json())]}, Context.of(30))
    handler.close()

    assert failed(answer) == []
    with SyncS3Checkpointer(Marks, settings) as checkpointer:
        assert checkpointer.load(run_id) == state


def test_a_failing_record_does_not_take_the_others_with_it(
    handler: SqsHandler[Count], queue: Queue, hooks: Hooks, stored: SyncS3Checkpointer[Count]
) -> None:
    runs = [uuid4(), uuid4(), uuid4()]
    bodies = [begin(runs[0]), "{", begin(runs[2])]
    ids = [queue.send(body) for body in bodies]
    records = queue.receive(most=10)

    answer = handler({"Records": records}, Context.of(30))

    assert failed(answer) == [ids[1]]
    assert [stored.list(run_id) for run_id in runs] == [[0], [], [0]]


def test_a_task_that_raises_fails_its_record_and_commits_nothing(
    handler: SqsHandler[Count],
    queue: Queue,
    run_id: UUID,
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(task: Task) -> None:
        raise RuntimeError("the tool is down")

    queue.send(begin(run_id))
    handler({"Records": queue.receive()}, Context.of(30))
    (record,) = queue.receive()
    hooks.before_return = fails

    answer = handler({"Records": [record]}, Context.of(30))
    hooks.before_return = None
    again = handler({"Records": [record]}, Context.of(30))

    line = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert failed(answer) == [record["messageId"]]
    assert "RuntimeError: the tool is down" in line.getMessage()
    assert line.exc_info is not None
    assert vars(line)["error_code"] == "RuntimeError"
    assert failed(again) == []
    assert stored.list(run_id) == [0, 1]


def test_a_superstep_that_overruns_is_cancelled_in_time(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    run_id: UUID,
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The handler answers before Lambda would end it, and serves the next invocation on the same client."""
    cancelled = threading.Event()

    async def hangs(task: Task) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    handler = new_handler(stop_before_s=1)
    queue.send(begin(run_id))
    handler({"Records": queue.receive()}, Context.of(30))
    (record,) = queue.receive()
    hooks.before_return = hangs

    context = Context.of(2)
    answer = handler({"Records": [record]}, context)
    left = context.get_remaining_time_in_millis()
    hooks.before_return = None
    again = handler({"Records": [record]}, Context.of(30))

    assert failed(answer) == [record["messageId"]]
    assert left > 0
    assert cancelled.is_set()
    assert outcomes(caplog) == ["opened", "committed", "timed-out", "committed"]
    assert failed(again) == []
    assert stored.list(run_id) == [0, 1]


def test_with_no_time_left_the_records_go_back_untouched(
    new_handler: Callable[..., SqsHandler[Count]], queue: Queue, hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    handler = new_handler(stop_before_s=5)
    ids = [queue.send(begin(uuid4())) for _ in range(3)]

    answer = handler({"Records": queue.receive(most=10)}, Context.of(4))

    assert sorted(failed(answer)) == sorted(ids)
    assert "3 of 3 records left to another invocation" in caplog.records[-1].getMessage()
    assert outcomes(caplog)[-1] == "postponed"


def test_an_interrupted_run_waits_for_the_human_and_counts_the_answer_once(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    run_id: UUID,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = new_handler(interrupt_before={"review"}, update_type=str)
    queue.send(begin(run_id))
    work(handler, queue)
    waiting_at = stored.list(run_id)[-1]
    assert outcomes(caplog)[-1] == "interrupted"

    queue.send(at(run_id, waiting_at))  # nobody's answer: it waits on
    for _ in range(2):
        queue.send(SuperstepMessage.resume(run_id, waiting_at, "yes").model_dump_json())
    work(handler, queue)

    assert stored.load(run_id) == Count(n=STEPS, said=["yes", "reviewed"])
    assert outcomes(caplog)[-3:] == ["interrupted", "finished", "superseded"]
    queue.send(SuperstepMessage.resume(run_id, 3, {"not": "a string"}).model_dump_json())
    handler({"Records": queue.receive()}, Context.of(30))
    assert vars(caplog.records[-1])["error_code"] == "ValidationError"


def test_a_fifo_queue_drops_duplicates_itself_and_keeps_its_order(
    new_handler: Callable[..., SqsHandler[Count]], sqs: Any, run_id: UUID, stored: SyncS3Checkpointer[Count]
) -> None:
    """No delays there; after a failure, nothing behind it is handled."""
    fifo = Queue(sqs, FifoQueue="true")
    handler = new_handler(queue_url=fifo.url)
    fifo.send(begin(run_id), MessageGroupId=str(run_id), MessageDeduplicationId="1")
    (first,) = fifo.receive()

    handler({"Records": [first]}, Context.of(30))
    handler({"Records": [first]}, Context.of(30))  # in doubt: sent again, and dropped by the queue
    fifo.delete(first)
    assert fifo.counts() == (1, 0)
    assert work(handler, fifo) == STEPS + 1
    assert stored.load(run_id) == Count(n=STEPS, said=["reviewed"])

    bad = {**first, "messageId": "bad", "body": "{"}
    behind = {**first, "messageId": "behind", "body": begin(uuid4())}
    assert failed(handler({"Records": [bad, behind]}, Context.of(30))) == ["bad", "behind"]


NO_EVENTS: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "an object without Records"),
    "no object": (["x"], "list"),
    "no list": ({"Records": "x"}, "another service"),
    "from EventBridge": (
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
        "an EventBridge event",
    ),
    "from SNS": ({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]}, "aws:sns"),
    "from S3": ({"Records": [{"eventSource": "aws:s3", "s3": {}}]}, "aws:s3"),
    "over HTTP": ({"requestContext": {}, "body": "{}"}, "an HTTP request"),
}


@pytest.mark.parametrize("name", NO_EVENTS)
def test_an_event_that_is_not_of_sqs_raises_and_says_what_it_is(name: str, handler: SqsHandler[Count]) -> None:
    """No record of it could be reported as failed: nobody would read the answer."""
    event, what = NO_EVENTS[name]

    with pytest.raises(InvalidArgumentError, match="must be an SQS event") as raised:
        handler(event, Context.of(30))

    assert what in str(raised.value)


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a count in words": (lambda r: r | {"attributes": {"ApproximateReceiveCount": "many"}}, "must be a number"),
    "a count of nothing": (lambda r: r | {"attributes": {"ApproximateReceiveCount": None}}, "must be a number"),
    "half a count": (lambda r: r | {"attributes": {"ApproximateReceiveCount": 1.5}}, "must be a number"),
    "a negative count": (lambda r: r | {"attributes": {"ApproximateReceiveCount": "-1"}}, "must be a number"),
    "an endless count": (lambda r: r | {"attributes": {"ApproximateReceiveCount": "9" * 5000}}, "must be a number"),
    "a count in other digits": (lambda r: r | {"attributes": {"ApproximateReceiveCount": "²"}}, "must be a number"),
    "attributes that are none": (lambda r: r | {"attributes": "x"}, "attributes must be an object"),
    "no body": (lambda r: {name: value for name, value in r.items() if name != "body"}, "body must be text"),
    "an empty body": (lambda r: r | {"body": ""}, "Invalid JSON"),
    "a body that is parsed already": (lambda r: r | {"body": {"run_id": "x"}}, "body must be text"),
    "no messageId": (lambda r: {name: value for name, value in r.items() if name != "messageId"}, "messageId must be"),
    "an empty messageId": (lambda r: r | {"messageId": ""}, "messageId must be"),
    "a messageId that is no text": (lambda r: r | {"messageId": 7}, "messageId must be"),
    "no record": (lambda r: "x", "record must be an object"),
    "nothing": (lambda r: None, "record must be an object"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_fails_alone_and_with_a_hint(
    name: str,
    handler: SqsHandler[Count],
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those around it are handled; one that has no name is reported with an empty one, which fails the batch."""
    spoil, hint = MALFORMED[name]
    runs = [uuid4(), uuid4(), uuid4()]
    records: list[Any] = [delivered(begin(run_id)) for run_id in runs]
    records[1] = spoil(records[1])
    named = isinstance(records[1], dict) and isinstance(records[1].get("messageId"), str)

    answer = handler({"Records": records}, Context.of(30))

    assert failed(answer) == [records[1]["messageId"] if named else ""]
    assert [stored.list(run_id) for run_id in runs] == [[0], [], [0]]
    (line,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert hint in line.getMessage()
    assert vars(line)["error_code"] in ("invalid-argument", "ValidationError")


def test_records_without_a_name_are_postponed_without_one(
    new_handler: Callable[..., SqsHandler[Count]], caplog: pytest.LogCaptureFixture
) -> None:
    handler = new_handler(stop_before_s=5)

    answer = handler({"Records": [{"body": "{}"}, "x"]}, Context.of(4))

    assert failed(answer) == ["", ""]


def test_a_deleted_runs_queued_messages_are_dropped_with_a_line(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    run_id: UUID,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not delivered again for days: neither the next superstep nor a human's answer, and nothing begins again."""
    handler = new_handler(interrupt_before={"review"}, update_type=str)
    handler({"Records": [delivered(begin(run_id))]}, Context.of(30))
    (proceed,) = queue.receive()
    stored.delete(run_id)
    answer = delivered(SuperstepMessage.resume(run_id, 4, "yes").model_dump_json())

    answers = handler({"Records": [proceed, answer]}, Context.of(30))

    assert failed(answers) == []
    assert outcomes(caplog)[-2:] == ["gone", "gone"]
    for line in caplog.records[-2:]:
        assert line.levelno == logging.WARNING
        assert f"run {run_id}: message for step" in line.getMessage()
        assert "it was deleted" in line.getMessage()
    assert stored.list(run_id) == []
    queue.delete(proceed)
    assert queue.counts() == (0, 0)


def test_a_message_ahead_of_a_run_that_is_there_is_no_deleted_runs(
    handler: SqsHandler[Count], run_id: UUID, stored: SyncS3Checkpointer[Count], caplog: pytest.LogCaptureFixture
) -> None:
    """It fails, and a person gets to see it."""
    handler({"Records": [delivered(begin(run_id))]}, Context.of(30))

    answer = handler({"Records": [delivered(at(run_id, 7))]}, Context.of(30))

    assert len(failed(answer)) == 1
    assert "expected_step is ahead of run" in caplog.records[-1].getMessage()


def test_a_run_that_reaches_max_steps_stops_with_an_error_and_leaves_no_message(
    new_handler: Callable[..., SqsHandler[Count]],
    queue: Queue,
    run_id: UUID,
    hooks: Hooks,
    stored: SyncS3Checkpointer[Count],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A graph that goes in a circle would pay for itself for ever; the line says how to continue."""
    queue.send(begin(run_id))

    handled = work(new_handler(max_steps=2), queue)

    assert handled == 4  # the last one is dropped
    assert stored.list(run_id) == [0, 1, 2]
    assert queue.counts() == (0, 0)
    assert outcomes(caplog) == ["opened", "committed", "committed", "committed", "stopped"]
    line = caplog.records[-1]
    assert line.levelno == logging.ERROR
    assert "max_steps is 2" in line.getMessage()
    (told,) = re.findall(r"send (\{.*\})", line.getMessage())
    queue.send(told)
    work(new_handler(max_steps=100), queue)
    assert stored.load(run_id) == Count(n=STEPS, said=["reviewed"])


class Secretive(BaseModel):
    kind: Literal["a"] = "a"
    n: int = 0
    word: str = ""
    day: date | None = None

    @field_validator("word")
    @classmethod
    def refuses(cls, value: str) -> str:
        if value:
            raise ValueError(f"{value} is no good")
        return value


FIELDS = [*Secretive.model_fields, "other"]


class Chatty(BaseModel):
    n: int


class Snail(BaseModel):
    kind: Literal["snail"] = "snail"


class Turtle(BaseModel):
    kind: Literal["turtle"] = "turtle"


class Shop(BaseModel):
    owner: str = Field(default="anonymous", alias="ownerName")
    pet: Turtle | Snail = Turtle()
    price: Decimal = Decimal(0)


class Order(BaseModel):
    customer: str = Field(default="nobody", alias="customerName")
    price: Decimal = Decimal(0)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_sent_state_is_stored_as_it_was_sent(by_hand: bool, settings: S3Settings, queue: Queue, run_id: UUID) -> None:
    """A state and a human's update, by name or by alias, with the tag of a union and all digits of a number."""

    async def waits(state: Shop, task: Task) -> Next:
        return Next(None, END)

    def apply(state: Shop, order: Order) -> Shop:
        return state.model_copy(update={"owner": f"{state.owner} and {order.customer}", "price": order.price})

    graph = Graph(start="waits", nodes={"waits": waits}, apply=apply)
    handler = sqs_handler(
        graph, Shop, settings=settings, queue_url=queue.url, update_type=Order, interrupt_before={"waits"}
    )
    digits = "12345678901234567890.123456789"
    shop = Shop(ownerName="Bob", pet=Snail(), price=Decimal(digits))
    first = SuperstepMessage.begin(run_id, shop).model_dump_json()
    answer = SuperstepMessage.resume(run_id, 0, Order(customerName="Eve", price=Decimal(digits) / 2)).model_dump_json()
    if by_hand:
        state = f'{{"ownerName": "Bob", "pet": {{"kind": "snail"}}, "price": {digits}}}'
        first = f'{{"run_id": "{run_id}", "initial": {state}}}'
        answer = f'{{"run_id": "{run_id}", "resume_from": 0, "update": {{"customerName": "Eve", "price": {digits}}}}}'

    answered = [failed(handler({"Records": [delivered(body)]}, Context.of(30))) for body in (first, answer)]
    handler.close()

    assert answered == [[], []]
    with SyncS3Checkpointer(Shop, settings) as checkpointer:
        assert checkpointer.load(run_id, 0) == shop
        final = checkpointer.load(run_id)
    assert final is not None
    assert (final.owner, final.pet) == ("Bob and Eve", Snail())
    assert final.price == (Decimal(digits) if by_hand else Decimal(digits) / 2)


@pytest.mark.parametrize(
    "body",
    [
        '{"run_id": "RUN", "initial": {"n": "hunter2"}}',
        '{"run_id": "RUN", "initial": {"n": ["hunter2"]}}',
        '{"run_id": "RUN", "initial": {"word": "hunter2"}}',
        '{"run_id": "RUN", "initial": {"kind": "hunter2"}}',
        '{"run_id": "RUN", "initial": {"day": "2026-01-01hunter2"}}',
        '{"run_id": "RUN", "initial": "hunter2"}',
        '{"run_id": "RUN", "resume_from": 0, "update": {"n": "hunter2"}}',
        '{"run_id": "RUN", "resume_from": 0, "update": "hunter2"}',
        '{"run_id": "RUN", "step": "hunter2"}',
        '{"run_id": "RUN", "step": 0, "update": "hunter2"}',
        '{"run_id": "hunter2", "step": 0}',
        '{"run_id": "RUN", "initial": {"n": hunter2}}',
        "hunter2",
        '"hunter2"',
        '{"Type": "hunter2", "TopicArn": "hunter2", "Message": "hunter2"}',
    ],
)
def test_nothing_of_a_message_that_does_not_fit_reaches_the_log(
    body: str, settings: S3Settings, queue: Queue, run_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the line nor its traceback: causes and contexts are printed too."""
    graph: Graph[Any] = Graph(start="a", nodes={"a": ends}, apply=lambda state, update: state)
    handler = sqs_handler(graph, Secretive, settings=settings, queue_url=queue.url, update_type=Secretive)

    answer = handler({"Records": [delivered(body.replace("RUN", str(run_id)))]}, Context.of(30))
    handler.close()

    assert len(failed(answer)) == 1
    assert "hunter2" not in logged(caplog)


async def test_nothing_of_a_stored_state_that_does_not_fit_reaches_the_log(
    settings: S3Settings, queue: Queue, run_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """It was written under another type; the line says where it is and what does not fit."""
    async with connect(dict[str, Any], settings) as checkpointer:
        await checkpointer.commit(run_id, 0, {"word": "hunter2", "n": "hunter2"}, [ActiveSnapshot(node_name="a")])
    graph: Graph[Any] = Graph(start="a", nodes={"a": ends}, apply=lambda state, update: state)
    handler = sqs_handler(graph, Secretive, settings=settings, queue_url=queue.url)

    answer = await asyncio.to_thread(handler, {"Records": [delivered(at(run_id, 0))]}, Context.of(30))
    handler.close()

    assert len(failed(answer)) == 1
    assert vars(caplog.records[-1])["error_code"] == "state-decoding"
    assert "hunter2" not in logged(caplog)


@dataclass(frozen=True)
class FrozenError(Exception):
    why: str


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [FrozenError("x"), WordlessError(), ExceptionGroup("two", [FrozenError("x")])])
def test_a_task_that_raises_what_cannot_be_told_fails_its_own_record_only(
    error: Exception, handler: SqsHandler[Count], hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that takes no notes, or has no text, is still that record's."""

    async def fails(task: Task) -> None:
        raise error

    runs = [uuid4(), uuid4()]
    handler({"Records": [delivered(begin(runs[0]))]}, Context.of(30))
    hooks.before_return = fails

    answer = handler({"Records": [delivered(at(runs[0], 0)), delivered(begin(runs[1]))]}, Context.of(30))

    assert len(failed(answer)) == 1
    assert outcomes(caplog)[-2:] == ["failed", "committed"]
    assert vars(caplog.records[-2])["error_code"] == type(error).__name__


@given(data=st.data())
@settings_of_hypothesis(max_examples=60, deadline=None)
def test_no_text_of_a_message_is_ever_quoted(data: st.DataObject) -> None:
    """Wherever it is in a message, whatever it does not fit: neither the error nor its chain tells it."""
    secret = data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=6)) + "hunter2"
    value = data.draw(
        st.recursive(
            st.just(secret) | st.integers() | st.none(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
            max_leaves=8,
        )
    )
    names = data.draw(st.lists(st.sampled_from(["run_id", "step", "initial", "update", "resume_from", "echo"])))
    body = json.dumps({"run_id": str(uuid4()), **dict.fromkeys(names, value)})

    for read in (
        lambda: SuperstepMessage.model_validate_json(body),
        lambda: decoded(TypeAdapter(Secretive), json.dumps(value)),
        lambda: SuperstepMessage.begin(uuid4(), [value, object()]),
    ):
        try:
            read()
        except (ValidationError, StateEncodingError) as error:
            told = error if isinstance(error, ValidationError) else for_log(error)  # whose cause is the codec's
            assert "hunter2" not in "".join(traceback.format_exception(told))


def test_the_traceback_of_a_task_tells_no_input_of_a_type_it_does_not_fit(
    handler: SqsHandler[Count], run_id: UUID, hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever in the chain, or in a group; what the task itself says is kept, and so is where it happened."""
    secret = "hunter" + "2"  # a traceback shows lines of the source, too

    async def fails(task: Task) -> None:
        try:
            Chatty.model_validate({"n": secret})
        except ValidationError as error:
            raise ExceptionGroup("the tools are down", [error, RuntimeError("the tool is down")]) from error

    handler({"Records": [delivered(begin(run_id))]}, Context.of(30))
    hooks.before_return = fails
    handler({"Records": [delivered(at(run_id, 0))]}, Context.of(30))

    text = logged(caplog)
    assert secret not in text
    assert "the tool is down" in text
    assert "Input should be a valid integer" in text
    assert "in fails" in text
    assert f"in node `add`, task 0 of step 1, run {run_id}" in text


def test_missing_settings_raise_for_the_whole_batch_and_name_the_variable(
    settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"Records": [{"messageId": "m", "body": "{}"}]}
    graph = graph_with(Hooks())

    with pytest.raises(ConfigurationError, match="S3_CHECKPOINT_QUEUE_URL"):
        sqs_handler(graph, Count, settings=settings)(event, Context.of(30))
    with pytest.raises(ConfigurationError, match="must begin with https"):
        sqs_handler(graph, Count, settings=settings, queue_url="my-queue")(event, Context.of(30))
    with pytest.raises(ConfigurationError, match="S3_CHECKPOINT_BUCKET"):
        sqs_handler(graph, Count)(event, Context.of(30))
    with pytest.raises(InvalidArgumentError, match="resend_delay_s"):
        sqs_handler(graph, Count, resend_delay_s=0)
    with pytest.raises(ConfigurationError, match="interrupt_before names `x`"):
        sqs_handler(graph, Count, interrupt_before={"x"})


def test_settings_come_from_the_environment_as_lambda_has_it(
    settings: S3Settings, queue: Queue, run_id: UUID, stored: SyncS3Checkpointer[Count], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_CHECKPOINT_BUCKET", settings.bucket)
    monkeypatch.setenv("S3_CHECKPOINT_ENDPOINT_URL", str(settings.endpoint_url))
    monkeypatch.setenv("S3_CHECKPOINT_QUEUE_URL", queue.url)
    handler = sqs_handler(graph_with(Hooks()), Count)
    queue.send(begin(run_id))

    assert work(handler, queue) == STEPS + 2

    handler.close()
    assert stored.load(run_id) == Count(n=STEPS, said=["reviewed"])


def test_the_logger_of_powertools_will_do(
    new_handler: Callable[..., SqsHandler[Count]], queue: Queue, run_id: UUID, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our fields are beside its own, and its decorators go around the handler as around any other."""
    powertools = pytest.importorskip("aws_lambda_powertools")
    logger = powertools.Logger(service="runs", level="INFO")
    handler = new_handler(logger=logger)

    @logger.inject_lambda_context  # type: ignore[untyped-decorator]
    def lambda_handler(event: dict[str, Any], context: Any) -> Any:
        return handler(event, context)

    class FullContext(Context):
        function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"

    queue.send(begin(run_id))
    lambda_handler({"Records": queue.receive()}, FullContext.of(30))

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["run_id"] == str(run_id)
    assert (lines[-1]["outcome"], lines[-1]["step"], lines[-1]["request_count"]) == ("committed", 0, 3)
    assert lines[-1]["service"] == "runs"


def test_the_librarys_own_code_stands_in_the_log(
    settings: S3Settings, new_handler: Callable[..., SqsHandler[Count]], caplog: pytest.LogCaptureFixture
) -> None:
    handler = new_handler(settings=settings.model_copy(update={"bucket": "not-there"}))

    answer = handler({"Records": [delivered(begin(uuid4()))]}, Context.of(30))

    assert len(failed(answer)) == 1
    assert vars(caplog.records[-1])["error_code"] == "configuration"
