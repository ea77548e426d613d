"""What is told of each request: to a callback, to the log, and to OpenTelemetry."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from s3_checkpoint import (
    MemoryStore,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StepConflictError,
    StoreUnavailableError,
    connect,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.otel import OpenTelemetry
from s3_checkpoint.request_events import RequestEvent

RUN = UUID(int=1)
KEYS = RunKeys("", RUN)
State = dict[str, int]


class Flaky(BaseHTTPRequestHandler):
    """Answers 503 as often as told, then 200."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.asked += 1
        busy = server.asked <= server.busy_for
        body = b"<Error><Code>SlowDown</Code></Error>" if busy else b""
        self.send_response(503 if busy else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-request-id", "REQUEST7")
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.asked, server.busy_for = 0, 1
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def flaky_settings(server: Any, **fields: Any) -> S3Settings:
    return S3Settings.model_validate(
        {
            "bucket": "flaky",
            "endpoint_url": f"http://127.0.0.1:{server.server_port}",
            "region_name": "us-east-1",
            "access_key_id": "testing",
            "secret_access_key": "testing",
            **fields,
        }
    )


async def test_every_request_is_told_with_its_details(settings: S3Settings) -> None:
    """Operation, key, bytes, duration, attempts and outcome, in order."""
    events: list[RequestEvent] = []
    async with connect(State, settings, on_request=events.append) as checkpointer:
        await checkpointer.resume(RUN)
        await checkpointer.commit(RUN, 1, {"n": 1}, [])
        async with connect(State, settings) as rival:
            await rival.commit(RUN, 2, {"n": 1}, [])
        with pytest.raises(StepConflictError):
            await checkpointer.commit(RUN, 2, {"n": 2}, [])
        assert await checkpointer.load(RUN, 1) == {"n": 1}
        assert await checkpointer.load(RUN, 3) is None
        await RunAdmin(checkpointer).delete(RUN)

    told = [(event.operation, event.bytes, event.attempts, event.outcome, event.status) for event in events]
    listed, written, copied = (
        ("ListObjectsV2", 0, 1, "ok", 200),
        ("PutObject", 7, 1, "ok", 200),
        ("PutObject", 2, 1, "ok", 200),
    )
    assert told[0] == listed
    assert sorted(told[1:3]) == [copied, written]  # sent together
    assert sorted(told[3:6]) == [("GetObject", 7, 1, "ok", 200), copied, ("PutObject", 7, 1, "refused", 412)]
    assert told[6:] == [
        ("GetObject", 7, 1, "ok", 200),
        ("GetObject", 0, 1, "absent", 404),
        listed,
        *[("HeadObject", 0, 1, "ok", 200)] * 3,
        ("DeleteObjects", 0, 1, "ok", 200),
        ("DeleteObjects", 0, 1, "ok", 200),
        listed,
    ]
    assert next(event for event in events if event.bytes == 7).key == KEYS.state(1)
    assert all(event.bucket == settings.bucket and event.duration_s > 0 and event.request_id for event in events)


async def test_repeats_are_counted(flaky: Any) -> None:
    """A busy answer and a good one are two attempts."""
    events: list[RequestEvent] = []
    async with connect(State, flaky_settings(flaky), on_request=events.append) as checkpointer:
        await checkpointer.save(RUN, 1, {"n": 1})

    assert [(event.attempts, event.outcome, event.request_id) for event in events] == [(2, "ok", "REQUEST7")]
    assert flaky.asked == 2


async def test_failures_are_told_by_their_code(flaky: Any) -> None:
    """As the error that the caller sees."""
    flaky.busy_for = 100
    events: list[RequestEvent] = []
    async with connect(State, flaky_settings(flaky, max_attempts=2), on_request=events.append) as checkpointer:
        with pytest.raises(StoreUnavailableError):
            await checkpointer.save(RUN, 1, {"n": 1})

    assert [(event.attempts, event.outcome, event.status) for event in events] == [(2, "store-unavailable", 503)]


async def test_a_cancelled_request_is_told_as_such(settings: S3Settings) -> None:
    """Whatever became of it in the store."""
    events: list[RequestEvent] = []
    async with connect(State, settings, on_request=events.append) as checkpointer:
        call = asyncio.ensure_future(checkpointer.load(RUN, 1))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert [event.outcome for event in events] == ["cancelled"]


async def test_a_watcher_that_fails_does_not_undo_a_write(
    settings: S3Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the call succeeds."""

    def broken(_: RequestEvent) -> None:
        raise RuntimeError("watching failed")

    async with connect(State, settings, on_request=broken) as checkpointer:
        await checkpointer.save(RUN, 1, {"n": 1})
        assert await checkpointer.load(RUN, 1) == {"n": 1}

    assert "on_request raised" in caplog.text


async def test_requests_are_logged_with_their_details(settings: S3Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Under the library's name, field by field in `extra`, and without handlers of its own."""
    with caplog.at_level(logging.DEBUG, logger="s3_checkpoint"):
        async with connect(State, settings) as checkpointer:
            await checkpointer.save(RUN, 1, {"n": 4321})

    [record] = [record for record in caplog.records if record.name == "s3_checkpoint.requests"]
    told = vars(record)
    assert record.levelno == logging.DEBUG
    assert (told["s3_operation"], told["s3_key"], told["s3_outcome"]) == ("PutObject", KEYS.state(1), "ok")
    assert (told["s3_bytes"], told["s3_attempts"], told["s3_status"]) == (10, 1, 200)
    assert "4321" not in caplog.text
    assert not logging.getLogger("s3_checkpoint").handlers


async def test_a_repeated_request_is_logged_louder(flaky: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, the only one that is."""
    with caplog.at_level(logging.INFO, logger="s3_checkpoint"):
        async with connect(State, flaky_settings(flaky)) as checkpointer:
            await checkpointer.save(RUN, 1, {"n": 1})
            await checkpointer.save(RUN, 2, {"n": 1})

    assert [vars(record)["s3_attempts"] for record in caplog.records] == [2]


async def test_closing_leaves_nothing_on_a_client_of_the_users(settings: S3Settings) -> None:
    """Two checkpointers on one client count each attempt once, and the last to close takes the counter away."""
    from s3_checkpoint._s3.client import client_for

    events: list[RequestEvent] = []
    async with client_for(settings) as client:
        async with connect(State, settings, client=client, on_request=events.append) as one:
            async with connect(State, settings, client=client) as other:
                await other.save(RUN, 1, {"n": 1})
            await one.save(RUN, 2, {"n": 1})
        async with connect(State, settings, client=client, on_request=events.append) as again:
            await again.save(RUN, 3, {"n": 1})

    assert [event.attempts for event in events] == [1, 1]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def spans_of(spans: Any, name: str, key: str) -> dict[str, Any]:
    """The attributes of the one span of this name about `key`."""
    (found,) = [attributes(span) for span in spans if span.name == name and attributes(span).get("aws.s3.key") == key]
    return found


async def test_spans_follow_the_conventions_for_s3(settings: S3Settings) -> None:
    """Name, kind, attributes, parent and status."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    watcher = OpenTelemetry(tracers, MeterProvider([reader]))

    async with connect(State, settings, on_request=watcher) as checkpointer:
        with tracers.get_tracer("app").start_as_current_span("superstep") as parent:
            await checkpointer.commit(RUN, 1, {"n": 1}, [])
            await checkpointer.load(RUN, 2)
            await checkpointer.list(RUN)
            await checkpointer.objects.store.copy(KEYS.state(1), KEYS.state(2))

    spans = [span for span in exporter.get_finished_spans() if span.name != "superstep"]
    put, absent = spans_of(spans, "S3.PutObject", KEYS.state(1)), spans_of(spans, "S3.GetObject", KEYS.state(2))
    listing, copy = attributes(spans[0]), spans_of(spans, "S3.CopyObject", KEYS.state(2))
    assert spans[0].name == "S3.ListObjectsV2"
    assert (
        put.items()
        >= {
            "rpc.system": "aws-api",
            "rpc.service": "S3",
            "rpc.method": "PutObject",
            "aws.s3.bucket": settings.bucket,
            "aws.s3.key": KEYS.state(1),
            "http.response.status_code": 200,
            "http.request.body.size": 7,
        }.items()
    )
    assert put["aws.request_id"]
    assert "aws.s3.key" not in listing
    assert copy["aws.s3.copy_source"] == f"{settings.bucket}/{KEYS.state(1)}"
    assert (absent["http.response.status_code"], absent["s3_checkpoint.outcome"]) == (404, "absent")
    for span in spans:
        assert span.kind == SpanKind.CLIENT
        assert span.status.status_code == StatusCode.UNSET
        assert span.parent
        assert span.parent.span_id == parent.get_span_context().span_id
        assert span.start_time
        assert span.end_time
        assert span.end_time > span.start_time
    data = reader.get_metrics_data()
    assert data
    [metric] = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("rpc.client.call.duration", "s")
    points: Any = metric.data.data_points
    assert sum(point.count for point in points) == len(spans)


async def test_a_failed_request_is_a_failed_span(flaky: Any) -> None:
    """With the error's code, and how often it was sent again."""
    flaky.busy_for = 100
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))

    async with connect(
        State, flaky_settings(flaky, max_attempts=2), on_request=OpenTelemetry(tracers, MeterProvider())
    ) as checkpointer:
        with pytest.raises(StoreUnavailableError):
            await checkpointer.save(RUN, 1, {"n": 1})

    [span] = exporter.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert attributes(span)["error.type"] == "store-unavailable"
    assert attributes(span)["http.request.resend_count"] == 1


async def test_removing_and_forking_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, with the run and what became of it."""
    checkpointer: S3Checkpointer[State] = S3Checkpointer(State, MemoryStore())
    for step in range(3):
        await checkpointer.commit(RUN, step, {"n": step}, [])
    admin = RunAdmin(checkpointer)

    with caplog.at_level(logging.INFO, logger="s3_checkpoint"):
        await admin.prune(RUN, keep_last=1, dry_run=True, grace=timedelta(0))
        await admin.prune(RUN, keep_last=1, grace=timedelta(0))
        new = await admin.fork(RUN, 2)
        await admin.delete(RUN)

    records = [vars(record) for record in caplog.records]
    assert [(record["msg"], record["run_id"]) for record in records] == [
        ("run pruned", str(RUN)),
        ("run forked", str(new)),
        ("run deleted", str(RUN)),
    ]
    assert (records[0]["states"], records[1]["origin"], records[2]["states"]) == (2, f"{RUN}/2", 1)
