"""What a probe is, and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from s3_checkpoint.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore
from s3_checkpoint.settings import S3Settings


class Status(StrEnum):
    """How a probe ended."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """Every promise holds, and something should still be known."""
    FAIL = "fail"
    """A promise does not hold."""
    SKIP = "skip"
    """It could not be looked at, or does not apply here."""


class Verdict(NamedTuple):
    """What a probe saw. `fix`, where given, stands in place of the probe's own."""

    status: Status
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    probe: str
    status: Status
    found: str
    means: str
    """What it means for the library's promises if this fails."""
    fix: str
    """What to do about it; empty if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: a store, a run id of its own to write under, and the client where there is one."""

    store: ObjectStore
    keys: RunKeys
    settings: S3Settings
    client: Any | None = None
    """An open S3 client, for what the store's six verbs do not show; None examines the verbs only."""

    def key(self, name: str) -> str:
        """A key of the throw-away run."""
        return f"{self.keys.run}{name}"

    async def put(self, name: str, body: bytes = b"{}") -> None:
        """Writes an object under the throw-away run."""
        await self.store.put(self.key(name), body, ObjectAttributes(), mode="overwrite")


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing the library relies on, how to see whether it holds, what it means if not, and how to mend it."""

    name: str
    check: Callable[[Patient], Awaitable[Verdict]]
    means: str
    fix: str
    """`{bucket}` in it stands for the bucket's name."""
    when_denied: Status = Status.FAIL
    """How bad it is if the credentials may not even try."""


def passed(found: str) -> Verdict:
    """It holds."""
    return Verdict(Status.PASS, found)


def warned(found: str, fix: str = "") -> Verdict:
    """It is worth knowing."""
    return Verdict(Status.WARN, found, fix)


def failed(found: str, fix: str = "") -> Verdict:
    """It does not hold."""
    return Verdict(Status.FAIL, found, fix)


def skipped(found: str) -> Verdict:
    """It cannot be seen here."""
    return Verdict(Status.SKIP, found)
