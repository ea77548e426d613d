"""A timeline as one HTML file that needs no network: data, style and script in it, made of the live page's parts.

The data is in the page as JSON and is shown as text only: whatever a state holds, none of it becomes markup or script,
and the page shows control and format characters as escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import JsonValue

from s3_checkpoint.web.page_json import STATE_BYTES, exact, fitting_fields, page_json

PAGE_BYTES = 16 * 1024**2
"""Of all states together; the oldest are left out first."""
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
        state = page_json(exact(step["state"]))
        fields = page_json(fitting_fields(step))[1:-1]
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
        template = static_text("timeline.html")
        around = page_json(
            {**self._head, "pruned_up_to": exact(self._head.get("pruned_up_to")), "forks": exact(tail["forks"])}
        )
        data = f'{around[:-1]},"steps":[{",".join(step.text() for step in self._steps)}]}}'
        # Inside a script element only `<` could end it; in JSON it is found in strings alone, where it can be escaped.
        for mark, part in (("/*STYLE*/", "page.css"), ("/*PARTS*/", "parts.js")):
            template = template.replace(mark, static_text(part))
        return template.replace(_MARK, data.replace("<", "\\u003c"))


def static_text(name: str) -> str:
    """One of the files that both pages are made of."""
    return files("s3_checkpoint.web").joinpath("static", name).read_text(encoding="utf-8")
