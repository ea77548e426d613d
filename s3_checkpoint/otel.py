"""Requests as OpenTelemetry spans and a duration histogram. Needs the extra `otel`.

    from s3_checkpoint.otel import OpenTelemetry

    async with connect(Research, on_request=OpenTelemetry()) as checkpointer: …

Names follow the semantic conventions for AWS SDK and S3 client spans: a span `S3.PutObject` of kind CLIENT under the
span that is current where the call is made.
"""

from __future__ import annotations

try:
    from opentelemetry.metrics import MeterProvider, get_meter_provider
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer_provider
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "the OpenTelemetry adapter needs a package: pip install 's3-checkpoint[otel]'", name=_error.name
    ) from _error

from s3_checkpoint import __version__
from s3_checkpoint.request_events import RequestEvent

_SCOPE = "s3_checkpoint"
_NOT_AN_ERROR = frozenset({"ok", "absent", "refused"})
_WITHOUT_KEY = frozenset({"ListObjectsV2", "DeleteObjects"})
"""Operations on the bucket: the conventions give `aws.s3.key` to those on one object only."""
_SENDS_BODY = frozenset({"PutObject"})


class OpenTelemetry:
    """Makes each `RequestEvent` a span, and counts it in `rpc.client.call.duration` (seconds). To be `on_request`.

    Providers left out are the global ones. An absent object and a refused precondition are answers, not errors: their
    spans have no error status; every other outcome is in `error.type`, as the error's `code`.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = (tracer_provider or get_tracer_provider()).get_tracer(_SCOPE, __version__)
        self._duration = (
            (meter_provider or get_meter_provider())
            .get_meter(_SCOPE, __version__)
            .create_histogram("rpc.client.call.duration", unit="s", description="Duration of requests to the store.")
        )

    def __call__(self, event: RequestEvent) -> None:
        """Records the request; sends nothing itself."""
        common: dict[str, AttributeValue] = {
            "rpc.system": "aws-api",
            "rpc.service": "S3",
            "rpc.method": event.operation,
        }
        if event.outcome not in _NOT_AN_ERROR:
            common["error.type"] = event.outcome
        self._duration.record(event.duration_s, common)

        start_ns = int(event.started_at * 1e9)
        span = self._tracer.start_span(
            f"S3.{event.operation}",
            kind=SpanKind.CLIENT,
            start_time=start_ns,
            attributes=common | _attributes(event),
        )
        if event.outcome not in _NOT_AN_ERROR:
            span.set_status(Status(StatusCode.ERROR, event.outcome))
        span.end(start_ns + int(event.duration_s * 1e9))


def _attributes(event: RequestEvent) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        "aws.s3.bucket": event.bucket,
        "s3_checkpoint.outcome": event.outcome,
    }
    if event.operation not in _WITHOUT_KEY:
        found["aws.s3.key"] = event.key
    told: dict[str, AttributeValue] = {
        "aws.s3.copy_source": event.copy_source,
        "aws.request_id": event.request_id,
        "aws.extended_request_id": event.extended_request_id,
        "http.response.status_code": event.status,
    }
    found |= {name: value for name, value in told.items() if value}
    if event.attempts > 1:
        found["http.request.resend_count"] = event.attempts - 1
    if event.bytes:
        found["http.request.body.size" if event.operation in _SENDS_BODY else "http.response.body.size"] = event.bytes
    return found
