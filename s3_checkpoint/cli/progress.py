"""How far a command is: a count on stderr, once it takes longer than two seconds, on a terminal alone."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

AFTER_S = 2.0
"""Seconds that a command may take without a word."""


class Counter:
    """Counts what is done while its block runs. Called from any thread; entered and left in an event loop."""

    def __init__(self, console: Console, what: str, total: int | None = None, *, after_s: float = AFTER_S) -> None:
        self._console = console
        self._what, self._total, self._count = what, total, 0
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self._shown: Progress | None = None

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._count += count
        self._update()

    def now(self, what: str, total: int | None = None) -> None:
        """Something else is counted from here on, from zero."""
        self._what, self._total, self._count = what, total, 0
        self._update()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._show)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _show(self) -> None:
        # An id in the description is no markup.
        what = TextColumn("{task.description}", markup=False)
        columns = (what, BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        shown = Progress(*columns, console=self._console, transient=True)
        shown.add_task(self._what, total=self._total, completed=self._count)
        shown.start()
        self._shown = shown

    def _update(self) -> None:
        if self._shown is not None:
            task = self._shown.task_ids[0]
            self._shown.update(task, description=self._what, total=self._total, completed=self._count)
