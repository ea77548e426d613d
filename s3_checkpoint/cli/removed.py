"""What a prune or a delete of runs removed, said."""

from __future__ import annotations

from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format
from s3_checkpoint.cli.output import chosen, size, write_document
from s3_checkpoint.cli.session import Session
from s3_checkpoint.run_models import Pruned, PrunedRuns


def report_removed(
    session: Session, removed: Pruned | PrunedRuns, output: Format | None, what: str, more: dict[str, JsonValue]
) -> None:
    """Writes the counts: a sentence on a terminal, JSON elsewhere. `what` begins the sentence, `more` the JSON."""
    if chosen(session, output) != Format.TABLE:
        counts: dict[str, JsonValue] = {
            "states": removed.states,
            "snapshots": removed.snapshots,
            "bytes": removed.bytes,
            "kept": removed.kept,
            "young": removed.young,
            "dry_run": removed.dry_run,
        }
        if isinstance(removed, Pruned):
            counts["left"] = removed.left
        write_document(session, more | counts, output or Format.JSONL)
        return
    verb = "would remove" if removed.dry_run else "removed"
    session.say(
        f"{what}: {verb} {removed.states:,} steps and {removed.snapshots:,} snapshots, {size(removed.bytes)}; "
        f"{removed.kept:,} steps stay"
        + (f", {removed.young:,} of them because they are younger than --grace" if removed.young else "")
    )
