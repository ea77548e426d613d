"""A timeline as one HTML page that needs no network: data, style and script in one file.

The data is in the page as JSON and is shown as text only: whatever a state holds, none of it becomes markup or script,
and the page shows control and format characters as escapes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import JsonValue

STATE_BYTES = 256 * 1024
"""A larger state is left out of the page, with a note; so are the values of larger changes and payloads."""
PAGE_BYTES = 16 * 1024**2
"""Of all states together; the oldest are left out first."""
CHANGES_SHOWN = 500
CHANGES_BYTES = STATE_BYTES
"""Of all changes of a step together, and of its tasks; the rest is left out, with a note."""
VALUE_BYTES = STATE_BYTES // 16
MAX_EXACT = 2**53 - 1
_NUMBER = "\0number:"
_MARK = "/*DATA*/null"


@dataclass(slots=True)
class _Step:
    """A step as the page holds it: JSON text, which takes a tenth of what the values take."""

    fields: str
    """All but the state, as the members of an object."""
    state: str | None
    """None: left out."""
    bytes: int
    """Of the state."""

    def text(self) -> str:
        left_out = self.bytes if self.state is None else 0
        return f'{{{self.fields},"state":{self.state or "null"},"state_left_out":{left_out}}}'


class Page:
    """A page that grows step by step, oldest first, and keeps of them what fits a page."""

    def __init__(self, head: dict[str, JsonValue]) -> None:
        self._head = head
        self._steps: list[_Step] = []
        self._oldest_with_state = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: dict[str, Any]) -> None:
        """Adds the next step, as the rows of `timeline` give it; the oldest states go while all take too much."""
        state = _json(_exact(step["state"]))
        fields = _json(_fitting_fields(step))[1:-1]
        size = len(state)
        self._steps.append(_Step(fields, state if size <= STATE_BYTES else None, size))
        self._bytes += size if size <= STATE_BYTES else 0
        while self._bytes > PAGE_BYTES:
            oldest = self._steps[self._oldest_with_state]
            if oldest.state is not None:
                oldest.state = None
                self._bytes -= oldest.bytes
            self._oldest_with_state += 1

    def text(self, tail: dict[str, Any]) -> str:
        """The page, once all steps are there."""
        template = files("s3_checkpoint.cli").joinpath("timeline.html").read_text(encoding="utf-8")
        around = _json(
            {**self._head, "pruned_up_to": _exact(self._head.get("pruned_up_to")), "forks": _exact(tail["forks"])}
        )
        data = f'{around[:-1]},"steps":[{",".join(step.text() for step in self._steps)}]}}'
        # Inside a script element only `<` could end it; in JSON it is found in strings alone, where it can be escaped.
        return template.replace(_MARK, data.replace("<", "\\u003c"))


def page(document: Any) -> str:
    """The page for a whole timeline, as `timeline --output json` writes it."""
    made = Page({name: value for name, value in document.items() if name not in ("steps", "forks")})
    for step in document["steps"]:
        made.add(step)
    return made.text({"forks": document["forks"]})


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _exact(value: JsonValue) -> JsonValue:
    """Numbers that a browser would show as others, 2^53 + 1 and 1.0, as marked text that the page shows unquoted."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    whole = isinstance(value, float) and value.is_integer()
    large = isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_EXACT
    return f"{_NUMBER}{value}" if whole or large else value


def _fitting_fields(step: dict[str, Any]) -> dict[str, Any]:
    """All but the state, cut to what a page can hold."""
    changes = _fitting_list([_fitting_change(change) for change in step["changes"][:CHANGES_SHOWN]])
    active = _fitting_list([task | {"payload": _fitting_value(task["payload"])} for task in step["active"]])
    rest = {name: value for name, value in step.items() if name not in ("state", "changes", "active")}
    return rest | {
        **{name: _exact(step[name]) for name in ("step", "origin", "missing_before")},
        "changes": changes,
        "changes_left_out": len(step["changes"]) - len(changes),
        "active": active,
        "active_left_out": len(step["active"]) - len(active),
    }


def _fitting_list(values: list[Any]) -> list[Any]:
    """The first of the values that together take no more than `CHANGES_BYTES`."""
    room = CHANGES_BYTES
    for number, value in enumerate(values):
        room -= len(_json(value))
        if room < 0:
            return values[:number]
    return values


def _fitting_change(change: dict[str, Any]) -> dict[str, Any]:
    return {name: _fitting_value(value) if name in ("before", "after") else value for name, value in change.items()}


def _fitting_value(value: JsonValue) -> JsonValue:
    length = len(_json(value))
    return _exact(value) if length <= VALUE_BYTES else f"… {length:,} bytes"
