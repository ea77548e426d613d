"""Requests through an SDK client: by its methods, or prepared.

For each call of a method the SDK walks through its descriptions of S3 and works out a request, of which only the key,
the body, the metadata or the place in a listing are new. A prepared request is a template that the SDK has rendered
once for its kind, without sending it; the SDK signs, sends, repeats, redirects, reads and judges it as ever.

That reaches into the SDK, so it is for clients made here. Where a part of it is not as expected, requests go by the
client's methods, and nothing is lost but time: docs/design/0006-prepared-requests.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from s3_checkpoint._s3.sdk_internals import CHECKSUM_HEADER, RequestParts

_logger = logging.getLogger("s3_checkpoint.requests")

PREPARED_BYTES = 64 * 1024
"""A larger body goes by the SDK's method: that makes a file of it, which is sent in chunks."""
_METHODS = {
    "GetObject": "get_object",
    "HeadObject": "head_object",
    "PutObject": "put_object",
    "ListObjectsV2": "list_objects_v2",
}
_NOTHING: Mapping[str, Any] = {}
_PLACE = "key"
"""The key of a request that is rendered and not sent."""
_MOVED = (AttributeError, ImportError, LookupError, TypeError)
"""What reaching for a part of the SDK raises where that is not as it was."""
_rendered: ContextVar[dict[str, Any] | None] = ContextVar("s3_checkpoint_rendered", default=None)


class _Unlogged(bytes):
    """A body that a log does not show: the SDK writes its requests into its own, where that is set to DEBUG.

    The SDK makes a file of a larger body, which is shown by its address alone.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class _Call(NamedTuple):
    """A request that is asked for: `options` are those that many share, the others are new each time."""

    operation: str
    options: Mapping[str, Any]
    key: str | None
    query: Mapping[str, Any]
    body: bytes | None
    metadata: Mapping[str, str]
    checksum: str | None


class _Template(NamedTuple):
    """A kind of request as the SDK makes it, without what is new each time."""

    model: Any
    request: dict[str, Any]
    url: str
    """Up to the key, or to the query that every listing has."""
    query_names: Mapping[str, str]
    """What the parameters of the query are called on the wire."""

    def filled(self, call: _Call, parts: RequestParts) -> dict[str, Any]:
        """A whole request: it shares nothing that the SDK writes to with another."""
        request = dict(self.request)
        request["context"] = {
            name: dict(note) if type(note) is dict else note for name, note in request["context"].items()
        }
        request["headers"] = dict(request["headers"])
        for name, value in call.metadata.items():
            request["headers"][f"x-amz-meta-{name}"] = value
        if call.checksum is not None:
            request["headers"][CHECKSUM_HEADER] = call.checksum
        if call.body is not None:
            request["body"] = _Unlogged(call.body)
        if call.key is not None:
            request["url"] = self.url + parts.percent_encode(call.key, safe="/~")
        else:
            whole = dict(request["query_string"])
            for name, value in call.query.items():
                whole[self.query_names[name]] = str(value)
            request["url"] = self.url + parts.percent_encode_sequence(whole)
        return request


@dataclass(slots=True)
class _Ready:
    """A request that is worked out."""

    model: Any
    context: dict[str, Any]
    answer: Any
    """Awaitable: what the SDK's client makes of sending it, or what a handler answered in its place."""


class S3Requests:
    """Requests of one client, which the caller closes. `prepared`: whether they may go without the client's methods."""

    def __init__(self, client: Any, *, prepared: bool) -> None:
        self._client = client
        self._parts = RequestParts.of(client) if prepared else None
        if prepared and self._parts is None:
            _say_not_prepared("a part is missing")
        self._templates: dict[tuple[object, ...], _Template | None] = {}

    async def send(
        self,
        operation: str,
        options: Mapping[str, Any],
        key: str | None = None,
        *,
        query: Mapping[str, Any] = _NOTHING,
        body: bytes | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        checksum: str | None = None,
    ) -> Any:
        """The parsed answer to one request; raises what the SDK raises.

        All are parameters of the SDK: `options` those that many requests share, `query` those of a listing that are new
        each time, `body`, `metadata` and `checksum` (a SHA-256 in base64) those of a PUT.
        """
        call, ready = _Call(operation, options, key, query, body, metadata, checksum), None
        # A kind for each ETag would be one too many; what is not ASCII, the SDK refuses where it looks at it.
        if (
            self._parts is not None
            and "IfMatch" not in options
            and len(body or b"") <= PREPARED_BYTES
            and "".join(metadata.values()).isascii()
        ):
            try:
                ready = await self._ready(self._parts, call)
            except _MOVED as error:
                # Nothing is sent until it is ready.
                self._parts = None
                _say_not_prepared(type(error).__name__)
        if ready is not None:
            return await self._send_prepared(operation, ready)
        return await self._by_method(call)

    async def _by_method(self, call: _Call) -> Any:
        metadata = dict(call.metadata) or None
        new = {"Key": call.key, "Body": call.body, "Metadata": metadata, "ChecksumSHA256": call.checksum}
        given = {name: value for name, value in new.items() if value is not None}
        return await getattr(self._client, _METHODS[call.operation])(**call.options, **call.query, **given)

    async def _ready(self, parts: RequestParts, call: _Call) -> _Ready | None:
        """A request that only has to be sent, as the SDK's client makes it; None if its kind cannot be prepared."""
        kind = (call.operation, call.checksum is None, *call.options.items())
        if kind not in self._templates:
            self._templates[kind] = await self._render(parts, call)
        template = self._templates[kind]
        if template is None:
            return None
        model, request = template.model, template.filled(call, parts)
        context = request["context"]
        _, answer = await self._client.meta.events.emit_until_response(
            f"before-call.s3.{call.operation}",
            model=model,
            params=request,
            request_signer=parts.signer,
            context=context,
        )
        if answer is not None:
            return _Ready(model, context, _given_by_handler(answer))
        parts.apply_checksum(request)
        return _Ready(model, context, parts.make(model, request, context))

    async def _send_prepared(self, operation: str, ready: _Ready) -> Any:
        """What the SDK's client does once a request is worked out."""
        client, model, context = self._client, ready.model, ready.context
        http, parsed = await ready.answer
        await client.meta.events.emit(
            f"after-call.s3.{operation}", http_response=http, parsed=parsed, model=model, context=context
        )
        if context.get("s3_redirect", {}).get("redirected"):
            self._templates.clear()  # the bucket is in another region, as the SDK knows from now on
        if http.status_code >= 300:
            code = context.get("error_code_override") or parsed.get("Error", {}).get("Code")
            raise client.exceptions.from_code(code)(parsed, operation)
        return parsed

    async def _render(self, parts: RequestParts, call: _Call) -> _Template | None:
        """The template of requests such as `call`; None if what is new of them is not at the end of the URL."""
        noted: dict[str, Any] = {}

        def note(model: Any, params: dict[str, Any], **_: Any) -> object:
            if _rendered.get() is not noted:
                return None  # another task's request
            noted.update(params, model=model)
            return _NotSent(), {}

        event = f"before-call.s3.{call.operation}"
        before = _rendered.set(noted)
        self._client.meta.events.register_first(event, note)
        try:
            place = call._replace(
                key=None if call.key is None else _PLACE,
                query=_NOTHING,
                body=None if call.body is None else b"",
                metadata=_NOTHING,
            )
            await self._by_method(place)
        finally:
            self._client.meta.events.unregister(event, note)
            _rendered.reset(before)
        model, url = noted.pop("model"), noted.pop("url")
        if call.key is not None:
            return _Template(model, noted, url.removesuffix(_PLACE), {}) if url.endswith("/" + _PLACE) else None
        always = parts.percent_encode_sequence(noted["query_string"])
        names = {
            name: member.serialization["name"]
            for name, member in model.input_shape.members.items()
            if member.serialization.get("location") == "querystring"
        }
        return _Template(model, noted, url.removesuffix(always), names) if always and url.endswith(always) else None


async def _given_by_handler(answer: Any) -> Any:
    return answer


def _say_not_prepared(reason: str) -> None:
    _logger.warning("requests are not prepared: the SDK is not as expected (%s)", reason)


class _NotSent:
    """The answer to a request that is rendered and not sent."""

    status_code = 200
