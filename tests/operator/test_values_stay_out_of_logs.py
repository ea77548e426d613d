"""A state's values, and those of payloads, reach no log, no message, no chained exception and no span."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from s3_checkpoint import (
    ActiveSnapshot,
    CheckpointError,
    RunAdmin,
    S3Settings,
    connect,
)
from s3_checkpoint.codec import compact_digest
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.otel import OpenTelemetry
from tests.operator.conftest import Cli

RUN = UUID(int=21)
KEYS = RunKeys("", RUN)


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """What a handler of the root logger writes, tracebacks included, with every logger at DEBUG."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


async def failure(call: Callable[[], Awaitable[object]]) -> str:
    """All that can be seen of the error of a call: traceback with causes, message, repr; logged as well."""
    try:
        await call()
    except CheckpointError as error:
        logging.getLogger("application").exception("it failed")
        return "".join(traceback.format_exception(error)) + str(error) + repr(error)
    return ""


async def test_no_value_is_in_what_is_logged_or_traced_of_requests(settings: S3Settings) -> None:
    """Everything at DEBUG, the SDK's own loggers included; and the spans."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    secret = "pw-0123456789abcdef"
    task = [ActiveSnapshot(node_name="n", payload={"key": secret})]

    with everything_logged() as log:
        async with connect(dict[str, Any], settings, on_request=OpenTelemetry(provider)) as checkpointer:
            for size in (1, 10_000):  # sent as bytes, and as a file
                await checkpointer.commit(RUN, size, {"key": secret * size}, task)
                await checkpointer.save(RUN, size + 1, {"key": secret * size})
                await checkpointer.save_active(RUN, size + 1, task)
            await checkpointer.resume(RUN)
            admin = RunAdmin(checkpointer)
            [_ async for _ in admin.history(RUN)]
            await admin.fork(RUN, 1)
            await failure(lambda: checkpointer.commit(RUN, 1, {"key": secret + "x"}, task))
            await admin.prune(RUN, keep_last=1)
            await admin.delete(RUN)

    assert "PutObject" in log.getvalue()
    assert secret not in log.getvalue()
    assert exporter.get_finished_spans()
    assert secret not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_no_value_is_in_what_a_command_says_of_an_unreadable_step(cli: Cli) -> None:
    """It names the object and the reason; the body is what `show` is for, of steps that can be read."""
    secret = "pw-0123456789abcdef"

    async def store_it() -> None:
        async with connect(dict[str, Any], cli.settings()) as checkpointer:
            await checkpointer.save(RUN, 0, {"a": 1})
            objects = checkpointer.objects.store
            for step, body in enumerate([f'{{"a": "{secret}'.encode(), f'{{"a": {secret}}}'.encode()], start=1):
                facts = {"format": "1", "schema-version": "1", "write-id": "w", "digest": compact_digest(body)}
                await objects.put(KEYS.state(step), body, ObjectAttributes(metadata=facts), mode="overwrite")
            active = json.dumps([{"node_name": {"a": secret}}]).encode()
            facts = {"format": "1", "write-id": "w", "digest": compact_digest(active)}
            await objects.put(KEYS.active(0), active, ObjectAttributes(metadata=facts), mode="overwrite")

    asyncio.run(store_it())
    run = str(RUN)
    commands = [["show", run, "--step", str(step)] for step in range(3)]
    commands += [["history", run], ["timeline", run, "--no-forks"], ["diff", run, "0", "1"], ["active", run]]

    for command in commands:
        result = cli(*command)

        assert result.exit_code == 7, command
        assert secret not in result.output + result.stderr


def test_settings_that_cannot_be_say_nothing_of_their_secrets(cli: Cli) -> None:
    """Neither the value that is wrong, nor the others."""
    secret = "pw-0123456789abcdef"

    results = [
        cli("runs", S3_CHECKPOINT_SECRET_ACCESS_KEY=secret, S3_CHECKPOINT_MAX_ATTEMPTS="none"),
        cli("runs", S3_CHECKPOINT_SECRET_ACCESS_KEY=secret),
        cli("runs", S3_CHECKPOINT_SESSION_TOKEN=secret),
        cli("runs", S3_CHECKPOINT_OBJECT_TAGS=f'{{"{secret}'),
    ]

    for result in results:
        assert result.exit_code != 0
        assert secret not in result.output + result.stderr + str(result.exception)
