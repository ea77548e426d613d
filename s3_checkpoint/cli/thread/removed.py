"""What a prune or a delete of threads removed, said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format
from s3_checkpoint.cli.output import report, size
from s3_checkpoint.cli.session import Session

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import PrunedThread


def removed_counts(removed: Sequence[PrunedThread]) -> dict[str, int]:
    """The sums, as JSON."""
    names = ("checkpoints", "kept", "namespaces", "objects", "bytes")
    sums = {name: sum(getattr(one, name) for one in removed) for name in names}
    return sums | {"dry_run": any(one.dry_run for one in removed)}


def report_pruned(
    session: Session, removed: Sequence[PrunedThread], output: Format | None, what: str, more: dict[str, JsonValue]
) -> None:
    """Writes the sums: a sentence on a terminal, JSON elsewhere. `what` begins the sentence, `more` the JSON."""
    counts = removed_counts(removed)
    verb = "would remove" if counts["dry_run"] else "removed"
    gone = f"{counts['checkpoints']:,} checkpoints, {counts['objects']:,} objects, {size(counts['bytes'])}"
    whole = f"; {counts['namespaces']:,} namespaces of subgraphs' calls go whole" if counts["namespaces"] else ""
    sentence = f"{what}: {verb} {gone}; {counts['kept']:,} checkpoints stay{whole}"
    report(session, output, sentence, {**more, **counts})
