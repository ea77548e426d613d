"""The loop thread: one loop, reachable from every thread, that never hangs its caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3_checkpoint._concurrency.loop_thread import LoopThread
from s3_checkpoint.errors import LifecycleError


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


async def current_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_all_calls_from_all_threads_run_in_one_loop(loop_thread: LoopThread) -> None:
    with ThreadPoolExecutor(8) as pool:
        loops = set(pool.map(lambda _: loop_thread.run(current_loop()), range(50)))

    assert loops == {loop_thread.loop}


def test_nothing_is_started_before_the_first_call() -> None:
    before = threading.active_count()

    unused = LoopThread()

    assert threading.active_count() == before
    unused.close()


def test_exceptions_of_the_coroutine_reach_the_caller(loop_thread: LoopThread) -> None:
    async def fails() -> None:
        raise ValueError("as raised")

    with pytest.raises(ValueError, match="as raised"):
        loop_thread.run(fails())


async def test_another_loop_can_await_a_call(loop_thread: LoopThread) -> None:
    found = await asyncio.wrap_future(loop_thread.submit(current_loop()))

    assert found is loop_thread.loop
    assert found is not asyncio.get_running_loop()


async def test_cancelling_the_waiting_task_cancels_the_call(loop_thread: LoopThread) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(asyncio.wrap_future(loop_thread.submit(waits())))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, 10)


def test_a_blocking_call_from_its_own_loop_is_refused_at_once(loop_thread: LoopThread) -> None:
    async def calls_back() -> None:
        loop_thread.run(current_loop())

    with pytest.raises(LifecycleError, match="would never return"):
        loop_thread.run(calls_back())


def test_loop_thread_cannot_be_closed_by_its_own_thread(loop_thread: LoopThread) -> None:
    async def closes() -> None:
        loop_thread.close()

    with pytest.raises(LifecycleError, match="own thread"):
        loop_thread.run(closes())


def test_use_after_close_is_a_clear_error_and_closing_twice_is_none() -> None:
    loop_thread = LoopThread()
    loop_thread.run(current_loop())

    loop_thread.close()
    loop_thread.close()

    with pytest.raises(LifecycleError, match="closed"):
        loop_thread.run(current_loop())


def test_a_call_cut_short_by_close_is_told_so() -> None:
    loop_thread = LoopThread()
    begun = threading.Event()

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(loop_thread.run, waits())
        assert begun.wait(10)
        loop_thread.close()

        with pytest.raises(LifecycleError, match="in flight"):
            call.result(10)


def test_close_ends_the_thread_and_the_loop() -> None:
    before = threading.active_count()
    loop_thread = LoopThread()
    loop = loop_thread.loop

    loop_thread.close()

    assert loop.is_closed()
    assert threading.active_count() == before


def test_one_that_is_dropped_unclosed_leaves_no_thread() -> None:
    loop_thread = LoopThread("dropped")
    loop_thread.run(current_loop())
    thread = next(thread for thread in threading.enumerate() if thread.name == "dropped")

    del loop_thread
    gc.collect()

    thread.join(10)
    assert not thread.is_alive()


def test_the_callers_context_comes_along(loop_thread: LoopThread) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("r-1")

    async def reads() -> str:
        return request.get()

    assert loop_thread.run(reads()) == "r-1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of every fork with threads
def test_a_forked_child_gets_a_loop_of_its_own(loop_thread: LoopThread) -> None:
    parents = loop_thread.loop

    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if loop_thread.run(current_loop()) is not parents else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert loop_thread.run(current_loop()) is parents
