"""What a prune or a delete of threads removed, said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format
from s3_checkpoint.cli.output import chosen, size, write_document
from s3_checkpoint.cli.session import Session

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import PrunedThread


def report_removed(
    session: Session, removed: Sequence[PrunedThread], output: Format | None, what: str, more: dict[str, JsonValue]
) -> None:
    """Writes the sums: a sentence on a terminal, JSON elsewhere. `what` begins the sentence, `more` the JSON."""
    checkpoints, kept, namespaces, objects, count = (
        sum(column)
        for column in zip(
            (0, 0, 0, 0, 0),
            *((one.checkpoints, one.kept, one.namespaces, one.objects, one.bytes) for one in removed),
            strict=True,
        )
    )
    dry_run = any(one.dry_run for one in removed)
    if chosen(session, output) != Format.TABLE:
        counts: dict[str, JsonValue] = {
            "checkpoints": checkpoints,
            "kept": kept,
            "namespaces": namespaces,
            "objects": objects,
            "bytes": count,
            "dry_run": dry_run,
        }
        write_document(session, more | counts, output or Format.JSONL)
        return
    verb = "would remove" if dry_run else "removed"
    session.say(
        f"{what}: {verb} {checkpoints:,} checkpoints, {objects:,} objects, {size(count)}; {kept:,} checkpoints stay"
        + (f"; {namespaces:,} namespaces of subgraphs' calls go whole" if namespaces else "")
    )
