"""The object store as the rest of the library sees it: six verbs and the small values they pass.

A store implements them with S3's semantics: strong read-after-write and list-after-write, listing in the byte order of
keys, and atomic preconditions on `put`. Faults, in tests, are wrappers around a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias, overload

from s3_checkpoint.errors import InvalidArgumentError, StoreError, StoreUnavailableError

PAGE_KEYS = 1000
"""The most keys a LIST page or a batch delete holds; S3's own bound."""
EMPTY_PAGES = 100
"""Pages in a row that hold nothing and have a continuation token; more are an error."""


@dataclass(frozen=True, slots=True)
class Match:
    """Precondition of a `put`: the object there has this ETag."""

    etag: str


PutMode: TypeAlias = Literal["create", "overwrite"] | Match
"""`create`: only if nothing is there (`If-None-Match: *`). `overwrite`: over whatever is there. `Match`: only
over this ETag."""


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """What is stored with a body: its content headers and user metadata (lower-case ASCII names, ASCII values)."""

    content_type: str = "application/json"
    content_encoding: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """An object without its body. `size` is in bytes as stored."""

    attributes: ObjectAttributes
    etag: str
    size: int
    last_modified: datetime
    date: datetime | None = field(default=None, compare=False)
    """When the store gave this answer, by its own clock; None if it did not say. S3 tells whole seconds."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with its body, as stored (still compressed if `content_encoding` says so)."""

    body: bytes
    head: ObjectHead


@dataclass(frozen=True, slots=True)
class Written:
    """The put took effect, and this is the object's ETag now."""

    etag: str
    repeated: bool = False
    """The answer is that of a repeat: an attempt before it, whose answer was lost, may have taken effect already.

    Of repeats that the HTTP library makes below the SDK, on a connection that broke, nothing is known.
    """


_CONFLICT_CODES = frozenset({"ConditionalRequestConflict", "ConcurrentModification", "OperationAborted", "409"})
"""Of a 409: another write to the key was in progress, and may have failed. The second is Ceph RGW's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The store says that the precondition did not hold, or that another write was in progress.

    Not to be believed unread: a put whose first answer was lost is refused by its own success.
    """

    code: str
    """The store's own word."""
    status: int = field(default=0, compare=False)
    """The HTTP status, 409 or 412; 0 where the store has none: then the code decides."""

    @property
    def was_there(self) -> bool:
        """Whether an object was at the key when the put was refused (412); False for a 409, which does not tell."""
        return self.status == 412 or (not self.status and self.code not in _CONFLICT_CODES)


class ListedObject(NamedTuple):
    """An entry of a listing. `size` is in bytes as stored; `last_modified` is in UTC."""

    key: str
    size: int
    last_modified: datetime
    etag: str = ""
    """Without quotes; empty where the store does not tell it."""


class ListedObjects(Sequence[ListedObject]):
    """The entries of a page, each made from the page's columns when it is asked for."""

    __slots__ = ("_etags", "_keys", "_sizes", "_times")

    def __init__(
        self, keys: Sequence[str], sizes: Sequence[int], times: Sequence[datetime], etags: Sequence[str] = ()
    ) -> None:
        self._keys, self._sizes, self._times = keys, sizes, times
        self._etags = etags or [""] * len(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> ListedObject: ...
    @overload
    def __getitem__(self, index: slice) -> ListedObjects: ...
    def __getitem__(self, index: int | slice) -> ListedObject | ListedObjects:
        if isinstance(index, slice):
            return ListedObjects(self._keys[index], self._sizes[index], self._times[index], self._etags[index])
        return ListedObject(self._keys[index], self._sizes[index], self._times[index], self._etags[index])

    def __iter__(self) -> Iterator[ListedObject]:
        return map(ListedObject, self._keys, self._sizes, self._times, self._etags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # as of a list


@dataclass(frozen=True, slots=True)
class Page:
    """One LIST answer: its objects in columns, its common prefixes, and how to continue.

    In columns because most callers want the keys alone, and a thousand entries take longer to make than to read.
    """

    keys: Sequence[str] = ()
    """Ascending, where the store is `ordered`."""
    sizes: Sequence[int] = ()
    """In bytes as stored, one for each key."""
    times: Sequence[datetime] = ()
    """When each was last modified, in UTC."""
    etags: Sequence[str] = ()
    """Without quotes, or empty; none at all where the store does not tell them."""
    prefixes: Sequence[str] = ()
    """Common prefixes; only with a delimiter."""
    next_token: str | None = None
    """Pass it as `token` for the next page; None when this was the last one."""

    @classmethod
    def of(cls, objects: Iterable[ListedObject], prefixes: Sequence[str] = (), next_token: str | None = None) -> Page:
        """The page with these entries."""
        entries = list(objects)
        return cls(
            [entry.key for entry in entries],
            [entry.size for entry in entries],
            [entry.last_modified for entry in entries],
            [entry.etag for entry in entries],
            prefixes,
            next_token,
        )

    @property
    def objects(self) -> ListedObjects:
        """The entries."""
        return ListedObjects(self.keys, self.sizes, self.times, self.etags)


class ObjectTooLargeError(StoreError):
    """The object is larger than the caller of `get` allowed; it was not read whole.

    Readers of states raise `StateDecodingError` from it.
    """

    def __init__(self, bucket: str, key: str, size: int | None, max_bytes: int) -> None:
        found = "streamed, and holds" if size is None else f"{size} bytes,"
        super().__init__("GetObject", bucket, key, f"it is {found} more than {max_bytes} allowed")
        self.size: int | None = size
        self.max_bytes: int = max_bytes

    def __reduce__(self) -> tuple[object, ...]:
        return ObjectTooLargeError, (self.bucket, self.key, self.size, self.max_bytes)


class ObjectStore(Protocol):
    """Six verbs on one bucket. A call is one request (`delete`: one per 1,000 keys), repeats of a failed attempt aside.

    All of them raise `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError` (every attempt failed; for a
    write the outcome is unknown), `LifecycleError` or `StoreError`, and nothing else.
    """

    @property
    def bucket(self) -> str:
        """The bucket's name, for messages."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether listings come in key order and honour `start_after` (S3 Express directory buckets do neither)."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop in which it must be used; None: any. A wrapper has that of the store it wraps."""
        ...

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """The object at `key`.

        Requests: 1.

        Args:
            key: Where it is.
            max_bytes: Of its body as stored.

        Returns:
            None if there is none.

        Raises:
            ObjectTooLargeError: Its body is larger than `max_bytes`; it was not read whole.
        """
        ...

    async def head(self, key: str) -> ObjectHead | None:
        """The object's head; None if there is none.

        Requests: 1.
        """
        ...

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """`body` is stored at `key`, whole or not at all, if `mode` allows.

        Requests: 1.

        Args:
            key: At most 1,024 bytes of UTF-8.
            body: As it is to be stored.
            attributes: Content headers and metadata.
            mode: The precondition: "create" (nothing is there), `Match` (this ETag is), or "overwrite" (none).

        Returns:
            `Refused` if the precondition does not hold, or a write in flight conflicts; never for "overwrite".
        """
        ...

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        """One page of the listing of `prefix`; `pages` gives all of them.

        Requests: 1.

        Args:
            prefix: What all keys begin with.
            start_after: Only keys greater than this one; a store that is not `ordered` ignores it.
            token: The `next_token` of the page before.
            delimiter: Keys that have it behind the prefix are grouped, up to and including it, as common prefixes.
            limit: The most keys of the page, 1 … 1,000.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Nothing is at `keys` any more. One at which nothing was is no error.

        Requests: 1 per 1,000 keys.

        Raises:
            AccessDeniedError: Or another error, for a key that the store refuses to remove; others may be gone.
        """
        ...

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """A copy of `source` is at `target`, whatever was there; made inside the store.

        Requests: 1.

        Args:
            source: The key of what is copied.
            target: Another key, or the same.
            attributes: Replace all content headers and metadata; by default they come along.

        Returns:
            False if `source` is not there; then nothing was written.
        """
        ...


def utc_now() -> datetime:
    """The time of day, in UTC: `now` where nothing else is given."""
    return datetime.now(UTC)


def lists_whole_pages(store: ObjectStore) -> bool:
    """Whether a LIST of one key costs this store a page of 1,000 all the same; a search then sends fewer of them.

    A store says so with an attribute `whole_pages`; one without it is asked for as few keys as are wanted.
    """
    return getattr(store, "whole_pages", False) is True


async def time_of_writing(store: ObjectStore, key: str) -> datetime:
    """The store's clock, where a transport does not tell `Date`: `Last-Modified` of what is written at `key`.

    Requests: 1 PUT, 1 HEAD.
    """
    await store.put(key, b"{}", ObjectAttributes(), mode="overwrite")
    head = await store.head(key)
    if head is None:
        told = "it was written, and is not there"
        raise StoreUnavailableError("HeadObject", store.bucket, key, outcome_unknown=False, detail=told)
    return head.last_modified


async def pages(
    store: ObjectStore,
    prefix: str,
    *,
    start_after: str = "",
    delimiter: str = "",
    limit: int = PAGE_KEYS,
    first_limit: int | None = None,
) -> AsyncGenerator[Page, None]:
    """All pages of the listing of `prefix`, each asked for when it is wanted.

    Every loop over continuation tokens is this one, so that a listing that a server never ends, ends here.

    Requests: 1 LIST per page.

    Args:
        store: Where to list.
        prefix: What all keys begin with.
        start_after: Only keys greater than this one; a store that is not `ordered` ignores it.
        delimiter: Groups keys, as in `ObjectStore.list`.
        limit: The most keys of a page, 1 … 1,000.
        first_limit: The same for the first page; default: `limit`.

    Yields:
        Pages whose keys and common prefixes all begin with `prefix`. A page may be empty.

    Raises:
        StoreError: A continuation token came twice, a key is outside `prefix`, or `EMPTY_PAGES` pages in a row were
            empty. And what `ObjectStore.list` raises. The pages before have been handed out by then: a caller that
            removes what is listed, and must not start on a listing that is wrong, collects them first.
    """
    seen: set[str] = set()
    token: str | None = None
    empty = 0
    keys = limit if first_limit is None else first_limit
    while True:
        after = start_after if token is None else ""
        page = await store.list(prefix, start_after=after, token=token, delimiter=delimiter, limit=keys)
        check_prefix(store, prefix, page)
        yield page
        token = page.next_token
        if token is None:
            return
        empty = 0 if page.objects or page.prefixes else empty + 1
        if token in seen or empty >= EMPTY_PAGES:
            told = "its listing never ends: " + ("a token came twice" if token in seen else "page after page is empty")
            raise StoreError("ListObjectsV2", store.bucket, prefix, told)
        seen.add(token)
        keys = limit


_VERBS = ("get", "head", "put", "list", "delete", "copy")


def check_store(store: object, or_else: str = "") -> None:
    """Raises `InvalidArgumentError` for what is no object store: a number, say, or a class in the place of its object.

    `or_else`: what else would do.
    """
    if isinstance(store, type) or not all(callable(getattr(store, verb, None)) for verb in _VERBS):
        found = store.__name__ if isinstance(store, type) else type(store).__name__
        raise InvalidArgumentError("store", found, f"must be an open object store, such as MemoryStore(){or_else}")


def check_prefix(store: ObjectStore, prefix: str, page: Page) -> None:
    """Raises `StoreError` if the page lists what is not under `prefix`: a server that ignores the prefix, say.

    All that is between two names with the same beginning begins so too.
    """
    for names in (page.keys, page.prefixes):
        if names and not (min(names).startswith(prefix) and max(names).startswith(prefix)):
            raise StoreError("ListObjectsV2", store.bucket, prefix, "its listing holds keys outside this prefix")
