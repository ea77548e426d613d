"""Every exception this library raises: one class per next action of the caller.

    CheckpointError             catch this to catch them all
    ├── InvalidArgumentError    change the call: a run id, step, namespace or option that cannot be
    ├── StateEncodingError      change the state: it would not come back as it is
    ├── StateDecodingError      look at the object: what is stored there cannot be trusted
    ├── StepConflictError       resume: another worker committed this step
    ├── LeaseHeldError          call again later: another worker is at it
    ├── AccessDeniedError       grant the action that is named
    ├── ConfigurationError      fix the settings or the bucket
    ├── StoreUnavailableError   call again with the same arguments
    ├── LifecycleError          open the checkpointer, or use it where it was opened
    └── StoreError              read `detail` and the cause: something unforeseen was said, or the SDK failed inside

Each carries its details as attributes and as `args` (so pickle and copy keep them), a stable `code` for logs and
metrics, and `retryable`: whether the same call can succeed later although nothing is changed.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar
from uuid import UUID

from s3_checkpoint._printable import printable


def _details(**details: object) -> str:
    """The details of an error as they end its sentence; absent ones are left out."""
    return ", ".join(f"{name}=`{value}`" for name, value in details.items() if value not in (None, ""))


def _outcome(*, unknown: bool) -> str:
    return "the outcome is unknown: it may or may not have been written" if unknown else "nothing was written"


class CheckpointError(Exception):
    """Any failure of this library."""

    code: ClassVar[str] = "checkpoint"
    retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        """The sentence, fit for a terminal and a log line: keys and servers' words are escaped in it."""
        return printable(self._sentence())

    def _sentence(self) -> str:
        return super().__str__()


class InvalidArgumentError(CheckpointError, ValueError):
    """An argument is outside its bounds; no request was sent. Change the call."""

    code = "invalid-argument"

    argument: str
    value: str
    reason: str

    def __init__(self, argument: str, value: str, reason: str) -> None:
        super().__init__(argument, value, reason)
        self.argument, self.value, self.reason = argument, value, reason

    def _sentence(self) -> str:
        return f"{self.argument} {self.reason}. {_details(value=self.value)}"


class StateEncodingError(CheckpointError):
    """The state would not come back as it is; no request was sent. Change the value at `path`.

    `path` is a JSON path into the state (`$.notes[2].score`), or into the active tasks (`$active[0].payload`).
    """

    code = "state-encoding"

    path: str
    reason: str

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def _sentence(self) -> str:
        return f"value does not round-trip through JSON: {self.reason}; nothing was written. {_details(path=self.path)}"


class StateDecodingError(CheckpointError):
    """What is stored there is not what it should be. Look at the object; retrying cannot help.

    The body is not JSON, does not fit the state type, does not match its digest, is too large, was written under a
    schema version that cannot be migrated, or names an active snapshot that is gone.
    """

    code = "state-decoding"

    bucket: str
    key: str
    reason: str

    def __init__(self, bucket: str, key: str, reason: str) -> None:
        super().__init__(bucket, key, reason)
        self.bucket, self.key, self.reason = bucket, key, reason

    def _sentence(self) -> str:
        return f"the stored object cannot be used: {self.reason}. {_details(bucket=self.bucket, key=self.key)}"


class StepConflictError(CheckpointError):
    """Another worker committed a different state at this step, there now or pruned since; ours was not written.

    Retrying cannot help. Call `resume`, and continue from what it returns. `winner` is the write id of the object at
    the step: empty where a foreign writer left none, and where the step was there and is gone (`detail` says so).
    """

    code = "step-conflict"

    run_id: UUID
    step: int
    winner: str
    detail: str

    def __init__(self, run_id: UUID, step: int, winner: str, detail: str = "") -> None:
        super().__init__(run_id, step, winner, detail)
        self.run_id, self.step, self.winner, self.detail = run_id, step, winner, detail

    def _sentence(self) -> str:
        return "another worker committed this step first; resume() and continue from there. " + _details(
            run_id=self.run_id, step=self.step, winner=self.winner, detail=self.detail
        )


class LeaseHeldError(CheckpointError):
    """Another worker holds the lease, or this one has lost it. Call again later, after `seconds_left` at the latest.

    `holder` and `purpose` are what that worker said of itself: empty where none is known to hold it. `detail` says how
    a lease that was held has been lost; it is empty for one that was never had.
    """

    code = "lease-held"
    retryable = True
    bucket: str
    key: str
    holder: str
    purpose: str
    seconds_left: float
    detail: str

    def __init__(self, bucket: str, key: str, holder: str, purpose: str, seconds_left: float, detail: str = "") -> None:
        super().__init__(bucket, key, holder, purpose, seconds_left, detail)
        self.bucket, self.key, self.holder, self.purpose = bucket, key, holder, purpose
        self.seconds_left, self.detail = seconds_left, detail

    def _sentence(self) -> str:
        what = "this worker does not hold the lease any more" if self.detail else "another worker holds the lease"
        left = f"{self.seconds_left:.0f}" if self.seconds_left else ""
        return f"{what}; call again later. " + _details(
            holder=self.holder,
            purpose=self.purpose,
            seconds_left=left,
            detail=self.detail,
            bucket=self.bucket,
            key=self.key,
        )


class AccessDeniedError(CheckpointError):
    """The credentials may not do this; grant `action`. A denied write wrote nothing."""

    code = "access-denied"

    bucket: str
    key: str
    action: str
    detail: str

    def __init__(self, bucket: str, key: str, action: str, detail: str = "") -> None:
        super().__init__(bucket, key, action, detail)
        self.bucket, self.key, self.action, self.detail = bucket, key, action, detail

    def _sentence(self) -> str:
        hint = (
            " (without s3:ListBucket on the bucket, S3 answers 403 for a key that is not there; grant it too)"
            if self.action == "s3:GetObject"
            else ""
        )
        return f"access denied; grant {self.action} to these credentials{hint}. " + _details(
            bucket=self.bucket, key=self.key, action=self.action, detail=self.detail
        )


class ConfigurationError(CheckpointError):
    """Settings, credentials or bucket are not usable as they are; nothing was written. Fix what the text names."""

    code = "configuration"

    problem: str
    bucket: str
    detail: str

    def __init__(self, problem: str, bucket: str = "", detail: str = "") -> None:
        super().__init__(problem, bucket, detail)
        self.problem, self.bucket, self.detail = problem, bucket, detail

    def _sentence(self) -> str:
        return f"{self.problem}. {_details(bucket=self.bucket, detail=self.detail)}".rstrip()


class StoreUnavailableError(CheckpointError):
    """The store gave no usable answer after all attempts. Calling again with the same arguments is safe.

    `outcome_unknown` is True for a write: it may have landed. Of the library's calls none does harm when repeated, and
    `commit` finds out by itself what became of the first try.
    """

    code = "store-unavailable"
    retryable = True

    operation: str
    bucket: str
    key: str
    outcome_unknown: bool
    detail: str

    def __init__(self, operation: str, bucket: str, key: str, *, outcome_unknown: bool, detail: str = "") -> None:
        super().__init__(operation, bucket, key)
        self.operation, self.bucket, self.key = operation, bucket, key
        self.outcome_unknown, self.detail = outcome_unknown, detail

    def __reduce__(self) -> tuple[object, ...]:
        rebuild = partial(StoreUnavailableError, outcome_unknown=self.outcome_unknown, detail=self.detail)
        return rebuild, (self.operation, self.bucket, self.key)

    def _sentence(self) -> str:
        outcome = _outcome(unknown=self.outcome_unknown)
        return (
            f"the store gave no usable answer; {outcome}; calling again with the same arguments is safe. "
            + _details(operation=self.operation, bucket=self.bucket, key=self.key, detail=self.detail)
        )


class LifecycleError(CheckpointError):
    """The checkpointer is not open here: not yet, no longer, or in another event loop. No request was sent.

    But for a call that was in progress when the checkpointer was closed: whether a write took effect is unknown then.
    """

    code = "lifecycle"

    problem: str

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def _sentence(self) -> str:
        return self.problem


class StoreError(CheckpointError):
    """The request failed in a way this library has no better name for; the original is chained as the cause.

    The store refused it with a code that is not known, gave an answer that S3 does not give, or the SDK failed inside
    (`detail` then begins with "internal"). `outcome_unknown` is True for a write that may have landed all the same.
    """

    code = "store"

    operation: str
    bucket: str
    key: str
    detail: str
    outcome_unknown: bool

    def __init__(self, operation: str, bucket: str, key: str, detail: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(operation, bucket, key, detail)
        self.operation, self.bucket, self.key, self.detail = operation, bucket, key, detail
        self.outcome_unknown = outcome_unknown

    def __reduce__(self) -> tuple[object, ...]:
        rebuild = partial(StoreError, outcome_unknown=self.outcome_unknown)
        return rebuild, (self.operation, self.bucket, self.key, self.detail)

    def _sentence(self) -> str:
        outcome = _outcome(unknown=self.outcome_unknown)
        return f"the request failed, and `detail` tells what is known; {outcome}. " + _details(
            operation=self.operation, bucket=self.bucket, key=self.key, detail=self.detail
        )
