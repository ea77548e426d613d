"""A state's values, and those of payloads, reach no log, no message, no chained exception and no span."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import AfterValidator, BaseModel, PlainSerializer, SecretStr

from s3_checkpoint import (
    ActiveSnapshot,
    CheckpointError,
    MemoryStore,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    connect,
)
from s3_checkpoint._format.json_codec import compact_digest
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.otel import OpenTelemetry
from tests.command_line import Cli

RUN = UUID(int=21)
KEYS = RunKeys("", RUN)
SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=30).map(lambda text: f"pw-{text}")


def _refuse(value: str) -> str:
    raise ValueError(f"{value} is not allowed")


def _cannot_write(value: Any) -> Any:
    raise RuntimeError(f"no form for {value}")


class Inner(BaseModel):
    count: int
    password: SecretStr | None = None


class Typed(BaseModel):
    name: str
    count: int = 0
    inner: Inner | None = None
    items: list[int] = []


class Refusing(BaseModel):
    name: Annotated[str, AfterValidator(_refuse)]


class Unwritable(BaseModel):
    name: Annotated[str, PlainSerializer(_cannot_write)]


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


async def put(store: MemoryStore, key: str, body: Any, **metadata: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    entries = {"format": "1", "schema-version": "1", "write-id": "w", "digest": compact_digest(data), **metadata}
    await store.put(key, data, ObjectAttributes(metadata=entries), mode="overwrite")


def misfits(secret: str) -> list[Any]:
    """Bodies that do not fit `Typed`, the secret in a different place in each."""
    return [
        {"name": 1, "count": secret},
        {"name": [secret]},
        {"name": "x", "inner": secret},
        {"name": "x", "inner": {"count": secret, "password": secret}},
        {"name": "x", "items": [1, secret]},
        {"name": "x", "items": {"a": secret}},
        {"count": 1, "other": secret},
        [secret],
        secret,
        f'{{"name": "{secret}'.encode(),
        f'{{"name": "x", "inner": {secret}}}'.encode(),
        f'{{"name": "{secret}", "count": NaN}}'.encode(),
        f'{{"name": "{secret}\\ud800"}}'.encode(),
    ]


def _migration_that_fails(state: Any) -> Any:
    raise KeyError(str(state))


@given(secret=SECRETS)
@settings(max_examples=15, deadline=None)
def test_no_value_that_is_read_is_in_an_error_or_a_log(secret: str) -> None:
    """States, active tasks and what migrations and validators say of them; the cause of an error is looked at too."""

    async def read_all() -> list[str]:
        seen: list[str] = []
        for body in misfits(secret):
            store = MemoryStore()
            await put(store, KEYS.state(0), body)
            await put(store, KEYS.active(0), body)
            plain = S3Checkpointer(Typed, store)
            migrating = S3Checkpointer(Typed, store, schema_version=2, migrations={1: lambda state: state})
            seen += [await failure(lambda c=c: c.load(RUN, 0)) for c in (plain, migrating)]  # type: ignore[misc]
            seen += [await failure(lambda c=c: c.resume(RUN)) for c in (plain, migrating)]  # type: ignore[misc]
            seen.append(await failure(lambda: plain.load_active(RUN, 0)))  # noqa: B023 - awaited here
        store = MemoryStore()
        await put(store, KEYS.state(0), {"name": secret})
        seen.append(await failure(lambda: S3Checkpointer(Refusing, store).load(RUN, 0)))
        failing = S3Checkpointer(Typed, store, schema_version=2, migrations={1: _migration_that_fails})
        seen.append(await failure(lambda: failing.load(RUN, 0)))
        return seen

    with everything_logged() as log:
        seen = asyncio.run(read_all())

    assert sum(bool(text) for text in seen) > 40
    assert not [text for text in seen if secret in text]
    assert secret not in log.getvalue()


@given(secret=SECRETS)
@settings(max_examples=15, deadline=None)
def test_no_value_that_is_written_is_in_an_error_or_a_log(secret: str) -> None:
    """States and payloads that do not round-trip, and types whose own code refuses them with the value in its words."""
    values: list[tuple[Any, Any]] = [
        (dict[str, Any], {"a": secret, "b": float("nan")}),
        (dict[str, Any], {"a": [secret, object()]}),
        (dict[str, Any], {"a": secret.encode() + b"\xff"}),
        (dict[str, Any], {"a": (secret, 1)}),
        (dict[str, Any], {"a": f"{secret}\ud800"}),
        (dict[str, Any], {"a": {secret}}),
        (dict[str, Any], {"a": secret, 1: secret}),
        (Typed, Typed.model_construct(name=secret, count=secret)),
        (Typed, Typed.model_construct(name=[secret], inner=secret)),
        (Refusing, Refusing.model_construct(name=secret)),
        (Unwritable, Unwritable.model_construct(name=secret)),
    ]

    async def write_all() -> list[str]:
        seen = []
        for state_type, value in values:
            checkpointer = S3Checkpointer(state_type, MemoryStore())
            seen.append(await failure(lambda c=checkpointer, v=value: c.save(RUN, 0, v)))  # type: ignore[misc]
            seen.append(await failure(lambda c=checkpointer, v=value: c.commit(RUN, 0, v, [])))  # type: ignore[misc]
        checkpointer = S3Checkpointer(dict[str, Any], MemoryStore())
        for payload in ({"a": secret, "b": float("inf")}, [secret, b"\xff"], {"a": object(), "b": secret}):
            tasks = [ActiveSnapshot.model_construct(node_name="n", payload=payload)]
            seen.append(await failure(lambda t=tasks: checkpointer.commit(RUN, 0, {}, t)))  # type: ignore[misc]
            seen.append(await failure(lambda t=tasks: checkpointer.save_active(RUN, 0, t)))  # type: ignore[misc]
        return seen

    with everything_logged() as log:
        seen = asyncio.run(write_all())

    assert sum(bool(text) for text in seen) > 20
    assert not [text for text in seen if secret in text]
    assert secret not in log.getvalue()


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
                entries = {"format": "1", "schema-version": "1", "write-id": "w", "digest": compact_digest(body)}
                await objects.put(KEYS.state(step), body, ObjectAttributes(metadata=entries), mode="overwrite")
            active = json.dumps([{"node_name": {"a": secret}}]).encode()
            entries = {"format": "1", "write-id": "w", "digest": compact_digest(active)}
            await objects.put(KEYS.active(0), active, ObjectAttributes(metadata=entries), mode="overwrite")

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
