"""What makes an S3 client of ours cheaper per request, through the SDK's events.

Only for clients made here: one that a caller hands in is left as it is. Each measure leaves what is asked of S3 as it
was, but for the `Expect` header of small bodies and the text of `User-Agent`.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from weakref import WeakKeyDictionary

from s3_checkpoint._s3.list_parser import take_entries_out
from s3_checkpoint._s3.sdk_internals import add_expect_header, note_checksum, share_endpoints

ASKS_FIRST_BYTES = 2 * 1024**2
"""A larger body asks before it is sent (`Expect: 100-continue`): there, a refusal saves more than a round trip."""

_tuned: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Clients made here, and whether their requests may be prepared."""


def tune(client: Any, endpoint_rules: object, *, prepared: bool = True) -> None:
    """Lowers the CPU and the round trips of every request of this client, whose endpoints follow these rules.

    `prepared`: its requests may be prepared too (`prepared_requests`).
    """
    events = client.meta.events
    # With the service left open it comes before the SDK's own handler, which parses the answer in search of an error.
    events.register("before-parse.*.ListObjectsV2", take_entries_out)
    if add_expect_header is not None:
        events.unregister("before-call.s3", add_expect_header)
        events.register("before-call.s3", _ask_first_when_large)
    events.register("before-call.s3.PutObject", note_checksum)
    share_endpoints(client, endpoint_rules)
    _tuned[client] = prepared


def may_prepare(client: Any) -> bool:
    """Whether requests of this client may be prepared: it was made here, of a session that was made here."""
    return _tuned.get(client, False)


def sends_own_checksums(client: Any) -> bool:
    """Whether a PUT carries our SHA-256 instead of the CRC that the SDK would work out.

    For clients made here, unless checksums are turned off, as for a compatible store. A client that was handed in signs
    the body where a checksum is given, and works out a SHA-256 of its own for that.
    """
    return client in _tuned and client.meta.config.request_checksum_calculation == "when_supported"


def _ask_first_when_large(model: Any, params: dict[str, Any], **others: Any) -> None:
    # The SDK asks first whatever the size, which costs each small PUT a round trip more.
    body = params.get("body")
    # Its value is the bytes it was made of; asking for its buffer would make a copy of them.
    if not (isinstance(body, BytesIO) and len(body.getvalue()) <= ASKS_FIRST_BYTES):
        add_expect_header(model, params, **others)
