"""The private parts of the SDK that this package uses, each with its guard, and what happens without it.

    private part                                        used for                              without it
    `AioHierarchicalEmitter`, `BUILTIN_HANDLERS`        `new_session`: events copied          each registers its own
    a `data_loader`'s `file_loader`, and two methods    `read_faster`: descriptions           the SDK reads them
    a client's `_ruleset_resolver._provider`            `share_endpoints`                     rules asked for each key
    `handlers.add_expect_header`                        small bodies go out at once           they ask first
    `checksum` in a request's context                   `note_checksum`: no second SHA-256    the body is signed
    a client's `_make_request` and `_request_signer`,   `RequestParts`: prepared requests     requests go by methods
      `apply_request_checksum`, `percent_encode`
    a client's `_endpoint`; `_get_session` and          `one_host`: a client handed in        it is used as it is
      `_proxy_config` of its HTTP session                 follows no redirect
    `s3_redirect` in a request's context                `vet_region`: no odd region           the SDK decides
    `aioboto3.Session._session`                         `sdk_session`                         `ConfigurationError`

`tests/s3/test_sdk_privates.py` takes each of them away.
"""

from __future__ import annotations

import copy
import gzip
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import botocore
from aiobotocore.session import AioSession
from botocore.exceptions import DataNotFoundError
from pydantic_core import from_json, to_json

from s3_checkpoint._s3.http_session import Answer, OneHostSession, send_once

try:
    from botocore.handlers import add_expect_header as add_expect_header  # noqa: PLC0414 - used by `tuning`
except ImportError:
    add_expect_header = None
try:
    from aiobotocore.hooks import AioHierarchicalEmitter
    from botocore.handlers import BUILTIN_HANDLERS
except ImportError:
    AioHierarchicalEmitter = BUILTIN_HANDLERS = None
try:
    from aiobotocore.httpchecksum import apply_request_checksum
    from botocore.utils import percent_encode, percent_encode_sequence
except ImportError:
    apply_request_checksum = percent_encode = percent_encode_sequence = None
try:
    from botocore.endpoint_provider import S3_UNREFERENCED_PARAMS  # from aiobotocore 3.10 on
except ImportError:
    S3_UNREFERENCED_PARAMS = None

CHECKSUM_HEADER = "x-amz-checksum-sha256"
KEY_PARAMETERS = frozenset({"Key", "Prefix", "CopySource"})
"""Parameters of the endpoint rules that differ from request to request."""

_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")
_NAMES_KEY = re.compile(rb'"ref":"(?:%b)"|\{(?:%b)[}#]' % ((b"|".join(map(str.encode, sorted(KEY_PARAMETERS))),) * 2))


# Sessions and their description files


def sdk_session(session: object) -> AioSession | None:
    """The aiobotocore session that an `aioboto3.Session` holds, or that this is; None for anything else."""
    inside = getattr(session, "_session", session)
    return inside if isinstance(inside, AioSession) else None


def new_session(profile_name: str | None = None) -> AioSession:
    """A session as the SDK makes it, but from the second on with a copy of the first one's event handlers.

    To register those hundred again is nine tenths of what making a session costs. Sessions share no handler that is
    registered later, and one that is added to those of the SDK holds for the sessions made after that, as ever.
    """
    global _registered  # noqa: PLW0603 - replaced whole, so that threads see one or the other
    if AioHierarchicalEmitter is None or getattr(botocore, "_INITIALIZERS", True):  # they register handlers too
        return AioSession(profile=profile_name)
    handlers, events = _registered
    if events is None or handlers != BUILTIN_HANDLERS:
        handlers, events = list(BUILTIN_HANDLERS), AioHierarchicalEmitter()
        AioSession(event_hooks=events)
        _registered = handlers, events
    return AioSession(event_hooks=copy.copy(events), include_builtin_handlers=False, profile=profile_name)


_registered: tuple[list[Any], Any] = ([], None)
"""The SDK's handlers as they were, and the events that they are registered for."""


def read_faster(loader: Any) -> None:
    """Makes this loader, the `data_loader` of a session, read with less CPU; one of another make is left as it is.

    The same files, found by the SDK's own rules and holding the same; only read with a faster parser, and found without
    walking through the descriptions of all services. That is most of what making a client costs.
    """
    if not all(hasattr(loader, name) for name in ("file_loader", "list_available_services", "list_api_versions")):
        return
    list_all = loader.list_available_services
    loader.file_loader = _DescriptionFiles()
    loader.list_available_services = lambda type_name: _Services(loader, type_name, list_all)


class _DescriptionFiles:
    """What the SDK calls a file loader."""

    def exists(self, file_path: str) -> bool:
        """Whether there is such a file, by its path without the ending."""
        return any(Path(file_path + ending).is_file() for ending in (".json", ".json.gz"))

    def load_file(self, file_path: str) -> Any:
        """Its content, as `description`."""
        return description(file_path)


@lru_cache(maxsize=32)  # an S3 client has seven files
def description(file_path: str) -> Any:
    """What such a file holds; None if there is none. Read once by a process: sessions share it, as clients of one."""
    for ending, opened in ((".json", open), (".json.gz", gzip.open)):
        if Path(file_path + ending).is_file():
            with opened(file_path + ending, "rb") as file:
                return from_json(file.read(), cache_strings="keys")
    return None


class _Services:
    """The services that have a description of one type: asked for one, it looks for that one."""

    def __init__(self, loader: Any, type_name: str, list_all: Any) -> None:
        self._loader, self._type_name, self._list_all = loader, type_name, list_all

    def __contains__(self, service_name: str) -> bool:
        try:
            return bool(self._loader.list_api_versions(service_name, self._type_name))
        except DataNotFoundError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._list_all(self._type_name))


# A client that is made here


def share_endpoints(client: Any, rules: object) -> None:
    """Lets all keys of a bucket share one answer of the endpoint rules, which the SDK works out again for each key.

    Does nothing where the SDK leaves out what no rule names (from aiobotocore 3.10 on), where it is not built as
    expected, or where the rules do name keys. `rules`: as their description has them.
    """
    provider = getattr(getattr(client, "_ruleset_resolver", None), "_provider", None)
    resolve = getattr(provider, "resolve_endpoint", None)
    if provider is None or resolve is None or not needs_shared_endpoints() or not rules or rules_name_keys(rules):
        return

    def resolve_for_any_key(**parameters: Any) -> Any:
        return resolve(**{name: value for name, value in parameters.items() if name not in KEY_PARAMETERS})

    with suppress(AttributeError):  # one that takes no attributes stays as it is
        provider.resolve_endpoint = resolve_for_any_key


def needs_shared_endpoints() -> bool:
    """Whether the SDK works out an endpoint for each key."""
    return S3_UNREFERENCED_PARAMS is None or not set(S3_UNREFERENCED_PARAMS) >= KEY_PARAMETERS


def rules_name_keys(rules: object) -> bool:
    """Whether endpoint rules, as their description has them, depend on what differs from request to request."""
    return _NAMES_KEY.search(to_json(rules)) is not None


def note_checksum(params: dict[str, Any], **_: Any) -> None:
    """For the event `before-call.s3.PutObject`: notes the checksum in the header as the SDK notes its own.

    Over TLS it then signs no body. Where it keeps no such note, it signs it, which costs one more SHA-256.
    """
    if CHECKSUM_HEADER in params["headers"]:
        algorithm = {"algorithm": "sha256", "in": "header", "name": CHECKSUM_HEADER}
        params["context"]["checksum"] = {"request_algorithm": algorithm}


class RequestParts(NamedTuple):
    """What it takes to send a request that no method of the client has worked out."""

    make: Any
    signer: Any
    apply_checksum: Any
    percent_encode: Any
    percent_encode_sequence: Any

    @classmethod
    def of(cls, client: Any) -> RequestParts | None:
        """The parts of this client and its SDK; None if one of them is not there."""
        parts = (
            getattr(client, "_make_request", None),
            getattr(client, "_request_signer", None),
            apply_request_checksum,
            percent_encode,
            percent_encode_sequence,
        )
        return None if None in parts else cls(*parts)


# A client that a caller handed in


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
