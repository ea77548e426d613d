"""A call cancelled at any request, and a checkpointer used when, where or while it must not be."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from s3_checkpoint import LifecycleError, S3Checkpointer, S3Settings, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint.testing import SmallPages
from tests.proofs.ledger import RUN, WORK, Work, tasks_of
from tests.proofs.scheduler import World, at_once
from tests.proofs.wire import wire_to

T = TypeVar("T")
Call = Callable[[S3Checkpointer[Work]], Coroutine[Any, Any, object]]
Moment = Literal["before", "after"]

CALLS: dict[str, Call] = {
    "commit": lambda c: c.commit(RUN, 5, Work(label="new"), tasks_of("new")),
    "save": lambda c: c.save(RUN, 5, Work(label="new")),
    "save_active": lambda c: c.save_active(RUN, 5, tasks_of("new")),
    "resume": lambda c: c.resume(RUN),
    "load": lambda c: c.load(RUN),
    "load_active": lambda c: c.load_active(RUN, 4),
    "list": lambda c: c.list(RUN),
}
REQUESTS = {"commit": 3, "save": 1, "save_active": 1, "resume": 2, "load": 2, "load_active": 2, "list": 1}
COMMIT_POINT = {"commit": 2, "save": 1}
"""The request that makes the step visible; a commit sends the copy of its tasks beside it."""


def settled(world: World, call: Coroutine[Any, Any, T]) -> T:
    """What the call gives on the bare store, where it waits for nothing but its turn."""
    task = world.loop.create_task(call)
    world.loop.run_until_quiet()
    result: T = task.result()
    return result


def cancelled_at(world: World, call: Coroutine[Any, Any, object], number: int, moment: Moment) -> asyncio.Task[object]:
    """Runs `call`, and cancels it at its `number`-th request, before that takes effect or before it is answered."""
    task = world.loop.create_task(call)
    world.run_until_quiet()
    for _ in range(1, number):
        world.settle(world.waiting[0], "done")
    if world.waiting and moment == "after":
        at_once(world.waiting[0].send())
    task.cancel()
    world.run_until_quiet()
    return task


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name, count in REQUESTS.items() for n in range(1, count + 1)]
)
def test_a_call_cancelled_at_any_request_leaves_one_of_two_legal_states(name: str, number: int, moment: Moment) -> None:
    """The step as it was, or the step as it should be; nothing continues behind the caller; the next call works."""
    world = World()
    settled(world, S3Checkpointer(WORK, world.store).commit(RUN, 4, Work(label="old"), tasks_of("old")))
    checkpointer: S3Checkpointer[Work] = S3Checkpointer(WORK, world.gate())

    task = cancelled_at(world, CALLS[name](checkpointer), number, moment)

    assert task.cancelled()
    assert not world.waiting, "a request continues behind a call that has ended"
    assert all(task.done() for task in world.loop.tasks)
    found = settled(world, S3Checkpointer(WORK, world.store).resume(RUN))
    assert found is not None
    whole = {"commit": ["new"], "save": []}
    landed = name in whole and (number, moment == "after") >= (COMMIT_POINT[name], True)
    expected = (5, "new", whole[name]) if landed else (4, "old", ["old"])
    assert (found.step, found.state.label, [active.node_name for active in found.active]) == expected
    again = world.loop.create_task(checkpointer.commit(RUN, 6, Work(label="next"), tasks_of("next")))
    world.run_until_quiet()
    while world.waiting:
        world.settle(world.waiting[0], "done")
    assert again.result() is None
    assert world.loop.complaints == []


@pytest.mark.parametrize("name", CALLS)
def test_every_request_of_a_call_is_cancelled_once(name: str) -> None:
    """The counts above are those that the calls make."""
    world = World()
    settled(world, S3Checkpointer(WORK, world.store).commit(RUN, 4, Work(label="old"), tasks_of("old")))
    gate = world.gate()
    task = world.loop.create_task(CALLS[name](S3Checkpointer(WORK, gate)))
    world.run_until_quiet()

    while world.waiting:
        world.settle(world.waiting[0], "done")

    assert task.done()
    assert gate.sent == REQUESTS[name]


@pytest.mark.parametrize("number", range(1, 20))
def test_a_search_cancelled_in_the_middle_takes_all_its_requests_with_it(number: int) -> None:
    """The latest step of a long run is searched for by many LISTs at once."""
    world = World()
    checkpointer: S3Checkpointer[Work] = S3Checkpointer(WORK, SmallPages(world.gate(), 2))
    for step in range(9):
        settled(world, S3Checkpointer(WORK, world.store).save(RUN, step, Work(label="old")))

    task = cancelled_at(world, checkpointer.load(RUN), number, "before")

    assert task.cancelled() or task.result() == Work(label="old")
    assert not world.waiting
    assert all(task.done() for task in world.loop.tasks)
    assert world.loop.complaints == []


async def test_a_commit_cancelled_on_the_wire_leaves_the_checkpointer_usable(
    settings: S3Settings, moto_url: str
) -> None:
    """The PUT has landed, its answer is in flight: the caller hears nothing, and the same call again finds out."""
    async with wire_to(moto_url) as wire:
        through = settings.model_copy(update={"endpoint_url": wire.url})
        async with connect(Work, through) as checkpointer:
            wire.spoil("hold", "PutObject", "/steps/")
            call = asyncio.ensure_future(checkpointer.commit(RUN, 5, Work(label="a"), tasks_of("a")))
            await wire.until_held()

            call.cancel()

            with pytest.raises(asyncio.CancelledError):
                await call
            await checkpointer.commit(RUN, 5, Work(label="a"), tasks_of("a"))
            found = await checkpointer.resume(RUN)
            assert found is not None
            assert (found.step, found.state.label, list(found.active)) == (5, "a", tasks_of("a"))


async def test_a_body_cancelled_while_it_is_read_leaves_the_checkpointer_usable(
    settings: S3Settings, moto_url: str
) -> None:
    """The connection with the rest of the body is not used for the next request."""
    async with wire_to(moto_url) as wire:
        through = settings.model_copy(update={"endpoint_url": wire.url, "max_connections": 1})
        async with connect(Work, through) as checkpointer:
            await checkpointer.commit(RUN, 5, Work(label="a"), tasks_of("a"))
            wire.spoil("hold", "GetObject")
            call = asyncio.ensure_future(checkpointer.load(RUN, 5))
            await wire.until_held()

            call.cancel()

            with pytest.raises(asyncio.CancelledError):
                await call
            assert await checkpointer.load(RUN, 5) == Work(label="a")


async def test_calls_in_flight_end_when_the_checkpointer_is_closed(
    settings_by_transport: S3Settings, moto_url: str
) -> None:
    """Story: their repeats opened connections on a client that was closed, which nobody closed again."""
    async with wire_to(moto_url) as wire:
        through = settings_by_transport.model_copy(update={"endpoint_url": wire.url})
        wire.spoil("hold", "PutObject", times=99)
        async with connect(Work, through) as checkpointer:
            calls = [asyncio.ensure_future(checkpointer.save(RUN, step, Work(label="a"))) for step in range(3)]
            await wire.until_held(len(calls))

        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [LifecycleError] * 3
        assert "unknown" in str(outcomes[0])
        assert not any(call.cancelled() for call in calls)
        wire.release.set()
        async with connect(Work, through) as another:
            assert await another.load(RUN, 7) is None
        assert wire.verbs() == ["PutObject steps"] * 3 + ["GetObject steps"], "nothing is sent behind the end"


async def test_a_call_that_is_cancelled_and_closed_at_once_stays_cancelled(
    settings_by_transport: S3Settings, moto_url: str
) -> None:
    """Who cancels a task must see it cancelled, whatever else happens to it."""
    async with wire_to(moto_url) as wire:
        wire.spoil("hold", "PutObject", times=99)
        async with connect(Work, settings_by_transport.model_copy(update={"endpoint_url": wire.url})) as checkpointer:
            call = asyncio.ensure_future(checkpointer.save(RUN, 5, Work(label="a")))
            await wire.until_held()
            call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call


async def test_calls_after_closing_are_clear_errors(settings_by_transport: S3Settings) -> None:
    """Those of a namespace too: they share the client."""
    async with connect(Work, settings_by_transport) as checkpointer:
        namespaced = checkpointer.with_namespace("research")

    for closed in (checkpointer, namespaced):
        for call in CALLS.values():
            with pytest.raises(LifecycleError, match="closed"):
                await call(closed)


async def test_calls_before_opening_are_clear_errors(settings_by_transport: S3Settings) -> None:
    """A connection is not yet a checkpointer."""
    connection: Any = connect(Work, settings_by_transport)

    for call in CALLS.values():
        with pytest.raises(LifecycleError, match="async with connect"):
            await call(connection)


async def test_a_connection_is_opened_once_at_a_time_and_again_after_closing(
    settings: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Story: two tasks that entered while credentials were fetched both got in; one client was never closed."""
    answer = '{"Version": 1, "AccessKeyId": "x", "SecretAccessKey": "y"}'
    (tmp_path / "credentials.json").write_text(answer)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'credentials.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    connection = connect(Work, settings.model_copy(update={"access_key_id": None, "secret_access_key": None}))

    first, second = await asyncio.gather(connection.__aenter__(), connection.__aenter__(), return_exceptions=True)

    assert isinstance(first, S3Checkpointer)
    assert isinstance(second, LifecycleError)
    await connection.__aexit__(None, None, None)
    async with connection as again:
        await again.save(RUN, 5, Work(label="a"))
        with pytest.raises(LifecycleError, match="open already"):
            await connection.__aenter__()
        assert await again.load(RUN) == Work(label="a")


def test_a_checkpointer_used_in_another_loop_is_a_clear_error(settings_by_transport: S3Settings) -> None:
    """Whether the loop it was opened in still runs or is closed."""

    async def opened(run: Callable[[S3Checkpointer[Work]], None]) -> None:
        async with connect(Work, settings_by_transport) as checkpointer:
            await checkpointer.save(RUN, 5, Work(label="a"))
            await asyncio.to_thread(run, checkpointer)

    def elsewhere(checkpointer: S3Checkpointer[Work]) -> None:
        for call in CALLS.values():
            with pytest.raises(LifecycleError, match="event loop"):
                asyncio.run(call(checkpointer))

    asyncio.run(opened(elsewhere))


@pytest.mark.parametrize("closed", [False, True], ids=["loop open", "loop closed"])
def test_a_client_used_in_another_loop_is_a_clear_error(settings: S3Settings, closed: bool) -> None:
    """Story: "Event loop is closed", in the disguise of a store that may be asked again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the connection, which a closed loop cannot close
        use_elsewhere(settings, closed)
        gc.collect()


def use_elsewhere(settings: S3Settings, closed: bool) -> None:
    own = asyncio.new_event_loop()
    opening = client_for(settings.model_copy(update={"max_attempts": 1}))
    client = own.run_until_complete(opening.__aenter__())
    own.run_until_complete(client.list_objects_v2(Bucket=settings.bucket))

    async def elsewhere() -> None:
        async with connect(Work, settings, client=client) as checkpointer:
            for call in CALLS.values():
                with pytest.raises(LifecycleError, match="another event loop"):
                    await call(checkpointer)

    if closed:
        own.close()
    asyncio.run(elsewhere())

    end = asyncio.run if closed else own.run_until_complete
    end(opening.__aexit__(None, None, None))
    own.close()
