"""How one kind of work is measured: requests and round trips exactly, time at two latencies, CPU of this process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.benchmarks.stub_process import StubProcess

LATENCY_MS = 20
COUNTING_MS = 200
"""While round trips are counted, answers take so long that all that is sent together is in flight together."""
_LEAST_S = 0.2
"""What takes a millisecond is done more often than what takes a second."""
_ENOUGH_S = 4.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of work of one contestant. Times are medians, in milliseconds."""

    work: str
    contestant: str
    requests: dict[str, int]
    round_trips: int
    cpu_ms: float
    wall_ms: float
    wall_far_ms: float
    """At 20 ms for each request; for what is not on the stub, the same as `wall_ms`."""

    @property
    def request_count(self) -> int:
        """All requests together."""
        return sum(self.requests.values())


async def measure(
    stub: StubProcess,
    work: str,
    contestant: str,
    call: Callable[[], Awaitable[object]],
    *,
    times: int = 5,
    on_s3: bool = True,
) -> Measured:
    """Does it once to warm up, then at least so many times at no latency and three times at 20 ms."""
    await call()
    stub.set()
    await call()
    requests, round_trips = stub.counts()
    if 1 < round_trips <= 80:
        stub.set(latency_ms=COUNTING_MS)
        await call()
        requests, round_trips = stub.counts()
        stub.set()
    cpu, wall = await _medians(call, times)
    far = wall
    if on_s3:
        stub.set(latency_ms=LATENCY_MS)
        _, far = await _medians(call, 3)
        stub.set()
    return Measured(work, contestant, requests, round_trips, cpu, wall, far)


async def _medians(call: Callable[[], Awaitable[object]], times: int) -> tuple[float, float]:
    cpu: list[float] = []
    wall: list[float] = []
    begun = time.perf_counter()
    while len(wall) < times or (time.perf_counter() - begun < _LEAST_S and len(wall) < 10 * times):
        if wall and time.perf_counter() - begun > _ENOUGH_S:
            break
        started, used = time.perf_counter(), time.process_time()
        await call()
        cpu.append((time.process_time() - used) * 1000)
        wall.append((time.perf_counter() - started) * 1000)
    return statistics.median(cpu), statistics.median(wall)
