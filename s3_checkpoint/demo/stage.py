"""Runs the graph with worker processes that are killed in the middle of supersteps, and messages that come twice.

Nothing here is left to luck: each worker waits for leave after each task, so a kill always hits a superstep that is
begun and not committed, and a duplicate always meets its original at work. Which supersteps are hit is drawn by `seed`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol
from uuid import UUID, uuid4

from s3_checkpoint.demo.graph import Census
from s3_checkpoint.demo.plan import Kill, Plan, Tally
from s3_checkpoint.demo.processes import environment, process
from s3_checkpoint.settings import S3Settings
from s3_checkpoint.superstep_queue import SuperstepMessage, SuperstepQueue

SILENCE_S = 60
"""If nothing at all happens for so long, something is broken."""
FAILURES = 5
"""So many supersteps that fail by themselves are too many."""


class Watcher(Protocol):
    """Who looks on."""

    def line(self, text: str) -> None:
        """Something worth a line happened."""
        ...

    def reached(self, step: int, last: int) -> None:
        """A step is committed, of `last` in all."""
        ...


class Worker:
    """A worker process, by number."""

    def __init__(self, number: int, running: Any) -> None:
        self.number = number
        self.running = running
        self.step: int | None = None
        """The step it is at work on."""
        self.done = 0
        """How many tasks of it are done."""

    @property
    def pid(self) -> int:
        """Of its process."""
        return int(self.running.pid)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it tells, and `ended` at the end."""
        async for line in self.running.stdout:
            yield json.loads(line)
        yield {"event": "ended"}

    def go(self) -> None:
        """Lets the task that has waited longest pass."""
        self.running.stdin.write(b"go\n")


class Stage:
    """One run, with its workers, from beginning to end."""

    def __init__(
        self, queue: SuperstepQueue, queue_url: str, settings: S3Settings, plan: Plan, watcher: Watcher
    ) -> None:
        self.run_id: UUID = uuid4()
        self.tally: Tally = Tally()
        self._queue = queue
        self._queue_url = queue_url
        self._environment = environment(settings)
        self._plan = plan
        self._watcher = watcher
        self._events: asyncio.Queue[tuple[Worker, dict[str, Any]]] = asyncio.Queue()
        self._workers: set[Worker] = set()
        self._stack = AsyncExitStack()
        self._readers: set[asyncio.Task[None]] = set()
        self._to_kill = dict(plan.kills)
        self._killed: set[int] = set()
        self._alone: dict[int, list[Worker]] = {}
        """By step of `plan.twice`: workers that wait for the other one to be there."""
        self._met: set[int] = set()
        self._finished = False
        self._failures = 0

    async def play(self, files: Sequence[str], workers: int) -> None:
        """Begins the run, and returns when it is finished and every duplicate has been dealt with."""
        async with self._stack:
            try:
                for _ in range(workers):
                    await self._start_worker()
                await self._queue.send(SuperstepMessage.begin(self.run_id, Census(files=list(files))))
                while not (self._finished and self.tally.superseded >= self.tally.duplicates):
                    worker, event = await self._next_event()
                    await self._on(worker, event)
            finally:
                for reader in self._readers:
                    reader.cancel()
                await asyncio.gather(*self._readers, return_exceptions=True)

    async def _next_event(self) -> tuple[Worker, dict[str, Any]]:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await self._events.get()
        except TimeoutError:
            raise RuntimeError(f"no worker has told anything for {SILENCE_S} s") from None

    async def _start_worker(self) -> None:
        self.tally.workers += 1
        running = await self._stack.enter_async_context(
            process("s3_checkpoint.demo.worker", self._queue_url, env=self._environment)
        )
        worker = Worker(self.tally.workers, running)
        self._workers.add(worker)

        async def read() -> None:
            async for event in worker.events():
                await self._events.put((worker, event))

        self._readers.add(asyncio.create_task(read()))

    async def _on(self, worker: Worker, event: dict[str, Any]) -> None:
        match event["event"]:
            case "task" if worker in self._workers:
                await self._on_task(worker, event)
            case "log" if "step" in event:
                await self._on_log(worker, event)
            case "ended" if worker in self._workers:
                code = await worker.running.wait()
                raise RuntimeError(f"worker {worker.number} (pid {worker.pid}) ended by itself, with exit code {code}")

    async def _on_task(self, worker: Worker, event: dict[str, Any]) -> None:
        step = event["step"]
        if worker.step != step:
            worker.step, worker.done = step, 0
            if step in self._killed:
                self._killed.discard(step)
                self._watcher.line(
                    f"worker {worker.number} (pid {worker.pid}) takes the message over and resumes from step {step - 1}"
                )
        worker.done += 1
        if step in self._to_kill and worker.done >= self._to_kill[step]:
            del self._to_kill[step]
            for at_it in [other for other in self._workers if other.step == step]:
                await self._kill(at_it, step, event)
        elif step in self._plan.twice and step not in self._met:
            await self._meet(worker, step)
        else:
            worker.go()

    async def _kill(self, worker: Worker, step: int, event: dict[str, Any]) -> None:
        worker.running.kill()
        await worker.running.wait()
        self._workers.discard(worker)
        self._killed.add(step)
        tasks = self._plan.tasks.get(step, 1)
        self.tally.kills.append(Kill(step, worker.number, worker.pid, event["node"], worker.done, tasks))
        self._watcher.line(
            f"worker {worker.number} (pid {worker.pid}) killed with SIGKILL in superstep {step}, "
            f"{worker.done} of {tasks} `{event['node']}` tasks done, nothing committed"
        )
        await self._start_worker()

    async def _meet(self, worker: Worker, step: int) -> None:
        """Holds the first worker until a second one has come to the same superstep, with a copy of the message."""
        alone = self._alone.setdefault(step, [])
        if not alone:
            await self._send_again(step - 1)
        alone.append(worker)
        if len(set(alone)) > 1:
            self._met.add(step)
            names = " and ".join(str(other.number) for other in dict.fromkeys(alone))
            self._watcher.line(f"workers {names} are both at superstep {step}: its message was delivered twice")
            for waiting in alone:
                waiting.go()

    async def _send_again(self, step: int) -> None:
        self.tally.duplicates += 1
        await self._queue.send(SuperstepMessage(run_id=self.run_id, step=step))

    async def _on_log(self, worker: Worker, event: dict[str, Any]) -> None:
        worker.step = None
        outcome, step = event["outcome"], event["step"]
        self.tally.deliveries += 1
        self.tally.redeliveries += event["deliveries"] > 1
        if outcome == "superseded":
            self.tally.superseded += 1
        elif outcome in ("committed", "finished"):
            if step > 0:
                self.tally.supersteps += 1
                self.tally.requests.append(event["request_count"])
            self._watcher.reached(step, self._plan.last)
            if step == self._plan.last:
                self._finished = True
                self._watcher.line("a message of long ago is delivered once more")
                await self._send_again(0)
        else:
            self._failures += 1
            if self._failures == FAILURES:
                raise RuntimeError(f"supersteps fail: {event['text']}")
            self._watcher.line(f"worker {worker.number}: {event['text']}")
