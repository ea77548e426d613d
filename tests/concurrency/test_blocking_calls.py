"""Blocking calls in threads: awaited, bounded in number, ended with their pool, and never lost at an end."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import time
from contextlib import closing
from itertools import count

import pytest

from s3_checkpoint import LifecycleError
from s3_checkpoint._concurrency.blocking_calls import BlockingCalls


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def _ended(name: str) -> None:
    for thread in _threads(name):
        thread.join(10)
        assert not thread.is_alive()


async def test_results_and_exceptions_of_a_call_are_awaited() -> None:
    """Also what is no `Exception`, and what a future cannot hold."""

    class Panic(BaseException):
        pass

    def raises(error: BaseException) -> None:
        raise error

    calls = BlockingCalls(asyncio.get_running_loop(), 2, longest_s=1, name="awaited")

    assert await calls.call(divmod, 7, 3) == (2, 1)
    for error, told in ((ValueError("a"), ValueError), (Panic("b"), Panic), (StopIteration("c"), RuntimeError)):
        with pytest.raises(told):
            await calls.call(raises, error)
    calls.close()


async def test_no_more_threads_than_allowed_and_no_more_than_needed() -> None:
    """One call at a time needs one thread; a hundred at once take four."""
    calls = BlockingCalls(asyncio.get_running_loop(), 4, longest_s=1, name="bounded")
    for n in range(5):
        await calls.call(abs, n)
    alone = len(_threads("bounded"))

    await asyncio.gather(*(calls.call(time.sleep, 0.001) for _ in range(100)))

    assert alone == 1
    assert len(_threads("bounded")) == 4
    calls.close()


async def test_calls_that_end_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waking it is a system call and a change of threads: more than all else that a call costs here."""
    loop, woken = asyncio.get_running_loop(), count()
    calls = BlockingCalls(loop, 4, longest_s=1, name="together")
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (next(woken), wake(*args)))

    for _ in range(3):
        futures = [calls.call(abs, -n) for n in range(20)]
        while calls.in_progress:  # this loop does not look before all have ended
            time.sleep(0)  # noqa: ASYNC251
        assert await asyncio.gather(*futures) == list(range(20))

    assert next(woken) == 3
    calls.close()


async def test_a_cancelled_call_that_has_not_begun_is_not_made() -> None:
    """One that has begun continues, and what it returns goes nowhere."""
    calls = BlockingCalls(asyncio.get_running_loop(), 1, longest_s=1, name="cancelled")
    go = threading.Event()
    made: list[int] = []
    first = calls.call(go.wait, 10)
    second = calls.call(made.append, 2)

    first.cancel()
    second.cancel()
    go.set()

    await calls.call(made.append, 3)
    assert made == [3]
    calls.close()


async def test_closing_takes_no_more_calls_and_ends_the_threads() -> None:
    """A call in progress returns first."""
    calls = BlockingCalls(asyncio.get_running_loop(), 2, longest_s=1, name="closing")
    go = threading.Event()
    waiting = calls.call(go.wait, 10)

    calls.close()

    with pytest.raises(LifecycleError, match="closed"):
        calls.call(abs, 1)
    assert calls.in_progress == 1
    go.set()
    assert await waiting is True
    _ended("closing")


async def test_a_pool_that_is_dropped_ends_its_threads() -> None:
    """Nobody has to close what nobody holds."""
    calls = BlockingCalls(asyncio.get_running_loop(), 2, longest_s=1, name="dropped")
    await calls.call(abs, 1)
    assert _threads("dropped")

    del calls
    gc.collect()

    _ended("dropped")


def test_a_call_whose_loop_is_closed_is_no_complaint(capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for it any more."""
    go = threading.Event()
    with closing(asyncio.new_event_loop()) as loop:
        calls = BlockingCalls(loop, 1, longest_s=1, name="left")
        calls.call(go.wait, 10)
    go.set()
    calls.close()
    _ended("left")

    assert calls.in_progress == 0
    assert capfd.readouterr().err == ""


def _call_in_a_fork(calls: BlockingCalls, told: multiprocessing.SimpleQueue[str]) -> None:
    async def call() -> None:
        calls.call(abs, 1)

    try:
        asyncio.run(call())
    except LifecycleError as error:
        told.put(str(error))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_told_to_open_its_own() -> None:
    """Threads are not in the child: a call would wait for ever."""
    context = multiprocessing.get_context("fork")
    told: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    with closing(asyncio.new_event_loop()) as loop:
        calls = BlockingCalls(loop, 1, longest_s=1, name="forked")
    child = context.Process(target=_call_in_a_fork, args=(calls, told))
    child.start()
    child.join(30)

    assert child.exitcode == 0
    assert "forked" in told.get()
    calls.close()
