"""A timeline as one HTML page that needs no network: data, style and script in one file.

The data stands in the page as JSON and is shown as text only: whatever a state holds, none of it becomes markup.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json

STATE_BYTES = 256 * 1024
"""A larger state is left out of the page, with a note; so are the values of larger changes."""
PAGE_BYTES = 16 * 1024**2
"""Of all states together; the oldest are left out first."""
CHANGES_SHOWN = 500
MAX_EXACT = 2**53 - 1
_NUMBER = "\0number:"
_MARK = "/*DATA*/null"


def page(document: JsonValue) -> str:
    """The page for a timeline, as `as_document` gives it."""
    template = files("s3_checkpoint.cli").joinpath("timeline.html").read_text(encoding="utf-8")
    # Inside a script element only `<` could end it; in JSON it stands in strings alone, where it can be escaped.
    data = json.dumps(_fitting(document), separators=(",", ":")).replace("<", "\\u003c")
    return template.replace(_MARK, data)


def _exact(value: JsonValue) -> JsonValue:
    """Numbers that a browser would show as others, 2^53 + 1 and 1.0, as marked text that the page shows unquoted."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    whole = isinstance(value, float) and value.is_integer()
    large = isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_EXACT
    return f"{_NUMBER}{value}" if whole or large else value


def _fitting(document: Any) -> Any:
    """The document with what is too large for a page left out, the oldest states first, and how much that was."""
    room = PAGE_BYTES
    steps = []
    for step in reversed(document["steps"]):
        length = len(to_json(step["state"], inf_nan_mode="constants"))
        fits = length <= STATE_BYTES and length <= room
        room -= length if fits else 0
        steps.append(_fitting_step(step, 0 if fits else length))
    return {**document, "steps": steps[::-1], "forks": _exact(document["forks"])}


def _fitting_step(step: dict[str, Any], left_out: int) -> dict[str, Any]:
    shown = {name: _exact(step[name]) for name in ("step", "active", "origin", "missing_before")}
    return (
        step
        | shown
        | {
            "state": None if left_out else _exact(step["state"]),
            "state_left_out": left_out,
            "changes": [_fitting_change(change) for change in step["changes"][:CHANGES_SHOWN]],
            "changes_left_out": max(0, len(step["changes"]) - CHANGES_SHOWN),
        }
    )


def _fitting_change(change: dict[str, Any]) -> dict[str, Any]:
    def fitting(value: JsonValue) -> JsonValue:
        text = to_json(value, inf_nan_mode="constants")
        return _exact(value) if len(text) <= STATE_BYTES // 16 else f"… {len(text):,} bytes"

    return {name: fitting(value) if name in ("before", "after") else value for name, value in change.items()}
