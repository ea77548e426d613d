"""Merging, deleting and pruning transcripts while others append to them and read them.

**Merging.** The parts of a transcript but the newest are read and stored again in one object; then those of them go
that are older than `grace`. A merged object holds its parts with their numbers, so it does not matter which of several
that overlap a reader chooses, nor how many merge at once.

**Deleting** is one conditional write: an empty part under the next number. From then on nothing before it counts, and
an append that races it either was first, and counts as before, or is told. What is removed after that cannot be seen
any more. Parts younger than `grace` are emptied instead of removed: an append may still count on their numbers.

**Pruning** deletes a session whole, by the same write under the number that the listing has shown: where an append was
first, the session is in use, and stays whole.

Ages are judged by the store's clock: `Date` of its answers, or `Last-Modified` of what was just written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.session_keys import Transcript, clock_key
from s3_checkpoint.claude.listing import Stored, TranscriptListing, keys_of, list_transcript, list_transcripts
from s3_checkpoint.claude.parts import Part, build_merged
from s3_checkpoint.claude.session_log import SessionLog
from s3_checkpoint.errors import StoreUnavailableError
from s3_checkpoint.object_store import PAGE_KEYS, Written, time_of_writing

SLACK = timedelta(seconds=2)
"""`Date` and `Last-Modified` are cut to whole seconds."""
MERGED_BYTES = 8 * 1024**2
"""As stored: parts are merged up to this size, and what has reached half of it is left alone."""
DELETE_ATTEMPTS = 100


async def store_time(log: SessionLog, key: str) -> datetime:
    """What the store's clock says: 1 HEAD of `key`; where a transport does not tell `Date`, 1 PUT and 1 HEAD more."""
    head = await log.store.head(key)
    if head is not None and head.date is not None:
        return head.date
    return await time_of_writing(log.store, clock_key(log.prefix))


def _to_merge(listing: TranscriptListing) -> list[list[Stored]]:
    """Runs of neighbours that go into one object each; the newest part in none."""
    runs: list[list[Stored]] = [[]]
    size = 0
    for one in listing.cover()[:-1]:
        full = one.merged and one.listed.size >= MERGED_BYTES / 2
        gap = runs[-1] and runs[-1][-1].last + 1 < one.first
        if full or gap or size + one.listed.size > MERGED_BYTES or len(runs[-1]) == PAGE_KEYS:
            runs.append([])
            size = 0
        if not full:
            runs[-1].append(one)
            size += one.listed.size
    return [run for run in runs if len(run) > 1]


async def merge(log: SessionLog, listing: TranscriptListing) -> bool:
    """The listed parts are in merged objects; nothing is removed. Whether anything was merged.

    Per object of up to 8 MiB 1 GET for each that goes into it, 32 at a time, and 1 PUT.
    """
    began = log.now()
    transcript = listing.transcript
    done = False
    for run in _to_merge(listing):
        parts = await log.read(_only(listing, run), run)
        if not parts:
            return done  # merged or removed by others since it was listed
        for chunk in _within(parts, log.max_part_bytes):
            if len(chunk) < 2:
                continue
            if log.now() - began > log.grace.total_seconds() / 2:
                return done  # what was read may have been removed, and its numbers used again
            key = transcript.merged(chunk[0].number, chunk[-1].number)
            await log.put(key, build_merged(chunk), log.new_id(), mode="create")  # refused: it is there already
            done = True
    if done:
        log.merged(transcript)
    return done


def _only(listing: TranscriptListing, run: Sequence[Stored]) -> TranscriptListing:
    return TranscriptListing(listing.transcript, [*run, *(one for one in listing.stored if one.ends_transcript)])


def _within(parts: Sequence[Part], most: int) -> list[list[Part]]:
    """The parts in chunks of at most `most` bytes before compression."""
    chunks: list[list[Part]] = [[]]
    size = 0
    for part in parts:
        weight = len(part.build())
        if chunks[-1] and size + weight > most:
            chunks.append([])
            size = 0
        chunks[-1].append(part)
        size += weight
    return chunks


async def compact(log: SessionLog, transcript: Transcript, *, min_parts: int = 2) -> tuple[bool, list[Stored]]:
    """The transcript's parts are merged, and what is superfluous and older than `grace` is gone: whether, and what.

    1 LIST per 1,000 objects, before and after; what `merge` takes; 1 HEAD and 1 DELETE per 1,000 objects that go.
    """
    listing = await list_transcript(log.store, transcript)
    merged = False
    if listing.single_parts() > min_parts:
        merged = await merge(log, listing)
        listing = await list_transcript(log.store, transcript) if merged else listing
    return merged, await sweep(log, listing)


async def sweep(log: SessionLog, listing: TranscriptListing) -> list[Stored]:
    """Removes of a listed transcript what is superfluous and older than `grace`; gives what went.

    If there is anything superfluous: 1 HEAD, and 1 DELETE per 1,000 objects that go.
    """
    contents = listing.superfluous()
    ends = [one for one in listing.stored if one.ends_transcript]
    if not contents and not ends:
        return []
    now = await store_time(log, (contents or ends)[0].listed.key)
    old = [one for one in contents if one.merged or _is_old(one, now, log.grace)]
    await _delete(log, old)
    if len(old) == len(contents):
        # They hide nothing any more, and no process counts on their numbers: the greatest last, as it hides the most.
        gone = sorted((one for one in ends if _is_old(one, now, log.grace)), key=lambda one: one.first)
        if len(gone) == len(ends):
            await _delete(log, gone[:-1])
            await _delete(log, gone[-1:])
            return [*old, *gone]
    return old


def _is_old(one: Stored, now: datetime, grace: timedelta) -> bool:
    return now - one.listed.last_modified >= grace + SLACK


async def _delete(log: SessionLog, stored: Sequence[Stored]) -> None:
    if stored:
        await log.store.delete(keys_of(stored))


async def end(log: SessionLog, listing: TranscriptListing) -> bool:
    """Writes the empty part behind what is listed: nothing of it counts any more. Whether it was this call's.

    1 PUT; refused, 1 GET.
    """
    assert listing.newest is not None  # noqa: S101 - asked for what counts only
    number = listing.newest.last + 1
    key, write_id = listing.transcript.part(number), log.new_id()
    answer = await log.put(key, b"", write_id, mode="create")
    if isinstance(answer, Written):
        return True
    there = await log.store.get(key, max_bytes=log.max_part_bytes)
    return there is not None and there.head.attributes.metadata.get("write-id") == write_id


async def clear(log: SessionLog, listing: TranscriptListing) -> list[Stored]:
    """Removes the content of a transcript that has been ended; parts younger than `grace` are emptied. Gives all of it.

    1 HEAD, 1 DELETE per 1,000 objects, and 1 PUT for each part younger than `grace`.
    """
    contents = listing.contents
    if not contents:
        return []
    now = await store_time(log, contents[0].listed.key)
    young = [one for one in contents if not one.merged and not _is_old(one, now, log.grace)]
    await gather_bounded((log.put(one.listed.key, b"", log.new_id(), mode="overwrite") for one in young), limit=32)
    await _delete(log, [one for one in contents if one not in young])
    return contents


async def delete_transcript(log: SessionLog, transcript: Transcript) -> list[Stored]:
    """Nothing that was appended to the transcript before counts any more; gives its content, which is gone."""
    for _ in range(DELETE_ATTEMPTS):
        listing = await list_transcript(log.store, transcript)
        # If it does not count, it has ended already, perhaps by a call that was cut short.
        if not listing.counts or await end(log, listing):
            removed = await clear(log, listing)
            log.forget(transcript)
            return removed
    detail = "workers continue to append faster than it can be deleted; stop them"
    raise StoreUnavailableError("delete", log.store.bucket, transcript.root, outcome_unknown=True, detail=detail)


async def subs_of(log: SessionLog, session: Transcript) -> dict[Transcript, TranscriptListing]:
    """The transcripts of the session's subagents. 1 LIST per 1,000 objects."""
    return await list_transcripts(log.store, log.prefix, session.project_key, session.subs)


async def delete_subs(log: SessionLog, session: Transcript) -> list[Stored]:
    """The session's subagents are gone; after its own transcript, so that what can be seen is whole."""
    return [one for transcript in await subs_of(log, session) for one in await delete_transcript(log, transcript)]


async def prune_session(
    log: SessionLog, listings: Sequence[TranscriptListing], *, dry_run: bool
) -> list[Stored] | None:
    """The session is gone, its subagents too; None if it was appended to since it was listed, and so is whole.

    `listings`: those of its transcripts that count, its own first.
    """
    if dry_run:
        return [one for listing in listings for one in listing.contents]
    if not await end(log, listings[0]):
        return None
    session = listings[0].transcript
    log.forget(session)
    return [*await clear(log, listings[0]), *await delete_subs(log, session)]
