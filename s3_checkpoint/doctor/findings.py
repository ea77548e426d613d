"""What a probe is, and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, StoredObject
from s3_checkpoint.settings import S3Settings

MAX_BYTES = 1 << 20
"""Of any object that is read."""


class Status(StrEnum):
    """How a probe ended."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """Every promise holds, and something should still be known."""
    FAIL = "fail"
    """A promise does not hold."""
    SKIP = "skip"
    """It may not be looked at, or does not apply here."""
    INCONCLUSIVE = "inconclusive"
    """It was looked at, and answers were lost or made no sense: neither that it holds nor that it does not."""


class Verdict(NamedTuple):
    """What a probe saw. `fix`, where given, takes the place of the probe's own."""

    status: Status
    found: str
    fix: str = ""
    unsafe: bool = False
    """`commit` is not exclusive here."""
    absent: bool = False
    """The bucket is not there."""
    sure: bool = False
    """Seen twice over in this one look; else a failure counts when it is seen again."""


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
    unsafe: bool = False
    """Two workers can both be told that they committed a step."""
    absent: bool = False
    """The bucket is not there, so nothing in it can be looked at."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: a store, a run id of its own to write under, and the client where there is one."""

    store: ObjectStore
    keys: RunKeys
    settings: S3Settings
    client: Any | None = None
    """An open S3 client, for what the store's six verbs do not show; None examines the verbs only."""
    look: int = 0
    """How often the probe has been made before: each look has keys of its own."""

    @property
    def bucket(self) -> dict[str, str]:
        """What every request through the client says of the bucket."""
        owner = self.settings.expected_bucket_owner
        return {"Bucket": self.settings.bucket} | ({"ExpectedBucketOwner": owner} if owner else {})

    def key(self, name: str) -> str:
        """A key of the throw-away run."""
        return f"{self.keys.run}look-{self.look}/{name}"

    async def put(self, name: str, body: bytes = b"{}") -> None:
        """Writes an object under the throw-away run."""
        await self.store.put(self.key(name), body, ObjectAttributes(), mode="overwrite")

    async def get(self, name: str) -> StoredObject | None:
        """Reads an object under the throw-away run."""
        return await self.store.get(self.key(name), max_bytes=MAX_BYTES)


Check = Callable[[Patient], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing the library relies on, how to see whether it holds, what it means if not, and how to fix it."""

    name: str
    check: Check
    means: str
    fix: str
    """`{bucket}` in it is replaced by the bucket's name."""
    when_denied: Status = Status.FAIL
    """How bad it is if the credentials may not even try."""


def probe(name: str, *, means: str, fix: str, when_denied: Status = Status.FAIL) -> Callable[[Check], Probe]:
    """Makes the check below it a probe: what a failure means, and how to fix it, beside what is checked."""
    return lambda check: Probe(name, check, means, fix, when_denied)


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


def unclear(found: str) -> Verdict:
    """It could have been seen, had the answers come as they should."""
    return Verdict(Status.INCONCLUSIVE, found)
