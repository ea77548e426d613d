"""Probes: whether a conditional write is one. What `commit` rests on, and nothing else decides "unsafe".

Each writer of a race has a body of its own, so what is stored tells who wrote it, whatever became of the answers. A
race counts as kept only if every writer was answered; it counts as broken only where a writer was told that it created
the key, and another one too, or where a later create is seen to have replaced what was there.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from s3_checkpoint.doctor.bucket import is_versioned
from s3_checkpoint.doctor.findings import MAX_BYTES, Patient, Status, Verdict, failed, passed, probe, unclear, warned
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    StateDecodingError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.object_store import Match, ObjectAttributes, PutMode, Refused, Written

RACERS = 16
ROUNDS = 3
SPARE_ROUNDS = 3
"""More rounds than `ROUNDS`, for those in which an answer was lost."""
LATE = b'{"late": true}'
_UNSAFE = (
    "UNSAFE FOR COMMIT. Set conditional_writes=False (S3_CHECKPOINT_CONDITIONAL_WRITES=false) to use save, load, list, "
    "save_active and load_active knowingly, one worker per run; commit is then refused. Or use a store that honours "
    "If-None-Match"
)
_REFUSED = (
    "no commit can be made here. Use a store that honours If-None-Match; or set conditional_writes=False "
    "(S3_CHECKPOINT_CONDITIONAL_WRITES=false) to save and load knowingly, one worker per run"
)
_VERSIONED = "versioning is on, and this store then loses exclusivity"
_SUSPEND = (
    "UNSAFE FOR COMMIT while versioning is on. Suspend it (aws s3api put-bucket-versioning --bucket {bucket} "
    "--versioning-configuration Status=Suspended), run doctor again, and leave it off. Or use another store"
)


class Round(NamedTuple):
    """How a race ended: `broken` says how exclusivity was seen to fail, `lost` why nothing can be said."""

    broken: str = ""
    lost: str = ""
    refused: str = ""
    """Every writer was, in these words of the store, for a reason that is not the key's being there."""
    certain: bool = False
    """Of `broken`: seen in what is stored, or told by two answers; else one answer alone says so."""


@probe(
    "create-exclusive",
    means="two workers can both believe they committed the same step, and one of them is lost without a word",
    fix="grant s3:PutObject and s3:GetObject on the prefix (`s3-checkpoint policy worker`)",
)
async def create_exclusive(patient: Patient) -> Verdict:
    """Whether of many who create one key at the same moment, one wins, and the others are told."""
    # Ceph 20.2 lets several win where versioning is on, and not in every race: there it is asked more often.
    wanted = ROUNDS * (4 if await is_versioned(patient) else 1)
    kept, lost = 0, ""
    for number in range(wanted + SPARE_ROUNDS):
        try:
            ended = await _race(patient, patient.key(f"race-{number}"))
        except (StoreUnavailableError, StateDecodingError, StoreError) as error:
            ended = Round(lost=_of(error))
        if ended.refused:
            found = f"every conditional create is refused: {ended.refused}"
            knowingly = not patient.settings.conditional_writes
            return warned(found, "nothing, as long as commit is not needed") if knowingly else failed(found, _REFUSED)
        if ended.broken:
            return await _no_conditions(patient, ended.broken, certain=ended.certain)
        lost = ended.lost or lost
        kept += not ended.lost
        if kept == wanted:
            break
    if kept < wanted:
        return unclear(f"{kept} of {wanted} races could be seen to their end: {lost}")
    found = f"{wanted} races of {RACERS} writers, one winner each"
    if not patient.settings.conditional_writes:
        return warned(found + "; conditional_writes is off", "set conditional_writes=True to use commit")
    return passed(found)


async def _race(patient: Patient, key: str) -> Round:
    bodies = [b'{"racer": %d}' % racer for racer in range(RACERS)]
    answers = await asyncio.gather(
        *(patient.store.put(key, body, ObjectAttributes(), mode="create") for body in bodies), return_exceptions=True
    )
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        # What keeps every racer from writing is no matter of exclusivity; nor is a task that was cancelled.
        if len(errors) == RACERS and _keeps_from_writing(error):
            if _not_implemented(error):
                return Round(f"If-None-Match is not implemented ({error})")
            if isinstance(error, StoreError):
                return Round(refused=error.detail)
            raise error
        if not isinstance(error, Exception):
            raise error
    told = {body: answer for body, answer in zip(bodies, answers, strict=True) if isinstance(answer, Written)}
    if len(told) > 1:
        # Two answers with one ETag would be one answer that arrived twice: the bodies differ.
        certain = len({answer.etag for answer in told.values()}) > 1
        return Round(f"{len(told)} of {RACERS} writers were told that they created one key", certain=certain)
    stored = await _body(patient, key)
    if stored is None:
        if told:
            return Round("a writer was told that it created a key, and nothing is there")
        return Round(lost=f"none of {RACERS} writers was told that it created the key, and nothing is there")
    if stored not in bodies or stored != await _body(patient, key):
        return Round(lost="what is read was written by none of the writers, or is not the same twice")
    if told and stored not in told:
        return Round("a writer was told that it created a key, and another's object is there", certain=True)
    # If nobody was told, the one whose object it is was refused by its own success, or its answer was lost: a winner,
    # as `commit` finds by reading back.
    late = await _late(patient, key, stored)
    if late.broken or late.lost or not errors:
        return late
    return Round(lost=f"{len(errors)} writers had no answer ({_of(errors[0])})")


def _not_implemented(error: BaseException) -> bool:
    return isinstance(error, ConfigurationError) and error.detail.startswith(("NotImplemented", "501", "XNotImpl"))


def _keeps_from_writing(error: BaseException) -> bool:
    return isinstance(error, (AccessDeniedError, ConfigurationError, StoreError))


async def _late(patient: Patient, key: str, stored: bytes) -> Round:
    """One more create, of a key that is surely there."""
    answer: Written | Refused | CheckpointError
    try:
        answer = await patient.store.put(key, LATE, ObjectAttributes(), mode="create")
    except CheckpointError as error:
        answer = error
    found = await _body(patient, key)
    if found == LATE:
        return Round("an object that was there was created once more", certain=True)
    if found != stored:
        return Round(lost="what was stored is not there any more")
    if isinstance(answer, Written):
        return Round("a writer was told that it created a key that was there")
    if isinstance(answer, Refused):
        return Round()
    return Round(lost=f"a late writer had no answer ({_of(answer)})")


async def _body(patient: Patient, key: str) -> bytes | None:
    found = await patient.store.get(key, max_bytes=MAX_BYTES)
    return found.body if found else None


def _of(error: BaseException) -> str:
    return str(getattr(error, "detail", "") or type(error).__name__)


async def _no_conditions(patient: Patient, found: str, *, certain: bool) -> Verdict:
    if not patient.settings.conditional_writes:
        fix = "nothing, as long as commit is not needed"
        return warned(found + "; conditional_writes is off, so commit is refused", fix)
    versioned = await is_versioned(patient)
    if versioned:
        found = f"{found}; {_VERSIONED}"
    return Verdict(Status.FAIL, found, _SUSPEND if versioned else _UNSAFE, unsafe=True, sure=certain)


@probe(
    "if-match",
    means="leases are refused here: two workers could both hold one; commit does not need it",
    fix="nothing, as long as leases are not needed; else use a store that honours If-Match",
)
async def if_match(patient: Patient) -> Verdict:
    """Whether a write over a version that is no longer there is refused."""
    key = patient.key("if-match")

    async def put(number: int, mode: PutMode) -> Written | Refused:
        return await patient.store.put(key, b'{"n": %d}' % number, ObjectAttributes(), mode=mode)

    first = await put(1, "overwrite")
    if not isinstance(first, Written):
        return failed("a plain write was refused")
    try:
        await put(2, Match(first.etag))
        over = await _body(patient, key)
        stale = await put(3, Match(first.etag))
        kept = await _body(patient, key)
    except ConfigurationError as error:
        return warned(f"If-Match is not implemented ({error.detail})")
    except StoreError as error:
        return warned(f"If-Match is refused ({error.detail})")
    # What is stored tells, not the answers: the repeat of a write whose answer was lost is refused by its own success.
    if over == b'{"n": 2}' and kept == over and isinstance(stale, Refused):
        return passed("a stale ETag is refused")
    # Commits rest on If-None-Match alone; what rests on this, leases, is refused by itself.
    return warned("If-Match is ignored: a write over a version that is gone is not refused")


EXCLUSIVITY = (
    create_exclusive,
    if_match,
)
