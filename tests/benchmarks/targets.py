"""What this library sets itself, against the bare client in the same process, in turn."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from pydantic import BaseModel, ConfigDict, JsonValue

from s3_checkpoint import S3Checkpointer, S3Settings, connect
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.langgraph import S3Saver
from tests.benchmarks.bare_clients import BUCKET, BareClient, default_client, tuned_client
from tests.benchmarks.contestants import Library, State
from tests.benchmarks.measuring import COUNTING_MS
from tests.benchmarks.stub_process import StubProcess, running_stub
from tests.certificates import Authority

STATE = State(text="x" * 4096)
RUN = UUID(int=1)
LONG = 100_000
STEPS = 1_000
"""Keys that requests go around: each is a new one to whatever the SDK remembers."""

Call = Callable[[], Awaitable[object]]
Row = tuple[str, str, float, str]
"""What is claimed, its bound, what was measured, and its unit."""


class Message(BaseModel):
    """A small part of a large state."""

    role: str
    text: str
    usage: dict[str, JsonValue]


class Conversation(BaseModel):
    """A large state with a type of its own."""

    messages: list[Message]


class Conversations(BaseModel):
    """Models one level deeper."""

    model_config = ConfigDict(extra="forbid")

    conversations: list[Conversation]


class Directory(BaseModel):
    """Models in a dict."""

    model_config = ConfigDict(extra="forbid")

    by_name: dict[str, Message]


async def requests_cost(stub: StubProcess, library: Library, say: Callable[[str], None]) -> list[Row]:
    """CPU of save and load, and the rate of 64 saves at once, compared with clients that are used bare."""
    stub.set()
    checkpointer, number, keys = library.checkpointer, count(STEPS), RunKeys("ours", RUN)
    body = STATE.model_dump_json().encode()
    await checkpointer.save(RUN, 0, STATE)
    stub.copy(BUCKET, keys.state(0), STEPS)
    async with AsyncExitStack() as stack:
        clients = {
            "a tuned client": await stack.enter_async_context(tuned_client(stub.url)),
            "our own client": await stack.enter_async_context(client_for(library.settings())),
            "aioboto3's default client": await stack.enter_async_context(default_client(stub.url)),
        }

        def put(client: BareClient) -> Call:
            return lambda: client.put(f"cost/{RunKeys('', RUN).state(next(number))}", body)

        def get(client: BareClient) -> Call:
            return lambda: client.get(keys.state(next(number) % STEPS))

        puts: dict[str, Call] = {"save": lambda: checkpointer.save(RUN, next(number), STATE)}
        puts |= {name: put(BareClient(client)) for name, client in clients.items()}
        gets: dict[str, Call] = {"load": lambda: checkpointer.load(RUN, next(number) % STEPS)}
        gets |= {name: get(BareClient(client)) for name, client in clients.items()}
        saved, loaded, rates = await _least_cpu(puts), await _least_cpu(gets), await _rates(puts)
    for what, cpu in (("PUT", saved), ("GET", loaded)):
        say(f"CPU ms of a {what} of 4 KB: " + ", ".join(f"{name} {ms:.3f}" for name, ms in cpu.items()))
    say("64 at once, per second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    rows: list[Row] = []
    for name in clients:
        bound = "≤ 1" if "default" in name else "≤ 1.15"
        of_a_save = "≤ 0.95" if name == "a tuned client" else bound
        rows.append((f"CPU of save 4 KB / put_object of {name}", of_a_save, saved["save"] / saved[name], ""))
        rows.append((f"CPU of load 4 KB / get_object of {name}", bound, loaded["load"] / loaded[name], ""))
    return rows + [(f"64 saves at once / rate of {name}", "≥ 0.9", rates["save"] / rates[name], "") for name in clients]


async def aws_settings_cost(scratch: Path, say: Callable[[str], None]) -> list[Row]:
    """CPU of save and load of 2 KB over TLS, with the checksums that AWS is asked for; the SDK's own beside them."""
    authority = Authority(scratch)
    body = State(text="x" * 2048)
    text, number, rows = body.model_dump_json().encode(), count(1), []
    as_aws = {"AWS_CA_BUNDLE": str(authority.bundle), "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}
    with running_stub(authority.chain("127.0.0.1")) as stub, patch.dict(os.environ, as_aws):
        settings = S3Settings.from_url(f"s3://{BUCKET}/tls", endpoint_url=stub.tls_url, region_name="us-east-1")
        async with connect(State, settings) as checkpointer, default_client(stub.tls_url) as client:
            await checkpointer.save(RUN, 0, body)
            bare, key = BareClient(client), RunKeys("tls", RUN).state(0)
            puts: dict[str, Call] = {
                "save": lambda: checkpointer.save(RUN, next(number), body),
                "put_object": lambda: bare.put(f"bare/{next(number):020}", text),
            }
            gets: dict[str, Call] = {"load": lambda: checkpointer.load(RUN, 0), "get_object": lambda: bare.get(key)}
            for calls in (puts, gets):
                (ours, ms), (theirs, other) = (await _least_cpu(calls, turns=10)).items()
                say(f"CPU ms of 2 KB over TLS with AWS's checksums: {ours} {ms:.3f}, {theirs} {other:.3f}")
                rows.append(
                    (
                        f"CPU of {ours} 2 KB over TLS, AWS settings / {theirs} of aioboto3's client",
                        "≤ 1",
                        ms / other,
                        "",
                    )
                )
    return rows


async def long_run(stub: StubProcess, library: Library, say: Callable[[str], None]) -> list[Row]:
    """Listing and latest of 100,000 steps at 20 ms for each request."""
    run = RunKeys("ours", UUID(int=2))
    store = library.checkpointer.objects.store
    assert isinstance(store, S3ObjectStore)
    await library.checkpointer.save(run.run_id, 0, STATE)
    stub.copy(BUCKET, run.state(0), LONG)
    fresh = S3Checkpointer(State, store, prefix="ours")

    async def page_by_page() -> None:
        token = None
        while True:
            page = await store.list(run.steps, token=token)
            token = page.next_token
            if token is None:
                return

    async def list_all() -> None:
        assert len(await fresh.list(run.run_id)) == LONG

    stub.set()
    await page_by_page()
    pages_cpu = await _least_cpu({"all pages": page_by_page}, turns=5, calls=1)
    page_cpu = pages_cpu["all pages"] / (LONG / 1000)
    stub.set(latency_ms=20)
    turns, parallel = [], []
    for _ in range(5):
        turns.append(await wall(page_by_page))
        parallel.append(await wall(list_all))
    latest = await wall(lambda: S3Checkpointer(State, store, prefix="ours").load(run.run_id))
    stub.set(latency_ms=COUNTING_MS)
    await S3Checkpointer(State, store, prefix="ours").load(run.run_id)
    requests, trips = stub.counts()
    stub.set()
    say(
        f"100,000 steps at 20 ms: page by page {min(turns):.2f} s, in parallel {min(parallel):.2f} s; "
        f"latest {latest * 1000:.0f} ms, {requests}, {trips} round trips"
    )
    return [
        ("list 100,000 steps: page by page with our parser / in parallel", "≥ 5", min(turns) / min(parallel), ""),
        ("list 100,000 steps in parallel", "", min(parallel) * 1000, "ms"),
        ("CPU of a LIST page of 1,000", "≤ 5", page_cpu, "ms"),
        ("load() of 100,000 steps: LISTs", "≤ 60", requests["ListObjectsV2"], ""),
        ("load() of 100,000 steps: round trips", "≤ 7", trips, ""),
        ("load() of 100,000 steps", "", latest * 1000, "ms"),
    ]


async def large_states(library: Library, say: Callable[[str], None]) -> list[Row]:
    """For how long at a time the event loop is held while 20 MB are saved and loaded."""
    plain = dict[str, JsonValue]
    messages = [Message(role="user", text="t" * 200, usage={"tokens": n}) for n in range(80_000)]
    shapes: dict[str, tuple[Any, Any]] = {
        "20 MB of text": (plain, {str(n): "x" * 100_000 for n in range(200)}),
        "20 MB in 250,000 small items": (
            plain,
            {"items": [{"id": n, "text": "t" * 40, "tags": ["a"]} for n in range(250_000)]},
        ),
        "20 MB in 5,000 lists of 50 items": (
            plain,
            {"rows": [[{"id": n, "text": "t" * 40, "tags": ["a"]} for n in range(50)] for _ in range(5_000)]},
        ),
        "20 MB in 250,000 keys": (plain, {f"{n:08}" + "k" * 64: n for n in range(250_000)}),
        "20 MB in 80,000 models": (Conversation, Conversation(messages=messages)),
        "20 MB in 80,000 models, one level deeper": (
            Conversations,
            Conversations(conversations=[Conversation(messages=messages[n::20]) for n in range(20)]),
        ),
        "20 MB in a dict of 80,000 models": (
            Directory,
            Directory(by_name={str(n): message for n, message in enumerate(messages)}),
        ),
    }
    rows: list[Row] = []
    for name, (state_type, state) in shapes.items():
        async with connect(state_type, library.settings()) as checkpointer:
            for call in ("save", "load"):
                held = []
                for _ in range(3):
                    work = checkpointer.save(RUN, 0, state) if call == "save" else checkpointer.load(RUN, 0)
                    held.append(await _longest_standstill(work))
                rows.append((f"{call} {name}: longest standstill of the event loop", "≤ 50", min(held) * 1000, "ms"))
                say(f"{call} {name}: the loop was held for {min(held) * 1000:.0f} ms at most")
    return rows + await _large_threads(library, say)


async def _large_threads(library: Library, say: Callable[[str], None]) -> list[Row]:
    """The same for LangGraph's saver."""
    values: dict[str, Any] = {
        "20 MB in 250,000 small items": [{"id": n, "text": "t" * 40, "tags": ["a"]} for n in range(250_000)],
        "20 MB in 50,000 messages": [HumanMessage(content="t" * 200, id=str(n)) for n in range(50_000)],
    }
    rows: list[Row] = []
    async with S3Saver(library.settings()) as saver:
        for name, value in values.items():
            held: dict[str, list[float]] = {"aput": [], "aget": []}
            for turn in range(3):
                checkpoint = empty_checkpoint()
                checkpoint["channel_values"], checkpoint["channel_versions"] = {"c": value}, {"c": f"{turn + 1:032}.0"}
                config: RunnableConfig = {"configurable": {"thread_id": f"{name} {turn}", "checkpoint_ns": ""}}
                metadata: CheckpointMetadata = {"source": "loop", "step": 1, "parents": {}}
                put = saver.aput(config, checkpoint, metadata, checkpoint["channel_versions"])
                held["aput"].append(await _longest_standstill(put))
                held["aget"].append(await _longest_standstill(saver.aget(config)))
            for call, times in held.items():
                what = f"LangGraph's {call}, {name}: longest standstill of the event loop"
                rows.append((what, "≤ 50", min(times) * 1000, "ms"))
                say(f"{call} of {name}: the loop was held for {min(times) * 1000:.0f} ms at most")
    return rows


async def _least_cpu(named: dict[str, Call], turns: int = 25, calls: int = 40) -> dict[str, float]:
    """Milliseconds for each, the least of many short turns: what else the machine does only ever adds."""
    spent: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(turns):
        for name, call in named.items():
            used = time.process_time()
            for _ in range(calls):
                await call()
            spent[name].append((time.process_time() - used) * 1000 / calls)
    return {name: min(times) for name, times in spent.items()}


async def _rates(calls: dict[str, Call]) -> dict[str, float]:
    """Calls a second with 64 in flight; the best of turns taken in turn."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(7):
        for name, call in calls.items():
            left = iter(range(640))

            async def worker(call: Call = call, left: object = left) -> None:
                for _ in left:  # type: ignore[attr-defined]
                    await call()

            took = await wall(lambda worker=worker: asyncio.gather(*(worker() for _ in range(64))))  # type: ignore[misc]
            rates[name].append(640 / took)
    return {name: max(found) for name, found in rates.items()}


async def wall(call: Call) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


async def _longest_standstill(work: Awaitable[object]) -> float:
    task = asyncio.ensure_future(work)
    longest, last = 0.0, time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest
