"""A count on stderr for what takes longer than two seconds, on a terminal alone."""

from __future__ import annotations

import asyncio
import io
import re

import pytest
from rich.console import Console

from s3_checkpoint.cli.progress import AFTER_S, Counter

STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ={})


def written(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return STYLE.sub("", of.file.getvalue())


async def test_a_count_is_shown_once_the_time_is_over() -> None:
    """With what is counted, how many of how many; and it is gone at the end."""
    shown = console(terminal=True)
    with Counter(shown, "listing", after_s=0) as counter:
        counter.add(3)
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        counter.now("pruning runs", 7)
        counter.add()

    assert "listing" in written(shown)
    assert "3/?" in written(shown)
    assert "pruning runs" in written(shown)
    assert "1/7" in written(shown)


async def test_nothing_is_shown_of_what_ends_before() -> None:
    shown = console(terminal=True)
    with Counter(shown, "listing", 10) as counter:
        counter.add(10)
        await asyncio.sleep(0)

    assert written(shown) == ""
    assert AFTER_S == 2


async def test_nothing_is_shown_in_a_pipe() -> None:
    shown = console(terminal=False)
    with Counter(shown, "listing", after_s=0) as counter:
        counter.add()
        await asyncio.sleep(0.01)
        counter.add()

    assert written(shown) == ""


async def test_an_error_ends_the_count() -> None:
    """Nothing of it is drawn over what the error says."""
    shown = console(terminal=True)
    counter = Counter(shown, "listing", after_s=0)

    async def fail() -> None:
        with counter:
            counter.add()
            await asyncio.sleep(0.01)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await fail()
    before = written(shown)

    counter.add(5)
    await asyncio.sleep(0.2)

    assert written(shown) == before
