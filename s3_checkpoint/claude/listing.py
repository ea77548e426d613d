"""What a listing tells of a transcript: which parts count, and the fewest objects that hold them all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from s3_checkpoint._format.session_keys import Transcript, mains_prefix, parse_transcript, subs_prefix
from s3_checkpoint.object_store import ListedObject, ObjectStore, pages


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of a transcript: a part, or several merged."""

    first: int
    last: int
    merged: bool
    listed: ListedObject

    @property
    def ends_transcript(self) -> bool:
        """Whether it is an empty part: what is before it was removed."""
        return not self.merged and not self.listed.size


@dataclass(slots=True)
class TranscriptListing:
    """All objects of one transcript."""

    transcript: Transcript
    stored: list[Stored] = field(default_factory=list)

    def add(self, listed: ListedObject) -> None:
        """Takes in one entry; one that is none of ours is left out."""
        if (parsed := self.transcript.parse(listed.key)) is not None:
            self.stored.append(Stored(*parsed, listed))

    @property
    def floor(self) -> int:
        """The greatest number of an empty part; -1 without one. Up to there, nothing counts."""
        return max((one.last for one in self.stored if one.ends_transcript), default=-1)

    @property
    def contents(self) -> list[Stored]:
        """All but the empty parts."""
        return [one for one in self.stored if not one.ends_transcript]

    @property
    def newest(self) -> Stored | None:
        """The part with the greatest number, empty or not: no compaction ever removes it."""
        return max((one for one in self.stored if not one.merged), key=lambda one: one.first, default=None)

    @property
    def counts(self) -> bool:
        """Whether the transcript has any entries."""
        return self.newest is not None and not self.newest.ends_transcript

    @property
    def last_modified(self) -> datetime | None:
        """When it was last written; None if it has no entries."""
        return self.newest.listed.last_modified if self.newest is not None and self.counts else None

    def cover(self) -> list[Stored]:
        """The fewest objects that hold all parts that count, in order."""
        floor = self.floor
        found = sorted((one for one in self.stored if one.last > floor), key=lambda one: (one.first, -one.last))
        chosen: list[Stored] = []
        reached, index = floor, 0
        while index < len(found):
            # Of those that begin where the chosen ones end, or before, the one that reaches furthest.
            best: Stored | None = None
            while index < len(found) and found[index].first <= reached + 1:
                if best is None or found[index].last > best.last:
                    best = found[index]
                index += 1
            if best is None:
                reached = found[index].first - 1
            elif best.last > reached:
                chosen.append(best)
                reached = best.last
        return chosen

    def single_parts(self) -> int:
        """How many parts that count are in no merged object."""
        return sum(not one.merged for one in self.cover())

    def superfluous(self) -> list[Stored]:
        """What does not count any more: merged into another object, or before an empty part. Empty parts stay."""
        floor, cover = self.floor, set(self.cover())
        contents = [one for one in self.contents if one not in cover]
        return [
            one
            for one in contents
            if one.last <= floor or any(o.merged and o.first <= one.first and one.last <= o.last for o in cover)
        ]


async def list_transcript(store: ObjectStore, transcript: Transcript) -> TranscriptListing:
    """The transcript's objects. 1 LIST per 1,000."""
    listing = TranscriptListing(transcript)
    async for page in pages(store, transcript.root):
        for listed in page.objects:
            listing.add(listed)
    return listing


async def list_transcripts(
    store: ObjectStore, prefix: str, project_key: str, under: str
) -> dict[Transcript, TranscriptListing]:
    """All transcripts of a project whose keys begin with `under`. 1 LIST per 1,000 objects."""
    found: dict[Transcript, TranscriptListing] = {}
    async for page in pages(store, under):
        for listed in page.objects:
            transcript = parse_transcript(prefix, project_key, listed.key)
            if transcript is not None:
                found.setdefault(transcript, TranscriptListing(transcript)).add(listed)
    return found


async def sessions_of(
    store: ObjectStore, prefix: str, project_key: str
) -> AsyncGenerator[tuple[str, dict[Transcript, TranscriptListing]]]:
    """The sessions of a project, one after the other, each with all its transcripts; no more than one is held.

    1 LIST per 1,000 objects of sessions, and of subagents. A store that lists in no order is listed whole first.
    """
    roots = (mains_prefix(prefix, project_key), subs_prefix(prefix, project_key))
    if not store.ordered:
        whole: dict[str, dict[Transcript, TranscriptListing]] = {}
        for under in roots:
            for transcript, listing in (await list_transcripts(store, prefix, project_key, under)).items():
                whole.setdefault(transcript.session_id, {})[transcript] = listing
        for session_id, found in whole.items():
            yield session_id, found
        return
    own, theirs = (_by_session(store, prefix, project_key, under) for under in roots)
    async with aclosing(own), aclosing(theirs):
        heads = [await anext(own, None), await anext(theirs, None)]
        while any(heads):
            segment = min(head[0] for head in heads if head is not None)
            listings: dict[Transcript, TranscriptListing] = {}
            for index, sessions in enumerate((own, theirs)):
                head = heads[index]
                if head is not None and head[0] == segment:
                    listings |= head[1]
                    heads[index] = await anext(sessions, None)
            yield next(iter(listings)).session_id, listings


async def _by_session(
    store: ObjectStore, prefix: str, project_key: str, under: str
) -> AsyncGenerator[tuple[str, dict[Transcript, TranscriptListing]]]:
    """The transcripts under `under`, session by session, in the order of their keys; a session's by its segment."""
    segment, found = "", dict[Transcript, TranscriptListing]()
    async for page in pages(store, under):
        for listed in page.objects:
            its = listed.key[len(under) :].partition("/")[0] + "/"  # with what follows it: `a/` is after `a%2F/`
            if its != segment and found:
                yield segment, found
                found = {}
            segment = its
            transcript = parse_transcript(prefix, project_key, listed.key)
            if transcript is not None:
                found.setdefault(transcript, TranscriptListing(transcript)).add(listed)
    if found:
        yield segment, found


def total_bytes(stored: Iterable[Stored]) -> int:
    """As stored."""
    return sum(one.listed.size for one in stored)


def keys_of(stored: Sequence[Stored]) -> list[str]:
    """Their keys, in order."""
    return [one.listed.key for one in stored]
