"""JSON as the page takes it: numbers exact, and of large steps what a page can hold."""

from __future__ import annotations

import json
from typing import Any

from pydantic import JsonValue

STATE_BYTES = 256 * 1024
"""A larger state is left out of a page, with a note; so are the values of larger changes and payloads."""
LIVE_STATE_BYTES = 8 * 1024**2
"""JSON of a larger state is downloaded, not shown, where a server holds the states."""
CHANGES_SHOWN = 500
CHANGES_BYTES = STATE_BYTES
"""Of all changes of a step together, and of its tasks; the rest is left out, with a note."""
VALUE_BYTES = STATE_BYTES // 16
MAX_EXACT = 2**53 - 1
_NUMBER, _TEXT = "\0number:", "\0text:"


def page_json(value: Any) -> str:
    """Compact JSON text."""
    return json.dumps(value, separators=(",", ":"))


def exact(value: JsonValue) -> JsonValue:
    """Numbers that a browser would show as others, 2^53 + 1 and 1.0, as marked text that the page shows unquoted.

    Text that looks marked is marked as text.
    """
    if isinstance(value, dict):
        return {_text(key): exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    if isinstance(value, str):
        return _text(value)
    whole = isinstance(value, float) and value.is_integer()
    large = isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_EXACT
    return f"{_NUMBER}{value}" if whole or large else value


def _text(value: str) -> str:
    return f"{_TEXT}{value}" if value.startswith("\0") else value


def fitting_fields(step: dict[str, Any]) -> dict[str, Any]:
    """All but the state, cut to what a page can hold."""
    changes = _fitting_list([_fitting_change(change) for change in step["changes"][:CHANGES_SHOWN]])
    active = _fitting_list([task | {"payload": _fitting_value(task["payload"])} for task in step["active"]])
    rest = {name: value for name, value in step.items() if name not in ("state", "changes", "active")}
    return rest | {
        **{name: exact(step[name]) for name in ("step", "origin", "missing_before")},
        "changes": changes,
        "changes_left_out": len(step["changes"]) - len(changes),
        "active": active,
        "active_left_out": len(step["active"]) - len(active),
    }


def _fitting_list(values: list[Any]) -> list[Any]:
    """The first of the values that together take no more than `CHANGES_BYTES`."""
    room = CHANGES_BYTES
    for number, value in enumerate(values):
        room -= len(page_json(value))
        if room < 0:
            return values[:number]
    return values


def _fitting_change(change: dict[str, Any]) -> dict[str, Any]:
    return {name: _fitting_value(value) if name in ("before", "after") else value for name, value in change.items()}


def _fitting_value(value: JsonValue) -> JsonValue:
    length = len(page_json(value))
    return exact(value) if length <= VALUE_BYTES else f"… {length:,} bytes"
