"""What a read leaves in memory once its caller has let go of it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import aiohttp
import pytest

from s3_checkpoint import S3Settings
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.request_events import RequestEvent


@pytest.mark.parametrize("watched", [False, True], ids=["not watched", "watched"])
async def test_a_body_is_kept_no_longer_than_by_its_reader(settings_by_transport: S3Settings, watched: bool) -> None:
    """Story: a cancelled timer keeps its context until its time has come, and that led to the task and the body.

    A history of large states held ten seconds of them.
    """
    events: list[RequestEvent] = []
    timer = asyncio.get_running_loop().call_later(1, int)  # while it waits, those behind it are kept
    async with open_store(settings_by_transport, on_request=events.append if watched else None) as store:
        await store.put("k", b"x" * 1_000_000, ObjectAttributes(), mode="overwrite")

        before = _answers()
        reading = asyncio.create_task(store.get("k", max_bytes=1_000_000))
        found = await reading
        assert found is not None
        assert len(found.body) == 1_000_000
        task = weakref.ref(reading)
        del reading, found
        await asyncio.sleep(0)  # the loop lets go of the task whose end it has just told
        gc.collect()

        assert task() is None
        assert _answers().keys() <= before.keys()
    assert len(events) == (2 if watched else 0)
    timer.cancel()


def _answers() -> dict[int, object]:
    """The answers in memory, by their ids. By their types, as some objects are proxies of dead ones."""
    return {id(one): one for one in gc.get_objects() if type(one) is aiohttp.ClientResponse}
