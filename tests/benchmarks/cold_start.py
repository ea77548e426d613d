"""From the start of the interpreter to the first committed byte, in processes of their own, with byte code."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contestants import (
    Bare,
    Contestant,
    Library,
    LibrarySaver,
    ObjectStorage,
    TigrisAsync,
    TigrisSync,
)

ROOT = Path(__file__).parents[2]

BARE = """
import asyncio
import aioboto3
async def main():
    async with aioboto3.Session().client("s3", endpoint_url="URL", region_name="us-east-1") as client:
        await client.put_object(Bucket="cold", Key="key", Body=b'{"text":"x"}')
asyncio.run(main())
"""
MODEL = """
from pydantic import BaseModel
class State(BaseModel):
    text: str
"""
OURS = """
import asyncio
from uuid import uuid4
from pydantic import BaseModel
from s3_checkpoint import S3Settings, connect
class State(BaseModel):
    text: str
async def main():
    settings = S3Settings(bucket="cold", endpoint_url="URL", region_name="us-east-1")
    async with connect(State, settings) as checkpointer:
        await checkpointer.save(uuid4(), 0, State(text="x"))
asyncio.run(main())
"""
FIRST_COMMIT = """
import asyncio
from uuid import uuid4
from pydantic import BaseModel
from s3_checkpoint import ActiveSnapshot, S3Settings, connect
class State(BaseModel):
    text: str
async def main():
    settings = S3Settings(bucket="cold", endpoint_url="URL", region_name="us-east-1", transport="TRANSPORT")
    async with connect(State, settings) as checkpointer:
        await checkpointer.commit(uuid4(), 0, State(text="x"), [ActiveSnapshot(node_name="a")])
asyncio.run(main())
"""
BARE_OBSTORE = """
import asyncio
import obstore
from obstore.store import S3Store
async def main():
    store = S3Store("cold", endpoint="URL", region="us-east-1", client_options={"allow_http": True})
    body = State(text="x").model_dump_json().encode()
    await obstore.put_async(store, "steps/0", body, use_multipart=False)
    await obstore.put_async(store, "active/0", b"[]", use_multipart=False)
asyncio.run(main())
import os
os._exit(0)  # on a busy machine it would abort here now and then: see docs/design/0008-obstore.md
"""
SAVER = """
import asyncio
from langgraph.checkpoint.base import empty_checkpoint
IMPORT
async def main():
    checkpoint = empty_checkpoint()
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    OPEN
asyncio.run(main())
"""
_PUT = 'put(config, checkpoint, {"source": "loop", "step": 0, "parents": {}}, {})'


def _saver(imported: str, opened: str) -> str:
    return SAVER.replace("IMPORT", imported).replace("OPEN", opened)


_AT = 'endpoint_url="URL", region_name="us-east-1"'
PROGRAMS: dict[str, tuple[type[Contestant] | None, str]] = {
    "bare aioboto3": (Bare, BARE),
    "s3_checkpoint": (Library, OURS),
    "bare aioboto3, and a pydantic model": (Bare, MODEL + BARE),
    "first commit, aiobotocore": (None, FIRST_COMMIT.replace("TRANSPORT", "aiobotocore")),
    "first commit, obstore": (None, FIRST_COMMIT.replace("TRANSPORT", "obstore")),
    "bare obstore, two PUTs, a model": (None, MODEL + BARE_OBSTORE),
    "s3_checkpoint.langgraph": (LibrarySaver, _saver(
        "from s3_checkpoint.langgraph import S3Saver",
        f'async with S3Saver.from_conn_string("s3://cold/p", {_AT}) as saver:\n        await saver.a{_PUT}')),
    "objectstorage": (ObjectStorage, _saver(
        "from langgraph_checkpoint_objectstorage import ObjectStorageSaver",
        f'saver = ObjectStorageSaver.from_conn_string("s3://cold/o", client_kwargs=dict({_AT}), asynchronous=True)'
        f"\n    await saver.a{_PUT}")),
    "tigris sync": (TigrisSync, _saver(
        "from langgraph.checkpoint.tigris import TigrisSaver", f'TigrisSaver("cold", {_AT}).{_PUT}')),
    "tigris async": (TigrisAsync, _saver(
        "from langgraph.checkpoint.tigris.aio import AsyncTigrisSaver",
        f'await AsyncTigrisSaver("cold", {_AT}).a{_PUT}')),
    "import s3_checkpoint": (None, "import s3_checkpoint"),
    "import s3_checkpoint, all but the SDK": (None, "from s3_checkpoint import ActiveSnapshot, S3Settings, connect"),
    "import pydantic": (None, "import pydantic"),
    "python alone": (None, "pass"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColdStart:
    """CPU and wall time of a process, in milliseconds: medians, and the least CPU of all runs."""

    name: str
    cpu_ms: float
    least_cpu_ms: float
    wall_ms: float


def run(url: str, say: Callable[[str], None], times: int = 11) -> list[ColdStart]:
    """Every program so many times, in turn, after a first time that writes byte code."""
    programs = {name: code for name, (kind, code) in PROGRAMS.items() if kind is None or not kind.missing()}
    cpu: dict[str, list[float]] = {name: [] for name in programs}
    wall: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as cache, Path(os.devnull).open("w") as quiet:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(times + 1):
            for name, code in programs.items():
                used, started = _children_cpu(), time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", code.replace("URL", url)],
                    check=True,
                    env=environment,
                    cwd=cache,
                    stderr=quiet,
                )
                if turn:
                    cpu[name].append((_children_cpu() - used) * 1000)
                    wall[name].append((time.perf_counter() - started) * 1000)
    found = [
        ColdStart(name, statistics.median(cpu[name]), min(cpu[name]), statistics.median(wall[name]))
        for name in programs
    ]
    for row in found:
        say(
            f"cold start: {row.name}: CPU {row.cpu_ms:.0f} ms (least {row.least_cpu_ms:.0f}), wall {row.wall_ms:.0f} ms"
        )
    return found


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
