"""Whole conversations on LangGraph savers: an agent with delta channels, as deepagents has them, turn by turn.

    python -m tests.benchmarks.langgraph_turns            S3Saver beside Postgres, SQLite and tigris; and the bounds
    python -m tests.benchmarks.langgraph_turns growth     bytes that a conversation leaves, and what makes them fewer

Requests are exact and the same on every machine. Times are those of one run, with 20 ms for each request to S3 and none
for the databases, which are local; CPU is that of this process.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.benchmarks.measuring import LATENCY_MS
from tests.benchmarks.postgres_server import postgres_url, server_available
from tests.benchmarks.stub_process import StubProcess, running_stub
from tests.benchmarks.targets import Row
from tests.langgraph.graphs import agent, growing

BUCKET = "langgraph-turns"
TURNS = 50
LONGEST_S = 90.0
"""Wall seconds after which a saver begins no further turn, and its row says how far it came: one that reads its whole
thread again at each turn needs a quarter of an hour for all of them."""
HISTORY = 1_000
"""Checkpoints of the thread that is pruned."""
_NO_GRACE = timedelta(0)


@contextmanager
def s3_saver(url: str, _: Path) -> Iterator[Any]:
    """`S3Saver` as it comes."""
    with S3Saver.from_conn_string(
        f"s3://{BUCKET}/ours", endpoint_url=url, access_key_id="bench", secret_access_key="bench"
    ) as saver:
        yield saver


@contextmanager
def postgres(_: str, scratch: Path) -> Iterator[Any]:
    """LangGraph's own, on a local server."""
    from langgraph.checkpoint.postgres import PostgresSaver

    with postgres_url(scratch) as url, PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        yield saver


@contextmanager
def sqlite(_: str, scratch: Path) -> Iterator[Any]:
    """LangGraph's own, on a local file."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(scratch / "turns.sqlite")) as saver:
        yield saver


@contextmanager
def tigris(url: str, _: Path) -> Iterator[Any]:
    """langgraph-checkpoint-tigris, sync."""
    from langgraph.checkpoint.tigris import TigrisSaver  # type: ignore[import-not-found,unused-ignore]

    saver = TigrisSaver(BUCKET, prefix="tigris", endpoint_url=url, region_name="us-east-1")
    yield saver
    saver.client.close()


SAVERS: dict[str, tuple[Callable[[str, Path], Any], str]] = {
    "S3Saver": (s3_saver, ""),
    "PostgresSaver": (postgres, "langgraph.checkpoint.postgres"),
    "SqliteSaver": (sqlite, "langgraph.checkpoint.sqlite"),
    "tigris": (tigris, "langgraph.checkpoint.tigris"),
}


def installed() -> list[str]:
    """The savers that can be measured here."""
    found = [name for name, (_, package) in SAVERS.items() if not package or find_spec(package)]
    return [name for name in found if name != "PostgresSaver" or server_available()]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one saver needed for one turn."""

    work: str
    saver: str
    requests: dict[str, int]
    wall_s: float
    cpu_s: float
    stopped_after: int | None = None
    """Turns that were made, where not all were."""


def of(thread: str) -> RunnableConfig:
    """The newest checkpoint of a thread."""
    return {"configurable": {"thread_id": thread}}


def converse(saver: Any, thread: str, turns: range, longest_s: float = math.inf) -> int | None:
    """A question and four supersteps for each turn; the turns made, if the time was over before the last."""
    graph, began = agent().compile(checkpointer=saver), time.perf_counter()
    for made, number in enumerate(turns):
        if time.perf_counter() - began > longest_s:
            return made
        graph.invoke({"messages": [HumanMessage(f"question {number}", id=f"h{number}")]}, of(thread))
    return None


def works(turns: int, longest_s: float) -> dict[str, Callable[[Any, str], int | None]]:
    """What is done, one after the other, to the same thread; each tells where it stopped, if it did."""
    return {
        f"{turns} turns": lambda saver, thread: converse(saver, thread, range(turns), longest_s),
        "one turn more": lambda saver, thread: converse(saver, thread, range(turns, turns + 1)),
        "get_state_history(limit=20)": _read_history,
    }


def _read_history(saver: Any, thread: str) -> None:
    for _ in agent().compile(checkpointer=saver).get_state_history(of(thread), limit=20):
        pass


def measure(
    stub: StubProcess, names: list[str], turns: int, say: Callable[[str], None], longest_s: float = LONGEST_S
) -> Iterator[Measured]:
    """A row for each saver and work; and for `S3Saver` one for a process that has not read the thread before."""
    for name in names:
        opening, _ = SAVERS[name]
        thread = uuid4().hex
        with tempfile.TemporaryDirectory() as scratch:
            with opening(stub.url, Path(scratch)) as saver:
                for work, run in works(turns, longest_s).items():
                    yield _timed(stub, work, name, partial(run, saver, thread), say)
            if name == "S3Saver":
                with opening(stub.url, Path(scratch)) as cold:
                    first = "the first turn of a new process"
                    yield _timed(stub, first, name, partial(converse, cold, thread, range(turns + 1, turns + 2)), say)


def _timed(
    stub: StubProcess, work: str, name: str, run: Callable[[], int | None], say: Callable[[str], None]
) -> Measured:
    stub.set(latency_ms=LATENCY_MS)
    wall, cpu = time.perf_counter(), time.process_time()
    stopped = run()
    took = Measured(work, name, stub.counts()[0], time.perf_counter() - wall, time.process_time() - cpu, stopped)
    stub.set()
    say(f"{name}, {work}: {took.requests}, {took.wall_s:.1f} s, {took.cpu_s:.1f} s CPU{_stopped(took)}")
    return took


def _stopped(row: Measured) -> str:
    return "" if row.stopped_after is None else f", stopped after {row.stopped_after} turns"


def bounds(stub: StubProcess, measured: list[Measured], turns: int) -> list[Row]:
    """What `S3Saver` sets itself."""
    ours = {row.work: row.requests for row in measured if row.saver == "S3Saver"}
    return [
        ("LangGraph, delta channels: GETs of a turn in a warm process", "≤ 6", _gets(ours["one turn more"]), ""),
        ("LangGraph, delta channels: requests of get_state_history(20), warm", "≤ 150",
         sum(ours["get_state_history(limit=20)"].values()), ""),
        *_cold_history(stub, turns),
        ("LangGraph, delta channels: bytes stored, but for snapshots / bytes of the deltas", "≤ 5",
         stored_ratio(turns), ""),
        (f"LangGraph: prune of {HISTORY:,} checkpoints: requests", "≤ 8", _pruned(stub), ""),
    ]  # fmt: skip


def _cold_history(stub: StubProcess, turns: int) -> Iterator[Row]:
    """Of the newest checkpoint of a long chain that no snapshot interrupts."""
    thread = uuid4().hex
    with s3_saver(stub.url, Path()) as saver:
        graph = agent(every=10_000).compile(checkpointer=saver)
        for number in range(turns):
            graph.invoke({"messages": [HumanMessage("question", id=f"h{number}")]}, of(thread))
        ancestors = len(list(saver.list(of(thread)))) - 1
        newest = saver.get_tuple(of(thread)).config
    with s3_saver(stub.url, Path()) as cold:
        stub.set(latency_ms=LATENCY_MS)
        cold.get_delta_channel_history(config=newest, channels=["messages", "files"])
        requests, trips = stub.counts()
        stub.set()
    what = f"LangGraph, delta channels: cold history of {ancestors} ancestors"
    yield f"{what}: GETs", f"≤ {math.log2(ancestors) + 4:.1f}", _gets(requests), ""
    yield f"{what}: round trips", "≤ 2", trips, ""


def _pruned(stub: StubProcess) -> int:
    from langgraph.checkpoint.base import empty_checkpoint

    thread = uuid4().hex
    with s3_saver(stub.url, Path()) as saver:
        config = of(thread)
        config["configurable"]["checkpoint_ns"] = ""
        for _ in range(HISTORY):
            config = saver.put(config, empty_checkpoint(), {}, {})
        stub.set()
        saver.prune([thread])
        return sum(stub.counts()[0].values())


def _gets(requests: dict[str, int]) -> int:
    return requests.get("GetObject", 0)


def stored_ratio(turns: int) -> float:
    """Bytes of a conversation's checkpoints and pending writes, as a multiple of those of the writes: the deltas.

    Snapshots are LangGraph's own, and grow with the conversation whatever the saver does.
    """
    sizes = _stored(lambda saver: converse(saver, "t", range(turns)))
    deltas = sum(size for key, size in sizes.items() if "/w." in key)
    return sum(size for key, size in sizes.items() if "/values/" not in key) / deltas


def _stored(run: Callable[[S3Saver], Any], **options: Any) -> dict[str, int]:
    store = MemoryStore()
    with S3Saver(store, grace=_NO_GRACE, **options) as saver:
        run(saver)
    return {key: one.head.size for key, one in store._objects.items()}


def table(measured: list[Measured]) -> str:
    """As Markdown: requests, seconds at 20 ms per request (seconds of CPU)."""
    names = list(dict.fromkeys(row.saver for row in measured))
    cells = {
        (row.work, row.saver): f"{sum(row.requests.values()) or '–'}, {row.wall_s:.2f} ({row.cpu_s:.2f}){_stopped(row)}"
        for row in measured
    }
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for work in dict.fromkeys(row.work for row in measured):
        lines.append(f"| {work} | {' | '.join(cells.get((work, name), '–') for name in names)} |")
    return "\n".join(lines)


def run(stub: StubProcess, say: Callable[[str], None], *, turns: int = TURNS) -> tuple[str, list[Row]]:
    """The table and the bounds, on a running stub."""
    # tigris reads credentials from the environment only.
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    urlopen(Request(f"{stub.url}/{BUCKET}", method="PUT")).close()
    measured = list(measure(stub, installed(), turns, say))
    return table(measured), bounds(stub, measured, turns)


def growth() -> str:
    """What a conversation of 400 supersteps leaves in the bucket, as Markdown: MB, and multiples of its messages."""

    def steps(saver: S3Saver, *, delta: bool, prune: bool = False) -> int:
        graph = growing(delta=delta).compile(checkpointer=saver)
        for number in range(200):
            graph.invoke({"messages": [HumanMessage(f"question {number}", id=f"h{number}")]}, of("t"))
        if prune:
            saver.prune(["t"])
        return sum(len(message.content) for message in graph.get_state(of("t")).values["messages"])

    messages = 0

    def row(what: str, *, delta: bool = False, prune: bool = False, **options: Any) -> str:
        nonlocal messages

        def run(saver: S3Saver) -> None:
            nonlocal messages
            messages = steps(saver, delta=delta, prune=prune)

        size = sum(_stored(run, **options).values())
        return f"| {what} | {size / 1e6:.1f} MB | {size / messages:,.0f} |"

    rows = [
        row("full channels, as LangGraph has them by default"),
        row('full channels, `compression="zstd"`', compression="zstd"),
        row("`DeltaChannel` (a snapshot every 100 updates)", delta=True),
        row('`DeltaChannel`, `compression="zstd"`', delta=True, compression="zstd"),
        row("full channels, after `prune`", prune=True),
    ]
    head = f"| 400 supersteps, {messages / 1e6:.2f} MB of messages | stored | times the messages |"
    return "\n".join([head, "| --- | --- | --- |", *rows])


def main() -> None:
    """Prints the table and the bounds, or the growth."""
    if sys.argv[1:] == ["growth"]:
        print(growth())
        return
    from tests.benchmarks.report import holds

    with running_stub() as stub:
        text, rows = run(stub, lambda line: print(line, file=sys.stderr, flush=True))
    print(text)
    for what, bound, value, _ in rows:
        print(f"{what}: {value:.2f} ({bound}, {'holds' if holds(bound, value) else 'DOES NOT HOLD'})")


if __name__ == "__main__":
    main()
