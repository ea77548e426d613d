"""Something opened once per process, in one loop, for every thread and every other loop."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from s3_checkpoint import LifecycleError
from s3_checkpoint._concurrency.open_once import OpenOnce


@dataclass
class Client:
    """Notes in which loop it is opened and closed."""

    opened_in: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    closed_in: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    failures: int = 0

    @asynccontextmanager
    async def new(self) -> AsyncIterator[Client]:
        if self.failures:
            self.failures -= 1
            raise OSError("not yet")
        await asyncio.sleep(0)
        self.opened_in.append(asyncio.get_running_loop())
        yield self
        self.closed_in.append(asyncio.get_running_loop())

    async def where(self) -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    async def count(self) -> AsyncIterator[int]:
        try:
            for n in range(3):
                await asyncio.sleep(0)
                yield n
        finally:
            self.closed_in.append(asyncio.get_running_loop())


async def where(client: Client) -> asyncio.AbstractEventLoop:
    return await client.where()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def opening(client: Client) -> Iterator[OpenOnce[Client]]:
    made = OpenOnce(client.new, name="open-once")
    yield made
    made.close()


def test_open_once_is_opened_by_the_first_of_many_concurrent_calls(opening: OpenOnce[Client], client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        loops = set(pool.map(lambda _: opening.call(where), range(40)))
    loops.add(asyncio.run(opening.acall(where)))

    assert [*loops] == client.opened_in
    assert len(client.opened_in) == 1


def test_nothing_is_opened_before_the_first_call(client: Client) -> None:
    before = threading.active_count()
    opening = OpenOnce(client.new)

    assert (client.opened_in, threading.active_count()) == ([], before)
    opening.close()
    assert (client.opened_in, client.closed_in, threading.active_count()) == ([], [], before)


def test_open_once_is_closed_in_its_own_loop_and_its_thread_ends(opening: OpenOnce[Client], client: Client) -> None:
    opening.open()
    opening.open()

    opening.close()
    opening.close()

    assert client.closed_in == client.opened_in
    assert not any(thread.name == "open-once" for thread in threading.enumerate())
    with pytest.raises(LifecycleError, match="closed already"):
        opening.call(where)


async def test_open_once_is_opened_used_and_closed_from_another_loop(opening: OpenOnce[Client], client: Client) -> None:
    await opening.aopen()
    loop = await opening.acall(where)
    await opening.aclose()

    assert client.opened_in == client.closed_in == [loop]
    assert loop is not asyncio.get_running_loop()
    with pytest.raises(LifecycleError, match="closed already"):
        await opening.acall(where)


def test_an_opening_that_failed_is_tried_anew(opening: OpenOnce[Client], client: Client) -> None:
    client.failures = 1

    with pytest.raises(OSError, match="not yet"):
        opening.call(where)

    assert opening.call(where) is client.opened_in[0]


def test_a_blocking_call_from_its_own_loop_is_refused(opening: OpenOnce[Client]) -> None:
    async def calls_back(_: Client) -> None:
        opening.call(where)

    with pytest.raises(LifecycleError, match="would never return"):
        opening.call(calls_back)


async def test_an_async_call_from_its_own_loop_runs_at_once(opening: OpenOnce[Client]) -> None:
    async def calls_back(_: Client) -> asyncio.AbstractEventLoop:
        return await opening.acall(where)

    assert await opening.acall(calls_back) is await opening.acall(where)


async def test_closing_ends_async_calls_in_flight_with_a_lifecycle_error(opening: OpenOnce[Client]) -> None:
    begun = threading.Event()

    async def waits(_: Client) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    waiting = asyncio.ensure_future(opening.acall(waits))
    await asyncio.to_thread(begun.wait)
    await opening.aclose()

    with pytest.raises(LifecycleError, match="in flight"):
        await waiting


async def test_cancelling_an_async_call_cancels_it_in_the_loop(opening: OpenOnce[Client]) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def waits(_: Client) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(opening.acall(waits))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, 10)


def test_an_iteration_runs_in_the_loop_and_ends_there_when_it_is_left(
    opening: OpenOnce[Client], client: Client
) -> None:
    whole = list(opening.iterate(Client.count))
    early = opening.iterate(Client.count)
    next(early)
    early.close()  # type: ignore[attr-defined]

    assert whole == [0, 1, 2]
    assert client.closed_in == client.opened_in * 2


def test_closing_ends_iterations_before_the_value(opening: OpenOnce[Client], client: Client) -> None:
    left_open = opening.iterate(Client.count)
    next(left_open)

    opening.close()

    assert client.closed_in == client.opened_in * 2
    with pytest.raises(LifecycleError):
        next(left_open)


def test_one_that_is_dropped_is_closed_and_leaves_no_thread(client: Client) -> None:
    opening = OpenOnce(client.new, name="dropped")
    opening.open()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "dropped")

    del opening
    gc.collect()
    thread.join(10)

    assert client.closed_in == client.opened_in
    assert not thread.is_alive()


async def test_a_borrowed_loop_is_used_and_left_running(client: Client) -> None:
    opening = OpenOnce(client.new, loop=asyncio.get_running_loop())

    assert await opening.acall(where) is asyncio.get_running_loop()
    assert await asyncio.to_thread(opening.call, where) is asyncio.get_running_loop()
    assert await asyncio.to_thread(lambda: asyncio.run(opening.acall(where))) is asyncio.get_running_loop()
    with pytest.raises(LifecycleError, match="would never return"):
        opening.call(where)
    await opening.aclose()

    assert client.closed_in == [asyncio.get_running_loop()]
    with pytest.raises(LifecycleError, match="closed already"):
        await opening.acall(where)


async def test_dropped_resources_in_a_borrowed_loop_are_left_to_its_owner(client: Client) -> None:
    """Waiting for a loop that may be waiting for this very thread is no way out of the collector."""
    opening = OpenOnce(client.new, loop=asyncio.get_running_loop())
    await asyncio.to_thread(opening.open)

    del opening
    gc.collect()
    await asyncio.sleep(0)

    assert client.closed_in == []


def test_a_borrowed_loop_that_has_ended_is_a_clear_error(client: Client) -> None:
    async def make() -> OpenOnce[Client]:
        return OpenOnce(client.new, loop=asyncio.get_running_loop())

    opening = asyncio.run(make())

    with pytest.raises(LifecycleError, match="does not run"):
        opening.call(where)


def in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of every fork with threads
def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(opening: OpenOnce[Client], client: Client) -> None:
    parents = opening.call(where)

    def use_and_close() -> bool:
        ours = opening.call(where)
        opening.close()
        return ours is not parents and client.opened_in == [parents, ours] and client.closed_in == [ours]

    def only_close() -> bool:
        opening.close()
        return client.closed_in == []

    assert [in_child(use_and_close), in_child(only_close)] == [0, 0]
    assert opening.call(where) is parents


LEFT_OPEN = """
import asyncio
from contextlib import asynccontextmanager
from s3_checkpoint._concurrency.open_once import OpenOnce

@asynccontextmanager
async def new():
    yield 1
    await asyncio.sleep(0)
    print("closed", flush=True)

opening = OpenOnce(new)
opening.open()
"""


def test_the_end_of_the_process_closes_what_is_open() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN], capture_output=True, text=True, timeout=180, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "closed\n", "")
