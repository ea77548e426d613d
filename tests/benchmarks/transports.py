"""The two transports against each other and against obstore used bare, in one process, in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from uuid import UUID

import obstore
from obstore.store import S3Store

from s3_checkpoint import ActiveSnapshot, S3Settings, connect
from s3_checkpoint._format.keys import RunKeys
from tests.benchmarks.bare_clients import BUCKET
from tests.benchmarks.cold_start import ColdStart
from tests.benchmarks.contestants import State
from tests.benchmarks.stub_process import StubProcess
from tests.benchmarks.targets import Row

STATE = State(text="x" * 2000)
BODY = STATE.model_dump_json().encode()
TASKS = [ActiveSnapshot(node_name="next", payload={"n": 1})]
RUN = UUID(int=1)
AT_ONCE = 64
TURNS = 9
CALLS = 60

Call = Callable[[], Awaitable[object]]


async def rows(stub: StubProcess, say: Callable[[str], None]) -> list[Row]:
    """CPU of the process for a commit, a resume, a load and 64 saves in flight."""
    stub.set()
    number = count()
    bare = S3Store(
        BUCKET,
        endpoint=stub.url,
        region="us-east-1",
        access_key_id="bench",
        secret_access_key="bench",
        client_options={"allow_http": True},
    )
    calls: dict[str, dict[str, Call]] = {"commit": {}, "resume": {}, "load": {}, "save": {}}
    async with AsyncExitStack() as stack:
        for transport in ("aiobotocore", "obstore"):
            settings = S3Settings.model_validate({
                "bucket": BUCKET, "prefix": f"by-{transport}", "endpoint_url": stub.url, "region_name": "us-east-1",
                "transport": transport,
            })  # fmt: skip
            checkpointer = await stack.enter_async_context(connect(State, settings))
            await checkpointer.commit(RUN, 0, STATE, TASKS)

            def commit(checkpointer=checkpointer) -> Awaitable[object]:  # type: ignore[no-untyped-def]
                return checkpointer.commit(UUID(int=2), next(number), STATE, TASKS)  # type: ignore[no-any-return]

            calls["commit"][transport] = commit
            calls["resume"][transport] = lambda checkpointer=checkpointer: checkpointer.resume(RUN)  # type: ignore[misc]
            calls["load"][transport] = lambda checkpointer=checkpointer: checkpointer.load(RUN, 0)  # type: ignore[misc]
            calls["save"][transport] = lambda checkpointer=checkpointer: checkpointer.save(RUN, next(number), STATE)  # type: ignore[misc]
            await checkpointer.save(UUID(int=3), 0, STATE)
        key = RunKeys("by-obstore", UUID(int=3)).state(0)

        async def bare_get() -> None:
            found = await obstore.get_async(bare, key)
            bytes(await found.bytes_async())

        calls["load"]["bare obstore"] = bare_get
        calls["save"]["bare obstore"] = lambda: obstore.put_async(
            bare, f"bare/{next(number)}", BODY, mode="overwrite", use_multipart=False
        )
        spent = {work: await _cpu(named, 1) for work, named in calls.items()}
        spent[f"{AT_ONCE} saves in flight"] = await _cpu(calls["save"], AT_ONCE)
    for work, cpu in spent.items():
        say(f"CPU ms of {work}, 2 KB: " + ", ".join(f"{name} {ms:.3f}" for name, ms in cpu.items()))
    found: list[Row] = []
    for work, bound in (("commit", "≤ 0.45"), ("resume", "≤ 0.45"), ("load", "≤ 0.45")):
        found.append((f"CPU of {work} 2 KB: obstore / aiobotocore", bound, _ratio(spent[work], "aiobotocore"), ""))
    flying = f"{AT_ONCE} saves in flight"
    found.append((f"CPU of {flying}, 2 KB: obstore / aiobotocore", "≤ 0.3", _ratio(spent[flying], "aiobotocore"), ""))
    for work in ("save", "load"):
        found.append((f"CPU of {work} 2 KB: obstore / bare obstore", "≤ 2.2", _ratio(spent[work], "bare obstore"), ""))
    return found


def ratios_of_cold_starts(colds: list[ColdStart]) -> list[Row]:
    """From the start of the interpreter to the end of the first commit."""
    cpu = {row.name: row.least_cpu_ms for row in colds}
    by_obstore = cpu["first commit, obstore"]
    what = "cold start to the first commit, CPU: obstore"
    return [
        (f"{what} / aiobotocore", "≤ 0.5", by_obstore / cpu["first commit, aiobotocore"], ""),
        (f"{what} / bare obstore, two PUTs, a model", "≤ 2.0", by_obstore / cpu["bare obstore, two PUTs, a model"], ""),
    ]


def _ratio(cpu: dict[str, float], other: str) -> float:
    return cpu["obstore"] / cpu[other]


async def _cpu(named: dict[str, Call], at_once: int) -> dict[str, float]:
    """Milliseconds a call, the least of turns taken in turn: what else the machine does only ever adds."""
    spent: dict[str, list[float]] = {name: [] for name in named}
    calls = CALLS if at_once == 1 else 10 * at_once
    for _ in range(TURNS):
        for name, call in named.items():
            left = iter(range(calls))

            async def worker(call: Call = call, left: object = left) -> None:
                for _ in left:  # type: ignore[attr-defined]
                    await call()

            used = time.process_time()
            await asyncio.gather(*(worker() for _ in range(at_once)))
            spent[name].append((time.process_time() - used) * 1000 / calls)
    return {name: min(times) for name, times in spent.items()}
