"""JSON paths, as errors name them: `$.notes[2].score`, `$['odd key']`."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_STEP = 80


def json_path(location: Iterable[int | str]) -> str:
    """The path of a location that is given as keys and indexes, as pydantic gives it."""
    return "$" + "".join(json_step(part) for part in location)


def json_step(key: object) -> str:
    """One step of a path: to a field or key, or to the item of that index."""
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() and key.isascii() else f"[{ascii(key)[:_LONGEST_STEP]}]"
    return f"[{int(key)}]" if type(key) is int and abs(key) < 10**18 else f"[{ascii_or_type(key)}]"


def ascii_or_type(value: object) -> str:
    """`value` in ASCII, shortened; the name of its type where its `repr` fails."""
    try:
        return ascii(value)[:_LONGEST_STEP]
    except Exception:  # noqa: BLE001 - the `repr` is the application's, or an int has too many digits for one
        return type(value).__name__
