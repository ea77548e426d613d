"""What a prune or a delete of runs removed, said."""

from __future__ import annotations

from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format
from s3_checkpoint.cli.output import report, size
from s3_checkpoint.cli.session import Session
from s3_checkpoint.run_models import Pruned, PrunedRuns


def removed_counts(removed: Pruned | PrunedRuns) -> dict[str, JsonValue]:
    """The counts, as JSON."""
    names = ("states", "snapshots", "bytes", "kept", "young", "dry_run")
    counts = {name: getattr(removed, name) for name in names}
    return counts | {"left": removed.left} if isinstance(removed, Pruned) else counts


def report_pruned(
    session: Session, removed: Pruned | PrunedRuns, output: Format | None, what: str, more: dict[str, JsonValue]
) -> None:
    """Writes the counts: a sentence on a terminal, JSON elsewhere. `what` begins the sentence, `more` the JSON."""
    verb = "would remove" if removed.dry_run else "removed"
    young = f", {removed.young:,} of them because they are younger than --grace" if removed.young else ""
    sentence = (
        f"{what}: {verb} {removed.states:,} steps and {removed.snapshots:,} snapshots, {size(removed.bytes)}; "
        f"{removed.kept:,} steps stay{young}"
    )
    report(session, output, sentence, more | removed_counts(removed))
