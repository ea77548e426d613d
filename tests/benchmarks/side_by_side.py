"""The same work for every contestant that runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.measuring import Measured, measure
from tests.benchmarks.stub_process import StubProcess

STATE = "x" * 4096
LARGE_STATE = "x" * 1024**2
HISTORIES = (10, 100, 1_000, 10_000)
AT_ONCE = 64


async def run(
    stub: StubProcess,
    scratch: Path,
    kinds: Sequence[type[Contestant]],
    say: Callable[[str], None],
    histories: Sequence[int] = HISTORIES,
) -> tuple[list[Measured], dict[str, str]]:
    """What was measured, in order, and why others are missing."""
    measured: list[Measured] = []
    missing: dict[str, str] = {}
    for kind in kinds:
        if reason := kind.missing():
            missing[kind.name] = reason
            say(f"{kind.name}: left out, {reason}")
            continue
        contestant = kind(stub.url, scratch)
        async with contestant.stack:
            await contestant.open()
            measured += await _one(stub, contestant, say, histories)
    return measured, missing


async def _one(
    stub: StubProcess, contestant: Contestant, say: Callable[[str], None], histories: Sequence[int]
) -> list[Measured]:
    name, found = contestant.name, []
    steps = count()

    async def record(work: str, call: Callable[[], object], times: int = 5) -> None:
        found.append(await measure(stub, work, name, call, times=times, on_s3=contestant.on_s3))  # type: ignore[arg-type]
        row = found[-1]
        say(
            f"{name}: {work}: {row.request_count} requests in {row.round_trips} round trips, "
            f"{row.wall_ms:.1f} ms, {row.wall_far_ms:.1f} ms at 20 ms each, CPU {row.cpu_ms:.1f} ms"
        )

    async def at_once() -> None:
        await asyncio.gather(*(contestant.save(f"at-once-{n}", next(steps), STATE) for n in range(AT_ONCE)))

    await record("save 4 KB", lambda: contestant.save("saved", next(steps), STATE), times=20)
    await record("save 1 MB", lambda: contestant.save("saved-large", next(steps), LARGE_STATE))
    await record(f"{AT_ONCE} saves at once", at_once, times=3)
    for length in (length for length in histories if length <= contestant.longest):
        await contestant.fill("history", length, STATE)
        times = 5 if length < 10_000 else 3
        await record(f"latest of {length:,}", lambda: contestant.latest("history"), times=times)
        if length == 1_000:
            await record("resume of 1,000", lambda: contestant.resume("history"))
        if length == 100:
            await record("list 100", lambda: contestant.count("history"), times=3)
    return found
