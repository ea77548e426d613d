"""Large states are encoded and decoded in a thread, small ones where they are; and memory holds few copies."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import tracemalloc
from random import Random
from string import ascii_letters
from uuid import UUID

import pytest
from pydantic import BaseModel, field_validator

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Checkpointer, StateEncodingError
from s3_checkpoint._concurrency.gc_pause import collector_paused
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._format.size_estimate import CHUNK_BYTES, LARGE_BYTES

RUN = UUID(int=3)
seen_threads: list[threading.Thread] = []
gate = threading.Event()


class Watched(BaseModel):
    """Notes in which thread it is validated, and whether the collector runs then."""

    text: str

    @field_validator("text")
    @classmethod
    def _note(cls, text: str) -> str:
        seen_threads.append(threading.current_thread())
        return text


class Waiting(BaseModel):
    """Cannot be read before the event loop has gone on."""

    text: str

    @field_validator("text")
    @classmethod
    def _wait(cls, text: str) -> str:
        assert gate.wait(10), "the event loop was held"
        return text


@pytest.mark.parametrize(("length", "apart"), [(10, False), (LARGE_BYTES, True)])
@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_large_states_alone_leave_the_loop(length: int, apart: bool, compression: str | None) -> None:
    """On saving and on loading."""
    checkpointer = S3Checkpointer(Watched, MemoryStore(), compression=compression)
    state = Watched(text="".join(Random(1).choices(ascii_letters, k=length)))
    seen_threads.clear()

    await checkpointer.save(RUN, 0, state)
    assert await checkpointer.load(RUN, 0) == state

    assert [thread is not threading.main_thread() for thread in seen_threads] == [apart, apart]


async def test_the_loop_continues_while_a_large_state_is_saved_and_loaded() -> None:
    """What is waited for in the thread is done by the loop."""
    checkpointer = S3Checkpointer(Waiting, MemoryStore())
    gate.set()
    state = Waiting(text="x" * LARGE_BYTES)
    for call in (checkpointer.save(RUN, 0, state), checkpointer.load(RUN, 0)):
        gate.clear()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        await call


async def test_large_snapshots_and_refusals_are_as_small_ones() -> None:
    """The same values back, the same errors raised."""
    checkpointer = S3Checkpointer(dict, MemoryStore())
    active = [ActiveSnapshot(node_name="n", payload=["x" * LARGE_BYTES])]
    await checkpointer.commit(RUN, 0, {"n": 1}, active)
    assert await checkpointer.load_active(RUN, 0) == active

    with pytest.raises(StateEncodingError, match=r"\$\.b"):
        await checkpointer.save(RUN, 1, {"a": "x" * LARGE_BYTES, "b": float("nan")})
    assert gc.isenabled()


async def test_a_cancelled_save_leaves_the_checkpointer_usable() -> None:
    """The thread ends by itself; nothing was written; the collector runs again."""
    checkpointer = S3Checkpointer(Waiting, MemoryStore())
    gate.set()
    state = Waiting(text="x" * LARGE_BYTES)
    gate.clear()
    saving = asyncio.ensure_future(checkpointer.save(RUN, 0, state))
    await asyncio.sleep(0)

    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    gate.set()

    assert await checkpointer.list(RUN) == []
    await checkpointer.save(RUN, 0, state)
    assert await checkpointer.load(RUN, 0) == state
    async with asyncio.timeout(120):
        while not gc.isenabled():  # noqa: ASYNC110 - the thread of the cancelled save may be the last to end
            await asyncio.sleep(0)


def test_the_collector_is_left_as_it_was_found() -> None:
    """By the last of those who paused it, also where it was off before."""
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_made_in_a_pause_count_as_old() -> None:
    """So the collector does not look through all of it at once as soon as it runs again."""
    program = (
        "import gc\n"
        "if gc.get_freeze_count():\n"
        "    raise SystemExit(3)\n"
        "from s3_checkpoint._concurrency.gc_pause import collector_paused\n"
        "with collector_paused():\n"
        "    made = [[n] for n in range(100)]\n"
        "old = {id(thing) for thing in gc.get_objects(generation=2)}\n"
        "assert all(id(thing) in old for thing in made)\n"
        "assert gc.get_freeze_count() == 0\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], check=False)  # where no other thread is at work

    if ended.returncode == 3:
        pytest.skip("this Python freezes objects of its own, and what is frozen stays so")
    assert ended.returncode == 0


def test_objects_frozen_by_the_application_stay_frozen() -> None:
    """As servers do before they fork."""
    made = [[n] for n in range(100)]
    gc.freeze()
    try:
        with collector_paused():
            pass
        looked_at = {id(thing) for thing in gc.get_objects()}
    finally:
        gc.unfreeze()

    assert not any(id(thing) in looked_at for thing in made)


async def test_work_gives_what_it_gives_on_either_side() -> None:
    """Values, errors and context."""
    for large in (False, True):
        assert await off_loop(large, int, "ff", base=16) == 255
        with pytest.raises(ZeroDivisionError):
            await off_loop(large, lambda: 1 // 0)


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_memory_holds_the_state_and_at_most_two_copies_more(compression: str | None) -> None:
    """Of a 4 MB state, on saving: its JSON, and chunks of it; on loading: the JSON and the state, and a chunk."""
    size = 4 * 1024**2
    checkpointer = S3Checkpointer(dict, MemoryStore(), compression=compression)
    state = {str(n): str(n) * (size // 1000 // len(str(n))) for n in range(1000)}
    await checkpointer.save(RUN, 0, {"warm": "up"})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await checkpointer.save(RUN, 1, state)
        saving = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loaded = await checkpointer.load(RUN, 1)
        loading = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert loaded == state
    assert saving < 2.2 * size + CHUNK_BYTES
    assert loading < (1.1 if compression is None else 2.1) * size + 2 * CHUNK_BYTES
