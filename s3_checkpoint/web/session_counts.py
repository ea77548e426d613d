"""How many sessions of the Claude Agent SDK the bucket has: the page says so, and the command line lists them."""

from __future__ import annotations

from typing import Any

from s3_checkpoint._format.session_keys import Transcript, parse_project, parse_transcript, sessions_prefix
from s3_checkpoint.claude.listing import TranscriptListing
from s3_checkpoint.object_store import ObjectStore


async def session_counts(store: ObjectStore, prefix: str) -> dict[str, Any]:
    """Sessions and projects among the first 1,000 objects of sessions, and whether there may be more.

    Requests:
        1 LIST.
    """
    root = sessions_prefix(prefix)
    page = await store.list(root)
    listings: dict[Transcript, TranscriptListing] = {}
    for listed in page.objects:
        project = parse_project(prefix, root + listed.key[len(root) :].partition("/")[0] + "/")
        transcript = parse_transcript(prefix, project, listed.key) if project is not None else None
        if transcript is not None:
            listings.setdefault(transcript, TranscriptListing(transcript)).add(listed)
    found = [one for one, listing in listings.items() if one.subpath is None and listing.counts]
    return {
        "sessions": len(found),
        "projects": len({one.project_key for one in found}),
        "more": page.next_token is not None,
    }
