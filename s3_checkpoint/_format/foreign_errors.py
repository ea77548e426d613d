"""Errors of an application's validators, serializers and migrations, told without the values that they speak of.

States hold secrets. What pydantic and an application's code say of them may show them: `input_value='hunter2'`, `cannot
parse 'hunter2'`. So an error of ours gives the kind of error and where it was raised, and its cause is a copy without
values.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

import pydantic
from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticKnownError

from s3_checkpoint._printable import printable
from s3_checkpoint.errors import CheckpointError, StoreError

if TYPE_CHECKING:
    from typing import LiteralString

P = ParamSpec("P")
T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=BaseException)

_MESSAGES_WITH_INPUT: Final = frozenset(
    {
        "bytes_invalid_encoding",
        "datetime_object_invalid",
        "get_attribute_error",
        "iteration_error",
        "mapping_type",
        "no_such_attribute",
        "unexpected_keyword_argument",
        "union_tag_invalid",
        "url_parsing",
        "url_syntax_violation",
        "uuid_parsing",
    }
)
"""Pydantic's own kinds of errors whose messages may quote what they are about."""
_RAISED: Final = frozenset({"value_error", "assertion_error"})
_TOLD_AT_MOST: Final = 20
_TOLD: Final = "s3_checkpoint_told"
"""In the context of an error: its message, which shows no value."""


class WithoutValues(Exception):  # noqa: N818 - it is in place of an error, and says so
    """In place of an exception whose text may show values of a state: its type, and the same traceback."""


def first_misfit(error: ValidationError) -> tuple[tuple[int | str, ...], str, str]:
    """The location of the first error in `error`, its kind, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    return first["loc"], first["type"], _message(first)


def raised(error: BaseException) -> str:
    """The type of `error`, and where it was raised, as far as that is known: `ValueError in check (models.py:12)`."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    if (
        last is None
        or PurePath(last.filename).is_relative_to(_OURS)
        or PurePath(last.filename).is_relative_to(_PYDANTIC)
    ):
        return type(error).__name__  # by pydantic-core, which shows no frames of what it calls
    return f"{type(error).__name__} in {last.name} ({PurePath(last.filename).name}:{last.lineno})"


def without_values(error: Exception) -> Exception:
    """A cause to chain in place of `error`: of the same kind, without the values."""
    if isinstance(error, ValidationError):
        told = [_without_input(one) for one in error.errors(include_url=False, include_input=False)[:_TOLD_AT_MOST]]
        return ValidationError.from_exception_data(printable(error.title), told, input_type="json", hide_input=True)
    told_of = WithoutValues(f"{raised(error)}; its text is left out, as it may show the state")
    return told_of.with_traceback(error.__traceback__)


def for_log(error: ErrorT) -> ErrorT:
    """The error as a log may have it: no pydantic error in it, as a cause or in a group, tells values.

    What an application's code says by itself is kept: it is not about a state that does not fit.
    """
    return _for_log(error, {})  # type: ignore[no-any-return]


def _for_log(error: Any, seen: dict[int, Any]) -> Any:
    if error is None or id(error) in seen:
        return seen.get(id(error))
    seen[id(error)] = told = error
    if isinstance(error, ValidationError):
        told = without_values(error)
    elif isinstance(error, BaseExceptionGroup):
        members = [_for_log(member, seen) for member in error.exceptions]
        if any(one is not other for one, other in zip(members, error.exceptions, strict=True)):
            told = BaseExceptionGroup(error.message, members)
    seen[id(error)] = told
    suppressed = error.__suppress_context__
    # Past whatever the application's own class makes of assignments: a frozen dataclass refuses them.
    for link in (BaseException.__cause__, BaseException.__context__):
        found = link.__get__(error)  # type: ignore[union-attr] # descriptors, on the class
        link.__set__(told, _for_log(found, seen))  # type: ignore[union-attr]
    BaseException.__suppress_context__.__set__(told, suppressed)  # type: ignore[attr-defined]
    if told is not error:
        told.with_traceback(error.__traceback__)
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
    return told


def misfit(text: str) -> PydanticCustomError:
    """An error of this library's own validators: `text` shows no value, and is told as it is."""
    return _custom("misfit", text)


def own_faults_told(operation: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work(…)` returns; `StoreError` ("internal") for what a line of this library raises by itself.

    What an application's code raises that is called by `work` has frames of its own, which come last, and passes.
    """
    try:
        return work(*args, **kwargs)
    except (CheckpointError, MemoryError, RecursionError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not PurePath(last.filename).is_relative_to(_OURS):
            raise
        where = f"{last.name} ({PurePath(last.filename).name}:{last.lineno})"
        detail = f"internal: a fault of this library, {type(error).__name__} in {where}; please report it"
        cause = without_values(error)
    raise StoreError(operation, "", "", detail) from cause


def _without_input(error: ErrorDetails) -> InitErrorDetails:
    location = tuple(part if isinstance(part, int) else printable(part)[:80] for part in error["loc"])
    return {"type": _custom(_known_kind(error), _message(error)), "loc": location, "input": None}


def _custom(kind: LiteralString, text: str) -> PydanticCustomError:
    return PydanticCustomError(kind, f"{{{_TOLD}}}", {_TOLD: text})


def _known_kind(error: ErrorDetails) -> LiteralString:
    kind: LiteralString = cast("Any", error["type"])
    return kind if kind in _MESSAGES_WITH_INPUT or kind in _RAISED or _own_message(error) else "custom_error"


def _message(error: ErrorDetails) -> str:
    kind = error["type"]
    told = error.get("ctx", {}).get(_TOLD)
    if isinstance(told, str):
        return told  # of an error that has been here before, or of our own
    if kind in _RAISED:
        return f"its validator raises {type(error.get('ctx', {}).get('error')).__name__}"
    if kind in _MESSAGES_WITH_INPUT:
        return f"it is refused as {kind}"
    return _own_message(error) or "its validator refuses it"


def _own_message(error: ErrorDetails) -> str | None:
    """What pydantic says of an error of this kind and context; None of a kind that is an application's own."""
    try:
        return PydanticKnownError(cast("Any", error["type"]), error.get("ctx")).message()
    except (KeyError, TypeError, ValueError):
        return None


_OURS: Final = PurePath(__file__).parent
_PYDANTIC: Final = PurePath(pydantic.__file__).parent
