"""A Lambda function that carries runs on: one SQS message, one superstep, one commit, the next message.

    from s3_checkpoint.aws_lambda import sqs_handler

    handler = sqs_handler(graph, Research)      # S3_CHECKPOINT_BUCKET=…, S3_CHECKPOINT_QUEUE_URL=…

**What is sent, and when.** A worker that commits step *n* + 1 sends the message for it, and only then is its own
message deleted. If it dies in between, its message comes again, and whoever gets it finds the step standing. Nobody can
know then whether the next message was sent, so it is sent once more: a run never stands still.

**Why duplicates die out.** Such a message in doubt is sent with a delay. When it arrives, the run has usually gone on,
and it is dropped without work. If not, two workers race for the commit; the message of the one that loses is in doubt
again, and waits twice as long. So a duplicate costs at most one idle chain of messages, which ends as soon as it comes
late, and no message ever leads to two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Generic, Protocol
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.codec import Migration
from s3_checkpoint.connect import connect
from s3_checkpoint.errors import CheckpointError, ConfigurationError, InvalidArgumentError
from s3_checkpoint.graph import Graph
from s3_checkpoint.loop_thread import LoopThread
from s3_checkpoint.models import StateT
from s3_checkpoint.request_events import OnRequest, RequestEvent
from s3_checkpoint.settings import S3Settings
from s3_checkpoint.superstep import NO_STEP, Advance, Interrupted, run_superstep
from s3_checkpoint.superstep_queue import MAX_DELAY_S, SuperstepMessage, SuperstepQueue, queue_client_for

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
    settings: S3Settings | None = None,
    queue_url: str | None = None,
    interrupt_before: Collection[str] = (),
    update_type: Any = Any,
    schema_version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
    stop_before_s: float = 2.0,
    resend_delay_s: int = 15,
    on_request: OnRequest | None = None,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> SqsHandler[StateT]:
    """A Lambda handler for SQS events with `SuperstepMessage`s. Nothing is opened before its first invocation.

    `settings` and `queue_url` left out come from the environment (`S3_CHECKPOINT_BUCKET`, …, and
    `S3_CHECKPOINT_QUEUE_URL`) when it is first called; `schema_version`, `migrations` and `on_request` are those of
    `connect`.
    `interrupt_before` names nodes to wait for a human before; `update_type` is what a human's update is validated as.
    `stop_before_s` seconds before Lambda would end the invocation, the superstep under way is cancelled. A message in
    doubt is delayed by `resend_delay_s` (1 … 900) seconds, doubled each time in a row; choose about what a superstep
    takes. `logger` may be Powertools' as well.
    """
    # Lambda starts a function on a whole processor: the SDK is imported now, not by the first invocation.
    import s3_checkpoint.s3_client  # noqa: F401

    graph.check(interrupt_before, "interrupt_before names")
    if not 1 <= resend_delay_s <= MAX_DELAY_S:
        raise InvalidArgumentError("resend_delay_s", str(resend_delay_s), "must be of 1 … 900 seconds")
    return SqsHandler(
        graph,
        TypeAdapter(state_type),
        TypeAdapter(update_type),
        settings,
        queue_url,
        {"state_type": state_type, "schema_version": schema_version, "migrations": migrations},
        interrupt_before,
        stop_before_s,
        resend_delay_s,
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
        settings: S3Settings | None,
        queue_url: str | None,
        connect_options: dict[str, Any],
        interrupt_before: Collection[str],
        stop_before_s: float,
        resend_delay_s: int,
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
        self._on_request_too = on_request
        self._logger = logger
        self._thread = LoopThread()
        self._stack: AsyncExitStack | None = None
        self._request_count = 0

    def __call__(self, event: Mapping[str, Any], context: Context) -> dict[str, list[dict[str, str]]]:
        """Runs the superstep of each record, one after the other; returns those to be delivered again.

        The answer has the form of `ReportBatchItemFailures`. A record fails on its own, with a line in the log that
        names its run and the reason; SQS delivers it again, and after the queue's `maxReceiveCount` moves it to the
        dead-letter queue. Per record: the S3 requests of `run_superstep`, and 1 SendMessage.

        Raises, so that the whole batch is delivered again: `InvalidArgumentError` if this is not an SQS event;
        `ConfigurationError` or `pydantic.ValidationError` if no client can be made of the settings.
        """
        if not isinstance(event, Mapping) or not isinstance(event.get("Records"), list):
            raise InvalidArgumentError("event", type(event).__name__, "must be an SQS event, with Records")
        return self._thread.run(self._batch(event["Records"], context))

    def close(self) -> None:
        """Closes the clients and ends the thread. Lambda never calls it; a worker of one's own does."""
        if self._stack is not None:
            self._thread.run(self._stack.aclose())
        self._thread.close()

    async def _open(self) -> None:
        """Opens both clients, once per process."""
        started = time.monotonic()
        settings = self._settings or S3Settings()  # type: ignore[call-arg]
        url = self._queue_url or os.environ.get(QUEUE_URL_VARIABLE, "")
        if not url:
            raise ConfigurationError(f"no queue is named; set {QUEUE_URL_VARIABLE}, or give queue_url")
        async with AsyncExitStack() as stack:
            queue_client = await stack.enter_async_context(queue_client_for(url, settings))
            self._queue = SuperstepQueue(queue_client, url)
            self._checkpointer: S3Checkpointer[StateT] = await stack.enter_async_context(
                connect(settings=settings, on_request=self._on_request, **self._connect_options)
            )
            self._stack = stack.pop_all()
        self._logger.info("opened", extra={"outcome": "opened", "duration_ms": _ms_since(started)})

    def _on_request(self, request: RequestEvent) -> None:
        self._request_count += request.attempts
        if self._on_request_too is not None:
            self._on_request_too(request)

    async def _batch(self, records: list[Any], context: Context) -> dict[str, list[dict[str, str]]]:
        if self._stack is None:
            await self._open()
        failed: list[str] = []
        for index, record in enumerate(records):
            left = context.get_remaining_time_in_millis() / 1000 - self._stop_before_s
            if left <= 0:
                postponed = [str(later["messageId"]) for later in records[index:]]
                self._logger.warning(
                    "%d of %d records left to another invocation: the time is up",
                    len(postponed),
                    len(records),
                    extra={"outcome": "postponed", "message_ids": postponed},
                )
                failed += postponed
                break
            if not await self._succeeds(record, left):
                failed.append(str(record["messageId"]))
                if self._queue.fifo:  # its order would be lost: AWS asks to stop here
                    failed += [str(later["messageId"]) for later in records[index + 1 :]]
                    break
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    async def _succeeds(self, record: Mapping[str, Any], left_s: float) -> bool:
        """Whether the record is done with. If not, the log says why."""
        started, counted = time.monotonic(), self._request_count
        deliveries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        facts: dict[str, Any] = {"message_id": record["messageId"], "deliveries": deliveries}
        deadline = asyncio.timeout(left_s)
        error: Exception | None = None
        try:
            async with deadline:
                message = _message(record.get("body", ""), facts)
                advance = await self._superstep(message)
                facts |= {"step": advance.step, "outcome": _outcome(advance)}
                await self._send_on(message, advance)
        except Exception as raised:  # noqa: BLE001 - every failure of a record is that record's, and is logged below
            error = raised
            facts["outcome"] = "timed-out" if deadline.expired() else "failed"
            facts["error_code"] = raised.code if isinstance(raised, CheckpointError) else type(raised).__name__
        facts |= {"duration_ms": _ms_since(started), "request_count": self._request_count - counted}
        run = facts.get("run_id", "of an unreadable message")
        if error is None:
            self._logger.info("run %s: %s at step %s", run, facts["outcome"], facts["step"], extra=facts)
        else:
            why = f"no time left after {left_s:.1f} s" if deadline.expired() else f"{type(error).__name__}: {error}"
            self._logger.error(
                "run %s: superstep %s at delivery %d, to be delivered again: %s",
                run,
                facts["outcome"],
                deliveries,
                why,
                exc_info=error,
                extra=facts,
            )
        return error is None

    async def _superstep(self, message: SuperstepMessage) -> Advance[StateT]:
        initial = update = None
        if message.initial is not None:
            initial = self._states.validate_json(to_json(message.initial))
        if message.update is not None:
            update = self._updates.validate_json(to_json(message.update))
        return await run_superstep(
            self._checkpointer,
            self._graph,
            message.run_id,
            initial=initial,
            expected_step=NO_STEP if message.step is None else message.step,
            interrupt_before=self._interrupt_before,
            resume=message.resume,
            update=update,
        )

    async def _send_on(self, message: SuperstepMessage, advance: Advance[StateT]) -> None:
        """Sends what the run needs to go on; the module's docstring says why this and nothing else."""
        if advance.finished or isinstance(advance, Interrupted):
            return
        if advance.committed:
            await self._queue.send(SuperstepMessage(run_id=advance.run_id, step=advance.step))
        elif advance.step == (NO_STEP if message.step is None else message.step) + 1:
            in_doubt = SuperstepMessage(run_id=advance.run_id, step=advance.step, echo=message.echo + 1)
            delay_s = min(MAX_DELAY_S, self._resend_delay_s * 2 ** min(message.echo, 10))
            await self._queue.send(in_doubt, delay_s=delay_s)


def _message(body: str, facts: dict[str, Any]) -> SuperstepMessage:
    """The message in `body`; its run and step go into `facts` even if the rest cannot be used."""
    try:
        message = SuperstepMessage.model_validate_json(body)
    except ValidationError:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # it names no run
            facts["run_id"] = str(UUID(from_json(body)["run_id"]))
        raise
    facts |= {"run_id": str(message.run_id), "step": message.step}
    return message


def _outcome(advance: Advance[Any]) -> str:
    if advance.superseded:
        return "superseded"
    if isinstance(advance, Interrupted):
        return "interrupted"
    return "finished" if advance.finished else "committed"


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
