"""What is said on stderr of steps that are not shown."""

from __future__ import annotations

from s3_checkpoint._views.run_views import Damaged
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.session import Session


def tell_pruned(session: Session, floor: int | None) -> None:
    """Says how far the run has been pruned, if it has been."""
    if floor is not None:
        session.note(f"pruned up to step {floor}: what is not listed up to there was removed, not lost")


def tell_damaged(session: Session, damaged: list[Damaged]) -> ExitCode | None:
    """Names the steps that were left out because they cannot be read; the exit code that says so, or None."""
    for one in damaged:
        session.note(f"left out step {one.step}: {one.error}")
    return ExitCode.UNREADABLE if damaged else None
