"""Appending to transcripts and reading them, on any object store: the order of appends, and what may be lost.

**Order.** An append is one object, created with `If-None-Match: *` under the next number. The number is the order: no
clock takes part. Refused, what is there is read back. Our own write id: it had landed. Another's: the next number. An
empty part: the transcript was removed, and a process that was building on it is told so.

**Once.** An append whose answer never came is remembered with its number and write id. The same entries handed in again
are looked for there, and sent under the same write id: they are stored once, with uuids or without. On reading, of
entries with one `uuid` the first counts.

**Numbers are not used twice.** A process counts on a number being free for half of `grace` after it has seen that it
is. What `compact` removes is older than `grace`, and what `delete` removes of the last `grace` it empties instead; both
ages are the store's own. So a number that a process counts on is free, or occupied, and never free again.

**A part missing** is noticed: each names the one before it. Then something was merged or removed while it was read, and
it is read again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._format.compression import compress, decompress
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint._format.session_keys import MAX_NUMBER, Transcript
from s3_checkpoint.claude.listing import Stored, TranscriptListing, list_transcript, total_bytes
from s3_checkpoint.claude.parts import Part, decode_entries, digest_of, encode_entries, parse
from s3_checkpoint.errors import (
    ConfigurationError,
    InvalidArgumentError,
    StateDecodingError,
    StateEncodingError,
    StoreUnavailableError,
)
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, PutMode, Refused, Written

ValueT = TypeVar("ValueT")

APPEND_ATTEMPTS = 200
"""Numbers that an append may lose to other writers."""
LOSSES_BEFORE_LOOKING = 4
"""Numbers lost in a row after which a LIST is cheaper than asking for one number after the other."""
READ_ATTEMPTS = 8
REMEMBERED = 4096
"""Transcripts of which a process knows the next number."""
PARTS_AT_ONCE = 32
LARGE_BYTES = 256 * 1024
"""More is encoded and decoded in a thread."""

Fold = Callable[[dict[str, Any] | None, Transcript, Sequence[Any]], dict[str, Any]]
"""The SDK's summary of a session, from the summary before and the entries that are added."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a transcript ends, as this process has seen it."""

    number: int
    """The next number: it was free at `seen`, and so were all above it."""
    previous: int | None
    """The number before, if the transcript has entries."""
    summary: dict[str, Any] | None
    seen: float
    small: int = 0
    """Single parts since the last merged object."""


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """An append whose answer never came."""

    digest: str
    number: int
    write_id: str


class SessionLog:
    """Transcripts on one store. To be used in the store's event loop."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        prefix: str,
        compression: str | None,
        max_part_bytes: int,
        max_session_bytes: int,
        conditional_writes: bool,
        grace: timedelta,
        fold: Fold,
        new_id: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.grace = grace
        self.now = monotonic
        self.new_id = new_id
        self.max_part_bytes = max_part_bytes
        self._compression = compression
        self._max_session_bytes = max_session_bytes
        self._conditional_writes = conditional_writes
        self._fold = fold
        self._sleep = sleep
        self._jitter = jitter
        self._positions: OrderedDict[Transcript, Position] = OrderedDict()
        self._unsettled: OrderedDict[Transcript, _Unsettled] = OrderedDict()
        self._locks: WeakValueDictionary[Transcript, asyncio.Lock] = WeakValueDictionary()

    async def append(self, transcript: Transcript, entries: Sequence[Any]) -> int:
        """See `S3SessionStore.append`; gives how many single parts the transcript then has, and merges none."""
        if not self._conditional_writes:
            raise ConfigurationError(
                "sessions need a store that honours If-None-Match, and conditional_writes=False says this one does not",
                self.store.bucket,
            )
        large = len(entries) > 64  # how much text it is, only encoding tells
        lines = await off_loop(large, encode_entries, entries)
        size = sum(map(len, lines))
        if size > self.max_part_bytes:
            raise StateEncodingError("$", f"it is {size} bytes of JSON, more than {self.max_part_bytes} allowed")
        async with self._lock(transcript):
            return await self._append(transcript, entries, lines)

    def _lock(self, transcript: Transcript) -> asyncio.Lock:
        """Appends of one process keep the order of their calls."""
        lock = self._locks.get(transcript) or asyncio.Lock()
        self._locks[transcript] = lock
        return lock

    async def _append(self, transcript: Transcript, entries: Sequence[Any], lines: tuple[bytes, ...]) -> int:
        digest = digest_of(b"\n".join(lines))
        pending = self._unsettled.get(transcript)
        write_id = self.new_id()
        position = await self._position(transcript)
        if pending is not None and pending.digest == digest:
            write_id = pending.write_id
            found = await self.read_part(transcript, pending.number)
            if isinstance(found, Part) and found.write_id == write_id:
                return self._landed(transcript, position, found, self.now())
        lost = 0
        for attempt in range(APPEND_ATTEMPTS):
            if not self._counts_on(position):  # this process was held up since it looked
                position = await self._look(transcript)
                continue
            if position.number > MAX_NUMBER:
                raise StateEncodingError("$", "the transcript has as many parts as can be numbered")
            summary = self._fold(position.summary, transcript, entries) if transcript.subpath is None else None
            part = Part(position.number, position.previous, write_id, summary, lines)
            sent = self.now()
            found, was_there = await self._send(transcript, part, digest)
            if isinstance(found, Part) and found.write_id == write_id:
                return self._landed(transcript, position, found, sent)
            if isinstance(found, Part):
                lost += 1
                position = Position(found.number + 1, found.number, found.summary, position.seen, position.small + 1)
                self._remember(transcript, position)
            elif found is not None:  # an empty part
                self._check_not_removed(transcript, position)
                position = Position(part.number + 1, None, None, position.seen)
            elif not was_there:
                await self._sleep(min(1.0, 0.05 * 2**attempt) * (0.5 + self._jitter()))
            if lost >= LOSSES_BEFORE_LOOKING or (found is None and was_there):
                lost, position = 0, await self._look(transcript)
        raise StoreUnavailableError(
            "PutObject",
            self.store.bucket,
            transcript.part(position.number),
            outcome_unknown=False,
            detail=f"other writers were first {APPEND_ATTEMPTS} times",
        )

    def _landed(self, transcript: Transcript, position: Position, part: Part, sent: float) -> int:
        self._unsettled.pop(transcript, None)
        small = position.small + 1
        self._remember(transcript, Position(part.number + 1, part.number, part.summary, sent, small))
        return small

    async def _send(self, transcript: Transcript, part: Part, digest: str) -> tuple[Part | bytes | None, bool]:
        """What is at the part's number once it is sent, as of `read_part`; and whether the PUT was refused for it.

        1 PUT; refused, 1 GET.
        """
        answer: Written | Refused | None = None
        try:
            answer = await self.put(transcript.part(part.number), part.build(), part.write_id, mode="create")
            if isinstance(answer, Written):
                return part, False
            return await self.read_part(transcript, part.number), answer.was_there
        except (StoreUnavailableError, asyncio.CancelledError) as error:
            # It may land yet: the same entries handed in again are looked for at this number.
            _remember(self._unsettled, transcript, _Unsettled(digest, part.number, part.write_id))
            if answer is None or not isinstance(error, StoreUnavailableError):
                raise
            raise StoreUnavailableError(
                error.operation, error.bucket, error.key, outcome_unknown=True, detail=error.detail
            ) from error

    async def load(self, transcript: Transcript) -> list[Any] | None:
        """See `S3SessionStore.load`."""
        for _ in range(READ_ATTEMPTS):
            seen = self.now()
            listing = await list_transcript(self.store, transcript)
            if not listing.counts:
                self._remember(transcript, self._position_of(listing, None, seen))
                return None
            cover = listing.cover()
            if (size := total_bytes(cover)) > self._max_session_bytes:
                self._too_large(transcript, size)
            parts = await self.read(listing, cover)
            if parts is None:
                continue
            self._remember(transcript, self._position_of(listing, parts[-1], seen))
            large = sum(len(line) for part in parts for line in part.lines) > LARGE_BYTES
            try:
                return await off_loop(large, decode_entries, [line for part in parts for line in part.lines])
            except ValueError as error:
                raise StateDecodingError(self.store.bucket, transcript.root, str(error)) from error
        raise StateDecodingError(
            self.store.bucket,
            transcript.root,
            "a part that another one follows is not there, time and again: it was removed by other means",
        )

    async def read(self, listing: TranscriptListing, objects: Sequence[Stored]) -> list[Part] | None:
        """The parts in `objects`, in order, each once; None if one is missing, so that a new listing must tell."""
        transcript, floor = listing.transcript, listing.floor
        bodies = await gather_bounded(
            (self._read_object(one.listed.key, one.first, one.last) for one in objects), limit=PARTS_AT_ONCE
        )
        found: dict[int, Part] = {}
        held = 0
        for parts in bodies:
            if not parts:  # removed, or emptied, since it was listed
                return None
            for part in parts:
                if part.number > floor:
                    found.setdefault(part.number, part)
                    held += sum(map(len, part.lines))
            if held > self._max_session_bytes:
                self._too_large(transcript, held)
        whole = all(part.previous is None or part.previous in found for part in found.values())
        return [found[number] for number in sorted(found)] if whole else None

    async def read_part(self, transcript: Transcript, number: int) -> Part | bytes | None:
        """The part with this number; empty bytes for one that ends the transcript, None if there is none. 1 GET."""
        found = await self._read_object(transcript.part(number), number, number)
        if found is None:
            return None
        return found[0] if found else b""

    async def summary_of(self, listing: TranscriptListing) -> dict[str, Any] | None:
        """The summary in the newest part; None if it is gone, or has none. 1 GET."""
        newest = listing.newest
        found = await self.read_part(listing.transcript, newest.last) if newest else None
        return found.summary if isinstance(found, Part) else None

    async def _read_object(self, key: str, first: int, last: int) -> list[Part] | None:
        """The parts in an object, from `first` to `last`: none for an empty one; None if there is no object. 1 GET."""
        stored = await self.store.get(key, max_bytes=self.max_part_bytes)
        if stored is None:
            return None
        if not stored.body:
            return []
        metadata = ObjectMetadata.parse(stored.head.attributes.metadata)

        def decode() -> list[Part]:
            body = decompress(stored.body, stored.head.attributes.content_encoding, self.max_part_bytes)
            if digest_of(body) != metadata.digest:
                raise ValueError("it does not match its digest")
            return parse(body)

        try:
            parts = await off_loop(len(stored.body) > LARGE_BYTES, decode)
        except ValueError as error:
            raise StateDecodingError(self.store.bucket, key, str(error)) from error
        if (parts[0].number, parts[-1].number) != (first, last):
            raise StateDecodingError(self.store.bucket, key, "it holds other parts than its key says")
        return parts

    async def put(self, key: str, body: bytes, write_id: str, *, mode: PutMode) -> Written | Refused:
        """Stores a body, compressed as the settings say; an empty one as it is."""
        metadata = ObjectMetadata(write_id=write_id, digest=digest_of(body)).build()
        encoding = self._compression if body else None
        stored = await off_loop(encoding is not None and len(body) > LARGE_BYTES, compress, body, encoding)
        attributes = ObjectAttributes("application/x-ndjson", encoding, metadata)
        return await self.store.put(key, stored, attributes, mode=mode)

    async def _position(self, transcript: Transcript) -> Position:
        """Where the transcript ends: as remembered, if that may be counted on, else as a listing shows it."""
        known = self._positions.get(transcript)
        return known if known is not None and self._counts_on(known) else await self._look(transcript)

    def _counts_on(self, position: Position) -> bool:
        """Whether its number, if it is free, has never been used."""
        return self.now() - position.seen <= self.grace.total_seconds() / 2

    async def _look(self, transcript: Transcript) -> Position:
        """Where the transcript ends. 1 LIST per 1,000 objects, 1 GET if it has entries."""
        known = self._positions.get(transcript)
        for _ in range(READ_ATTEMPTS):
            seen = self.now()
            listing = await list_transcript(self.store, transcript)
            newest: Part | None = None
            if listing.newest is not None and listing.counts:
                found = await self.read_part(transcript, listing.newest.last)
                if not isinstance(found, Part):
                    continue
                newest = found
            if known is not None and known.previous is not None:
                last = newest.number if newest is not None else -1
                if last < known.previous or listing.floor >= known.previous:
                    self._check_not_removed(transcript, known)
            position = self._position_of(listing, newest, seen)
            self._remember(transcript, position)
            return position
        raise StateDecodingError(
            self.store.bucket, transcript.root, "its newest part is listed and cannot be read, time and again"
        )

    def _position_of(self, listing: TranscriptListing, newest: Part | None, seen: float) -> Position:
        if newest is None:
            return Position(listing.newest.last + 1 if listing.newest else 0, None, None, seen)
        return Position(newest.number + 1, newest.number, newest.summary, seen, listing.single_parts())

    def _check_not_removed(self, transcript: Transcript, known: Position) -> None:
        """Raises if this process was building on a transcript that has been removed since."""
        if known.previous is not None:
            raise InvalidArgumentError(
                "session_id",
                ascii(transcript.session_id)[:80],
                "was removed while this process was appending to it, and nothing was written: begin a new session, or "
                "load it to begin it again",
            )

    def _remember(self, transcript: Transcript, position: Position) -> None:
        _remember(self._positions, transcript, position)

    def merged(self, transcript: Transcript) -> None:
        """The transcript's parts have been merged into one object."""
        if (known := self._positions.get(transcript)) is not None:
            self._positions[transcript] = replace(known, small=1)

    def forget(self, transcript: Transcript) -> None:
        """This process has removed the transcript: it may begin it again."""
        self._positions.pop(transcript, None)
        self._unsettled.pop(transcript, None)

    def _too_large(self, transcript: Transcript, size: int) -> None:
        raise StateDecodingError(
            self.store.bucket, transcript.root, f"it is {size} bytes, more than {self._max_session_bytes} allowed"
        )


def _remember(of: OrderedDict[Transcript, ValueT], transcript: Transcript, value: ValueT) -> None:
    of[transcript] = value
    of.move_to_end(transcript)
    if len(of) > REMEMBERED:
        of.popitem(last=False)
