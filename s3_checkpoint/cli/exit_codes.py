"""How the command ends: one fixed exit code per next action of the caller."""

from __future__ import annotations

from enum import IntEnum

from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    InvalidArgumentError,
    LifecycleError,
    StateDecodingError,
    StateEncodingError,
    StepConflictError,
    StoreUnavailableError,
)


class ExitCode(IntEnum):
    """The exit codes of `s3-checkpoint`. They are part of its interface and do not change meaning."""

    OK = 0
    """Done. Of `doctor`: every promise holds."""
    NO = 1
    """The answer is no. Of `doctor`: a promise does not hold. Also: the question was answered with no."""
    USAGE = 2
    """The command line is wrong: an unknown option, a missing bucket, an ambiguous run id, a value out of bounds."""
    NOT_FOUND = 3
    """That run or step is not there."""
    DENIED = 4
    """The credentials may not do this; the message names the action to grant."""
    CONFIGURATION = 5
    """Settings, credentials, bucket or installation are not usable as they are."""
    UNAVAILABLE = 6
    """The store gave no usable answer; the same command can be run again. Of `doctor`: inconclusive."""
    UNREADABLE = 7
    """A stored object cannot be trusted; the message names it."""
    CONFLICT = 8
    """Something else is where the command was to write: steps of another run, a file."""
    STORE = 9
    """The store refused with an answer the library has no better name for."""
    INTERNAL = 70
    """A fault of this program; nothing can be said of what was done."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """The reader of stdout went away (`s3-checkpoint runs | head`)."""


class CommandError(Exception):
    """Ends the command with a message on stderr and an exit code; for a wrong question, not a wrong store."""

    message: str
    code: ExitCode

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code


_CODES: tuple[tuple[type[CheckpointError], ExitCode], ...] = (
    (InvalidArgumentError, ExitCode.USAGE),
    (StateEncodingError, ExitCode.USAGE),
    (AccessDeniedError, ExitCode.DENIED),
    (ConfigurationError, ExitCode.CONFIGURATION),
    (LifecycleError, ExitCode.CONFIGURATION),
    (StoreUnavailableError, ExitCode.UNAVAILABLE),
    (StateDecodingError, ExitCode.UNREADABLE),
    (StepConflictError, ExitCode.CONFLICT),
    (CheckpointError, ExitCode.STORE),
)


def exit_code(error: CheckpointError) -> ExitCode:
    """The exit code for `error`."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
