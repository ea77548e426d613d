"""Clients that a caller hands in: requests go out through their connections, and no further than the host asked.

The client stays as it is. What is done to it needs private parts of the SDK; where they are not as expected, it is used
by its methods alone.
"""

from __future__ import annotations

import re
from typing import Any

from s3_checkpoint._s3.http_session import Answer, OneHostSession, send_once

_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")


def vet_region(
    response: Any = None, request_dict: Any = None, endpoint: Any = None, operation: Any = None, **_: Any
) -> None:
    """For the SDK's event `needs-retry`, before its own handler: what an answer says of the bucket's region, vetted.

    The SDK sends the request again to the region that `x-amz-bucket-region`, or the error's `Region`, names. It puts
    that into the endpoint's name, and for some buckets does not look whether it fits there: of `x.example/` it makes
    `https://s3.x.example/.amazonaws.com`. So a region that cannot be one is taken out of the answer.

    Where no region is named, the SDK asks for it by a HEAD of the bucket; and where that is answered by a redirect, by
    another one, without end. Through a client handed in that would go by its own HTTP session, which follows redirects.
    So there, and for the HEAD itself, it does not ask. Requests of a client's owner are left as they are.

    Source: `S3RegionRedirectorv2` and the endpoint rules of botocore 1.40; `Location` they do not read.
    """
    session = getattr(endpoint, "http_session", None)
    parsed = response[1] if isinstance(response, tuple) and len(response) > 1 else None
    if not isinstance(session, (OneHostSession, BorrowedSession)) or not isinstance(parsed, dict):
        return
    headers, error = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}), parsed.get("Error", {})
    named = False
    for holder, name in ((headers, "x-amz-bucket-region"), (error, "Region")):
        if name in holder:
            if _REGION.fullmatch(str(holder[name])):
                named = True
            else:
                del holder[name]
    if not named and (isinstance(session, BorrowedSession) or getattr(operation, "name", "") == "HeadBucket"):
        redirect = request_dict.get("context", {}).get("s3_redirect") if isinstance(request_dict, dict) else None
        if isinstance(redirect, dict):
            redirect["redirected"] = True  # the SDK's word for: not again


class BorrowedSession:
    """The same, on the connections of another client's HTTP session, which stays as it is."""

    def __init__(self, owner: Any, read_timeout: float | None) -> None:
        self._owner = owner
        self._read_timeout = read_timeout

    async def send(self, request: Any) -> Answer:
        """See `OneHostSession.send`."""
        return await send_once(request, self._owner._proxy_config, self._owner._get_session, self._read_timeout)

    async def close(self) -> None:
        """Nothing: the owner closes its own."""


def one_host(client: Any) -> Any:
    """A client that sends as `client` does, through its connections, but follows no redirect; it stays as it is.

    That needs private parts of the SDK. Where they are not as expected, this is `client` itself: what its HTTP session
    does with redirects and long answers is then what the SDK does.
    """
    attributes = vars(client) if hasattr(client, "__dict__") else {}
    endpoint = attributes.get("_endpoint")
    owner = getattr(endpoint, "http_session", None)
    if isinstance(owner, (OneHostSession, BorrowedSession)):
        return client
    if not all(callable(getattr(owner, name, None)) for name in ("_get_session", "send")):
        return client
    if not callable(getattr(getattr(owner, "_proxy_config", None), "proxy_url_for", None)):
        return client
    read_timeout = getattr(getattr(getattr(client, "meta", None), "config", None), "read_timeout", None)
    return _copy(client, _endpoint=_copy(endpoint, http_session=BorrowedSession(owner, read_timeout)))


def _copy(owner: Any, **changed: Any) -> Any:
    copy = object.__new__(type(owner))
    copy.__dict__.update(vars(owner), **changed)
    return copy
