"""A Lambda function that takes runs further: one SQS message, one superstep, one commit, the next message.

    from s3_checkpoint.aws_lambda import sqs_handler

    handler = sqs_handler(graph, Research)      # S3_CHECKPOINT_BUCKET=…, S3_CHECKPOINT_QUEUE_URL=…

**What is sent, and when.** A worker that commits step *n* + 1 sends the message for it, and only then is its own
message deleted. If it dies in between, its message comes again, and the next worker finds the step committed. Nobody
can know then whether the next message was sent, so it is sent once more: a run never gets stuck.

**Why duplicates die out.** Such a message in doubt is sent with a delay. When it arrives, the run is usually past it,
and it is dropped without work. If not, two workers race for the commit; the message of the one that loses is in doubt
again, and waits twice as long. So a duplicate costs at most one idle chain of messages, which ends as soon as it comes
late, and no message ever leads to two.

**AWS must be told that the loop is meant.** A function whose messages trigger it again is a recursive loop to Lambda,
which stops it after about 16 rounds and sends the message to the dead-letter queue, unless the function says
`RecursiveLoop: Allow` (`infra/template.yaml` does; for a function of your own, `aws lambda
put-function-recursion-config --function-name NAME --recursive-loop Allow`). The bound is `max_steps` then.
Source: AWS Lambda developer guide, "Use Lambda recursive loop detection to prevent infinite loops".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Generic, Protocol
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from s3_checkpoint._concurrency.open_once import OpenOnce
from s3_checkpoint._format.foreign_errors import for_log
from s3_checkpoint._format.keys import run_keys
from s3_checkpoint._format.message_json import decoded, first_dropped, members
from s3_checkpoint._leases.record import MIN_TTL_S, check_ttl
from s3_checkpoint._printable import printable
from s3_checkpoint._transports import import_transport
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.connection import connect
from s3_checkpoint.errors import (
    CheckpointError,
    ConfigurationError,
    InvalidArgumentError,
    LeaseHeldError,
    StateEncodingError,
)
from s3_checkpoint.graph import Graph, check_graph
from s3_checkpoint.models import Migration, Overtaken, StateT
from s3_checkpoint.request_events import OnRequest, RequestEvent
from s3_checkpoint.settings import S3Settings
from s3_checkpoint.superstep import (
    MAX_STEPS,
    NO_STEP,
    Advance,
    Blocked,
    Interrupted,
    attempt_superstep,
    check_max_steps,
    held_for_superstep,
    is_end,
    waits_for_human,
)
from s3_checkpoint.superstep_queue import (
    MAX_DELAY_S,
    QueueClientOnDemand,
    SuperstepMessage,
    SuperstepQueue,
    queue_client_for,
)

QUEUE_URL_VARIABLE = "S3_CHECKPOINT_QUEUE_URL"


class Context(Protocol):
    """What is used of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends the invocation."""
        ...


def sqs_handler(
    graph: Graph[StateT],
    state_type: Any,
    *,
    settings: S3Settings | str | None = None,
    queue_url: str | None = None,
    interrupt_before: Collection[str] = (),
    update_type: Any = Any,
    schema_version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
    stop_before_s: float = 2.0,
    resend_delay_s: int = 15,
    max_steps: int = MAX_STEPS,
    lease_ttl_s: float | None = None,
    on_request: OnRequest | None = None,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> SqsHandler[StateT]:
    """A Lambda handler for SQS events with `SuperstepMessage`s. Nothing is opened before its first invocation.

    Args:
        graph: What runs.
        state_type: What `connect` takes; a message's state is read as this type, by field name and by alias.
        settings: What `connect` takes. Default: from the environment (`S3_CHECKPOINT_BUCKET`, …), at the first
            invocation.
        queue_url: Default: `S3_CHECKPOINT_QUEUE_URL`, at the first invocation.
        interrupt_before: Nodes to wait for a human before.
        update_type: What a human's update is read as, by field name and by alias. Default: plain JSON.
        schema_version: As for `connect`.
        migrations: As for `connect`.
        stop_before_s: Seconds before Lambda would end the invocation, in which the superstep in progress is cancelled.
        resend_delay_s: Seconds (1 … 900) by which a message in doubt is delayed, doubled each time in a row; choose
            about what a superstep takes.
        max_steps: The highest step a run may reach, 1 or more. There its message is dropped, with an error in the log
            (`outcome` is `stopped`) that says how to continue.
        lease_ttl_s: Seconds (1 … 86,400) of a lease on the run while a superstep runs, and never longer than the
            invocation: a message that is delivered twice at once costs 1 GET the second time (the first time in a
            process 1 refused PUT with it) and runs no node; its record is delivered again, to see that the first worker
            came through. Choose less than the queue's visibility time-out. Default: no lease.
        on_request: As for `connect`.
        logger: Default: `s3_checkpoint.aws_lambda`. Powertools' will do.

    Returns:
        The handler.

    Raises:
        InvalidArgumentError: `resend_delay_s`, `max_steps` or `lease_ttl_s` is out of bounds.
        ConfigurationError: `interrupt_before` names what is not a node.
    """
    # Lambda starts a function on a whole processor: the transport is imported now, not by the first invocation.
    import_transport(settings)

    check_graph(graph)
    graph.check(interrupt_before, "interrupt_before names")
    if not 1 <= resend_delay_s <= MAX_DELAY_S:
        raise InvalidArgumentError("resend_delay_s", str(resend_delay_s), "must be of 1 … 900 seconds")
    check_max_steps(max_steps)
    return SqsHandler(
        graph,
        _adapter(state_type),
        _adapter(update_type),
        settings,
        queue_url,
        {"state_type": state_type, "schema_version": schema_version, "migrations": migrations},
        interrupt_before,
        stop_before_s,
        resend_delay_s,
        max_steps,
        None if lease_ttl_s is None else check_ttl("lease_ttl_s", lease_ttl_s),
        on_request,
        logger or logging.getLogger(__name__),
    )


class SqsHandler(Generic[StateT]):
    """What `sqs_handler` gives: call it as Lambda does. The clients it opens serve all later invocations."""

    def __init__(
        self,
        graph: Graph[StateT],
        states: TypeAdapter[StateT],
        updates: TypeAdapter[Any],
        settings: S3Settings | str | None,
        queue_url: str | None,
        connect_options: dict[str, Any],
        interrupt_before: Collection[str],
        stop_before_s: float,
        resend_delay_s: int,
        max_steps: int,
        lease_ttl_s: float | None,
        on_request: OnRequest | None,
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self._graph = graph
        self._states = states
        self._updates = updates
        self._settings = settings
        self._queue_url = queue_url
        self._connect_options = connect_options
        self._interrupt_before = interrupt_before
        self._stop_before_s = stop_before_s
        self._resend_delay_s = resend_delay_s
        self._max_steps = max_steps
        self._lease_ttl_s = lease_ttl_s
        self._on_request_too = on_request
        self._logger = logger
        self._opening: OpenOnce[None] = OpenOnce(self._open)
        self._request_count = 0

    def __call__(self, event: Mapping[str, Any], context: Context) -> dict[str, list[dict[str, str]]]:
        """Runs the superstep of each record, one after the other; returns those to be delivered again.

        A record fails on its own, with a line in the log that names its run and the reason; SQS delivers it again, and
        after the queue's `maxReceiveCount` moves it to the dead-letter queue. A message of a run that has no steps (it
        was deleted) or is at `max_steps` is dropped, with a line in the log.

        Requests:
            Per record 1 GET and 1 HEAD, sent together, then 2 PUTs, sent together (1 with
            `snapshot_objects="when_large"`), and 1 SendMessage. A record that begins a run: 1 LIST, 2 PUTs and 1
            SendMessage. One that comes when the run is past its step: 1 GET and 1 HEAD, and 1 HEAD more that tells
            whether the run is past the next step too; if not, 1 SendMessage. More, as of `run_superstep`, where another
            worker commits first, tasks are not inline, or a step was committed longer ago than a sixteenth of `grace`.

        Args:
            event: An SQS event. A record without a `messageId` cannot be named: it is reported with an empty one, which
                Lambda takes as a failure of the whole batch; what the others committed is found when they come again.
            context: Lambda's.

        Returns:
            `{"batchItemFailures": [{"itemIdentifier": …}, …]}`, the form of `ReportBatchItemFailures`.

        Raises:
            InvalidArgumentError: This is not an SQS event. The whole batch is delivered again.
            ConfigurationError: The settings are not valid, or no client can be made of them. The whole batch is
                delivered again.

        Source:
            AWS Lambda developer guide, "Handling errors for an SQS event source in Lambda".
        """
        records = _records(event)
        return self._opening.call(lambda _: self._batch(records, context))

    def close(self) -> None:
        """Closes the clients and ends the thread. Lambda never calls it; a worker of one's own does."""
        self._opening.close()

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        """Opens both clients, once per process."""
        started = time.monotonic()
        settings = S3Settings.resolve(self._settings)
        url = self._queue_url or os.environ.get(QUEUE_URL_VARIABLE, "")
        if not url:
            raise ConfigurationError(f"no queue is named; set {QUEUE_URL_VARIABLE}, or give queue_url")
        async with AsyncExitStack() as stack:
            if settings.transport == "obstore":
                # The SDK would take most of a cold start: it is imported after the first commit, for the message alone.
                queue_client: Any = QueueClientOnDemand(stack, url, settings)
            else:
                queue_client = await stack.enter_async_context(queue_client_for(url, settings))
            self._queue = SuperstepQueue(queue_client, url)
            self._checkpointer: S3Checkpointer[StateT] = await stack.enter_async_context(
                connect(settings=settings, on_request=self._on_request, **self._connect_options)
            )
            self._logger.info("opened", extra={"outcome": "opened", "duration_ms": _ms_since(started)})
            yield

    def _on_request(self, request: RequestEvent) -> None:
        self._request_count += request.attempts
        if self._on_request_too is not None:
            self._on_request_too(request)

    async def _batch(self, records: list[Any], context: Context) -> dict[str, list[dict[str, str]]]:
        failed: list[str] = []
        for index, record in enumerate(records):
            left = context.get_remaining_time_in_millis() / 1000 - self._stop_before_s
            if left <= 0:
                postponed = [_message_id(later) for later in records[index:]]
                self._logger.warning(
                    "%d of %d records left to another invocation: the time is up",
                    len(postponed),
                    len(records),
                    extra={"outcome": "postponed", "message_ids": postponed},
                )
                failed += postponed
                break
            if not await self._succeeds(record, left):
                failed.append(_message_id(record))
                if self._queue.fifo:  # its order would be lost: AWS asks to stop here
                    failed += [_message_id(later) for later in records[index + 1 :]]
                    break
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    async def _succeeds(self, record: Any, left_s: float) -> bool:
        """Whether the record is done with. If not, the log says why."""
        started, counted = time.monotonic(), self._request_count
        fields: dict[str, Any] = {"message_id": _message_id(record)}
        deadline = asyncio.timeout(left_s)
        error: Exception | None = None
        try:
            async with deadline:
                await self._handle(record, fields, left_s)
        except LeaseHeldError as held:
            # Not an error: the message stays in the queue until the worker that has the lease is done, or is gone.
            error = held
            fields |= {"outcome": "held", "holder": held.holder}
        except Exception as raised:  # noqa: BLE001 - every failure of a record is that record's, and is logged below
            error = for_log(raised)
            fields["outcome"] = "timed-out" if deadline.expired() else "failed"
            fields["error_code"] = error.code if isinstance(error, CheckpointError) else type(error).__name__
        fields |= {"duration_ms": _ms_since(started), "request_count": self._request_count - counted}
        run = fields.get("run_id", "of an unreadable message")
        if isinstance(error, LeaseHeldError):
            self._logger.info("run %s: left to the worker that holds its lease: %s", run, error, extra=fields)
        elif error is not None:
            why = f"no time left after {left_s:.1f} s" if deadline.expired() else _in_words(error)
            self._logger.error(
                "run %s: superstep %s at delivery %s, to be delivered again: %s",
                run,
                fields["outcome"],
                fields.get("deliveries", "?"),
                why,
                exc_info=error,
                extra=fields,
            )
        elif fields["outcome"] == "gone":
            self._logger.warning(
                "run %s: message for step %s dropped, because the run has no steps: it was deleted, or this worker "
                "looks at another bucket or prefix",
                run,
                fields["step"],
                extra=fields,
            )
        elif fields["outcome"] == "stopped":
            self._logger.error(
                "run %s: stopped at step %s and not finished, because max_steps is %d. If its graph does not go in a "
                'circle, deploy a larger max_steps and send {"run_id": "%s", "step": %s}',
                run,
                fields["step"],
                self._max_steps,
                run,
                fields["step"],
                extra=fields,
            )
        else:
            self._logger.info("run %s: %s at step %s", run, fields["outcome"], fields["step"], extra=fields)
        return error is None

    async def _handle(self, record: Any, fields: dict[str, Any], left_s: float) -> None:
        """Does what the record asks for, and notes in `fields` what there is to tell of it."""
        message = _message(record, fields)
        async with held_for_superstep(
            self._checkpointer, message.run_id, self._lease_ttl_s, at_most_s=max(left_s, MIN_TTL_S)
        ):
            reached = await self._superstep(message)
        if isinstance(reached, Blocked):
            fields |= {"step": reached.step, "outcome": "gone" if reached.gone else "stopped"}
        elif isinstance(reached, Overtaken):
            fields |= {"step": reached.step + 1, "outcome": "superseded"}
            if await self._may_be_stuck(reached):
                await self._send_in_doubt(message, reached.run_id, reached.step + 1)
        else:
            fields |= {"step": reached.step, "outcome": _outcome(reached)}
            await self._send_on(message, reached)

    async def _superstep(self, message: SuperstepMessage) -> Advance[StateT] | Blocked | Overtaken:
        initial = update = None
        if message.initial_json is not None:
            initial = _read(self._states, message.initial_json, message)
        if message.update_json is not None:
            update = _read(self._updates, message.update_json, message)
        return await attempt_superstep(
            self._checkpointer,
            self._graph,
            message.run_id,
            initial=initial,
            expected_step=_known(message),
            interrupt_before=self._interrupt_before,
            resume_from=message.resume_from,
            update=update,
            max_steps=self._max_steps,
        )

    async def _send_on(self, message: SuperstepMessage, advance: Advance[StateT]) -> None:
        """Sends what the run needs to continue; the module's docstring says why this and nothing else."""
        if advance.finished or isinstance(advance, Interrupted):
            return
        if advance.committed:
            await self._queue.send(SuperstepMessage(run_id=advance.run_id, step=advance.step))
        elif advance.step == _known(message) + 1:
            await self._send_in_doubt(message, advance.run_id, advance.step)

    async def _may_be_stuck(self, overtaken: Overtaken) -> bool:
        """Whether the step after the known one may be the newest, with something to run. 1 HEAD, if it has tasks."""
        active = overtaken.next_active
        if active is not None and (is_end(active) or waits_for_human(active, self._interrupt_before)):
            return False
        run = run_keys(self._checkpointer.prefix, overtaken.run_id, self._checkpointer.namespace)
        return not await self._checkpointer.objects.has_step(run, overtaken.step + 2)

    async def _send_in_doubt(self, message: SuperstepMessage, run_id: UUID, step: int) -> None:
        """Sends the message for a step that another worker committed, and may have died before sending it."""
        in_doubt = SuperstepMessage(run_id=run_id, step=step, echo=message.echo + 1)
        delay_s = min(MAX_DELAY_S, self._resend_delay_s * 2 ** min(message.echo, 10))
        await self._queue.send(in_doubt, delay_s=delay_s)


def _read(adapter: TypeAdapter[Any], text: str, message: SuperstepMessage) -> Any:
    """The state or update of a message; `StateEncodingError` if the type drops what the message says is meant."""
    value = decoded(adapter, text)
    if message.whole and (path := first_dropped(adapter, value, text)) is not None:
        reason = "the handler's type has no place for it; send what that type has, or give state_type to begin"
        raise StateEncodingError(path, reason)
    return value


def _adapter(as_type: Any) -> TypeAdapter[Any]:
    return as_type if isinstance(as_type, TypeAdapter) else TypeAdapter(as_type)


def _records(event: Any) -> list[Any]:
    """The records of an SQS event; `InvalidArgumentError`, saying what it is instead, if it is none."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list):
        what = type(event).__name__
        if isinstance(event, Mapping):
            what = _found_in(event, ENVELOPES, "an object without Records")
        raise InvalidArgumentError(
            "event", what, "must be an SQS event, with Records: let a queue trigger the function"
        )
    sources = {
        record.get("eventSource", record.get("EventSource")) for record in records if isinstance(record, Mapping)
    }
    if sources and not sources & {"aws:sqs", None}:
        what = ", ".join(ascii(source)[:40] for source in sources)
        raise InvalidArgumentError(
            "event", what, "must be an SQS event: send these to the queue, and let it trigger the function"
        )
    return records


def _message_id(record: Any) -> str:
    """What Lambda calls the record; empty if it has no name."""
    name = record.get("messageId") if isinstance(record, Mapping) else None
    return name if isinstance(name, str) else ""


def _known(message: SuperstepMessage) -> int:
    """The newest step that the sender of the message knew of."""
    known = message.step if message.resume_from is None else message.resume_from
    return NO_STEP if known is None else known


def _message(record: Any, fields: dict[str, Any]) -> SuperstepMessage:
    """The message in the record; what can be told of it goes into `fields` even if the rest cannot be used."""
    if not isinstance(record, Mapping):
        raise InvalidArgumentError("record", type(record).__name__, "must be an object, as in an SQS event")
    body = record.get("body")
    if isinstance(body, str):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # it names no run
            fields["run_id"] = str(UUID(from_json(members(body)["run_id"])))
    if not fields["message_id"]:
        raise InvalidArgumentError(
            "messageId", type(record.get("messageId")).__name__, "must be text: without it the whole batch comes again"
        )
    fields["deliveries"] = _deliveries(record)
    if not isinstance(body, str):
        raise InvalidArgumentError("body", type(body).__name__, "must be text: the JSON of a SuperstepMessage")
    try:
        message = SuperstepMessage.model_validate_json(body)
    except ValidationError:
        what, remedy = _instead_of_a_message(body)
        if what:
            reason = f"must be the JSON of a SuperstepMessage: {remedy}"
            raise InvalidArgumentError("body", what, reason) from None
        raise
    fields["step"] = message.step if message.resume_from is None else message.resume_from
    return message


def _deliveries(record: Mapping[str, Any]) -> int:
    attributes = record.get("attributes", {})
    if not isinstance(attributes, Mapping):
        raise InvalidArgumentError("attributes", type(attributes).__name__, "must be an object, as in an SQS event")
    count = attributes.get("ApproximateReceiveCount", "1")
    text = str(count) if type(count) in (str, int) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgumentError(
            "ApproximateReceiveCount", type(count).__name__, "must be a number, as in an SQS event"
        )
    return int(text)


ENVELOPES: Final = {
    frozenset({"Type", "TopicArn", "Message"}): "an SNS envelope",
    frozenset({"detail-type", "source", "detail"}): "an EventBridge event",
    frozenset({"requestContext", "responsePayload"}): "what a Lambda destination sends",
    frozenset({"requestContext"}): "an HTTP request",
    frozenset({"Service", "Event", "Bucket"}): "an S3 test event",
    frozenset({"Records"}): "the notification of another service",
    frozenset({"run_id", "resume"}): "a message of the time before resume_from",
}
"""What comes in place of a message, by the members that tell."""
REMEDIES: Final = {
    "an SNS envelope": "turn on raw message delivery for the queue's subscription",
    "an EventBridge event": "give its target an input path or transformer that leaves only the message",
    "a message of the time before resume_from": "an answer to an interrupt is made by SuperstepMessage.resume",
}


def _found_in(names: Collection[str], kinds: Mapping[frozenset[str], str], otherwise: str) -> str:
    return next((kind for telling, kind in kinds.items() if telling <= set(names)), otherwise)


def _instead_of_a_message(body: str) -> tuple[str, str]:
    """What the body is instead, and what to do; empty if that cannot be told."""
    try:
        what = _found_in(members(body), ENVELOPES, "")
    except ValueError:
        with contextlib.suppress(ValueError):
            if isinstance(from_json(body), str):
                return "JSON text inside a JSON string", "it was encoded twice; send it as it is"
        return "", ""
    return what, REMEDIES.get(what, "only these belong into the queue")


def _in_words(error: Exception) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the application's `__str__`; a record must not fail the batch by it
        text = f"(its text fails with {type(broken).__name__})"
    return printable(f"{type(error).__name__}: {text}", keep="\n")


def _outcome(advance: Advance[Any]) -> str:
    if advance.superseded:
        return "superseded"
    if isinstance(advance, Interrupted):
        return "interrupted"
    return "finished" if advance.finished else "committed"


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
