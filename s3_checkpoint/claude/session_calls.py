"""The calls on sessions, each written once for the async and the blocking store: what happens in the store's loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.session_keys import Transcript, mains_prefix, parse_project, sessions_prefix
from s3_checkpoint.claude.listing import Stored, list_transcript, list_transcripts, sessions_of, total_bytes
from s3_checkpoint.claude.removal import (
    compact,
    delete_subs,
    delete_transcript,
    merge,
    prune_session,
    store_time,
    subs_of,
    sweep,
)
from s3_checkpoint.claude.session_log import SessionLog
from s3_checkpoint.errors import CheckpointError, ConfigurationError, InvalidArgumentError
from s3_checkpoint.object_store import pages

if TYPE_CHECKING:
    from claude_agent_sdk.types import SessionStoreListEntry, SessionSummaryEntry

_logger = logging.getLogger("s3_checkpoint.claude")

SUMMARIES_AT_ONCE = 32
MERGE_PARTS = 64
"""Single parts from which on an append, or a prune, merges them."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as a listing shows it, its subagents included in the counts."""

    project_key: str
    session_id: str
    last_modified: datetime
    """When its own transcript was last written, by the store's clock, in UTC."""
    subagents: int
    objects: int
    bytes: int
    """As stored, compressed where they are."""


@dataclass(frozen=True, slots=True)
class PrunedSessions:
    """What a prune removed, or with `dry_run` would remove."""

    sessions: tuple[tuple[str, str], ...]
    """Project and session id of those removed whole."""
    kept: int
    merged: int
    """Transcripts whose parts were merged."""
    objects: int
    bytes: int
    dry_run: bool


def fold_with_sdk(before: dict[str, Any] | None, transcript: Transcript, entries: Sequence[Any]) -> dict[str, Any]:
    """The SDK's summary of a session after `entries`, from the one before."""
    try:
        from claude_agent_sdk import fold_session_summary
    except ImportError as error:
        raise ConfigurationError("sessions need a package: pip install 's3-checkpoint[claude]'") from error
    key: Any = {"project_key": transcript.project_key, "session_id": transcript.session_id}
    previous: Any = None
    if before is not None:
        previous = {"session_id": transcript.session_id, "mtime": 0, "data": before}
    return dict(fold_session_summary(previous, key, list(entries))["data"])


async def append(log: SessionLog, transcript: Transcript, entries: Sequence[Any], merge_parts: int) -> None:
    """See `S3SessionStore.append`."""
    if entries is not None and not isinstance(entries, Sequence):
        raise InvalidArgumentError("entries", type(entries).__name__, "must be a list of entries")
    if not entries:
        return
    small = await log.append(transcript, entries)
    if merge_parts and small >= merge_parts:
        # The entries are stored: nothing that goes wrong here is the append's.
        try:
            await merge(log, await list_transcript(log.store, transcript))
        except CheckpointError as error:
            extra = {"session_id": transcript.session_id, "code": error.code}
            _logger.warning("the entries are stored; the parts before them were not merged", extra=extra)


async def list_sessions(log: SessionLog, project_key: str) -> list[SessionStoreListEntry]:
    """See `S3SessionStore.list_sessions`."""
    found = await list_transcripts(log.store, log.prefix, project_key, mains_prefix(log.prefix, project_key))
    return [
        {"session_id": transcript.session_id, "mtime": _milliseconds(listing.last_modified)}
        for transcript, listing in found.items()
        if listing.last_modified is not None
    ]


async def list_session_summaries(log: SessionLog, project_key: str) -> list[SessionSummaryEntry]:
    """See `S3SessionStore.list_session_summaries`."""
    found = await list_transcripts(log.store, log.prefix, project_key, mains_prefix(log.prefix, project_key))
    listings = [listing for listing in found.values() if listing.counts]
    summaries = await gather_bounded((log.summary_of(listing) for listing in listings), limit=SUMMARIES_AT_ONCE)
    return [
        {"session_id": listing.transcript.session_id, "mtime": _milliseconds(listing.last_modified), "data": summary}
        for listing, summary in zip(listings, summaries, strict=True)
        if summary is not None and listing.last_modified is not None
    ]


async def list_subkeys(log: SessionLog, session: Transcript) -> list[str]:
    """See `S3SessionStore.list_subkeys`."""
    found = await subs_of(log, session)
    return [transcript.subpath for transcript, listing in found.items() if transcript.subpath and listing.counts]


async def delete(log: SessionLog, transcript: Transcript) -> None:
    """See `S3SessionStore.delete`."""
    await delete_transcript(log, transcript)
    if transcript.subpath is None:
        await delete_subs(log, transcript)


async def compact_session(log: SessionLog, session: Transcript) -> int:
    """See `S3SessionStore.compact`."""
    _, removed = await compact(log, session)
    for transcript in await subs_of(log, session) if session.subpath is None else ():
        removed += (await compact(log, transcript))[1]
    return len(removed)


async def projects(log: SessionLog) -> list[str]:
    """All projects, by name. 1 LIST per 1,000."""
    found = []
    async for page in pages(log.store, sessions_prefix(log.prefix), delimiter="/"):
        found += [name for group in page.prefixes if (name := parse_project(log.prefix, group)) is not None]
    return sorted(found)


async def sessions(log: SessionLog, project_key: str | None) -> AsyncIterator[SessionInfo]:
    """See `S3SessionStore.sessions`."""
    for project in await projects(log) if project_key is None else [project_key]:
        async with aclosing(sessions_of(log.store, log.prefix, project)) as found:
            async for session_id, listings in found:
                own = listings.get(Transcript(log.prefix, project, session_id))
                if own is None or own.last_modified is None:
                    continue
                stored = [one for listing in listings.values() for one in listing.stored]
                yield SessionInfo(
                    project,
                    session_id,
                    own.last_modified,
                    sum(1 for transcript, listing in listings.items() if transcript.subpath and listing.counts),
                    len(stored),
                    total_bytes(stored),
                )


async def prune(
    log: SessionLog, older_than: timedelta | None, project_key: str | None, *, dry_run: bool, merge_parts: int
) -> PrunedSessions:
    """See `S3SessionStore.prune`."""
    if older_than is not None and (not isinstance(older_than, timedelta) or older_than < timedelta(0)):
        raise InvalidArgumentError("older_than", repr(older_than)[:80], "must be a timedelta of zero or more")
    merge_parts = merge_parts or MERGE_PARTS
    gone: list[tuple[str, str]] = []
    kept = merged = objects = size = 0
    for project in await projects(log) if project_key is None else [project_key]:
        now: datetime | None = None
        async with aclosing(sessions_of(log.store, log.prefix, project)) as found:
            async for session_id, listings in found:
                own = Transcript(log.prefix, project, session_id)
                count = sorted((one for one in listings.values() if one.counts), key=lambda one: one.transcript != own)
                newest = [one.newest.listed for one in count if one.newest is not None]
                removed: list[Stored] | None = None
                if newest and older_than is not None:
                    now = now or await store_time(log, newest[0].key)
                    if now - max(listed.last_modified for listed in newest) >= older_than:
                        removed = await prune_session(log, count, dry_run=dry_run)
                if removed is not None:
                    gone.append((project, session_id))
                else:
                    removed = []
                    kept += bool(newest)
                    for listing in listings.values() if not dry_run else ():
                        if listing.single_parts() > merge_parts:
                            did, superfluous = await compact(log, listing.transcript, min_parts=merge_parts)
                            merged += did
                        else:
                            superfluous = await sweep(log, listing)
                        removed += superfluous
                objects += len(removed)
                size += total_bytes(removed)
    return PrunedSessions(tuple(gone), kept, merged, objects, size, dry_run)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
