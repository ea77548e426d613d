"""What the operator's calls on sessions give."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


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
