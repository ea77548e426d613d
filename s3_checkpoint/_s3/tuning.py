"""What makes an S3 client of ours cheaper per request, through the SDK's events where there is one.

Only for clients made here: one that a caller hands in is left as it is. Each measure leaves what is asked of S3 as it
was, but for the `Expect` header of small bodies and the text of `User-Agent`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from io import BytesIO
from typing import Any
from weakref import WeakSet

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

_NAMES_KEY = re.compile(rb'"ref":"(?:%b)"|\{(?:%b)[}#]' % ((b"|".join(map(str.encode, sorted(KEY_PARAMETERS))),) * 2))
_preparable: WeakSet[Any] = WeakSet()


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
    if prepared:
        _preparable.add(client)


def may_prepare(client: Any) -> bool:
    """Whether requests of this client may be prepared: it was made here, of a session that was made here."""
    return client in _preparable


def rules_name_keys(rules: object) -> bool:
    """Whether endpoint rules, as their description has them, depend on what differs from request to request."""
    return _NAMES_KEY.search(to_json(rules)) is not None


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
