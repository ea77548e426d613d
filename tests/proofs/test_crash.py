"""Worker processes are killed with SIGKILL at random moments; every run ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.proofs.crash_worker import KEEP, LAST_STEP, be_late, keep_clean, links, run_id, serve, work

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.proofs.crash_worker"])
BUCKET = "crash-test"
CREDENTIALS = {"access_key_id": "testing", "secret_access_key": "testing"}
WORKERS = 3
RUNS = 100_000
"""More than can be finished in the time."""

Event = dict[str, Any]


@pytest.fixture
def server_url() -> Iterator[str]:
    """A moto server in a process of its own."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        assert ours.poll(60), "the moto server does not start"
        yield ours.recv()
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
        theirs.close()


@pytest.fixture
def s3(server_url: str) -> Iterator[Any]:
    """A plain S3 client: what is stored is judged without the library that stored it."""
    client = boto3.client(
        "s3",
        endpoint_url=server_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


class Workers:
    """A few processes at once on the same runs; the killed are replaced."""

    def __init__(self, url: str, folder: Path) -> None:
        self._settings = {"bucket": BUCKET, "endpoint_url": url, "region_name": "us-east-1", **CREDENTIALS}
        self._folder = folder
        self._started = 0
        self.living: list[BaseProcess] = []
        self.janitors: list[BaseProcess] = []
        self.killed = 0

    def start(self) -> None:
        self._started += 1
        name = f"worker-{self._started}"
        process = PROCESSES.Process(target=work, args=(self._settings, RUNS, name, str(self._folder)), daemon=True)
        process.start()
        self.living.append(process)

    def start_janitor(self) -> None:
        """Janitors are killed and replaced like workers."""
        self._started += 1
        name = f"janitor-{self._started}"
        process = PROCESSES.Process(target=keep_clean, args=(self._settings, name, str(self._folder)), daemon=True)
        process.start()
        self.janitors.append(process)

    def start_straggler(self) -> BaseProcess:
        """One that is left alone until the end, since it takes its time."""
        process = PROCESSES.Process(target=be_late, args=(self._settings, "straggler", str(self._folder)), daemon=True)
        process.start()
        return process

    def kill(self, process: BaseProcess) -> None:
        self._kill(process)
        self.living.remove(process)
        self.killed += 1

    def kill_janitor(self) -> None:
        self._kill(self.janitors.pop())

    def _kill(self, process: BaseProcess) -> None:
        assert process.pid is not None
        assert process.is_alive(), f"{process} ended by itself"
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    def end(self, number: int) -> None:
        """A last one, undisturbed, finishes what the others left."""
        settings = self._settings
        process = PROCESSES.Process(target=work, args=(settings, number + 1, "last", str(self._folder)), daemon=True)
        process.start()
        process.join(120)
        assert process.exitcode == 0
        process.close()


def wreak_havoc(workers: Workers, seconds: float, folder: Path) -> None:
    """Kills at random moments, sometimes several at once; on a busy machine for longer, until all have met."""
    chance = random.Random()
    for _ in range(WORKERS):
        workers.start()
    workers.start_janitor()
    straggler = workers.start_straggler()
    begun, done = time.monotonic(), 0
    while (past := time.monotonic() - begun) < seconds or (past < 15 * seconds and not all_have_met(folder)):
        time.sleep(chance.uniform(0.2, 1.4))
        done = wait_for_work(folder, done)
        for process in chance.sample(workers.living, chance.choice([1, 1, 1, 2])):
            workers.kill(process)
            workers.start()
        if chance.random() < 0.2:
            workers.kill_janitor()
            workers.start_janitor()
    for process in list(workers.living):
        workers.kill(process)
    workers.kill_janitor()
    assert straggler.is_alive()
    straggler.kill()
    straggler.join()


def wait_for_work(folder: Path, done: int) -> int:
    """Lets them come so far that a worker has written down more than `done` bytes; how many it are then.

    Otherwise, on a busy machine, each would be killed before it has done anything.
    """
    patience = time.monotonic() + 20
    while (now := sum(path.stat().st_size for path in folder.glob("*.log"))) <= done and time.monotonic() < patience:
        time.sleep(0.05)
    return now


def all_have_met(folder: Path) -> bool:
    """Workers one another, and the janitor them."""
    events = read_events(folder)
    count = Counter(event["event"] for event in events)
    pruned = any(event["event"] == "pruned" and event["states"] for event in events)
    late = lost_after_prune(events)
    return bool(count["lost"] and pruned and late and count["deleted"] and resumes_after_kills(events))


def lost_after_prune(events: list[Event]) -> int:
    """How many commits came when their step had been pruned, and were refused."""
    return sum(event["event"] == "lost" and not event["winner"] for event in events)


def resumes_after_kills(events: list[Event]) -> int:
    """How many workers began their life in the middle of a run that others had worked on."""
    first = {event["worker"]: event for event in reversed(events)}
    return sum(
        event["event"] == "resumed" and event["step"] is not None and event["step"] < LAST_STEP
        for event in first.values()
    )


def read_events(folder: Path) -> list[Event]:
    """What all workers wrote down, in the order in which it ended."""
    events = []
    for path in folder.glob("*.log"):
        events += [{**json.loads(line), "worker": path.stem} for line in path.read_text().splitlines()]
    return sorted(events, key=lambda event: event["ended"])


def check_what_workers_were_told(events: list[Event]) -> None:
    """At most one commit of a step is acknowledged, and the latest step that anybody is shown never goes back."""
    deleted = {event["run"] for event in events if event["event"] == "deleting"}
    told = [event for event in events if event["run"] not in deleted]
    committed = Counter((event["run"], event["step"]) for event in told if event["event"] == "committed")
    assert set(committed.values()) <= {1}, "a step was acknowledged to two workers"
    by_run: defaultdict[int, list[Event]] = defaultdict(list)
    for event in told:
        by_run[event["run"]].append(event)
    for number, of_run in by_run.items():
        certain = [
            (e["ended"], e["step"]) for e in of_run if e["event"] in ("resumed", "committed") and e["step"] is not None
        ]
        for event in of_run:
            if event["event"] == "resumed":
                floor = max((step for ended, step in certain if ended < event["begun"]), default=-1)
                shown = -1 if event["step"] is None else event["step"]
                assert shown >= floor, f"run {number} went back from step {floor} to {shown}"


def keys_of(s3: Any, prefix: str) -> list[str]:
    return [line["Key"] for line in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def check_run(s3: Any, number: int, events: list[Event]) -> None:
    """Every step that is there is whole and by the worker that was told so; what is missing was pruned, or deleted."""
    prefix = f"runs/{run_id(number)}/"
    steps = [int(Path(key).stem) for key in keys_of(s3, f"{prefix}steps/")]
    floor = max((int(Path(key).stem) for key in keys_of(s3, f"{prefix}pruned/")), default=-1)
    deleted = any(event["event"] == "deleting" for event in events)
    if not deleted:
        assert [step for step in range(LAST_STEP + 1) if step not in steps and step > floor] == [], steps
        assert steps[-KEEP:] == list(range(LAST_STEP + 1))[-KEEP:]
    told = {event["step"]: event["by"] for event in events if event["event"] == "committed"}
    lost = [event for event in events if event["event"] == "lost" and event["winner"]]
    for step in steps:
        stored = s3.get_object(Bucket=BUCKET, Key=f"{prefix}steps/{step:020d}.json")
        body, metadata = stored["Body"].read(), stored["Metadata"]
        state = json.loads(body)
        assert state["link"] == links()[step]
        assert hashlib.sha256(body).hexdigest() == metadata["digest"]
        assert tasks_of(s3, prefix, step, metadata) == [{"node_name": "next", "payload": {"by": state["by"]}}]
        if not deleted:
            assert told.get(step, state["by"]) == state["by"]
            assert {event["winner"] for event in lost if event["step"] == step} <= {metadata["write-id"]}


def tasks_of(s3: Any, prefix: str, step: int, metadata: dict[str, str]) -> Any:
    if "active-inline" in metadata:
        return json.loads(b64decode(metadata["active-inline"]))
    key = f"{prefix}active/{step:020d}.{metadata['active']}.json"
    return json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


@pytest.mark.parametrize("seconds", [5, pytest.param(200, marks=pytest.mark.long)])
def test_runs_survive_kills_at_random_moments_while_janitors_prune_and_delete(
    server_url: str, s3: Any, tmp_path: Path, seconds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No step is lost, none is done twice, and every run ends with the result of an undisturbed run."""
    workers = Workers(server_url, tmp_path)

    wreak_havoc(workers, seconds, tmp_path)
    workers.end(max(event["run"] for event in read_events(tmp_path)))

    events = read_events(tmp_path)
    check_what_workers_were_told(events)
    by_run: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event["run"]].append(event)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: check_run(s3, number, by_run[number]), by_run))
    count = Counter(event["event"] for event in events)
    pruned = sum(event["states"] for event in events if event["event"] == "pruned")
    late, resumes = lost_after_prune(events), resumes_after_kills(events)
    with capsys.disabled():
        print(
            f"\n  {seconds} s: {workers.killed} workers killed, {len(by_run)} runs, {count['committed']} commits, "
            f"{count['lost']} conflicts, {late} of them on steps that were gone, {count['pruned']} prunes of {pruned} "
            f"steps, {count['deleted']} deletes, {resumes} resumes by new workers in the middle of a run"
        )
    assert workers.killed > WORKERS
    assert min(count["committed"], count["lost"], late, pruned, count["deleted"], resumes) > 0
