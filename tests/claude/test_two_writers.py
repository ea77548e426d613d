"""Two writers of one session, each with a process of its own, while answers are lost and processes are killed."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from typing import cast

import pytest

from s3_checkpoint import S3Settings, StoreUnavailableError
from s3_checkpoint.claude import S3SessionStore, SyncS3SessionStore
from s3_checkpoint.object_store import ObjectStore, Refused
from s3_checkpoint.testing import Request, Send, StoreWrapper
from s3_checkpoint.testing.wrappers import T

KEY = {"project_key": "proj", "session_id": "sess"}


class BadWeather(StoreWrapper):
    """One PUT in four meets a fault: answered twice, refused by a 409, or never answered, landed or not."""

    def __init__(self, store: ObjectStore, seed: int) -> None:
        super().__init__(store)
        self.chance = random.Random(seed)

    async def around(self, request: Request, send: Send[T]) -> T:
        fate = self.chance.randrange(16) if request.verb == "PutObject" else 15
        if fate == 0:
            await send()
        elif fate == 1:
            return cast("T", Refused("ConditionalRequestConflict", 409))
        elif fate in (2, 3):
            if fate == 2:
                await send()
            raise self.unavailable(request, "ReadTimeoutError")
        return await send()


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("appends", [12, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("merge_parts", [0, 8])
async def test_two_writers_lose_and_double_nothing_under_faults(
    store: ObjectStore, appends: int, merge_parts: int
) -> None:
    """Entries have no uuid, so that nothing is forgiven; each writer's own order is kept."""

    async def writer(name: str, seed: int) -> None:
        sessions = S3SessionStore(BadWeather(store, seed), merge_parts=merge_parts, sleep=at_once)
        for n in range(appends):
            for _ in range(50):
                try:
                    await sessions.append(KEY, [{"type": "x", "label": f"{name}{n}"}])
                except StoreUnavailableError:
                    continue
                break
            else:
                pytest.fail("fifty failures in a row")

    await asyncio.gather(writer("a", 1), writer("b", 2))

    found = [dict(entry)["label"] for entry in await S3SessionStore(store).load(KEY) or []]
    assert len(found) == 2 * appends
    for name in "ab":
        assert [label for label in found if str(label).startswith(name)] == [f"{name}{n}" for n in range(appends)]


WRITER = """
import sys
from s3_checkpoint import S3Settings
from s3_checkpoint.claude import SyncS3SessionStore

settings = S3Settings.model_validate_json(sys.argv[1])
settings = settings.model_copy(update={"secret_access_key": type(settings.secret_access_key)("testing")})
with SyncS3SessionStore(settings, merge_parts=8, fold=lambda before, transcript, entries: {}) as sessions:
    for n in range(int(sys.argv[3]), int(sys.argv[4])):
        entry = {"type": "x", "label": f"{sys.argv[2]}{n}"}
        sessions.append({"project_key": "proj", "session_id": "sess"}, [entry, entry])
        print(n, flush=True)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_a_killed_writer_leaves_whole_appends_and_the_next_one_continues(settings: S3Settings, kills: int) -> None:
    """SIGKILL at any moment, while another writer lives: what was acknowledged is there, each append whole."""
    chance = random.Random(19)

    def start(name: str, first: int, last: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, settings.model_dump_json(), name, str(first), str(last)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    living = start("b", 0, 25)
    acknowledged: list[str] = []
    first = 0
    for _ in range(kills):
        with start("a", first, 10_000) as killed:
            assert killed.stdout is not None
            for _ in range(chance.randrange(1, 8)):
                acknowledged.append(f"a{killed.stdout.readline().strip()}")
            killed.send_signal(signal.SIGKILL)
            rest = killed.stdout.read().split()
            acknowledged += [f"a{n}" for n in rest]
        first = int(acknowledged[-1][1:]) + 2  # the one after it may have landed too
    out, _ = living.communicate(timeout=120)
    acknowledged += [f"b{n}" for n in out.split()]

    with SyncS3SessionStore(settings) as sessions:
        found = [dict(entry)["label"] for entry in sessions.load(KEY) or []]
    assert found[::2] == found[1::2]
    assert len(set(found)) == len(found) / 2
    assert set(acknowledged) <= set(found)
    for name in "ab":
        own = [int(str(label)[1:]) for label in found[::2] if str(label).startswith(name)]
        assert own == sorted(own)
    assert len(set(found)) <= len(acknowledged) + kills
