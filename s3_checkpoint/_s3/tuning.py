"""What makes an S3 client of ours cheaper per request, through the SDK's events where there is one.

Only for clients made here: one that a caller hands in is left as it is. Each measure leaves what is asked of S3 as it
was, but for the `Expect` header of small bodies and the text of `User-Agent`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from io import BytesIO
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from s3_checkpoint._s3.list_parser import take_entries_out

try:
    from botocore.handlers import add_expect_header
except ImportError:  # moved: then a small body, too, asks before it is sent
    add_expect_header = None

ASKS_FIRST_BYTES = 2 * 1024**2
"""A larger body asks before it is sent (`Expect: 100-continue`): there, a refusal saves more than a round trip."""
KEY_PARAMETERS = frozenset({"Key", "Prefix", "CopySource"})
"""Parameters of the endpoint rules that differ from request to request."""

CHECKSUM_HEADER = "x-amz-checksum-sha256"

_NAMES_KEY = re.compile(rb'"ref":"(?:%b)"|\{(?:%b)[}#]' % ((b"|".join(map(str.encode, sorted(KEY_PARAMETERS))),) * 2))
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
    _share_endpoints(client, endpoint_rules)
    events.register("before-call.s3.PutObject", _count_checksum_as_the_sdks)
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


def rules_name_keys(rules: object) -> bool:
    """Whether endpoint rules, as their description has them, depend on what differs from request to request."""
    return _NAMES_KEY.search(to_json(rules)) is not None


def _count_checksum_as_the_sdks(params: dict[str, Any], **_: Any) -> None:
    """Tells the SDK of the checksum in the header, as it notes its own: over TLS it then signs no body.

    Where it keeps no such note, it signs the body, which costs one more SHA-256 of it.
    """
    if CHECKSUM_HEADER in params["headers"]:
        algorithm = {"algorithm": "sha256", "in": "header", "name": CHECKSUM_HEADER}
        params["context"]["checksum"] = {"request_algorithm": algorithm}


def _ask_first_when_large(model: Any, params: dict[str, Any], **others: Any) -> None:
    # The SDK asks first whatever the size, which costs each small PUT a round trip more.
    body = params.get("body")
    # Its value is the bytes it was made of; asking for its buffer would make a copy of them.
    if not (isinstance(body, BytesIO) and len(body.getvalue()) <= ASKS_FIRST_BYTES):
        add_expect_header(model, params, **others)


def _share_endpoints(client: Any, rules: object) -> None:
    """Lets all keys of a bucket share one answer of the endpoint rules, which the SDK works out anew for each key.

    It reaches into the SDK, so it does nothing where that is not built as expected or the rules do name keys.
    """
    provider = getattr(getattr(client, "_ruleset_resolver", None), "_provider", None)
    resolve = getattr(provider, "resolve_endpoint", None)
    if provider is None or resolve is None or not rules or rules_name_keys(rules):
        return

    def resolve_for_any_key(**parameters: Any) -> Any:
        return resolve(**{name: value for name, value in parameters.items() if name not in KEY_PARAMETERS})

    with suppress(AttributeError):  # one that takes no attributes stays as it is
        provider.resolve_endpoint = resolve_for_any_key
